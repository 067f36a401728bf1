package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Limits of a secret file.
const (
	// secretSize is the size of a secret in octets: the strength of the MAC.
	secretSize = 32
	// maxSecrets bounds the work of one verification, which tries every secret.
	// A rotation needs two.
	maxSecrets = 4
	// maxSecretID is the greatest length of a key id.
	maxSecretID = 32
	// maxSecretFile is the greatest size of the file in octets, comments included.
	maxSecretFile = 16 << 10
)

// A ModeError refuses a secret file whose mode lets others than its owner at it.
type ModeError struct {
	Path string
	Mode fs.FileMode
}

func (e *ModeError) Error() string {
	return fmt.Sprintf("secret file %s: mode %04o lets others at it, needs 0600: chmod 600 %s",
		e.Path, e.Mode.Perm(), e.Path)
}

// A secret is one line of a secret file. It never prints.
type secret struct {
	id   string
	key  [secretSize]byte
	pool sync.Pool // of *deriver
}

// Format keeps the secret out of every text, whatever the verb.
func (s *secret) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret "+s.id+"]") }

// A ring is the content of a secret file: the first secret makes keys, all of
// them are accepted, so that a secret can be replaced with an overlap.
type ring struct {
	secrets []*secret
}

// Format prints the ids only: a verb that fits nothing makes fmt show all it can reach.
func (r *ring) Format(f fmt.State, _ rune) {
	for _, s := range r.secrets {
		s.Format(f, 'v')
	}
}

// CreateSecret makes a fresh secret and writes a secret file, mode 0600, that
// holds it alone. It never overwrites: an existing file is an error that wraps
// fs.ErrExist. The id it returns names the secret in the file and in the output
// of tools; it says nothing about it.
func CreateSecret(path string) (id string, err error) {
	var key [secretSize]byte
	var tag [4]byte
	rand.Read(key[:]) // never fails: see crypto/rand
	rand.Read(tag[:])
	id = hex.EncodeToString(tag[:])
	text := "# AuthKey secret. Keep it from everybody: who has it can make the keys of all addresses.\n" +
		"# One secret a line; the first makes keys, all are accepted. To replace it: add a new\n" +
		"# one below on every machine, then move it up, and remove the old one after avt + grace.\n" +
		id + " " + base64.StdEncoding.EncodeToString(key[:]) + "\n"
	if err := createFile(path, 0o600, text); err != nil {
		return "", fmt.Errorf("create secret file: %w", err)
	}
	return id, nil
}

// loadRing reads a secret file. The error is a *ModeError, a *LineError, or says
// what the system said; no error holds any of the content.
func loadRing(path string) (*ring, fs.FileInfo, error) {
	file, info, err := openRegular(path)
	if err != nil {
		return nil, nil, fmt.Errorf("secret file: %w", err)
	}
	defer file.Close()
	if !ownerOnly(path, info.Mode()) {
		return nil, info, &ModeError{Path: path, Mode: info.Mode()}
	}
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	if err != nil {
		return nil, info, fmt.Errorf("secret file: %w", err)
	}
	r, err := parseRing(path, content)
	clear(content)
	return r, info, err
}

// Credential returns the path under which a service that systemd started finds a
// file of path: with LoadCredential=authkey:FOLDER systemd passes copies of the files
// in a folder to a service that cannot read them itself. Where there is no copy it is
// path. A copy is as old as the service.
func Credential(path string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return path
	}
	passed := filepath.Join(dir, "authkey_"+filepath.Base(path))
	if _, err := os.Stat(passed); err != nil {
		return path
	}
	return passed
}

// ownerOnly reports whether nobody but the owner can get at a secret file. One
// in systemd's credentials directory may be readable by its group: systemd lets
// the service's user in with an ACL, whose mask shows as group bits.
func ownerOnly(path string, mode fs.FileMode) bool {
	forbidden := fs.FileMode(0o077)
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir) {
		forbidden = 0o037
	}
	return mode.Perm()&forbidden == 0
}

// parseRing parses the lines "id base64", with blank lines and comments between.
func parseRing(path string, content []byte) (*ring, error) {
	if len(content) > maxSecretFile {
		return nil, fmt.Errorf("secret file %s: longer than %d octets", path, maxSecretFile)
	}
	r := new(ring)
	number := 0
	for line := range bytes.Lines(content) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		s, err := parseSecret(line)
		if err == nil {
			err = r.add(s)
		}
		if err != nil {
			return nil, &LineError{Path: path, Line: number, Err: err}
		}
	}
	if len(r.secrets) == 0 {
		return nil, fmt.Errorf("secret file %s: holds no secret", path)
	}
	return r, nil
}

func (r *ring) add(s *secret) error {
	if len(r.secrets) == maxSecrets {
		return fmt.Errorf("more than %d secrets", maxSecrets)
	}
	for _, other := range r.secrets {
		if other.id == s.id {
			return fmt.Errorf("id %s is there twice", s.id)
		}
		if other.key == s.key {
			return fmt.Errorf("same secret as %s", other.id)
		}
	}
	r.secrets = append(r.secrets, s)
	return nil
}

func parseSecret(line []byte) (*secret, error) {
	fields := bytes.Fields(line)
	if len(fields) != 2 {
		return nil, errors.New("is not an id and a secret in base64")
	}
	s := &secret{id: string(fields[0])}
	if !validSecretID(s.id) {
		return nil, fmt.Errorf("id is not 1 to %d letters, digits, dots, hyphens and underscores", maxSecretID)
	}
	var key [secretSize + 3]byte
	if base64.StdEncoding.DecodedLen(len(fields[1])) > len(key) {
		return nil, fmt.Errorf("secret is not %d octets in base64", secretSize)
	}
	n, err := base64.StdEncoding.Strict().Decode(key[:], fields[1])
	if err != nil || n != secretSize {
		return nil, fmt.Errorf("secret is not %d octets in base64", secretSize)
	}
	copy(s.key[:], key[:])
	clear(key[:])
	if s.key == [secretSize]byte{} {
		return nil, errors.New("secret is all zeros")
	}
	s.pool.New = func() any { return newDeriver(s.key[:]) }
	return s, nil
}

func validSecretID(id string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	return id != "" && len(id) <= maxSecretID && strings.Trim(id, allowed) == ""
}
