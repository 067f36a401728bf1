package authserver

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// Every answer of the protocol, over TCP and over TLS.
func TestAnswers(t *testing.T) {
	d := testDomain(t, "example.com", "bob", "carol gen=2", `"john doe"`)
	noList := testDomain(t, "nolist.example")
	const day = 24 * time.Hour
	bob, bobOld := keyOf(t, d, "bob@example.com", 0), keyOf(t, d, "bob@example.com", 5*day)
	bobEnded := keyOf(t, d, "bob@example.com", 7*day)
	john := keyOf(t, d, `"john doe"@example.com`, 0)
	tests := []struct{ name, send, want string }{
		{"valid", "VERIFY 7 bob@example.com " + bob, "VERIFY_REPLY 7 bob@example.com VALIDKEY ttl=3600"},
		{"valid, greatest number", "VERIFY 18446744073709551615 bob@example.com " + bob, "VERIFY_REPLY 18446744073709551615 bob@example.com VALIDKEY ttl=3600"},
		{"valid in its grace", "VERIFY 7 bob@example.com " + bobOld, "VERIFY_REPLY 7 bob@example.com VALIDKEY ttl=3600"},
		{"ended", "VERIFY 7 bob@example.com " + bobEnded, "VERIFY_REPLY 7 bob@example.com INVALIDKEY"},
		{"unknown address", "VERIFY 7 dave@example.com " + bob, "VERIFY_REPLY 7 dave@example.com INVALIDKEY"},
		{"another's key", "VERIFY 7 carol@example.com " + bob, "VERIFY_REPLY 7 carol@example.com INVALIDKEY"},
		{"no key of ours", "VERIFY 7 bob@example.com x", "VERIFY_REPLY 7 bob@example.com INVALIDKEY"},
		{"longest key", "VERIFY 7 bob@example.com " + strings.Repeat("x", 512), "VERIFY_REPLY 7 bob@example.com INVALIDKEY"},
		{"sub-address, echoed as sent", "VERIFY 7 BOB+x@Example.COM " + bob, "VERIFY_REPLY 7 BOB+x@Example.COM VALIDKEY ttl=3600"},
		{"encoded, echoed as sent", "VERIFY 7 \"john%20doe\"@example.com " + john, "VERIFY_REPLY 7 \"john%20doe\"@example.com VALIDKEY ttl=3600"},
		{"named values", "VERIFY 7 bob@example.com " + bob + " x-new=1 rcpt=", "VERIFY_REPLY 7 bob@example.com VALIDKEY ttl=3600"},
		{"not served", "VERIFY 7 bob@example.org " + bob, "ERROR 7 notserved"},
		{"domain literal", "VERIFY 7 bob@[192.0.2.1] " + bob, "ERROR 7 notserved"},
		{"bad domain", "VERIFY 7 bob@" + strings.Repeat("a", 64) + ".example " + bob, "ERROR 7 notserved"},
		{"no list", "VERIFY 7 bob@nolist.example " + bob, "VERIFY_REPLY 7 bob@nolist.example TEMPFAIL"},
		{"no domain", "VERIFY 7 bob " + bob, "ERROR 7 syntax address"},
		{"bad encoding", "VERIFY 7 bob%zz@example.com " + bob, "ERROR 7 syntax address"},
		{"no key", "VERIFY 7 bob@example.com", "ERROR 7 syntax"},
		{"key too long", "VERIFY 7 bob@example.com " + strings.Repeat("x", 513), "ERROR 7 syntax"},
		{"two spaces", "VERIFY 7 bob@example.com  " + bob, "ERROR 7 syntax"},
		{"trailing space", "VERIFY 7 bob@example.com " + bob + " ", "ERROR 7 syntax"},
		{"bad named value", "VERIFY 7 bob@example.com " + bob + " RCPT=x", "ERROR 7 syntax"},
		{"control character", "VERIFY 7 bo\x01b@example.com " + bob, "ERROR 7 syntax"},
		{"CR inside", "VERIFY 7 bob@example.com " + bob + "\r", "ERROR 7 syntax"},
		{"number 0", "VERIFY 0 bob@example.com " + bob, "ERROR 0 syntax"},
		{"leading zero", "VERIFY 07 bob@example.com " + bob, "ERROR 0 syntax"},
		{"number too great", "VERIFY 18446744073709551616 bob@example.com " + bob, "ERROR 0 syntax"},
		{"lower case", "verify 7 bob@example.com " + bob, "ERROR 0 syntax"},
		{"empty line", "", "ERROR 0 syntax"},
		{"another protocol", "GET / HTTP/1.1", "ERROR 0 syntax"},
	}
	var logged syncBuffer
	options := Options{Domains: []*keyring.Domain{d, noList}, Limits: testLimits(), Logger: logTo(&logged), Now: clock}
	serverTLS, clientTLS := selfSigned(t)
	for _, transport := range []struct {
		name           string
		server, client *tls.Config
	}{{"tcp", nil, nil}, {"tls", serverTLS, clientTLS}} {
		t.Run(transport.name, func(t *testing.T) {
			address := listen(t, New(options), transport.server)
			one := dial(t, address, transport.client)
			var all, replies strings.Builder
			for i, tt := range tests {
				if i < maxBadLines { // one by one on one connection, with CRLF
					one.send(tt.send + "\r\n")
					if got := one.line(); got != tt.want {
						t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
					}
				}
				if !strings.HasPrefix(tt.send, "VERIFY 7 bob@example.com "+bob+"\r") { // which a bare LF makes right
					all.WriteString(tt.send + "\n")
					replies.WriteString(tt.want + "\r\n")
				}
			}
			// And all together, ended by LF, by a client that then has no more to say.
			p := dial(t, address, transport.client)
			p.send(all.String())
			if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(p.r)
			if err != nil || string(got) != replies.String() {
				t.Errorf("%v; got\n%swant\n%s", err, got, replies.String())
			}
		})
	}
	for _, key := range []string{bob, bobOld, bobEnded, john} {
		if strings.Contains(logged.String(), key) {
			t.Errorf("the log shows a key: %s", logged.String())
		}
	}
	if n := strings.Count(logged.String(), "\n"); n != 2 || strings.Count(logged.String(), "nolist.example") != 2 {
		t.Errorf("want a line of each server about the list, got:\n%s", logged.String())
	}
}

func TestTooLong(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	bob := keyOf(t, d, "bob@example.com", 0)
	fit := "VERIFY 7 bob@example.com " + bob + " x="
	fit += strings.Repeat("y", wire.MaxLine-2-len(fit))
	const valid = "VERIFY_REPLY 7 bob@example.com VALIDKEY ttl=3600"
	tests := []struct {
		name, send string
		want       []string
		end        bool
	}{
		{"longest", fit + "\r\n", []string{valid}, false},
		{"longest, with LF", fit + "y\n", []string{valid}, false},
		{"one more", fit + "y\r\n", []string{"ERROR 7 toolong"}, true},
		{"one more, with LF", fit + "yy\n", []string{"ERROR 7 toolong"}, true},
		{"no end", fit + "yyy", []string{"ERROR 7 toolong"}, true},
		{"no sense", strings.Repeat("z", 3*wire.MaxLine), []string{"ERROR 0 toolong"}, true},
		{"number only", "VERIFY 7 " + strings.Repeat("z", wire.MaxLine), []string{"ERROR 7 toolong"}, true},
		{"digits only", "VERIFY " + strings.Repeat("1", wire.MaxLine), []string{"ERROR 0 toolong"}, true},
		{"after a good one", fit + "\r\n" + fit + "yyy\r\n" + fit, []string{valid, "ERROR 7 toolong"}, true},
		{"a lot", fit + "\n" + strings.Repeat("z", 100<<10), []string{valid, "ERROR 0 toolong"}, true},
	}
	s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
	address := listen(t, s, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := dial(t, address, nil)
			if _, err := io.WriteString(p, tt.send); err != nil && len(tt.send) < 64<<10 {
				t.Fatal(err) // beyond that the server may have stopped listening
			}
			for _, want := range tt.want {
				if got := p.line(); got != want {
					t.Fatalf("%q, want %q", got, want)
				}
			}
			if tt.end {
				p.wantEnd()
			}
		})
	}
	if got := s.Stats(); got.TooLong != 8 || got.Valid != 4 {
		t.Errorf("%+v", got)
	}
}

// Thousands of questions in flight, each answered once, by its number.
func TestPipelined(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	good := keyOf(t, d, "bob@example.com", 0)
	serverTLS, clientTLS := selfSigned(t)
	const n = 20_000
	for _, conf := range []*tls.Config{nil, serverTLS} {
		s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
		client := clientTLS
		if conf == nil {
			client = nil
		}
		p := dial(t, listen(t, s, conf), client)
		sent := make(chan error, 1)
		go func() {
			var b []byte
			for seq := 1; seq <= n; seq++ {
				b = append(b, "VERIFY "+strconv.Itoa(seq)+" bob@example.com "...)
				if seq%3 == 0 {
					b = append(b, "wrong"...)
				} else {
					b = append(b, good...)
				}
				b = append(b, "\r\n"...)
			}
			_, err := p.Write(b)
			sent <- err
		}()
		seen := make(map[uint64]bool)
		for range n {
			reply, err := wire.ParseReply(p.line())
			if err != nil {
				t.Fatal(err)
			}
			want := wire.ValidKey
			if reply.Seq%3 == 0 {
				want = wire.InvalidKey
			}
			if seen[reply.Seq] || reply.Verdict != want || reply.Address != "bob@example.com" {
				t.Fatalf("%+v, want %s", reply, want)
			}
			seen[reply.Seq] = true
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if got := s.Stats(); got.Valid+got.Invalid != n {
			t.Errorf("%+v", got)
		}
	}
}

func TestBadLinesEndTheConnection(t *testing.T) {
	s := New(Options{Limits: testLimits(), Now: clock})
	p := dial(t, listen(t, s, nil), nil)
	p.send(strings.Repeat("VERIFY 5 x\r\n", 100)) // bad, but whose it is can be told
	for range 100 {
		if got := p.line(); got != "ERROR 5 syntax" {
			t.Fatal(got)
		}
	}
	p.send(strings.Repeat("EHLO example.com\r\n", 100))
	for range maxBadLines {
		if got := p.line(); got != "ERROR 0 syntax" {
			t.Fatal(got)
		}
	}
	p.wantEnd()
}

func TestConnectionLimit(t *testing.T) {
	var logged syncBuffer
	limits := testLimits()
	limits.Connections = 2
	s := New(Options{Limits: limits, Logger: logTo(&logged)})
	address := listen(t, s, nil)
	first, second := dial(t, address, nil), dial(t, address, nil)
	waitFor(t, "two connections", func() bool { return s.Stats().Open == 2 })
	for range 5 {
		p := dial(t, address, nil)
		if got := p.line(); got != "ERROR 0 busy too many connections" {
			t.Errorf("%q", got)
		}
		p.wantEnd()
	}
	if got := s.Stats(); got.Refused != 5 || got.Connections != 2 {
		t.Errorf("%+v", got)
	}
	if n := strings.Count(logged.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, logged.String())
	}
	first.Close()
	waitFor(t, "room again", func() bool { return s.Stats().Open == 1 })
	for _, p := range []*peer{second, dial(t, address, nil)} {
		p.send("x\n")
		if got := p.line(); got != "ERROR 0 syntax" {
			t.Errorf("%q", got)
		}
	}
}

// Who holds most of the connections gives one up for another client, as long as he
// has more than that one.
func TestNobodyTakesAllConnections(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	serverTLS, clientTLS := selfSigned(t)
	for _, transport := range []struct {
		name           string
		server, client *tls.Config
	}{{"tcp", nil, nil}, {"tls", serverTLS, clientTLS}} {
		t.Run(transport.name, func(t *testing.T) {
			limits := testLimits()
			limits.Connections = 10
			s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
			address := listen(t, s, transport.server)
			from := func(ip string) *peer {
				t.Helper()
				nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext(t.Context(), "tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				return newPeer(t, nc)
			}
			for range 10 { // which say nothing, not even hello
				from("127.0.0.2")
			}
			waitFor(t, "connections", func() bool { return s.Stats().Open == 10 })
			var others []*peer
			for range 5 {
				p := from("127.0.0.3")
				if transport.client != nil {
					p = newPeer(t, tls.Client(p.Conn, transport.client))
				}
				others = append(others, p)
				for _, p := range others {
					p.send("VERIFY 1 bob@example.com x\n")
					if got := p.line(); got != "VERIFY_REPLY 1 bob@example.com INVALIDKEY" {
						t.Errorf("%q", got)
					}
				}
			}
			waitFor(t, "five connections each", func() bool {
				s.clients.mu.Lock()
				defer s.clients.mu.Unlock()
				for _, c := range s.clients.all {
					if c.conns.Load() != 5 {
						return false
					}
				}
				return true
			})
			for _, ip := range []string{"127.0.0.3", "127.0.0.2"} {
				p := from(ip)
				if _, err := io.ReadAll(p); err != nil {
					t.Errorf("one more of %s: %v", ip, err)
				}
			}
			if got := s.Stats(); got.Open != 10 || got.Evicted != 5 || got.Refused != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A peer that does not begin with TLS, or goes away, costs its connection only.
func TestHandshakeFails(t *testing.T) {
	serverTLS, clientTLS := selfSigned(t)
	s := New(Options{Limits: testLimits(), Now: clock})
	address := listen(t, s, serverTLS)
	p := dial(t, address, nil)
	p.send("VERIFY 1 bob@example.com x\r\n")
	if _, err := io.ReadAll(p.r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	dial(t, address, nil).Close()
	waitFor(t, "two failures", func() bool { return s.Stats().Handshakes == 2 })
	p = dial(t, address, clientTLS)
	p.send("VERIFY 1 bob@example.com x\r\n")
	if got := p.line(); got != "ERROR 1 notserved" {
		t.Error(got)
	}
}

// A listener that fails in ways which pass, then works, then fails for good.
type faultyListener struct {
	net.Listener
	faults chan error
}

func (l *faultyListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.faults:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	default:
		return l.Listener.Accept()
	}
}

func TestAcceptRecovers(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &faultyListener{Listener: inner, faults: make(chan error, 10)}
	for _, err := range []error{syscall.EMFILE, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS} {
		l.faults <- err
	}
	var logged syncBuffer
	s := New(Options{Limits: testLimits(), Logger: logTo(&logged)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	p := dial(t, inner.Addr().String(), nil)
	p.send("x\n")
	if got := p.line(); got != "ERROR 0 syntax" {
		t.Error(got)
	}
	if got := s.Stats(); got.AcceptFailures != 4 || strings.Count(logged.String(), "\n") != 1 {
		t.Errorf("%+v, log %s", got, logged.String())
	}
	l.faults <- syscall.EBADF
	dial(t, inner.Addr().String(), nil) // lets the Accept before return
	if err := <-served; !errors.Is(err, syscall.EBADF) {
		t.Errorf("Serve: %v", err)
	}
	p.send("x\n") // the connections go on
	if got := p.line(); got != "ERROR 0 syntax" {
		t.Error(got)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A server that cannot accept waits for a second, and ends meanwhile if it is to.
func TestShutdownWhileAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &faultyListener{Listener: newPipeListener(), faults: make(chan error, 100)}
		for range cap(l.faults) {
			l.faults <- syscall.EMFILE
		}
		s := New(Options{Limits: testLimits()})
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		time.Sleep(10*maxAcceptDelay + maxAcceptDelay/2)
		// 5 ms, twice as much each time, and a second from the ninth on.
		if got := s.Stats().AcceptFailures; got < 15 || got > 20 {
			t.Errorf("%d failures in %s", got, 10*maxAcceptDelay)
		}
		begun := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil || time.Since(begun) > 0 {
			t.Errorf("Serve: %v after %s", err, time.Since(begun))
		}
	})
}

func TestSetDomains(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	s := New(Options{Limits: testLimits(), Now: clock})
	p := dial(t, listen(t, s, nil), nil)
	for _, step := range []struct {
		domains []*keyring.Domain
		want    string
	}{
		{nil, "ERROR 1 notserved"},
		{[]*keyring.Domain{d}, "VERIFY_REPLY 1 bob@example.com VALIDKEY ttl=3600"},
		{[]*keyring.Domain{testDomain(t, "example.com", "carol")}, "VERIFY_REPLY 1 bob@example.com INVALIDKEY"},
	} {
		s.SetDomains(step.domains)
		p.send("VERIFY 1 bob@example.com " + keyOf(t, d, "bob@example.com", 0) + "\n")
		if got := p.line(); got != step.want {
			t.Errorf("%q, want %q", got, step.want)
		}
	}
}

// A fault of ours ends one connection, and its log line shows no key.
func TestPanicEndsOneConnection(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	bob := keyOf(t, d, "bob@example.com", 0)
	var logged syncBuffer
	faulty := make(chan any, 1)
	s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Logger: logTo(&logged), Now: func() time.Time {
		select {
		case v := <-faulty:
			panic(v)
		default:
			return now
		}
	}})
	address := listen(t, s, nil)
	other := dial(t, address, nil)
	other.send("VERIFY 1 bob@example.com " + bob + "\n")
	other.line()
	for _, v := range []any{"fault with " + bob, errors.New("fault with " + bob)} {
		faulty <- v
		p := dial(t, address, nil)
		p.send("VERIFY 1 bob@example.com " + bob + "\n")
		p.wantEnd()
	}
	other.send("VERIFY 2 bob@example.com " + bob + "\n")
	if got := other.line(); !strings.Contains(got, "VALIDKEY") {
		t.Error(got)
	}
	waitFor(t, "one connection", func() bool { return s.Stats().Open == 1 })
	if got := s.Stats().Panics; got != 2 {
		t.Errorf("%d panics", got)
	}
	if text := logged.String(); strings.Contains(text, bob) || strings.Count(text, "panic while serving") != 2 || !strings.Contains(text, "conn.go") {
		t.Errorf("log: %s", text)
	}
}

// What an idle connection costs, both ends counted.
func TestMemoryOfAnIdleConnection(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	bob := keyOf(t, d, "bob@example.com", 0)
	serverTLS, clientTLS := selfSigned(t)
	used := func() uint64 {
		runtime.GC()
		runtime.GC() // stacks shrink, pools are emptied
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	for _, tt := range []struct {
		name           string
		server, client *tls.Config
		most           uint64
	}{{"tcp", nil, nil, 40 << 10}, {"tls", serverTLS, clientTLS, 90 << 10}} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
			address := listen(t, s, tt.server)
			before := used()
			const n = 200
			var peers []net.Conn
			for range n {
				nc, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				if tt.client != nil {
					nc = tls.Client(nc, tt.client)
				}
				defer nc.Close()
				peers = append(peers, nc)
				if _, err := io.WriteString(nc, "VERIFY 1 bob@example.com "+bob+"\r\n"); err != nil {
					t.Fatal(err)
				}
				var reply [100]byte
				if _, err := nc.Read(reply[:]); err != nil {
					t.Fatal(err)
				}
			}
			each := (used() - before) / n
			t.Logf("%d octets", each)
			if each > tt.most {
				t.Errorf("%d octets a connection, want %d at most", each, tt.most)
			}
			runtime.KeepAlive(peers)
		})
	}
}
