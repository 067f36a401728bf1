package authserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/internal/wire"
)

// Times that are not for configuration.
const (
	handshakeTimeout = 10 * time.Second       // a whole TLS handshake
	writeTimeout     = 10 * time.Second       // for the client to take the replies written at once
	drainTime        = 250 * time.Millisecond // after Shutdown, for questions already on their way
	lingerTime       = time.Second            // for the client to read the last reply before the end
	maxAcceptDelay   = time.Second            // between attempts to accept while that fails
)

// evictSample is how many connections are looked at to find one to end for another client:
// all of a small server's; of a large server's enough to find one of a client that holds a
// hundredth of them.
const evictSample = 512

// Limits bound the resources that clients can use.
type Limits struct {
	// Connections at the same time. When there is one more, a connection is ended: in the
	// IPv6 /32 or IPv4 /24 with the most connections, in the /48 with the most there, of
	// the client with the most there, the one that has been idle for longest. Where that
	// client is the new one itself, its new connection is answered ERROR 0 busy, in clear
	// text only, and closed.
	Connections int
	// Outstanding is how many replies of one connection are held back at most, to be sent
	// together, while more questions have arrived already.
	Outstanding int
	// PerClient is how many questions one client may ask; more are answered ERROR
	// busy. A client is an IPv4 address or an IPv6 /64; its /24 or /48 may ask 4 times as
	// much, its IPv6 /32 16 times. The zero Rate is no limit.
	PerClient Rate
	// IdleTimeout is the time from one whole line to the end of the next.
	IdleTimeout time.Duration
}

// A Rate is so many questions in so much time; as many may come at once.
type Rate struct {
	Questions int
	Per       time.Duration
}

// DefaultLimits are those of an Authentication Server without configuration.
func DefaultLimits() Limits {
	return Limits{
		Connections: 10_000,
		Outstanding: 1000,
		PerClient:   Rate{Questions: 5000, Per: time.Second},
		IdleTimeout: 120 * time.Second,
	}
}

// Options are what a Server is made of.
type Options struct {
	// Domains that are served; see Server.SetDomains.
	Domains []*keyring.Domain
	// Limits, all of which must be set but PerClient.
	Limits Limits
	// Logger gets lines for rare events only: panics, and at most one a minute each for
	// connections refused and ended, failing accepts, and lists not read. Nil: none.
	Logger *slog.Logger
	// Now is the clock of keys and rates. Nil: time.Now.
	Now func() time.Time
}

// A Server answers VERIFY questions. Make one with New.
type Server struct {
	limits  atomic.Pointer[Limits]
	log     *slog.Logger
	now     func() time.Time
	domains atomic.Pointer[map[string]*keyring.Domain]
	clients *clients
	counts  counts

	logRefused, logEvicted, logAccept, logNoList oplog.Limit

	stop chan struct{}  // closed when Shutdown begins
	wg   sync.WaitGroup // of connections and calls of Serve

	mu        sync.Mutex // guards what follows; wg.Add happens under it
	drainBy   time.Time  // not zero once Shutdown has begun
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
}

// New returns a Server. Serve starts it.
func New(o Options) *Server {
	s := &Server{
		log:       o.Logger,
		now:       o.Now,
		clients:   newClients(o.Limits.PerClient),
		stop:      make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.limits.Store(&o.Limits)
	s.SetDomains(o.Domains)
	return s
}

// SetLimits replaces the limits. Connections that are open stay, however many they
// are, and go by the new limits from now on.
func (s *Server) SetLimits(l Limits) {
	s.limits.Store(&l)
	s.clients.setLimit(l.PerClient, s.now())
	by := time.Now().Add(l.IdleTimeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.hurry(by)
	}
}

// SetDomains replaces the domains that are served, for questions from now on.
// Of two with the same name the later one counts.
func (s *Server) SetDomains(domains []*keyring.Domain) {
	byName := make(map[string]*keyring.Domain, len(domains))
	for _, d := range domains {
		byName[d.Name()] = d
	}
	s.domains.Store(&byName)
}

// Serve accepts connections from l and answers them until Shutdown, and then
// returns nil. A listener made with tls.NewListener serves TLS. It may be called
// for several listeners at the same time; each is closed when its call returns.
// When file descriptors or memory run out it tries again; any other failure of the
// listener is returned and ends this call only.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.enter(l) {
		return nil
	}
	defer s.leave(l)
	delay := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
			s.start(nc)
			continue
		case s.stopping():
			return nil
		case !temporary(err):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		delay = min(max(2*delay, 5*time.Millisecond), maxAcceptDelay)
		s.counts.acceptFailures.Add(1)
		if _, ok := s.logAccept.Allow(); ok {
			s.log.Warn("cannot accept connections", "listener", l.Addr().String(), "error", err)
		}
		select {
		case <-s.stop:
			return nil
		case <-time.After(delay):
		}
	}
}

// temporary reports whether accepting may work again by itself.
func temporary(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *Server) enter(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drainBy.IsZero() {
		return false
	}
	s.listeners[l] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) leave(l net.Listener) {
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
	s.wg.Done()
}

// start serves a connection in a goroutine of its own, or refuses it.
func (s *Server) start(nc net.Conn) {
	c := &conn{s: s, net: nc, client: s.clients.enter(nc.RemoteAddr())}
	c.hear()
	s.mu.Lock()
	draining := !s.drainBy.IsZero()
	full := !draining && len(s.conns) >= s.limits.Load().Connections && !s.evictFor(c.client)
	if !draining && !full {
		s.conns[c] = struct{}{}
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if !draining && !full {
		s.counts.connections.Add(1)
		go c.serve()
		return
	}
	s.clients.leave(c.client, s.now())
	if draining {
		nc.Close()
		return
	}
	s.refuse(nc)
}

// evictFor ends a connection, so that the newcomer can have one: of the network with the most
// connections, and in it of the client with the most, the connection that has been idle for
// longest. It counts the newcomer's new connection, so that no client can hold every slot,
// from however many addresses. It reports whether there was one to end. s.mu is held.
func (s *Server) evictFor(newcomer *client) bool {
	var victim *conn
	var most order
	var since int64
	looked := 0
	for c := range s.conns { // in random order
		if looked++; looked > evictSample {
			break
		}
		if !c.client.yields(newcomer) {
			continue
		}
		held, heard := c.client.held(), c.heard.Load()
		if by := slices.Compare(held[:], most[:]); victim == nil || by > 0 || by == 0 && heard < since {
			victim, most, since = c, held, heard
		}
	}
	if victim == nil {
		return false
	}
	delete(s.conns, victim) // it ends at once
	victim.cut()
	s.counts.evicted.Add(1)
	if _, ok := s.logEvicted.Allow(); ok {
		s.log.Warn("too many connections: closed one of the largest network for a new client", "client", victim.net.RemoteAddr().String(), "limit", s.limits.Load().Connections)
	}
	return true
}

// refuse closes a connection that is one too many. It must not wait: it is
// called between two accepts.
func (s *Server) refuse(nc net.Conn) {
	s.counts.refused.Add(1)
	if _, secure := nc.(*tls.Conn); !secure { // which would begin a handshake
		line := wire.Reply{Verdict: wire.Error, Code: wire.CodeBusy, Text: "too many connections"}
		// A fresh socket has room for a line; where it has not, it goes without.
		nc.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
		nc.Write(line.Append(nil))
	}
	nc.Close()
	if _, ok := s.logRefused.Allow(); ok {
		s.log.Warn("connection refused: too many", "client", nc.RemoteAddr().String(), "limit", s.limits.Load().Connections)
	}
}

// forget is called by a connection that ends.
func (s *Server) forget(c *conn) {
	c.net.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.wg.Done()
}

// Shutdown ends the server: it closes the listeners, answers the questions that
// have arrived or are on their way, closes the connections, and returns when all
// of that is done and no call of Serve runs any more. When ctx ends before, it
// cuts the connections that are left, and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.drainBy.IsZero() {
		s.drainBy = time.Now().Add(drainTime)
		close(s.stop)
	}
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.drain(s.drainBy)
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	<-done
	return context.Cause(ctx)
}
