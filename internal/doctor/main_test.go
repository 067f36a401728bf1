package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/testmta"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// sendmailPrefix is where Sendmail's files are.
var sendmailPrefix string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	err := testmta.EnsurePostfix(ctx, say)
	if err == nil {
		sendmailPrefix, err = testmta.EnsureSendmail(ctx, say)
	}
	if err != nil {
		say("%v", err)
		return 1
	}
	return m.Run()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A site is what all machines share: a world with DNS and an Authentication
// Server, and a running Postfix.
type site struct {
	world   *lab.World
	postfix *testmta.Postfix
	asPort  int
}

// ownDomain has an AS.
const ownDomain = "own.test"

func newSite(t *testing.T) *site {
	t.Helper()
	w, err := lab.NewWorld()
	must(t, err)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, w.AddDomain(ownDomain, "alice"))
	port, _, err := w.ServeAS(ownDomain)
	must(t, err)
	must(t, w.Publish(ownDomain, lab.ASRecord(port)))
	// Addresses behind its back do not matter, and an empty answer is one.
	must(t, w.Publish(probeDomain, "v=spf1 -all"))
	p, err := testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Listeners: []testmta.Listener{testmta.RelayListener("relay")},
		// Envelopes that are given up look like mail that nobody delivers.
		Main: map[string]string{"in_flow_delay": "0"}})
	must(t, err)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &site{w, p, port}
}

// A machine is a milter and a Postfix's configuration, both right, until a test
// breaks something.
type machine struct {
	*site
	t         *testing.T
	options   Options
	yaml      string // beside listen, dns and verify
	resolvers string
	socket    string // of the milter
	listener  net.Listener
	etc       string // the configuration of a Postfix
	openDKIM  string
	cf        string // of Sendmail, in place of Postfix
	configAge time.Duration

	configFile string            // where the configuration is; see open
	written    func(path string) // called when it is there
}

func (c *site) machine(t *testing.T) *machine {
	t.Helper()
	p := &machine{site: c, t: t, etc: filepath.Join(t.TempDir(), "etc"), openDKIM: filepath.Join(t.TempDir(), "opendkim.conf")}
	must(t, os.CopyFS(p.etc, os.DirFS(filepath.Join(c.postfix.Dir(), "etc"))))
	dir, err := os.MkdirTemp(filepath.Join(c.postfix.Dir(), "queue"), "authkey-")
	must(t, err)
	must(t, os.Chown(dir, -1, p.group("postfix")))
	must(t, os.Chmod(dir, 0o750))
	p.listen(filepath.Join(dir, "milter.sock"))
	p.postconf("-e", "smtpd_milters = "+p.entry())
	p.yaml = fmt.Sprintf("local_domains: [%s]\nnotify: {smtp: %q}\n", ownDomain, c.postfix.Listener("relay"))
	p.resolvers = c.world.DNS.Addr()
	p.options = Options{Service: Service{User: "root"}, Hostname: "mx.test", Now: time.Now, Synchronized: func() (bool, error) { return true, nil }}
	return p
}

func (p *machine) group(name string) int {
	p.t.Helper()
	g, err := user.LookupGroup(name)
	must(p.t, err)
	gid, err := strconv.Atoi(g.Gid)
	must(p.t, err)
	return gid
}

// listen listens where the milter would.
func (p *machine) listen(path string) {
	p.t.Helper()
	if p.listener != nil {
		p.listener.Close()
	}
	var err error
	p.listener, err = net.Listen("unix", path)
	must(p.t, err)
	srv := milter.New(slog.New(slog.DiscardHandler), &milter.Engine{Limits: milter.Limits{Connections: 10, IdleTimeout: time.Minute}, Policy: policy.New(policy.Options{})})
	go func() { _ = srv.Serve(p.listener) }()
	p.t.Cleanup(func() { srv.Shutdown(context.WithoutCancel(p.t.Context())) })
	must(p.t, os.Chown(path, -1, p.group("postfix")))
	must(p.t, os.Chmod(path, 0o660))
	p.socket = path
}

// entry is the milter in smtpd_milters.
func (p *machine) entry() string {
	relative, err := filepath.Rel(filepath.Join(p.postfix.Dir(), "queue"), p.socket)
	must(p.t, err)
	return "unix:" + relative
}

func (p *machine) postconf(args ...string) {
	p.t.Helper()
	p.age()
	out, err := exec.Command("postconf", append([]string{"-c", p.etc}, args...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("postconf %q: %v: %s", args, err, out)
	}
}

// examine lets the doctor look.
func (p *machine) examine() []Finding {
	p.t.Helper()
	if p.configFile == "" {
		p.open()
	}
	path := p.configFile
	yaml := fmt.Sprintf("listen: ['unix:%s']\ndns: {servers: [%s], timeout: 10s}\nverify: {connect_timeout: 10s, timeout: 3s, allow_networks: [127.0.0.0/8]}\n", p.socket, p.resolvers)
	must(p.t, os.WriteFile(path, []byte(yaml+p.yaml), 0o644))
	written := time.Now().Add(-p.configAge)
	must(p.t, os.Chtimes(path, written, written))
	if p.written != nil {
		p.written(path)
	}
	loaded, err := config.Load(path, nil)
	must(p.t, err)
	c := loaded.Config
	o := p.options
	o.Config, o.ConfigFile, o.Ours, o.OpenDKIMConf = c, path, mtaconf.Listening(p.t.Context(), loaded), p.openDKIM
	o.Verifier = verifier.Options{Resolvers: c.DNS.Servers, DNSTimeout: c.DNS.Timeout, Timeout: c.Verify.Timeout,
		ConnectTimeout: c.Verify.ConnectTimeout, AllowNetworks: c.Verify.AllowNetworks}
	if p.cf != "" {
		o.Sendmail, err = mtaconf.ReadSendmail(p.cf, mtaconf.Options{Daemons: c.Submission.Daemons, OpenDKIMConf: p.openDKIM, Ours: o.Ours, Attach: len(c.Attach.Domains) > 0})
	} else {
		p.age()
		o.Postfix, err = mtaconf.ReadPostfix(p.t.Context(), mtaconf.Options{ConfigDir: p.etc, Daemons: c.Submission.Daemons, OpenDKIMConf: p.openDKIM, Ours: o.Ours, Attach: len(c.Attach.Domains) > 0})
	}
	must(p.t, err)
	return Examine(p.t.Context(), o)
}

// age makes the configuration old: postconf waits before it believes a new one.
func (p *machine) age() {
	past := time.Now().Add(-time.Minute)
	for _, name := range []string{"main.cf", "master.cf"} {
		must(p.t, os.Chtimes(filepath.Join(p.etc, name), past, past))
	}
}

// faults are the faults among findings.
func faults(findings []Finding) []Finding {
	var found []Finding
	for _, f := range findings {
		if f.Status == Fault {
			found = append(found, f)
		}
	}
	return found
}

// mend runs those commands of a mend that do not need a running system.
func (p *machine) mend(f Finding) {
	p.t.Helper()
	for line := range strings.Lines(f.Mend) {
		word, _, _ := strings.Cut(line, " ")
		if !slices.Contains([]string{"postconf", "chown", "chgrp", "chmod"}, word) {
			continue
		}
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			p.t.Errorf("%s: %v: %s", line, err, out)
		}
	}
}
