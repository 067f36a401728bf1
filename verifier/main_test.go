package verifier

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startDNS starts a name server that has the records, in zone file form.
func startDNS(t testing.TB, records ...string) *testdns.Server {
	t.Helper()
	s, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Set(records...); err != nil {
		t.Fatal(err)
	}
	return s
}

// startSilentDNS starts a name server that never answers.
func startSilentDNS(t testing.TB) *testdns.Server {
	t.Helper()
	s := startDNS(t)
	s.Behave("*", testdns.Silent())
	return s
}

// An authServer is an AS on loopback whose connections run a script.
type authServer struct {
	port  uint16
	conns atomic.Int64
	asked atomic.Int64 // VERIFY lines
}

// A session is one connection of an authServer; n counts them from 0.
type session struct {
	net.Conn
	server *authServer
	r      *bufio.Reader
	n      int
	done   <-chan struct{} // the test is over
}

// next returns the next request, ok false at the end of the stream.
func (s *session) next() (wire.Request, bool) {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return wire.Request{}, false
	}
	req, err := wire.ParseRequest(strings.TrimSuffix(line, "\r\n"))
	if err != nil {
		panic(err) // our own client never sends one
	}
	s.server.asked.Add(1)
	return req, true
}

func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.Conn, format, args...)
}

func (s *session) answer(req wire.Request, verdict wire.Verdict) {
	s.say("VERIFY_REPLY %d %s %s\r\n", req.Seq, req.Address, verdict)
}

func startAS(t testing.TB, config *tls.Config, script func(*session)) *authServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &authServer{port: uint16(l.Addr().(*net.TCPAddr).Port)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(s.conns.Add(1)) - 1
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				stream := c
				if config != nil {
					stream = tls.Server(c, config)
				}
				defer stream.Close()
				script(&session{Conn: stream, server: s, r: bufio.NewReader(stream), n: n, done: ctx.Done()})
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return s
}

// record is an AS record for the server under its address.
func (s *authServer) record(tags string) string {
	return fmt.Sprintf(`"AS=127.0.0.1:%d%s"`, s.port, tags)
}

// honest answers VALIDKEY to keys that begin with "good", INVALIDKEY to others.
func honest(s *session) {
	for {
		req, ok := s.next()
		if !ok {
			return
		}
		if strings.HasPrefix(req.Key.Reveal(), "good") {
			s.answer(req, wire.ValidKey)
		} else {
			s.answer(req, wire.InvalidKey)
		}
	}
}

// hold reads for ever and says nothing.
func hold(s *session) {
	for {
		if _, ok := s.next(); !ok {
			return
		}
	}
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// patience is how long tests wait for what comes: longer than the busiest machine
// takes. soon is the timeout of what never comes.
const (
	patience = 30 * time.Second
	soon     = 400 * time.Millisecond
)

// options are a way to loopback, and timeouts that nothing exceeds which answers.
func options(resolver string) Options {
	return Options{
		Resolvers:      []netip.AddrPort{netip.MustParseAddrPort(resolver)},
		DNSTimeout:     patience,
		Timeout:        2 * patience,
		ConnectTimeout: patience,
		ReplyTimeout:   patience,
		AllowNetworks:  []netip.Prefix{loopback},
		Cache:          NewCache(1000),
	}
}

func startVerifier(t testing.TB, o Options) *Verifier {
	t.Helper()
	v := New(o)
	t.Cleanup(v.Close)
	return v
}

func address(t testing.TB, s string) wire.Address {
	t.Helper()
	a, err := wire.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func query(t testing.TB, addr, key string) Query {
	t.Helper()
	return Query{Address: address(t, addr), Key: wire.JoinKeys(key)}
}

// check verifies and compares what matters.
func check(t *testing.T, v *Verifier, q Query, status Status, reason Reason) Result {
	t.Helper()
	r := v.Verify(context.Background(), q)
	if r.Status != status || r.Reason != reason {
		t.Errorf("%v: got %s/%s, want %s/%s", q.Address, r.Status, r.Reason, status, reason)
	}
	return r
}

// eventually polls for what another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// An authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// config is a server's, with a certificate for a host name or an IP address that
// ends at a time.
func (a *authority) config(t testing.TB, host string, ends time.Time) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: ends,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// connections returns the connections to all AS.
func connections(v *Verifier) (conns []*conn) {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	for _, t := range v.pool.targets {
		t.mu.Lock()
		conns = append(conns, t.conns...)
		t.mu.Unlock()
	}
	return conns
}

// asked returns how many questions were put on the connections.
func asked(v *Verifier) (n uint64) {
	for _, c := range connections(v) {
		c.mu.Lock()
		n += c.sent
		c.mu.Unlock()
	}
	return n
}

// failures returns how many failures in a row count against all AS.
func failures(v *Verifier) (n int) {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	for _, t := range v.pool.targets {
		t.breaker.mu.Lock()
		n += t.breaker.failures
		t.breaker.mu.Unlock()
	}
	return n
}
