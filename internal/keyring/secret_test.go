package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/diskfile"
)

func TestParseRing(t *testing.T) {
	const good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	tests := []struct {
		name, content string
		ids           string // of the secrets, or
		wantErr       string // part of the error
		wantLine      int
	}{
		{name: "one", content: secretA, ids: "a"},
		{name: "two, comments and blanks", content: "# x\n\n  " + secretA + "\t\n" + secretB, ids: "a b"},
		{name: "no end of line", content: strings.TrimSpace(secretA), ids: "a"},
		{name: "byte order mark", content: "\uFEFF" + secretA, ids: "a"},
		{name: "byte order mark in the midst", content: secretA + "\uFEFF" + secretB, wantErr: "id is not", wantLine: 2},
		{name: "CRLF", content: strings.ReplaceAll(secretA+secretB, "\n", "\r\n"), ids: "a b"},
		{name: "empty", content: "", wantErr: "holds no secret"},
		{name: "comments only", content: "# a\n", wantErr: "holds no secret"},
		{name: "no id", content: "\n" + good + "\n", wantErr: "not an id and a secret", wantLine: 2},
		{name: "three fields", content: "a " + good + " x", wantErr: "not an id and a secret", wantLine: 1},
		{name: "bad id", content: "a/b " + good, wantErr: "id is not", wantLine: 1},
		{name: "long id", content: strings.Repeat("a", 33) + " " + good, wantErr: "id is not", wantLine: 1},
		{name: "31 octets", content: "a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==", wantErr: "32 octets", wantLine: 1},
		{name: "33 octets", content: "a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g", wantErr: "32 octets", wantLine: 1},
		{name: "bits after the secret", content: "a " + good[:42] + "9=", wantErr: "32 octets", wantLine: 1},
		{name: "not base64", content: "a " + strings.Repeat("!", 44), wantErr: "32 octets", wantLine: 1},
		{name: "very long", content: "a " + strings.Repeat("A", 400), wantErr: "32 octets", wantLine: 1},
		{name: "zeros", content: "a " + strings.Repeat("A", 43) + "=", wantErr: "all zeros", wantLine: 1},
		{name: "id twice", content: secretA + "a" + secretB[1:], wantErr: "id a is there twice", wantLine: 2},
		{name: "secret twice", content: secretA + "b " + good, wantErr: "same secret as a", wantLine: 2},
		{name: "too many", content: secrets(5), wantErr: "more than 4", wantLine: 5},
		{name: "most", content: secrets(4), ids: "s1 s2 s3 s4"},
		{name: "too large", content: strings.Repeat("#\n", maxSecretFile), wantErr: "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parseRing("F", []byte(tt.content))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				if strings.Contains(err.Error(), good[:8]) {
					t.Errorf("error shows the secret: %v", err)
				}
				var line *LineError
				if errors.As(err, &line); (line == nil) != (tt.wantLine == 0) || line != nil && line.Line != tt.wantLine {
					t.Errorf("line %+v, want %d", line, tt.wantLine)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, s := range r.secrets {
				ids = append(ids, s.id)
			}
			if got := strings.Join(ids, " "); got != tt.ids {
				t.Errorf("ids %q, want %q", got, tt.ids)
			}
		})
	}
}

// secrets returns a file of n different secrets.
func secrets(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "s%d %cAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", i, 'A'+i)
	}
	return b.String()
}

func TestSecretFileMode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files to other groups: run it as root")
	}
	own := os.Getegid()
	const stranger = 54321 // a group that this process does not have
	tests := []struct {
		mode       fs.FileMode
		group      int
		readable   bool // Config.OpenSecret
		credential bool // in systemd's credentials directory
		refused    bool
	}{
		{mode: 0o600, group: stranger}, {mode: 0o400, group: stranger}, {mode: 0o700, group: stranger},
		{mode: 0o640, group: own}, {mode: 0o440, group: own},
		{mode: 0o640, group: stranger, refused: true}, {mode: 0o440, group: stranger, refused: true},
		{mode: 0o604, group: own, refused: true}, {mode: 0o620, group: own, refused: true}, {mode: 0o660, group: own, refused: true},
		{mode: 0o610, group: own, refused: true}, {mode: 0o602, group: own, refused: true}, {mode: 0o644, group: own, refused: true},
		{mode: 0o444, group: own, refused: true},
		{mode: 0o444, group: stranger, readable: true}, {mode: 0o644, group: stranger, readable: true}, {mode: 0o640, group: stranger, readable: true},
		{mode: 0o646, group: own, readable: true, refused: true}, {mode: 0o664, group: own, readable: true, refused: true},
		{mode: 0o440, group: stranger, credential: true}, {mode: 0o400, group: stranger, credential: true},
		{mode: 0o444, group: own, credential: true, refused: true}, {mode: 0o460, group: own, credential: true, refused: true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%o %d %v %v", tt.mode, tt.group, tt.readable, tt.credential), func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "secret"), secretA)
			if err := errors.Join(os.Chown(path, -1, tt.group), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			t.Setenv("CREDENTIALS_DIRECTORY", "")
			if tt.credential {
				t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path)+"/")
			}
			if err := PrivateTo(path, []int{1, stranger}); !tt.credential && tt.mode&0o037 == 0 && (err == nil) != (tt.mode&0o040 == 0 || tt.group == stranger) {
				t.Errorf("PrivateTo: %v", err)
			}
			_, _, err := loadRing(path, tt.readable)
			if private := Private(path); !tt.readable && (private != nil) != tt.refused {
				t.Errorf("Private: %v", private)
			}
			if !tt.refused {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var mode *ModeError
			if !errors.As(err, &mode) || mode.Mode.Perm() != tt.mode || !strings.HasSuffix(err.Error(), "needs 0600: chmod 600 "+path) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A secret that is being written is told apart from one that somebody has to mend.
func TestSecretBeingWritten(t *testing.T) {
	for content, want := range map[string]bool{
		"": true, "# a head\n": true, "k1 ": true, "k1 AAECAwQFBgcICQoL": true, secretA + "k2 AAEC": true,
		"k1 AAECAwQFBgcICQoL\n": false, "a/b " + secretB[2:]: false,
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := loadRing(path, false)
		if err == nil || errors.Is(err, diskfile.ErrBeingWritten) != want {
			t.Errorf("%q just now: %v", content, err)
		}
		if _, _, err := loadRing(write(t, path, content), false); err == nil || errors.Is(err, diskfile.ErrBeingWritten) {
			t.Errorf("%q long ago: %v", content, err)
		}
	}
	if _, _, err := loadRing(filepath.Join(t.TempDir(), "none"), false); errors.Is(err, diskfile.ErrBeingWritten) {
		t.Error(err)
	}
}

// On a file system that cannot be written, such as a container's mount, chmod is no help.
func TestSecretOnAReadOnlyMount(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("this test mounts a file system: run it as root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := write(t, filepath.Join(dir, "secret"), secretA)
	if err := errors.Join(os.Chmod(path, 0o444), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	_, _, err := loadRing(path, false)
	if err == nil || strings.Contains(err.Error(), "chmod") || !strings.Contains(err.Error(), "allow_open_secrets: true") || !strings.Contains(err.Error(), "fsGroup") {
		t.Errorf("error %v", err)
	}
	if _, _, err := loadRing(path, true); err != nil {
		t.Error(err)
	}
}

func TestSecretFileIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo} {
		if _, _, err := loadRing(path, false); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: error %v", path, err)
		}
	}
	if _, _, err := loadRing(filepath.Join(dir, "none"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
}

func TestCreateSecret(t *testing.T) {
	dir := t.TempDir()
	seen := make(map[[secretSize]byte]bool)
	for _, name := range []string{"one", "two"} {
		path := filepath.Join(dir, name)
		id, err := CreateSecret(path)
		if err != nil {
			t.Fatal(err)
		}
		r, info, err := loadRing(path, false)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || len(r.secrets) != 1 || r.secrets[0].id != id {
			t.Errorf("mode %o, secrets %v, want one of id %s", info.Mode().Perm(), r.secrets, id)
		}
		if seen[r.secrets[0].key] {
			t.Error("the same secret twice")
		}
		seen[r.secrets[0].key] = true
		if _, err := CreateSecret(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("second time: error %v, want fs.ErrExist", err)
		}
	}
}

// Nothing that a caller could print by accident shows a secret or a key.
func TestCredential(t *testing.T) {
	dir := t.TempDir()
	passed := filepath.Join(dir, "authkey_example.com.secret")
	if err := os.WriteFile(passed, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, path, want string }{
		{dir, "/etc/authkey/credentials/example.com.secret", passed},
		{dir, "/etc/authkey/credentials/example.net.secret", "/etc/authkey/credentials/example.net.secret"},
		{"", "/etc/authkey/credentials/example.com.secret", "/etc/authkey/credentials/example.com.secret"},
	} {
		t.Setenv("CREDENTIALS_DIRECTORY", tt.dir)
		if got := Credential(tt.path); got != tt.want {
			t.Errorf("%s with credentials in %q: %s, want %s", tt.path, tt.dir, got, tt.want)
		}
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	d := open(t, secretA, "bob\n", nil)
	issued, err := d.KeyAt(address(t, "bob@example.com"), midday)
	if err != nil {
		t.Fatal(err)
	}
	s := d.ring.Load().secrets[0]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		for _, v := range []any{d, d.ring.Load(), s, issued, &issued} {
			text := fmt.Sprintf(verb, v)
			for _, bad := range []string{"AAECAwQF", "0 1 2 3 4", "00010203", "0x0, 0x1", issued.Key.Reveal()} {
				if strings.Contains(text, bad) {
					t.Errorf("%s of %T shows %q: %s", verb, v, bad, text)
				}
			}
		}
	}
}

func FuzzSecretFile(f *testing.F) {
	f.Add([]byte(secretA + secretB))
	f.Add([]byte("# c\r\n\r\nid-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\r\n"))
	f.Add([]byte("a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n"))
	f.Add([]byte("a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n")) // trailing bits
	f.Add([]byte("\xEF\xBB\xBF" + secretA))
	f.Fuzz(func(t *testing.T, content []byte) {
		given := bytes.Clone(content)
		r, err := parseRing("F", content)
		if !bytes.Equal(given, content) {
			t.Fatal("input changed")
		}
		if err != nil {
			return
		}
		if n := len(r.secrets); n < 1 || n > maxSecrets {
			t.Fatalf("%d secrets", n)
		}
		for _, s := range r.secrets {
			if !validSecretID(s.id) || !bytes.Contains(content, []byte(s.id)) {
				t.Errorf("id %q", s.id)
			}
			if s.key == [secretSize]byte{} {
				t.Error("empty secret")
			}
		}
	})
}
