package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

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
	for i := range 40 {
		cmd := programCommand(nil, os.Args[0], "secret", "rotate", "--unchecked", "--config", p.config, "example.com")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		var s rotationView
		if err := json.Unmarshal([]byte(mustRun(t, "secret", "status", "--config", p.config, "--json", "example.com")), &s); err != nil {
			t.Fatal(err)
		}
		if s.Stage == "retiring" { // six days later
			text := regexp.MustCompile(`(?m)^(#rotation used \w+) .*$`).ReplaceAllString(readFile(t, p.secret), "$1 2026-01-01T00:00:00Z")
			writeFile(t, p.secret, text, 0o600)
		}
		mustRun(t, "check", "--config", p.config)
	}
	// Left alone it makes what is left.
	for {
		var s rotationView
		if err := json.Unmarshal([]byte(mustRun(t, "secret", "rotate", "--unchecked", "--config", p.config, "--json", "example.com")), &s); err != nil {
			t.Fatal(err)
		}
		if s.Stage == "idle" {
			break
		}
		writeFile(t, p.secret, regexp.MustCompile(`(?m)^(#rotation used \w+) .*$`).ReplaceAllString(readFile(t, p.secret), "$1 2026-01-01T00:00:00Z"), 0o600)
	}
	if names, err := filepath.Glob(filepath.Join(p.dir, "*.new")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
	if key := p.key(t, "bob@example.com"); !isKey(key) {
		t.Errorf("key %q", key)
	}
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
