package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/wire"
)

// servers are the programs that buildServer has built, by their flags.
var servers struct {
	sync.Mutex
	built map[string]string
}

// buildServer builds authkey-server, with flags of go build such as -race: once, for all
// tests that want it so.
func buildServer(t *testing.T, flags ...string) (program string) {
	t.Helper()
	servers.Lock()
	defer servers.Unlock()
	kind := strings.Join(flags, "")
	if program = servers.built[kind]; program != "" {
		return program
	}
	program = filepath.Join(buildDir, "authkey-server"+kind)
	args := append(append([]string{"build"}, flags...), "-o", program, "github.com/authkey/authkey/cmd/authkey-server")
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if servers.built == nil {
		servers.built = make(map[string]string)
	}
	servers.built[kind] = program
	return program
}

// A server is an authkey-server serve, with files of its own.
type server struct {
	t                    *testing.T
	program, domain, dir string
	secret, list         string // paths
	port                 int

	process *testdaemon.Process
}

// newServer makes the files of a server for a domain of the world: copies of the
// world's, with the keys that the world's have. It starts nothing.
func newServer(t *testing.T, w *lab.World, program, domain string) *server {
	t.Helper()
	dir := t.TempDir()
	port, err := testdaemon.FreePort()
	must(t, err)
	s := &server{t: t, program: program, domain: domain, dir: dir, port: port,
		secret: filepath.Join(dir, "secret"), list: filepath.Join(dir, "addresses")}
	for _, name := range []string{"secret", "addresses"} {
		content, err := os.ReadFile(filepath.Join(w.Dir, "domain-"+domain, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	s.configure("")
	return s
}

func (s *server) config() string { return filepath.Join(s.dir, "server.yaml") }

// configure writes server.yaml, with more of it at the end.
func (s *server) configure(more string) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.config(), fmt.Appendf(nil, `host: as.%s
listen: [%q]
log: {level: debug}
domains:
  - {name: %s, secret_file: %s, addresses: %q}
%s`, s.domain, "tcp:"+s.addr(), s.domain, s.secret, "file:"+s.list, more), 0o644))
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// start starts the process and returns when it serves. It ends with the test.
func (s *server) start() {
	s.t.Helper()
	var err error
	s.process, err = testdaemon.Start(exec.Command(s.program, "serve", "--config", s.config()), filepath.Join(s.dir, "log"), "")
	must(s.t, err)
	s.t.Cleanup(func() {
		if err := s.process.Stop(); err != nil {
			s.t.Errorf("stop the server: %v", err)
		}
		if s.t.Failed() {
			s.t.Logf("the server's log:\n%s", s.process.Log())
		}
	})
	must(s.t, s.process.Ready(s.t.Context(), func() bool { return bytes.Contains(s.process.Log(), []byte("domain is served")) }))
}

// reload has the server read everything again, and returns when it has.
func (s *server) reload() {
	s.t.Helper()
	before := s.logged("domain=" + s.domain)
	must(s.t, syscall.Kill(s.process.Pid(), syscall.SIGHUP))
	s.waitLog(before+1, "domain="+s.domain)
}

// logged counts the log lines that hold all parts.
func (s *server) logged(parts ...string) (n int) {
	for line := range strings.Lines(string(s.process.Log())) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

// waitLog waits for so many log lines that hold all parts.
func (s *server) waitLog(n int, parts ...string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d log lines with %q", n, parts), func() bool { return s.logged(parts...) >= n })
}

func (s *server) eventually(what string, done func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := testdaemon.Poll(ctx, func() (bool, error) { return done(), nil }); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// run runs one command with the server's configuration to its end.
func (s *server) run(args ...string) (output string, exitCode int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.program, append([]string{"--config", s.config()}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// mustRun is run of what has to succeed.
func (s *server) mustRun(args ...string) (output string) {
	s.t.Helper()
	output, code := s.run(args...)
	if code != 0 {
		s.t.Fatalf("%s: exit %d\n%s", strings.Join(args, " "), code, output)
	}
	return output
}

// key is the key that the tools would have an address attach now.
func (s *server) key(address string) string {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), s.program, "--config", s.config(), "key", address).Output()
	must(s.t, err)
	return strings.TrimSpace(string(out))
}

// An asker is a client of a server.
type asker struct {
	net.Conn
	in *bufio.Reader
}

// dialFrom connects from one of loopback's many addresses.
func (s *server) dialFrom(ip string) (*asker, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: patience}
	c, err := d.DialContext(s.t.Context(), "tcp", s.addr())
	if err != nil {
		return nil, err
	}
	return &asker{c, bufio.NewReader(c)}, c.SetDeadline(time.Now().Add(patience))
}

// ask asks one question and returns the line in reply.
func (a *asker) ask(address, key string) (string, error) {
	if _, err := fmt.Fprintf(a, "VERIFY 7 %s %s\r\n", address, key); err != nil {
		return "", err
	}
	line, err := a.in.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err
}

// verdict is what the server says to a client that has just come.
func (s *server) verdict(address, key string) wire.Verdict {
	s.t.Helper()
	a, err := s.dialFrom("127.0.0.1")
	must(s.t, err)
	defer a.Close()
	line, err := a.ask(address, key)
	must(s.t, err)
	reply, err := wire.ParseReply(line)
	must(s.t, err)
	return reply.Verdict
}

// says fails the test unless that is the verdict.
func (s *server) says(want wire.Verdict, address, key string) {
	s.t.Helper()
	if got := s.verdict(address, key); got != want {
		s.t.Errorf("%s: %s, want %s", address, got, want)
	}
}
