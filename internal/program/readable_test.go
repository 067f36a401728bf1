package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadable: what nobody may read, and root may. That a check of the program refuses
// it is tested on a machine with the package.
func TestReadable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user; the packages' tests, which need root, try check itself")
	}
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	make := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	open, shut, inside := make("open", 0o644), make("shut", 0o600), make("folder/inside", 0o644)
	if err := os.Chmod(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Readable("nobody", open, dir, filepath.Join(dir, "missing")); err != nil {
		t.Error(err)
	}
	err := Readable("nobody", open, shut, inside, folder)
	if err == nil {
		t.Fatal("nobody may read files of root's")
	}
	got := strings.Split(err.Error(), "\n")
	group := "nogroup"
	for i, want := range []string{
		shut + ": cannot be read by nobody, as whom the service runs; to mend it: chgrp " + group + " " + shut + " && chmod g+r " + shut,
		inside + ": cannot be read by nobody, as whom the service runs; to mend it: chgrp " + group + " " + folder + " && chmod g+x " + folder,
		folder + ": cannot be read by nobody, as whom the service runs; to mend it: chgrp " + group + " " + folder + " && chmod g+r " + folder,
	} {
		if i >= len(got) || got[i] != want {
			t.Errorf("%q, want %s", got, want)
		}
	}
	if err := os.WriteFile(shut, []byte("x"), 0o600); err != nil || os.Geteuid() != 0 {
		t.Errorf("the process has lost its rights: %v", err)
	}
	if err := Readable("no-such-user", open); err == nil {
		t.Error("a user that is not there may read")
	}
}
