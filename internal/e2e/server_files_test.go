package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/wire"
)

// TestServerOnAFullDisk has the address list on a file system without room, which takes
// root: no tool tears the list, and the server goes on with the one in force, whatever
// is written over it.
func TestServerOnAFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newServer(t, w, buildServer(t, "-race"), withAS)
	disk := t.TempDir()
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	s.list = filepath.Join(disk, "addresses")
	var text strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&text, "somebody%05d gen=3\n", i) // 20 octets: no page ends with one
	}
	text.WriteString("alice\n")
	must(t, os.WriteFile(s.list, []byte(text.String()), 0o640))
	s.configure("")
	s.start()
	alice := mustKey(t, w, "alice@"+withAS)
	s.says(wire.ValidKey, "alice@"+withAS, alice)

	fill := filepath.Join(disk, "filler")
	if err := os.WriteFile(fill, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	others := filepath.Join(s.dir, "others")
	must(t, os.WriteFile(others, []byte(strings.ReplaceAll(text.String(), "somebody", "anybody")), 0o600))
	for _, command := range [][]string{{"add", "carol@" + withAS}, {"revoke", "alice@" + withAS}, {"remove", "alice@" + withAS}, {"import", others}} {
		out, code := s.run(append([]string{"address"}, command...)...)
		if code != 75 || !strings.Contains(out, "no space left on device") {
			t.Errorf("%s: exit %d, %s", command[0], code, out)
		}
		if got, err := os.ReadFile(s.list); err != nil || string(got) != text.String() {
			t.Fatalf("%s: the list is another, %d octets, %v", command[0], len(got), err)
		}
		if _, err := os.Stat(s.list + ".new"); !os.IsNotExist(err) {
			t.Errorf("%s leaves something behind: %v", command[0], err)
		}
	}
	if n := s.logged("level=ERROR"); n != 0 {
		t.Errorf("%d errors, and nothing has changed:\n%s", n, s.process.Log())
	}
	s.says(wire.ValidKey, "alice@"+withAS, alice)

	// An editor that writes over the list cuts it off.
	if err := os.WriteFile(s.list, []byte(strings.Repeat(text.String(), 2)), 0o640); err == nil {
		t.Fatal("the disk is not full")
	}
	s.waitLog(1, "level=ERROR", "keeping the previous one", s.list+": looks cut off")
	s.reload()
	s.says(wire.ValidKey, "alice@"+withAS, alice)
	must(t, os.Remove(fill))
	must(t, os.WriteFile(s.list, []byte(text.String()), 0o640))
	s.mustRun("address", "remove", "alice@"+withAS)
	s.eventually("the list is not taken up", func() bool { return s.verdict("alice@"+withAS, alice) == wire.InvalidKey })
}

// TestServerAndToolsRefuseAnOpenSecret: a secret that others can read is none.
func TestServerAndToolsRefuseAnOpenSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newServer(t, w, buildServer(t, "-race"), withAS)
	for _, mode := range []os.FileMode{0o644, 0o604, 0o620, 0o601} {
		must(t, os.Chmod(s.secret, mode))
		for _, command := range [][]string{{"serve"}, {"check"}, {"key", "alice@" + withAS}} {
			if out, code := s.run(command...); code != 78 || !strings.HasSuffix(out, "chmod 600 "+s.secret) {
				t.Errorf("mode %04o, %s: exit %d, %s", mode, command[0], code, out)
			}
		}
	}
	must(t, os.Chmod(s.secret, 0o600))
	s.start()
	alice := mustKey(t, w, "alice@"+withAS)
	must(t, os.Chmod(s.secret, 0o644))
	must(t, syscall.Kill(s.process.Pid(), syscall.SIGHUP))
	s.waitLog(1, "level=ERROR", "keeping the previous one", "chmod 600 "+s.secret)
	s.says(wire.ValidKey, "alice@"+withAS, alice)
}

// TestServerTellsNobodyWhoExists: of an address that is not in the list it says, octet
// for octet, what it says of one that is, whatever is wrong with the key.
func TestServerTellsNobodyWhoExists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newServer(t, w, buildServer(t, "-race"), withAS)
	s.start()
	alice := mustKey(t, w, "alice@"+withAS)
	s.mustRun("address", "add", "bob@"+withAS, "dora@"+withAS)
	bob := s.key("bob@" + withAS)
	dora := s.key("dora@" + withAS)
	s.mustRun("address", "revoke", "bob@"+withAS)
	s.mustRun("address", "remove", "dora@"+withAS)
	s.reload()
	a, err := s.dialFrom("127.0.0.1")
	must(t, err)
	defer a.Close()
	wrong := []byte(alice)
	wrong[len(wrong)-1] = "AB"[len(alice)%2]
	if wrong[len(wrong)-1] == alice[len(alice)-1] {
		wrong[len(wrong)-1] = 'C'
	}
	for _, each := range []struct{ local, key string }{
		{"alice", string(wrong)}, {"alice", bob}, {"alice", "x"}, {"alice+tag", bob}, {"alice", strings.Repeat("A", 512)},
		{"bob", bob}, {"bob", alice}, {"dora", dora}, {"dora", alice}, {"dora", "x"},
		{"nobody", alice}, {"nobody", string(wrong)}, {"nobody", "x"}, {"nobody+tag", bob}, {"nobody", strings.Repeat("A", 512)},
	} {
		address := each.local + "@" + withAS
		got, err := a.ask(address, each.key)
		must(t, err)
		if want := "VERIFY_REPLY 7 " + address + " INVALIDKEY"; got != want {
			t.Errorf("%s: %q, want %q", each.local, got, want)
		}
	}
	if got, err := a.ask("nobody@elsewhere.test", alice); err != nil || got != "ERROR 7 notserved" {
		t.Errorf("of another domain: %q, %v", got, err)
	}
	if got, err := a.ask("alice@"+withAS, alice); err != nil || !strings.HasPrefix(got, "VERIFY_REPLY 7 alice@"+withAS+" VALIDKEY ttl=") {
		t.Errorf("the right key: %q, %v", got, err)
	}
	for _, key := range []string{alice, bob, dora, string(wrong)} {
		if strings.Contains(string(s.process.Log()), key) {
			t.Errorf("a key is in the log:\n%s", s.process.Log())
		}
	}
}

// TestServerSecretIsReplaced goes through the steps of docs/server.md with two servers
// of one set: no key that was ever attached fails before its time is over.
func TestServerSecretIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	program := buildServer(t, "-race")
	one, two := newServer(t, w, program, withAS), newServer(t, w, program, withAS)
	one.start()
	two.start()
	must(t, w.Publish(withAS, lab.ASRecord(one.port), lab.ASRecord(two.port, "pri=20")))
	const alice = "alice@" + withAS
	old := mustKey(t, w, alice)
	content, err := os.ReadFile(one.secret)
	must(t, err)
	first := string(content)
	const second = "k2 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
	put := func(s *server, text string) {
		t.Helper()
		must(t, os.WriteFile(s.secret, []byte(text), 0o600))
		s.mustRun("check")
		s.reload()
	}
	valid := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			one.says(wire.ValidKey, alice, key)
			two.says(wire.ValidKey, alice, key)
		}
	}
	for _, s := range []*server{one, two} { // below the old one, on one after the other
		put(s, first+second)
		if s.key(alice) != old {
			t.Error("a secret that not all servers may have makes keys")
		}
		valid(old)
	}
	put(two, second+first) // to the top, in any order
	fresh := two.key(alice)
	if fresh == old || one.key(alice) != old {
		t.Error("the secret at the top does not make the keys")
	}
	valid(old, fresh)
	put(one, second+first)
	valid(old, fresh)
	put(one, second) // six days later
	one.says(wire.InvalidKey, alice, old)
	two.says(wire.ValidKey, alice, old)
	put(two, second)
	for _, s := range []*server{one, two} {
		s.says(wire.InvalidKey, alice, old)
		s.says(wire.ValidKey, alice, fresh)
	}

	// As a recipient sees it, and with the first server gone.
	conf := writeConfig(t, w.MilterConfig("unix:"+filepath.Join(w.Dir, "unused.sock")))
	for range 2 {
		for key, want := range map[string]int{old: 1, fresh: 0} {
			if out, code := runMilter(t, key+"\n", "verify", "--config", conf, alice); code != want {
				t.Errorf("exit %d, want %d: %s", code, want, out)
			}
		}
		must(t, one.process.Stop())
	}
}
