package milter

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	first, err := Listen("unix", path, 0o660, "")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	if _, err := Listen("unix", path, 0o660, ""); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("second listener: %v", err)
	}
	// What a killed process leaves behind: a socket file that nobody serves.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = first.Close()
	second, err := Listen("unix", path, 0o600, "0")
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	_ = second.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix", path, 0o660, ""); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is gone: %q, %v", b, err)
	}
	if _, err := Listen("unix", filepath.Join(t.TempDir(), "m.sock"), 0o660, "no-such-group"); err == nil {
		t.Error("an unknown group was accepted")
	}
}
