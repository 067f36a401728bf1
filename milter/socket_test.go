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

// A port on loopback is open by both families, or not at all.
func TestListenLoopback(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	if _, err := ListenLoopback(port); err == nil {
		t.Error("a port that is taken was opened")
	}
	if c, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		t.Error("one family is left open")
		_ = c.Close()
	}
	_ = free.Close()
	all, err := ListenLoopback(port)
	if err != nil || len(all) != 2 {
		t.Fatalf("%d listeners, %v", len(all), err)
	}
	for _, ln := range all {
		if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() || Reach(ln.Addr()) != "every user of this machine (loopback)" || !Open(ln.Addr()) {
			t.Errorf("%s: %s", ln.Addr(), Reach(ln.Addr()))
		}
		_ = ln.Close()
	}
}

func TestReach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a socket to others: run it as root")
	}
	path := filepath.Join(t.TempDir(), "m.sock")
	ln, err := Listen("unix", path, 0o660, "")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tt := range []struct {
		mode     os.FileMode
		uid, gid int
		want     string
		open     bool
	}{
		{0o660, 0, 0, "root, group root (mode 0660)", false},
		{0o600, 0, 54321, "root (mode 0600)", false},
		{0o660, 54321, 54322, "root, user 54321, group 54322 (mode 0660)", false},
		{0o640, 54321, 54322, "root, user 54321 (mode 0640)", false},
		{0o666, 54321, 54322, "every user of this machine (mode 0666)", true},
	} {
		if err := os.Chown(path, tt.uid, tt.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if got := Reach(ln.Addr()); got != tt.want || Open(ln.Addr()) != tt.open {
			t.Errorf("%q, open %v; want %q", got, Open(ln.Addr()), tt.want)
		}
	}
	abstract, err := net.Listen("unix", "@authkey-test-"+filepath.Base(filepath.Dir(path)))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	if got := Reach(abstract.Addr()); got != "every user of this machine (abstract socket)" || !Open(abstract.Addr()) {
		t.Errorf("%q", got)
	}
	if got := Reach(&net.TCPAddr{IP: net.IPv4zero, Port: 1}); !strings.HasPrefix(got, "every host that reaches the port, through interface ") || !strings.Contains(got, "lo") {
		t.Errorf("%q", got)
	}
}
