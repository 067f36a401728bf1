package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
)

// What the milter says when it has read its configuration.
const (
	inForce   = "configuration in force"
	isRefused = "the new configuration is refused"
)

// killMilter kills the milter in the midst of work and starts it again.
func killMilter(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	return s.killMilterNow(ctx)
}

func (s *storm) killMilterNow(ctx context.Context) error {
	began := time.Now()
	if _, err := s.w.milter.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill("authkey-milter")
	err := s.w.milter.start(ctx)
	s.note(milterKilled, began)
	return err
}

// killAtNotices kills the milter while it hands over many notices.
func killAtNotices(s *storm, ctx context.Context) error {
	before := s.w.Told.Count()
	some := before + 1 + s.random.IntN(crowd*3/4)
	done := make(chan *history, 1)
	go func() {
		c := &client{w: s.w}
		defer c.hangUp()
		done <- s.load.send(c, crowded)
	}()
	err := testdaemon.Poll(ctx, func() (bool, error) { return s.w.Told.Count() >= some || len(done) > 0, nil })
	if err == nil {
		err = s.killMilterNow(ctx)
	}
	<-done
	return err
}

// terminate ends the milter with SIGTERM: what is in flight is finished.
func terminate(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	return s.restart(ctx, s.w.milter)
}

func (s *storm) restart(ctx context.Context, u *unit) error {
	code, err := u.end(syscall.SIGTERM)
	if err != nil {
		return err
	}
	s.kill(u.name + ", SIGTERM")
	if code != 0 {
		s.fault("%s ended with code %d on SIGTERM", u.name, code)
	}
	return u.start(ctx)
}

// hangup sends SIGHUP, and waits until the milter has read its configuration. since is
// how long its log was before.
func (s *storm) hangup(ctx context.Context, since int64) error {
	if err := s.w.milter.signal(syscall.SIGHUP); err != nil {
		return err
	}
	_, err := s.w.milter.waitSaid(ctx, since, inForce, isRefused)
	return err
}

// good has the milter read configurations that differ in what changes no outcome.
func good(s *storm, ctx context.Context) error {
	more := []string{"", "log: {level: debug}\n", "limits: {connections: 500}\n"}
	for range 3 {
		content := append(bytes.Clone(s.w.config), more[s.random.IntN(len(more))]...)
		since := s.w.milter.size()
		if err := replace(s.w.milterYAML(), content); err != nil {
			return err
		}
		if err := s.moment(ctx); err != nil {
			return err
		}
		for range 1 + s.random.IntN(5) { // in a row
			if err := s.w.milter.signal(syscall.SIGHUP); err != nil {
				return err
			}
		}
		if err := s.hangup(ctx, since); err != nil {
			return err
		}
	}
	return nil
}

// bad has it read configurations that cannot be taken, or none.
func bad(s *storm, ctx context.Context) error {
	contents := []string{
		strings.Replace(string(s.w.config), "fail: reject", "fail: perhaps", 1),
		"\t: no YAML\n",
		string(s.w.config[:len(s.w.config)*2/3]) + "x", // within a line
		string(s.w.config) + "verify: {timeout: -1s}\n",
	}
	return s.refused(ctx, contents[s.random.IntN(len(contents))], "bad")
}

// cutOff has it read the beginning of its configuration, up to the end of a line, as of
// an editor or a disk that got no further: valid YAML, with defaults for the rest.
func cutOff(s *storm, ctx context.Context) error {
	lines := bytes.SplitAfter(s.w.config, []byte("\n"))
	n := s.random.IntN(len(lines) - 2)
	// The last of its sections, or their last lines, are missing most of the time.
	if s.random.IntN(2) == 0 {
		n = len(lines) - 4 - s.random.IntN(6)
	}
	return s.refused(ctx, string(bytes.Join(lines[:n], nil)), "cut off")
}

// refused writes a configuration in place, has it read, lets mail flow, and puts the
// good one back.
func (s *storm) refused(ctx context.Context, content, what string) error {
	since := s.w.milter.size()
	if err := inPlace(s.w.milterYAML(), []byte(content)); err != nil {
		return err
	}
	if err := s.hangup(ctx, since); err != nil {
		return err
	}
	if err := s.load.flow(ctx, 3*clients); err != nil {
		return err
	}
	if bytes.Contains(s.w.milter.said(since), []byte(inForce)) {
		s.fault("a configuration that is %s was put in force", what)
	}
	since = s.w.milter.size()
	if err := replace(s.w.milterYAML(), s.w.config); err != nil {
		return err
	}
	return s.hangup(ctx, since)
}

// locked starts the milter while something else has locked its state folder.
func locked(s *storm, ctx context.Context) error {
	return s.trouble(ctx, s.w.milter, "its state folder is locked", func() (mend func() error, err error) {
		lock, err := os.OpenFile(under(s.w.stateDir(), "notified.lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		return lock.Close, unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	})
}

// half starts a program between the two writes of somebody who replaces a file.
func (s *storm) half(ctx context.Context, u *unit, path, what string) error {
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cut := len(whole) / 2
	for cut > 0 && bytes.IndexByte(whole[cut:], '\n') < 3 || whole[cut-1] == '\n' {
		cut-- // within a line: up to the end of one it may be what somebody wants
	}
	return s.trouble(ctx, u, what+" is half written", func() (mend func() error, err error) {
		return func() error { return inPlace(path, whole) }, inPlace(path, whole[:cut])
	})
}

// halfOwnSecret is about the milter, which attaches keys.
func halfOwnSecret(s *storm, ctx context.Context) error {
	return s.half(ctx, s.w.milter, s.w.secret(twoServers), "a secret")
}

// halfSecret is about the Authentication Server, which no other program shares this
// domain with.
func halfSecret(s *storm, ctx context.Context) error {
	return s.half(ctx, s.w.first, s.w.secret(requiring), "a secret")
}

// halfPreferences is about the milter and its recipients' preferences.
func halfPreferences(s *storm, ctx context.Context) error {
	s.wishes.paused.Lock()
	defer s.wishes.paused.Unlock()
	return s.half(ctx, s.w.milter, s.w.prefsYAML(), "its preferences file")
}

// trouble kills a program and starts it again while something is wrong that passes.
func (s *storm) trouble(ctx context.Context, u *unit, what string, begin func() (mend func() error, err error)) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	began := time.Now()
	if _, err := u.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill(u.name)
	mend, err := begin()
	if err != nil {
		return err
	}
	t, err := u.startThrough(ctx, mend)
	if t.given {
		s.fault("%s was started while %s: exit %d, and its unit would not start it again", u.name, what, exitConfig)
	}
	if u == s.w.milter {
		s.note(milterKilled, began)
	}
	return err
}

// killServer kills an Authentication Server, and starts it again when mail was without
// it for a while.
func killServer(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	if _, err := s.w.first.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill(s.w.first.name)
	if err := s.load.flow(ctx, s.random.IntN(2*clients)); err != nil {
		return err
	}
	if s.random.IntN(3) == 0 {
		if err := s.spell(ctx); err != nil {
			return err
		}
	}
	return s.w.first.start(ctx)
}

// terminateServer ends it with SIGTERM, and has it read everything again before.
func terminateServer(s *storm, ctx context.Context) error {
	if err := s.w.first.signal(syscall.SIGHUP); err != nil {
		return err
	}
	if err := s.moment(ctx); err != nil {
		return err
	}
	return s.restart(ctx, s.w.first)
}

// stopServer lets it hang for a while.
func stopServer(s *storm, ctx context.Context) error {
	if err := s.w.first.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := s.spell(ctx)
	return errors.Join(err, s.w.first.signal(syscall.SIGCONT))
}

// spellLimit is how many letters a spell may take until one meets it.
const spellLimit = 400

// spell is a while in which something else is wrong already: it lasts until a letter
// could not be verified. The milter is killed in it, and knows nothing from before.
func (s *storm) spell(ctx context.Context) error {
	if err := killMilter(s, ctx); err != nil {
		return err
	}
	since := s.w.milter.size()
	for range spellLimit / clients {
		if err := s.load.flow(ctx, clients); err != nil {
			return err
		}
		if bytes.Contains(s.w.milter.said(since), []byte("result=temperror")) {
			s.count("spells that letters met")
			break
		}
	}
	return nil
}

// withoutList starts a server whose list is not there: it can answer nothing but
// TEMPFAIL for that domain, if it starts.
func withoutList(s *storm, ctx context.Context) error {
	list := s.w.list(requiring)
	if err := os.Rename(list, list+".away"); err != nil {
		return err
	}
	if _, err := s.w.first.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill(s.w.first.name)
	if err := s.w.first.spawn(); err != nil {
		return err
	}
	s.w.first.mayEnd(true)
	if err := s.load.flow(ctx, 2*clients); err != nil {
		return err
	}
	if err := os.Rename(list+".away", list); err != nil {
		return err
	}
	if s.w.first.ended() {
		return s.w.first.start(ctx)
	}
	s.w.first.mayEnd(false)
	return s.w.first.wait(ctx)
}

// emptyList starts a server of its own whose list has no octet left, as after a crash or
// on a full disk. It must not say of everybody that his key is wrong as if nothing were
// the matter.
func emptyList(s *storm, ctx context.Context) error {
	const domain = "empty.test"
	dir, err := os.MkdirTemp(s.w.Dir, "empty-")
	if err != nil {
		return err
	}
	port, err := testdaemon.FreePort()
	if err != nil {
		return err
	}
	list := under(dir, "list")
	keys, err := newDomain(domain, under(dir, "secret"), list, "alice")
	if err != nil {
		return err
	}
	if err := os.Truncate(list, 0); err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	yaml := under(dir, "server.yaml")
	err = os.WriteFile(yaml, fmt.Appendf(nil, "listen: [%q]\ndomains:\n  - {name: %s, secret_file: %s, addresses: %q}\n",
		"tcp:"+address, domain, under(dir, "secret"), "file:"+list), 0o644)
	if err != nil {
		return err
	}
	u := &unit{name: "authkey-server of an empty list", program: s.w.server, args: []string{"serve", "--config", yaml}, dir: dir, log: under(dir, "log")}
	if err := u.spawn(); err != nil {
		return err
	}
	u.mayEnd(true)
	defer u.end(syscall.SIGKILL)
	if err := testdaemon.Poll(ctx, func() (bool, error) { return u.ended() || dials("tcp", address), nil }); err != nil {
		return err
	}
	if u.ended() { // refused
		return nil
	}
	cmd := exec.CommandContext(ctx, s.w.server, "--config", yaml, "verify", "alice@"+domain)
	cmd.Stdin = strings.NewReader(keys["alice@"+domain] + "\n")
	out, _ := cmd.CombinedOutput() // the exit code says no more
	log := u.said(0)
	if bytes.Contains(out, []byte("fail")) && !bytes.Contains(log, []byte("level=WARN")) && !bytes.Contains(log, []byte("level=ERROR")) {
		s.fault("a list without one octet is believed at the start: everybody's key is wrong, and the log says nothing: %s", bytes.TrimSpace(out))
	}
	return nil
}

// resolvers are the ways in which DNS fails.
var resolvers = []struct {
	name   string
	behave func() testdns.Behaviour
}{
	{"SERVFAIL", func() testdns.Behaviour { return testdns.Rcode(dns.RcodeServerFailure) }},
	{"REFUSED", func() testdns.Behaviour { return testdns.Rcode(dns.RcodeRefused) }},
	{"lame", testdns.Lame},
	{"garbage", testdns.Garbage},
	{"silent", testdns.Silent},
	{"wrong id", testdns.WrongID},
	{"no TCP", testdns.TruncatedWithoutTCP},
}

// failDNS lets DNS fail for a while.
func failDNS(s *storm, ctx context.Context) error {
	r := resolvers[s.random.IntN(len(resolvers))]
	s.w.DNS.Behave("*", r.behave())
	defer s.w.DNS.Behave("*")
	s.count("DNS " + r.name)
	return s.spell(ctx)
}

// killMTA kills those processes of the MTA that take mail just now.
func killMTA(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	began := time.Now()
	members, err := s.w.mta.Receivers()
	if err != nil || len(members) == 0 {
		return err
	}
	program := members[s.random.IntN(len(members))].Name
	for _, m := range members {
		if m.Name == program && syscall.Kill(m.Pid, syscall.SIGKILL) == nil {
			s.kill(s.w.mta.Name())
		}
	}
	s.note(mtaKilled, began)
	return nil
}

// fill leaves no room on a small disk, and returns what makes room again.
func fill(dir string) (free func() error, err error) {
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	free = func() error { return os.Remove(path) }
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	if closeErr := f.Close(); !errors.Is(err, unix.ENOSPC) {
		return nil, errors.Join(fmt.Errorf("the disk is not full: %w", err), closeErr, free())
	}
	return free, nil
}

// fullLedger lets the milter remember what was sent on a disk that is full, kills it,
// and makes room again.
func fullLedger(s *storm, ctx context.Context) error {
	began := time.Now()
	free, err := fill(s.w.stateDir())
	if err != nil {
		return err
	}
	err = s.load.flow(ctx, 3*clients)
	if err == nil {
		err = killMilter(s, ctx)
	}
	if err == nil {
		err = s.load.flow(ctx, 2*clients)
	}
	err = errors.Join(err, free())
	if err == nil { // what is known in memory is written with the next notice
		s.load.send(&s.probes, crowded)
	}
	s.note(ledgerFull, began)
	return err
}

// fullLists has the tools edit a list on a disk that is full: they must say so, and
// leave the list as it is.
func fullLists(s *storm, ctx context.Context) error {
	free, err := fill(s.w.listDir())
	if err != nil {
		return err
	}
	before, err := os.ReadFile(s.w.list(twoServers))
	if err != nil {
		return errors.Join(err, free())
	}
	out, failed := s.w.tool(ctx, "address", "add", "full@"+twoServers).CombinedOutput()
	after, err := os.ReadFile(s.w.list(twoServers))
	if failed == nil && !bytes.Contains(after, []byte("full")) {
		s.fault("address add on a full disk says that it is done: %s", out)
	}
	if failed != nil && !bytes.Equal(before, after) {
		s.fault("address add failed on a full disk, and the list is not what it was")
	}
	err = errors.Join(err, s.load.flow(ctx, clients), free())
	if err != nil {
		return err
	}
	if out, err := s.w.tool(ctx, "address", "add", "room@"+twoServers).CombinedOutput(); err != nil && !bytes.Contains(out, []byte("already")) {
		return fmt.Errorf("address add with room again: %w: %s", err, out)
	}
	s.added = append(s.added, "room@"+twoServers)
	return nil
}
