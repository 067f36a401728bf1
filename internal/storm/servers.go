package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
)

// killServer kills an Authentication Server, and starts it again when mail was without
// it for a while.
func killServer(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	if _, err := s.w.first.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill(s.w.first.Name)
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
	if err := s.w.first.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	if err := s.moment(ctx); err != nil {
		return err
	}
	return s.restart(ctx, s.w.first)
}

// stopServer lets it hang for a while.
func stopServer(s *storm, ctx context.Context) error {
	if err := s.w.first.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := s.spell(ctx)
	return errors.Join(err, s.w.first.Signal(syscall.SIGCONT))
}

// spellLimit is how many messages a spell may take until one meets it.
const spellLimit = 400

// spell is a while in which something else is wrong already: it lasts until a message
// could not be verified. The milter is killed in it, and knows nothing from before.
func (s *storm) spell(ctx context.Context) error {
	if err := killMilter(s, ctx); err != nil {
		return err
	}
	since := s.w.milter.LogSize()
	for range spellLimit / clients {
		if err := s.load.flow(ctx, clients); err != nil {
			return err
		}
		if bytes.Contains(s.w.milter.LogSince(since), []byte("result=temperror")) {
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
	s.kill(s.w.first.Name)
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
	if s.w.first.Ended() {
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
	u := &unit{Program: lab.Program{Name: "authkey-server of an empty list", Path: s.w.server, Args: []string{"serve", "--config", yaml}, Dir: dir, LogFile: under(dir, "log")}}
	if err := u.spawn(); err != nil {
		return err
	}
	u.mayEnd(true)
	defer u.end(syscall.SIGKILL)
	if err := testdaemon.Poll(ctx, func() (bool, error) { return u.Ended() || testdaemon.Listens("tcp", address), nil }); err != nil {
		return err
	}
	if u.Ended() { // refused
		return nil
	}
	cmd := exec.CommandContext(ctx, s.w.server, "--config", yaml, "verify", "alice@"+domain)
	cmd.Stdin = strings.NewReader(keys["alice@"+domain] + "\n")
	out, _ := cmd.CombinedOutput() // the exit code says no more
	log := u.LogSince(0)
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
