package authserver

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
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time of every test's keys: four hours before an epoch's end.
var now = time.Unix(20000*86400+20*3600, 0)

func clock() time.Time { return now }

// testDomain opens example.com, with the addresses given, or without a list that can be read.
func testDomain(t testing.TB, name string, addresses ...string) *keyring.Domain {
	t.Helper()
	dir := t.TempDir()
	secret, list := filepath.Join(dir, "secret"), filepath.Join(dir, "list")
	if _, err := keyring.CreateSecret(secret); err != nil {
		t.Fatal(err)
	}
	d, err := keyring.Open(keyring.Config{
		Form:       keyring.Form{Domain: name, Subaddress: "+"},
		SecretFile: secret,
		Addresses:  "file:" + list,
		AVT:        keyring.DefaultAVT,
		Grace:      keyring.DefaultGrace,
		TTL:        keyring.DefaultTTL,
	})
	if err != nil {
		t.Fatal(err)
	}
	if addresses == nil {
		return d
	}
	if err := os.WriteFile(list, []byte(strings.Join(addresses, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	return d
}

// keyOf returns the key of an address as it was some time ago.
func keyOf(t testing.TB, d *keyring.Domain, mailbox string, ago time.Duration) string {
	t.Helper()
	a, err := wire.ParseAddress(mailbox)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := d.KeyAt(a, now.Add(-ago))
	if err != nil {
		t.Fatal(err)
	}
	return issued.Key.Reveal()
}

// testLimits are the defaults without a rate.
func testLimits() Limits {
	l := DefaultLimits()
	l.PerClient = Rate{}
	return l
}

// A syncBuffer takes log lines from several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func logTo(b io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// listen starts s on a free loopback port, under TLS where conf is given, and
// shuts it down at the end of the test.
func listen(t testing.TB, s *Server, conf *tls.Config) string {
	t.Helper()
	return listenTLS(t, s, "127.0.0.1:0", conf)
}

// listenOn is listen on another address.
func listenOn(t testing.TB, s *Server, address string) string {
	t.Helper()
	return listenTLS(t, s, address, nil)
}

func listenTLS(t testing.TB, s *Server, at string, conf *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return address
}

// A peer is a client that speaks in lines. Everything it does has a deadline.
type peer struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &peer{Conn: nc, t: t, r: bufio.NewReader(nc)}
}

func dial(t testing.TB, address string, conf *tls.Config) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		nc = tls.Client(nc, conf)
	}
	return newPeer(t, nc)
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) line() string {
	p.t.Helper()
	line, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Fatalf("read %q: %v", line, err)
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		p.t.Fatalf("line %q has no CRLF", line)
	}
	return text
}

// wantEnd fails unless the server has closed the connection in good order.
func (p *peer) wantEnd() {
	p.t.Helper()
	if c, err := p.r.ReadByte(); !errors.Is(err, io.EOF) {
		p.t.Fatalf("read %q, %v; want the end", c, err)
	}
}

// selfSigned returns the two sides' TLS configurations.
func selfSigned(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "as.example.com"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"as.example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return server, &tls.Config{RootCAs: roots, ServerName: "as.example.com"}
}

// waitFor polls until the condition holds, for some seconds at most.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		case <-poll.C:
		}
	}
}
