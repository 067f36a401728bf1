package authserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/keyring"
)

// A pipeListener hands out ends of pipes, which live in a bubble's time.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// bubble runs a test in its own time, with a server, under TLS where conf is given, and
// one connection to it.
func bubble(t *testing.T, d *keyring.Domain, conf *tls.Config, test func(t *testing.T, s *Server, client net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Domains: []*keyring.Domain{d}, Limits: testLimits(), Now: clock})
		connect := listenInBubble(t, s, conf)
		client := connect()
		test(t, s, client)
		client.Close()
	})
}

// listenInBubble starts s in a bubble, under TLS where conf is given, and shuts it down
// at the end. Each call of connect is a client that comes.
func listenInBubble(t *testing.T, s *Server, conf *tls.Config) (connect func() net.Conn) {
	l := newPipeListener()
	var listener net.Listener = l
	if conf != nil {
		listener = tls.NewListener(l, conf)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		client, server := net.Pipe()
		l.conns <- server
		return client
	}
}

// end reads until the server closes, and returns what it read and how long that took.
func end(t *testing.T, c net.Conn) (string, time.Duration) {
	t.Helper()
	begin := time.Now()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(got), time.Since(begin)
}

func TestIdleTimeout(t *testing.T) {
	bubble(t, testDomain(t, "example.com", "bob"), nil, func(t *testing.T, s *Server, c net.Conn) {
		if got, took := end(t, c); got != "" || took != 120*time.Second {
			t.Errorf("%q after %v", got, took)
		}
	})
}

// Whole lines keep a connection open; pieces of one do not.
func TestALineMustArriveInTime(t *testing.T) {
	bubble(t, testDomain(t, "example.com", "bob"), nil, func(t *testing.T, s *Server, c net.Conn) {
		reply := make([]byte, 100)
		for range 5 {
			<-time.After(119 * time.Second)
			io.WriteString(c, "x\n")
			if n, err := c.Read(reply); err != nil || string(reply[:n]) != "ERROR 0 syntax\r\n" {
				t.Fatalf("%q, %v", reply[:n], err)
			}
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for range 100 {
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
				<-time.After(10 * time.Second)
			}
		}()
		if got, took := end(t, c); got != "" || took != 120*time.Second {
			t.Errorf("%q after %v", got, took)
		}
		<-stopped
	})
}

// A handshake has its own time, in however many pieces it comes.
func TestAHandshakeMustEndInTime(t *testing.T) {
	conf, _ := selfSigned(t)
	bubble(t, testDomain(t, "example.com", "bob"), conf, func(t *testing.T, s *Server, c net.Conn) {
		begin := time.Now()
		hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 500)
		var err error
		for i := 0; err == nil && i < len(hello); i++ {
			_, err = io.WriteString(c, hello[i:i+1])
			<-time.After(time.Second)
		}
		if took := time.Since(begin); err == nil || took > handshakeTimeout+2*time.Second || s.Stats().Handshakes != 1 {
			t.Errorf("%v after %v, %+v", err, took, s.Stats())
		}
	})
}

// A client that asks and does not read the replies is left.
func TestRepliesMustBeRead(t *testing.T) {
	bubble(t, testDomain(t, "example.com", "bob"), nil, func(t *testing.T, s *Server, c net.Conn) {
		begin := time.Now()
		var err error
		for err == nil {
			_, err = io.WriteString(c, strings.Repeat("VERIFY 1 bob@example.com x\n", 100))
		}
		if took := time.Since(begin); !errors.Is(err, io.ErrClosedPipe) || took != writeTimeout {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// Shutdown waits for a client that does not read until its context ends.
func TestShutdownEndsIdleConnections(t *testing.T) {
	bubble(t, testDomain(t, "example.com", "bob"), nil, func(t *testing.T, s *Server, c net.Conn) {
		synctest.Wait()
		begin := time.Now()
		if err := s.Shutdown(t.Context()); err != nil || time.Since(begin) != drainTime {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestOutstanding(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	for _, limit := range []int{1, 3, 1000} {
		w := &scriptedConn{input: strings.Repeat("VERIFY 1 bob@example.com x\n", 10)}
		limits := testLimits()
		limits.Outstanding = limit
		s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
		w.run(s)
		if want := (10 + limit - 1) / limit; w.writes != want || strings.Count(w.output.String(), "\n") != 10 {
			t.Errorf("limit %d: %d writes, want %d: %q", limit, w.writes, want, w.output.String())
		}
	}
}

func TestClientPrefix(t *testing.T) {
	tests := []struct{ addr, want string }{
		{"192.0.2.1:5", "192.0.2.1/32"},
		{"[::ffff:192.0.2.1]:5", "192.0.2.1/32"},
		{"[2001:db8:1:2:3:4:5:6]:5", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:5", "fe80::/64"},
	}
	for _, tt := range tests {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.addr))
		if got := clientPrefix(addr).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.addr, got, tt.want)
		}
	}
	for _, addr := range []net.Addr{&net.UnixAddr{Name: "x"}, &net.TCPAddr{}} {
		if got := clientPrefix(addr); got.IsValid() {
			t.Errorf("%v: %v", addr, got)
		}
	}
}

// One client may ask so much at once and so much in time, whatever connections it
// asks on; others do not feel it.
func TestRatePerClient(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	var clockNow atomic.Pointer[time.Time]
	clockNow.Store(&now)
	limits := testLimits()
	limits.PerClient = Rate{Questions: 10, Per: time.Minute}
	s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: func() time.Time { return *clockNow.Load() }})
	ask := func(n int, from string) (answered, busy int) {
		c := &scriptedConn{remote: from, input: strings.Repeat("VERIFY 5 bob@example.com x\n", n)}
		c.run(s)
		out := c.output.String()
		return strings.Count(out, "VERIFY_REPLY 5 bob@example.com INVALIDKEY\r\n"), strings.Count(out, "ERROR 5 busy\r\n")
	}
	steps := []struct {
		after          time.Duration
		from           string
		n              int
		answered, busy int
	}{
		{0, "[2001:db8::1]:1", 8, 8, 0},
		{0, "[2001:db8::2]:1", 8, 2, 6}, // the same /64, on a connection of its own
		{0, "[2001:db8:0:1::2]:1", 12, 10, 2},
		{0, "192.0.2.1:1", 11, 10, 1},
		{6 * time.Second, "192.0.2.1:2", 3, 1, 2},
		{time.Hour, "192.0.2.1:3", 12, 10, 2},
	}
	at := now
	for i, step := range steps {
		at = at.Add(step.after)
		clockNow.Store(&at)
		if answered, busy := ask(step.n, step.from); answered != step.answered || busy != step.busy {
			t.Errorf("step %d: %d answered, %d busy, want %d, %d", i, answered, busy, step.answered, step.busy)
		}
	}
	if got := s.Stats().Busy; got != 6+2+1+2+2 {
		t.Errorf("%d busy", got)
	}
}

// New limits hold for connections and clients that are there already.
func TestSetLimits(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	limits := testLimits()
	limits.Connections = 3
	s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
	addr := listen(t, s, nil)
	ask := func(p *peer, want string) {
		t.Helper()
		p.send("VERIFY 5 bob@example.com x\n")
		if got := p.line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	const answered, busy = "VERIFY_REPLY 5 bob@example.com INVALIDKEY", "ERROR 5 busy"
	one, two := dial(t, addr, nil), dial(t, addr, nil)
	ask(one, answered)
	ask(two, answered)

	limits.Connections = 1
	s.SetLimits(limits)
	if got := dial(t, addr, nil).line(); got != "ERROR 0 busy too many connections" {
		t.Errorf("%q", got)
	}
	ask(two, answered)
	limits.Connections = 4
	s.SetLimits(limits)
	three := dial(t, addr, nil)
	ask(three, answered)

	// From no rate to one, and to a higher one; a bucket starts empty where there was
	// none, and at this clock none is ever filled.
	limits.PerClient = Rate{Questions: 1000, Per: time.Hour}
	s.SetLimits(limits)
	ask(one, busy)
	ask(three, busy)
	limits.PerClient = Rate{}
	s.SetLimits(limits)
	ask(one, answered)

	// Who is idle already goes by the new time, who has just been heard too.
	limits.IdleTimeout = 50 * time.Millisecond
	s.SetLimits(limits)
	for _, p := range []*peer{one, two, three} {
		p.wantEnd()
	}
	limits.IdleTimeout = time.Hour
	s.SetLimits(limits)
	ask(dial(t, addr, nil), answered)
}

// A bucket of another size holds what was left in it, and fills at the new rate.
func TestSetRate(t *testing.T) {
	table := newClients(Rate{Questions: 10, Per: time.Second})
	c := table.enter(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)})
	allowed := func(at time.Time) (n int) {
		for c.allow(at) {
			n++
		}
		return n
	}
	if n := allowed(now); n != 10 {
		t.Errorf("%d at first", n)
	}
	table.setLimit(Rate{Questions: 100, Per: time.Second}, now)
	if n := allowed(now); n != 0 {
		t.Errorf("%d at once", n)
	}
	if n := allowed(now.Add(100 * time.Millisecond)); n != 10 {
		t.Errorf("%d in a tenth of a second", n)
	}
	table.setLimit(Rate{Questions: 5, Per: time.Second}, now.Add(time.Minute))
	if n := allowed(now.Add(time.Hour)); n != 5 {
		t.Errorf("%d of 5", n)
	}
	table.leave(c, now.Add(2*time.Hour))
	if len(table.all) != 0 || table.idle != 0 {
		t.Errorf("%d clients, %d idle", len(table.all), table.idle)
	}
}

// Clients that come and go leave no more behind than is allowed, and those that
// have asked nothing lately leave nothing.
func TestClientsAreBounded(t *testing.T) {
	table := newClients(Rate{Questions: 10, Per: time.Minute})
	at := now
	visit := func(i int, questions int) {
		c := table.enter(&net.TCPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i))})
		for range questions {
			c.allow(at)
		}
		table.leave(c, at)
	}
	for i := range 1000 {
		visit(i, 0)
	}
	if n := len(table.all); n != 0 || table.idle != 0 {
		t.Errorf("%d clients, %d idle, want none", n, table.idle)
	}
	const n = maxIdleClients + 5000
	for i := range n {
		visit(i, 1)
	}
	if len(table.all) > maxIdleClients || len(table.all) < maxIdleClients/2 || table.idle != len(table.all) {
		t.Errorf("%d clients, %d idle", len(table.all), table.idle)
	}
	// One of them who asks again goes on where it was; none is lost by that.
	before := len(table.all)
	for _, c := range table.all {
		visit(int(c.prefix.Addr().As4()[1])<<16|int(c.prefix.Addr().As4()[2])<<8|int(c.prefix.Addr().As4()[3]), 1)
		break
	}
	if len(table.all) != before || table.idle != before {
		t.Errorf("%d clients, %d idle, want %d", len(table.all), table.idle, before)
	}
}

// TestHurryGivesNoMoreTime than the client has.
func TestHurryGivesNoMoreTime(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	c := &conn{net: ours}
	by := time.Now().Add(time.Hour)
	c.readUntil(by)
	c.hurry(by.Add(time.Hour))
	if !c.readBy.Equal(by) {
		t.Errorf("a longer time for the next line gives %v more to this one", c.readBy.Sub(by))
	}
	c.hurry(by.Add(-time.Minute))
	if !c.readBy.Equal(by.Add(-time.Minute)) {
		t.Errorf("a shorter time leaves %v", c.readBy.Sub(by))
	}
}
