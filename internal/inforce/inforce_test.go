package inforce

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNote(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Milter)
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	want := Note{Version: "1", PID: 7, Started: time.Unix(1, 0).UTC(), Loaded: time.Unix(2, 0).UTC(), File: "/etc/authkey/milter.yaml", Digest: "ab", Environment: []string{"mode"}}
	for range 2 {
		if err := want.Write(dir, Milter); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		want.UID = uint32(os.Geteuid())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		want.PID++
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := want.Write(filepath.Join(dir, "none"), Milter); err == nil {
		t.Error("written into a folder that is not there")
	}
	Remove(dir, Milter)
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

// TestReadBadly: the folder is another user's, who may put anything there.
func TestReadBadly(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"a link":   func(path string) error { return os.Symlink(secret, path) },
		"a FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"too much": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat(" ", maxFile+1)+"{}"), 0o644) },
		"nonsense": func(path string) error { return os.WriteFile(path, []byte("{"), 0o644) },
	} {
		path := filepath.Join(t.TempDir(), Milter)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if n, err := Read(path); err == nil {
			t.Errorf("%s: read %+v", name, n)
		}
	}
}

func TestFolder(t *testing.T) {
	env := func(value string) func(string) string { return func(string) string { return value } }
	for _, tc := range []struct{ env, socket, want string }{
		{"/run/authkey:/run/more", "/var/spool/x/s", "/run/authkey"},
		{"", "/var/spool/x/s", "/var/spool/x"},
		{"", "127.0.0.1:8890", ""},
		{"", "", ""},
	} {
		if got := Folder(env(tc.env), tc.socket); got != tc.want {
			t.Errorf("%q, %q: %q", tc.env, tc.socket, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":"1","pid":1,"loaded":"2026-11-30T17:00:00Z","file":"/etc/authkey/milter.yaml","digest":"00","environment":["mode"]}`))
	f.Add([]byte(`{"pid":-1}`))
	path := filepath.Join(f.TempDir(), Milter)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if n, err := Read(path); err != nil && n.Digest != "" {
			t.Errorf("half of a note: %+v, %v", n, err)
		}
	})
}
