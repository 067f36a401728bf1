package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/wire"
)

// A member is one server of a set, with files of its own.
type member struct {
	place
	addr string
	*process
}

// newSet starts servers of example.com that share secret and list, and publishes them.
func newSet(t *testing.T, dns *testdns.Server, n int) []member {
	t.Helper()
	members := make([]member, n)
	var records []string
	for i := range members {
		addr := freePort(t)
		p := newPlace(t, "listen: ['tcp:"+addr+"']")
		if i > 0 {
			writeFile(t, p.secret, readFile(t, members[0].secret), 0o600)
		}
		members[i] = member{p, addr, startServing(t, serveCommand(p.config))}
		records = append(records, fmt.Sprintf("example.com. 60 IN TXT \"AS=%s\"", addr))
	}
	if err := dns.Set(records...); err != nil {
		t.Fatal(err)
	}
	return members
}

// take copies the secret file of another member, and lets the server read it.
func (m *member) take(t *testing.T, from string) {
	t.Helper()
	before := strings.Count(m.log.String(), `msg="domain is served" domain=example.com`)
	if from != m.secret {
		replaceFile(t, m.secret, readFile(t, from))
	}
	m.signal(syscall.SIGHUP)
	m.waitLogs(before+1, `msg="domain is served" domain=example.com`)
}

// A secret of a set of servers is replaced: no step is made before every server verifies
// the new keys, each is made once, and nothing is refused that was attached.
func TestSecretRotate(t *testing.T) {
	dns, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	set := newSet(t, dns, 3)
	first := set[0]
	rotate := func(code int, pattern string) {
		t.Helper()
		got, out, errOut := run(t, "", "secret", "rotate", "--config", first.config, "--resolver", dns.Addr(), "example.com")
		if got != code || !regexp.MustCompile(pattern).MatchString(out+errOut) {
			t.Fatalf("exit %d, want %d and %s\n%s%s", got, code, pattern, out, errOut)
		}
		for line := range strings.Lines(readFile(t, first.secret)) {
			if _, secret, found := strings.Cut(strings.TrimSpace(line), " "); found && !strings.HasPrefix(line, "#") && strings.Contains(out+errOut, secret) {
				t.Error("a secret is printed")
			}
		}
	}
	status := func() (v rotationView) {
		t.Helper()
		if err := json.Unmarshal([]byte(mustRun(t, "secret", "status", "--config", first.config, "--json", "example.com")), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	everywhere := func(key string, want wire.Verdict) {
		t.Helper()
		for i := range set {
			if got := verdict(t, set[i].addr, "bob@example.com", key); got != want {
				t.Errorf("server %d says %s, want %s", i, got, want)
			}
		}
	}
	old := first.key(t, "bob@example.com")
	if s := status(); s.Stage != "idle" || len(s.Secrets) != 1 {
		t.Errorf("%+v", s)
	}

	rotate(0, `(?s)step 1 of 3, made 20.*Z: secret \w{8} is added; \w{8} makes the keys still\nNext:.*scp -p .*authkey-server secret rotate example.com --config `)
	if first.key(t, "bob@example.com") != old {
		t.Error("the new secret makes keys already")
	}
	// Nobody has it yet but the first, once it has read the file.
	first.take(t, first.secret)
	rotate(1, `(?s)nothing was changed:\n.*`+set[1].addr+` does not accept keys of the new secret \w{8}: copy `)
	set[1].take(t, first.secret)
	rotate(1, set[2].addr+" does not accept")
	// One that cannot be asked may have it or not.
	set[2].take(t, first.secret)
	set[2].signal(syscall.SIGSTOP)
	awaitStopped(t, set[2].Process.Pid)
	rotate(75, set[2].addr+" cannot be asked: as-timeout")
	set[2].signal(syscall.SIGCONT)
	rotate(0, `(?s)step 2 of 3, made 20.*: secret \w{8} makes the keys; those of \w{8} are valid until 20.*systemctl restart authkey-milter.*rotate example.com --config \S+    # not before 20`)
	fresh := first.key(t, "bob@example.com")
	if fresh == old {
		t.Error("the old secret makes keys still")
	}
	everywhere(fresh, wire.ValidKey)
	everywhere(old, wire.ValidKey)

	rotate(75, `too early: keys of the old secret \(\w{8}\) are valid until `)
	s := status()
	due, err := time.Parse(time.RFC3339, s.OldMayGo)
	if left := time.Until(due); err != nil || s.Stage != "retiring" || left < 6*24*time.Hour || left > 6*24*time.Hour+10*time.Minute {
		t.Errorf("%+v, %v", s, err)
	}
	// Had it been made a week ago:
	marked := regexp.MustCompile(`(?m)^(#rotation used \w+) .*$`)
	replaceFile(t, first.secret, marked.ReplaceAllString(readFile(t, first.secret), "$1 "+time.Now().Add(-7*24*time.Hour).UTC().Format(time.RFC3339)))
	rotate(0, `one secret, \w{8}, makes and verifies keys`)
	for i := range set {
		set[i].take(t, first.secret)
	}
	everywhere(fresh, wire.ValidKey)
	everywhere(old, wire.InvalidKey)
}

// What keeps a step from being made, and from being asked about.
func TestSecretRotateRefuses(t *testing.T) {
	dns, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	p := newPlace(t, "")
	args := func(more ...string) []string {
		return append([]string{"secret", "rotate", "--config", p.config, "--resolver", dns.Addr()}, more...)
	}
	expect := func(code int, pattern string, args ...string) {
		t.Helper()
		before := readFile(t, p.secret)
		got, out, errOut := run(t, "", args...)
		if got != code || !regexp.MustCompile(pattern).MatchString(errOut) {
			t.Errorf("%q: exit %d, want %d and %s\n%s%s", args, got, code, pattern, out, errOut)
		}
		if code != 0 && readFile(t, p.secret) != before {
			t.Errorf("%q changed the file", args)
		}
	}
	expect(1, "not among the domains", args("example.net")...)
	expect(2, "which domain", args()...)
	expect(0, "", args("example.com")...)
	expect(1, "publishes no server that can be asked.*--unchecked goes on", args("example.com")...)
	expect(75, "which servers does example.com have", "secret", "rotate", "--config", p.config, "--resolver", "127.0.0.1:1", "example.com")
	list := readFile(t, p.list)
	writeFile(t, p.list, "# empty\n", 0o640)
	expect(1, "its list is empty", args("example.com")...)
	writeFile(t, p.list, list, 0o640)
	expect(0, "", args("--unchecked", "example.com")...)
	// Two lines that somebody wrote.
	secret := strings.Join(regexp.MustCompile(`(?m)^\w+ \S+=$`).FindAllString(readFile(t, p.secret), -1), "\n") + "\n"
	writeFile(t, p.secret, secret, 0o600)
	expect(1, "2 secrets .* and no note of when they came", args("example.com")...)
	if out := mustRun(t, "secret", "status", "--config", p.config); !regexp.MustCompile(`(?m)^example.com: several secrets, put there by hand; the first makes keys\nExample.ORG: one secret, \w{8}, `).MatchString(out) {
		t.Errorf("%s", out)
	}
	if err := os.Remove(p.secret); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"status", "rotate"} {
		if code, _, errOut := run(t, "", "secret", command, "--config", p.config, "example.com"); code != 78 || !strings.Contains(errOut, "(init makes it)") {
			t.Errorf("%s without file: exit %d, %s", command, code, errOut)
		}
	}
}

// Killed at any time, a step is made or it is not, and the next run goes on.
func TestSecretRotateKilled(t *testing.T) {
	p := newPlace(t, "")
	status := func() (s rotationView) {
		t.Helper()
		if err := json.Unmarshal([]byte(mustRun(t, "secret", "status", "--config", p.config, "--json", "example.com")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, step := range [][2]string{{"idle", "added"}, {"added", "retiring"}, {"retiring", "idle"}} {
		before := readFile(t, p.secret)
		if step[0] == "retiring" { // six days later
			before = regexp.MustCompile(`(?m)^(#rotation used \w+) .*$`).ReplaceAllString(before, "$1 2026-01-01T00:00:00Z")
		}
		kills := 0
		for ended := false; !ended; kills++ { // left alone in the end, it makes what is left
			writeFile(t, p.secret, before, 0o600)
			ended = killedAt(t, p.dir, kills, "secret", "rotate", "--unchecked", "--config", p.config, "example.com")
			if stage := status().Stage; stage != step[1] && (ended || stage != step[0]) {
				t.Fatalf("killed when it had done %d things (by itself: %v): stage %s, of a step from %s to %s", kills, ended, stage, step[0], step[1])
			}
			mustRun(t, "check", "--config", p.config)
		}
		t.Logf("from %s to %s: killed %d times", step[0], step[1], kills-1)
		if kills < 10 {
			t.Errorf("killed %d times only", kills-1)
		}
	}
	if names, err := filepath.Glob(filepath.Join(p.dir, "*.new")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
	if key := p.key(t, "bob@example.com"); !isKey(key) {
		t.Errorf("key %q", key)
	}
}

// killedAt runs the program, and kills it as soon as the kernel tells of the n-th thing that
// it does in a folder (opens, writes, renames a file, …). It reports whether the program
// came to its end before that; it must succeed then.
func killedAt(t *testing.T, dir string, n int, args ...string) (ended bool) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	watch, err := unix.InotifyAddWatch(fd, dir, unix.IN_ALL_EVENTS)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, programCommand(nil, os.Args[0], args...))
	var removal sync.WaitGroup
	removal.Go(func() {
		<-p.done
		_, _ = unix.InotifyRmWatch(fd, uint32(watch)) // which is the last event, IN_IGNORED
	})
	defer func() {
		_ = p.Process.Kill()
		removal.Wait()
	}()
	if err := events.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	for seen := 0; seen < n; {
		size, err := events.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < size; seen++ {
			if binary.NativeEndian.Uint32(buffer[at+4:])&unix.IN_IGNORED != 0 {
				<-p.done
				if code := p.ProcessState.ExitCode(); code != 0 {
					t.Fatalf("exit %d\n%s", code, p.log.String())
				}
				return true
			}
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buffer[at+12:])) // the length of the name
		}
	}
	return false
}

// awaitStopped waits until no thread of a process runs any more, some time after SIGSTOP.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := testdaemon.Poll(ctx, func() (bool, error) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			return false, err
		}
		for _, thread := range threads {
			// pid (name) state …
			if _, state, _ := strings.Cut(readFile(t, thread), ") "); !strings.HasPrefix(state, "T") {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
}
