package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/milter"
)

// A port on loopback is open by both families, or not at all.
func TestListenLoopback(t *testing.T) {
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	if _, err := listenLoopback(port); err == nil {
		t.Error("a port that is taken was opened")
	}
	if c, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		t.Error("one family is left open")
		_ = c.Close()
	}
	_ = free.Close()
	all, err := listenLoopback(port)
	if err != nil || len(all) != 2 {
		t.Fatalf("%d listeners, %v", len(all), err)
	}
	for _, ln := range all {
		if reach, everybody := reachOf(ln.Addr()); !ln.Addr().(*net.TCPAddr).IP.IsLoopback() || reach != "every user of this machine (loopback)" || !everybody {
			t.Errorf("%s: %s", ln.Addr(), reach)
		}
		_ = ln.Close()
	}
}

func TestReach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a socket to others: run it as root")
	}
	path := filepath.Join(t.TempDir(), "m.sock")
	ln, err := milter.Listen("unix", path, 0o660, "")
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
		if got, open := reachOf(ln.Addr()); got != tt.want || open != tt.open {
			t.Errorf("%q, open %v; want %q", got, open, tt.want)
		}
	}
	abstract, err := net.Listen("unix", "@authkey-test-"+filepath.Base(filepath.Dir(path)))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	if got, open := reachOf(abstract.Addr()); got != "every user of this machine (abstract socket)" || !open {
		t.Errorf("%q", got)
	}
	if got, _ := reachOf(&net.TCPAddr{IP: net.IPv4zero, Port: 1}); !strings.HasPrefix(got, "every host that reaches the port, through interface ") || !strings.Contains(got, "lo") {
		t.Errorf("%q", got)
	}
}
