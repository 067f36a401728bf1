package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/loopback"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// Programs are what a storm runs.
type programs struct {
	milter, server string // paths
	sendmail       string // prefix of Sendmail's files; "" for Postfix
}

// baseUsers are the addresses of every domain.
var baseUsers = []string{"alice", "mallory", "boss"}

// revocable is how many addresses of the domain edited can be revoked.
const revocable = 400

// ownClient is the address of our own users, where the MTA cannot be told of a login.
const ownClient = "127.0.0.3"

// receivers is an MTA whose processes can be killed.
type receivers interface {
	testmta.MTA
	Receivers() ([]testdaemon.Member, error)
}

// A world is what a storm goes through: a real MTA, the milter, two Authentication
// Servers, DNS, and where notices are handed to.
type world struct {
	*lab.World
	programs
	mta           receivers
	milter        *unit
	first, second *unit // Authentication Servers
	keys          map[string]string
	config        []byte // of the milter, good
	preferences   []byte // those that always are
	disks         []string
}

func (w *world) milterYAML() string          { return under(w.Dir, "milter.yaml") }
func (w *world) prefsYAML() string           { return under(w.Dir, "preferences.yaml") }
func (w *world) stateDir() string            { return under(w.Dir, "state") }
func (w *world) listDir() string             { return under(w.Dir, "lists") }
func (w *world) serverYAML(n int) string     { return under(w.Dir, fmt.Sprintf("server%d.yaml", n)) }
func (w *world) secret(domain string) string { return under(w.Dir, domain+".secret") }

// list is the address list of a domain: of all but one on a small disk.
func (w *world) list(domain string) string {
	if domain == edited {
		return under(w.Dir, domain)
	}
	return under(w.listDir(), domain)
}

// newWorld starts everything. What the machine does not allow is an error.
func newWorld(ctx context.Context, p programs) (w *world, err error) {
	base, err := lab.NewWorld()
	if err != nil {
		return nil, err
	}
	w = &world{World: base, programs: p, keys: make(map[string]string)}
	if err := w.found(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) found(ctx context.Context) error {
	for _, dir := range []string{w.stateDir(), w.listDir()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
			return fmt.Errorf("a small disk is needed, which only root can mount: %w", err)
		}
		w.disks = append(w.disks, dir)
	}
	if err := os.Mkdir(under(w.Dir, "run"), 0o755); err != nil {
		return err
	}
	for _, domain := range []string{twoServers, requiring, edited} {
		if err := w.addDomain(domain); err != nil {
			return err
		}
	}
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = testdaemon.FreePort(); err != nil {
			return err
		}
	}
	err := errors.Join(
		w.Publish(twoServers, lab.ASRecord(ports[0], "pri=10"), lab.ASRecord(ports[1], "pri=20")),
		w.Publish(requiring, lab.ASRecord(ports[0], "req=yes")),
		w.Publish(edited, lab.ASRecord(ports[1])))
	if err != nil {
		return err
	}
	if w.first, err = w.newServer(ctx, 1, ports[0], twoServers, requiring); err != nil {
		return err
	}
	if w.second, err = w.newServer(ctx, 2, ports[1], twoServers, edited); err != nil {
		return err
	}
	socket := under(w.Dir, "milter.sock")
	if err := w.startMTA(ctx, "unix:"+socket); err != nil {
		return err
	}
	return w.startMilter(ctx, socket)
}

// addDomain makes a domain's secret, its list, and the keys that the storm uses.
func (w *world) addDomain(name string) error {
	locals := baseUsers
	if name == edited {
		for i := range revocable {
			locals = append(locals[:len(locals):len(locals)], fmt.Sprintf("r%d", i))
		}
	}
	keys, err := newDomain(name, w.secret(name), w.list(name), locals...)
	maps.Copy(w.keys, keys)
	return err
}

// newDomain writes a domain's secret and its list, and returns the keys by address.
func newDomain(name, secret, path string, locals ...string) (keys map[string]string, err error) {
	d, err := lab.NewDomain(keyring.ListFile{Path: path, Form: keyring.Form{Domain: name, Subaddress: "+"}}, secret, locals...)
	if err != nil {
		return nil, err
	}
	keys = make(map[string]string)
	for _, l := range locals {
		address := l + "@" + name
		if keys[address], err = loopback.Key(d, address); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// newServer starts an Authentication Server at a port of 127.0.0.1.
func (w *world) newServer(ctx context.Context, n, port int, domains ...string) (*unit, error) {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "host: as.storm.test\nlisten: [%q]\ndomains:\n", "tcp:"+address)
	for _, d := range domains {
		fmt.Fprintf(&yaml, "  - {name: %s, secret_file: %s, addresses: %q, ttl: 1s}\n", d, w.secret(d), "file:"+w.list(d))
	}
	if err := os.WriteFile(w.serverYAML(n), []byte(yaml.String()), 0o644); err != nil {
		return nil, err
	}
	u := &unit{
		Program: lab.Program{Name: fmt.Sprintf("authkey-server %d", n), Path: w.server, Args: []string{"serve", "--config", w.serverYAML(n)},
			Dir: under(w.Dir, "run"), LogFile: under(w.Dir, fmt.Sprintf("server%d.log", n))},
		ready:   "domain is served",
		answers: func() bool { return testdaemon.Listens("tcp", address) },
	}
	return u, u.start(ctx)
}

func (w *world) startMTA(ctx context.Context, socket string) error {
	if w.sendmail != "" {
		s, err := testmta.StartSendmail(ctx, testmta.SendmailOptions{Prefix: w.sendmail, Milters: []string{socket}})
		if err == nil {
			w.mta = s
		}
		return err
	}
	p, err := testmta.StartPostfix(ctx, testmta.PostfixOptions{
		Milters: []string{socket}, RecipientDomains: []string{local, many, away},
		Main: map[string]string{
			// A service whose process was killed is not left alone for a minute.
			"service_throttle_time": "1s",
			// Nor does the postmaster get mail about it.
			"notify_classes": ""},
	})
	if err == nil {
		w.mta = p
	}
	return err
}

// basePreferences are those of the recipients of messages about which recipients differ.
const basePreferences = `- {recipient: accept@rcpt.test, fail: accept}
- {recipient: mark@rcpt.test, fail: mark}
- {recipient: quarantine@rcpt.test, fail: quarantine}
- {recipient: discard-notify@rcpt.test, fail: discard-notify, language: de}
- {recipient: reject@rcpt.test, fail: reject}
- {recipient: reject-notify@rcpt.test, fail: reject-notify}
`

func (w *world) startMilter(ctx context.Context, socket string) error {
	w.preferences = []byte(basePreferences)
	// At the end are settings that are lost when the file is cut off.
	w.config = fmt.Appendf(nil, `listen: [%q]
socket: {mode: "0666"}
authserv_id: mx.test
dns: {servers: [%q], timeout: 500ms}
verify: {timeout: 2s, connect_timeout: 500ms, reply_timeout: 700ms, allow_networks: ["127.0.0.0/8"]}
cache: {max_ttl: 1s}
notify:
  smtp: %q
  state_dir: %s
  dsn: always
  rate: {per_sender: 1000/1s, per_recipient: 10000/1s, global: 100000/1s}
preferences: {source: "file:%s"}
attach:
  domains:
    - {domain: %s, source: "secret:%s", addresses: "file:%s"}
  networks: [%s/32]
  on_error: tempfail
submission:
  networks: [%s/32]
local_domains: [%s, %s]
policy:
  fail: reject
  rules:
    - {recipient: %s, fail: discard-notify}
    - {recipient: discard@%s, fail: discard}
from:
  check: enforce
  actions:
    fail: reject
`, "unix:"+socket, w.DNS.Addr(), w.Told.Addr(), w.stateDir(), w.prefsYAML(),
		twoServers, w.secret(twoServers), w.list(twoServers), ownClient, ownClient, local, many, many, local)
	if err := errors.Join(os.WriteFile(w.milterYAML(), w.config, 0o644), os.WriteFile(w.prefsYAML(), w.preferences, 0o644)); err != nil {
		return err
	}
	w.milter = &unit{
		Program: lab.Program{Name: "authkey-milter", Path: w.programs.milter, Args: []string{"serve", "--config", w.milterYAML()},
			Dir: under(w.Dir, "run"), LogFile: under(w.Dir, "milter.log")},
		ready:   "configuration in force",
		answers: func() bool { return testdaemon.Listens("unix", socket) },
	}
	return w.milter.start(ctx)
}

// close ends everything.
func (w *world) close() error {
	var errs []error
	for _, u := range []*unit{w.milter, w.first, w.second} {
		if u != nil && u.Started() && !u.Ended() {
			_, err := u.end(unix.SIGKILL)
			errs = append(errs, err)
		}
	}
	if w.mta != nil {
		errs = append(errs, w.mta.Stop())
	}
	for _, disk := range w.disks {
		errs = append(errs, unix.Unmount(disk, unix.MNT_DETACH))
	}
	return errors.Join(append(errs, w.World.Close())...)
}

// tool is one run of an administrator's command.
func (w *world) tool(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.server, append([]string{"--config", w.serverYAML(2)}, args...)...)
	cmd.Dir = under(w.Dir, "run")
	return cmd
}
