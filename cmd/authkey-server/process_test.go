package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
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

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/wire"
)

// timeout is how long a test waits for what must come.
const timeout = 2 * time.Minute

// eventually polls until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := testdaemon.Poll(ctx, func() (bool, error) { return done(), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// A syncBuffer is what a process has written so far.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A process is the program as a process of its own.
type process struct {
	*exec.Cmd
	t    *testing.T
	log  syncBuffer // standard error
	done chan struct{}
}

// programCommand is the program with the environment given on top of the test's.
func programCommand(env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(append(os.Environ(), asProgram+"=1"), env...)
	// Should the test be killed, the kernel ends the process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a process that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd, t: t, done: make(chan struct{})}
	cmd.Stderr = &p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // its outcome is in ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

// serveCommand is authkey-server serve.
func serveCommand(config string, env ...string) *exec.Cmd {
	return programCommand(env, os.Args[0], "serve", "--config", config)
}

// startServing starts the server and waits until it has said that it serves.
func startServing(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := start(t, cmd)
	p.waitLog(`msg="domain is served" domain=example.com`)
	return p
}

// waitLog waits for a line of the log that holds all parts.
func (p *process) waitLog(parts ...string) {
	p.t.Helper()
	p.waitLogs(1, parts...)
}

// waitLogs waits for n such lines.
func (p *process) waitLogs(n int, parts ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), timeout)
	defer cancel()
	err := testdaemon.Poll(ctx, func() (bool, error) {
		ended := p.ended() // before the log is read: it may be the last line
		found := 0
		for line := range strings.Lines(p.log.String()) {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
				found++
			}
		}
		if found < n && ended {
			return false, errors.New("the process ended")
		}
		return found >= n, nil
	})
	if err != nil {
		p.t.Fatalf("%d log lines with %q: %v in\n%s", n, parts, err, p.log.String())
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the end and returns the exit code; -1 for a signal.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.ProcessState.ExitCode()
	case <-time.After(timeout):
		p.t.Fatalf("does not end\n%s", p.log.String())
		return -1
	}
}

// freePort is HOST:PORT of a free port on loopback.
func freePort(t *testing.T) string {
	t.Helper()
	port, err := testdaemon.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// A client speaks the protocol with a server.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string, conf *tls.Config) *client {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		nc = tls.Client(nc, conf)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(timeout))
	return &client{nc, bufio.NewReader(nc)}
}

// ask asks one question and returns the reply.
func (c *client) ask(t *testing.T, seq uint64, address, key string) wire.Reply {
	t.Helper()
	if _, err := fmt.Fprintf(c, "VERIFY %d %s %s\r\n", seq, address, key); err != nil {
		t.Fatal(err)
	}
	return c.reply(t)
}

func (c *client) reply(t *testing.T) wire.Reply {
	t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	reply, err := wire.ParseReply(strings.TrimRight(line, "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// verdict is what a server says of an address and a key on a connection of its own.
func verdict(t *testing.T, addr, address, key string) wire.Verdict {
	t.Helper()
	return dial(t, addr, nil).ask(t, 1, address, key).Verdict
}

// writePair writes a fresh self-signed pair for 127.0.0.1 and returns its
// certificate. The files are replaced, as ACME clients do.
func writePair(t *testing.T, dir string, serial int64) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	replaceFile(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	writeFile(t, path+".tmp", content, 0o600)
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}
