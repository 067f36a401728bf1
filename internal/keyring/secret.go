package keyring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/diskfile"
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

// A ModeError refuses a secret file that others than its owner and a group of this process can
// read or write.
type ModeError struct {
	Path string
	Mode fs.FileMode
	// Fixed says that chmod cannot help from here: the file system is read-only, such as one
	// that is mounted into a container, or the file is another user's.
	Fixed bool
}

func (e *ModeError) Error() string {
	fault := fmt.Sprintf("secret file %s: readable by others (mode %04o); needs 0600", e.Path, e.Mode.Perm())
	if e.Fixed {
		return fault + " or 0440, with a group that this process has (Kubernetes: defaultMode: 0440 and fsGroup)," +
			" and its mode cannot be changed from here; where everybody in the container may read it (Docker Compose), set allow_open_secrets: true"
	}
	return fault + ": chmod 600 " + e.Path
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

// Format prints the ids only: for a verb that does not fit, fmt prints all fields.
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
	fresh := newSecret()
	text := "# AuthKey secret. Keep it from everybody: who has it can make the keys of all addresses.\n" +
		"# One secret a line; the first makes keys, all are accepted. To replace it: add a new\n" +
		"# one below on every machine, then move it up, and remove the old one after avt + grace.\n" +
		fresh.text + "\n"
	if err := diskfile.Create(path, 0o600, text); err != nil {
		return "", fmt.Errorf("create secret file: %w", err)
	}
	return fresh.id, nil
}

// errNoSecret says that there is nothing in a secret file but comments.
var errNoSecret = errors.New("holds no secret")

// loadRing reads a secret file, which everybody may be able to read if readable is set.
// The error is a *ModeError, a *LineError, or says what the system said; no error holds
// any of the content.
func loadRing(path string, readable bool) (*ring, fs.FileInfo, error) {
	file, info, err := diskfile.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("secret file: %w", err)
	}
	defer file.Close()
	if !private(path, info, ownGroup) && !(readable && info.Mode().Perm()&0o033 == 0) {
		return nil, info, &ModeError{Path: path, Mode: info.Mode(), Fixed: modeFixed(file, info)}
	}
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	if err != nil {
		return nil, info, fmt.Errorf("secret file: %w", err)
	}
	r, err := parseRing(path, content)
	switch {
	case errors.Is(err, errNoSecret): // whatever its last line is
		err = diskfile.Excuse(err, nil, info)
	case err != nil:
		err = diskfile.Excuse(err, content, info)
	}
	clear(content)
	return r, info, err
}

// modeFixed reports whether the mode of an open file cannot be changed by this process.
func modeFixed(file *os.File, info fs.FileInfo) bool {
	var disk unix.Statfs_t
	if unix.Fstatfs(int(file.Fd()), &disk) == nil && disk.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Geteuid() != 0 && int(stat.Uid) != os.Geteuid()
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

// private reports whether nobody but the owner of a secret file, and a group for which
// trusted is true, can read it, and nobody else can write it. A file in systemd's
// credentials directory may be readable by any group: systemd lets the service's user in
// with an ACL, whose mask shows as group bits.
func private(path string, info fs.FileInfo, trusted func(gid int) bool) bool {
	switch perm := info.Mode().Perm(); {
	case perm&0o077 == 0:
		return true
	case perm&0o037 != 0:
		return false
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir) {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && trusted(int(stat.Gid))
}

// serviceGroups are the groups as which the packages run the programs.
var serviceGroups = []string{"authkey", "authkey-server"}

// ownGroup reports whether a group is one that this process has; for root, who runs tools
// for the services, also whether it is one of theirs.
func ownGroup(gid int) bool {
	if gid == os.Getegid() {
		return true
	}
	if groups, err := os.Getgroups(); err == nil && slices.Contains(groups, gid) {
		return true
	}
	if os.Geteuid() != 0 {
		return false
	}
	group, err := user.LookupGroupId(strconv.Itoa(gid))
	return err == nil && slices.Contains(serviceGroups, group.Name)
}

// Private returns a *ModeError if others than its owner and a group of this process can
// get at a file that holds a secret, such as the private key of a certificate. Where the
// file cannot be looked at, that is the error.
func Private(path string) error { return privateTo(path, ownGroup) }

// PrivateTo is Private for a process that has these groups.
func PrivateTo(path string, groups []int) error {
	return privateTo(path, func(gid int) bool { return slices.Contains(groups, gid) })
}

func privateTo(path string, trusted func(gid int) bool) error {
	file, info, err := diskfile.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if !private(path, info, trusted) {
		return &ModeError{Path: path, Mode: info.Mode(), Fixed: modeFixed(file, info)}
	}
	return nil
}

// parseRing parses the lines "id base64", with blank lines and comments between.
func parseRing(path string, content []byte) (*ring, error) {
	if len(content) > maxSecretFile {
		return nil, fmt.Errorf("secret file %s: longer than %d octets", path, maxSecretFile)
	}
	r := new(ring)
	number := 0
	for line := range bytes.Lines(diskfile.TrimBOM(content)) {
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
		return nil, fmt.Errorf("secret file %s: %w", path, errNoSecret)
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
