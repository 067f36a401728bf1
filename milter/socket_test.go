package milter

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func TestListenFails(t *testing.T) {
	taken, err := Listen("tcp", "127.0.0.1:0", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		network, address string
		want             error
	}{
		{"tcp", taken.Addr().String(), syscall.EADDRINUSE},
		{"unix", filepath.Join(dir, "none", "m.sock"), fs.ErrNotExist},
		{"unix", filepath.Join(file, "m.sock"), syscall.ENOTDIR},
	} {
		if ln, err := Listen(tt.network, tt.address, 0o660, ""); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.address, ln, err, tt.want)
		}
	}
}

// Whoever may connect can from the first connection that anybody has: an MTA is never told
// "permission denied" by a milter that is being started.
func TestListenWithItsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	for range 200 {
		atFirst := make(chan os.FileMode)
		go func() {
			for {
				c, err := net.Dial("unix", path)
				if err != nil {
					continue
				}
				info, err := os.Lstat(path)
				if err != nil {
					t.Error(err)
					close(atFirst)
					return
				}
				_ = c.Close()
				atFirst <- info.Mode().Perm()
				return
			}
		}()
		ln, err := Listen("unix", path, 0o666, "")
		if err != nil {
			t.Fatal(err)
		}
		if mode := <-atFirst; mode != 0o666 {
			t.Fatalf("somebody was let in when the mode was %04o", mode)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Fatal("the socket is still there after its listener was closed")
		}
	}
}
