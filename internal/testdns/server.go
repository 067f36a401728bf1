// Package testdns answers DNS queries over the wire, for tests and
// demonstrations: correctly (RFC 1034, 1035, 2308, 6891) from records in zone-file
// syntax, and wrongly for a name that is configured to. It also starts the real
// resolvers dnsmasq and unbound.
//
// The server is resolver and authority at the same time, for the whole name space: AA
// is set, and RA where recursion was desired. It leaves out wildcards, delegations,
// zone transfers and signatures.
package testdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdaemon"
)

const (
	// DefaultNegativeTTL is the TTL, in seconds, of an answer that there is none.
	DefaultNegativeTTL = 300
	// ednsSize is the UDP size we announce; maxUDPSize what we send at most.
	ednsSize   = 1232
	maxUDPSize = 4096
	// startTries is how often Start looks for a port that TCP and UDP both have.
	startTries = 10
	// shutdownLimit bounds Close.
	shutdownLimit = 10 * time.Second
)

// Count tells how many queries came over each transport.
type Count struct{ UDP, TCP int }

// Total is the number of queries over both.
func (c Count) Total() int { return c.UDP + c.TCP }

// Server is a DNS server on one loopback port for UDP and TCP. Its methods are
// safe for concurrent use.
type Server struct {
	addr   string
	udp    *dns.Server
	tcp    *dns.Server
	served sync.WaitGroup
	closed chan struct{}
	close  sync.Once

	mu          sync.Mutex
	zone        zone
	negativeTTL uint32
	behaviours  map[string][]Behaviour
	counts      map[question]Count
	asked       chan struct{} // closed and replaced with every query
	paused      bool
}

type question struct {
	name  string
	qtype uint16
}

// Start starts a server without records on a free port of 127.0.0.1.
func Start() (*Server, error) {
	s := &Server{
		closed:      make(chan struct{}),
		zone:        zone{},
		negativeTTL: DefaultNegativeTTL,
		behaviours:  map[string][]Behaviour{},
		counts:      map[question]Count{},
		asked:       make(chan struct{}),
	}
	listener, packets, err := listen()
	if err != nil {
		return nil, fmt.Errorf("start DNS server: %w", err)
	}
	s.addr = listener.Addr().String()
	s.tcp = &dns.Server{Listener: listener, Handler: s.handler(false)}
	s.udp = &dns.Server{PacketConn: packets, Handler: s.handler(true)}
	if err := errors.Join(s.serve(s.udp), s.serve(s.tcp)); err != nil {
		listener.Close()
		packets.Close()
		return nil, fmt.Errorf("start DNS server: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

// serve returns when the server has started.
func (s *Server) serve(server *dns.Server) error {
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	failed := make(chan error, 1)
	s.served.Go(func() { failed <- server.ActivateAndServe() })
	select {
	case <-started:
		return nil
	case err := <-failed:
		return err
	}
}

func listen() (net.Listener, net.PacketConn, error) {
	var lastErr error
	for range startTries {
		port, err := testdaemon.FreePort()
		if err != nil {
			return nil, nil, err
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			lastErr = err
			continue
		}
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			l.Close()
			lastErr = err
			continue
		}
		return l, p, nil
	}
	return nil, nil, lastErr
}

// Addr is "127.0.0.1:port".
func (s *Server) Addr() string { return s.addr }

// Set adds records in zone-file syntax, such as `_authkey.a.test. 60 IN TXT "v=…"`.
// They replace those of the same name and type. The TTL is 3600 where there is
// none.
func (s *Server) Set(records ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zone.set(records)
}

// Remove removes the records of a name and type; dns.TypeANY stands for all
// types.
func (s *Server) Remove(name string, qtype uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone.remove(name, qtype)
}

// SetNegativeTTL sets for how many seconds NXDOMAIN and NODATA may be cached,
// for names outside every SOA record that was Set.
func (s *Server) SetNegativeTTL(seconds uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.negativeTTL = seconds
}

// Behave makes the server misbehave for queries of a name, in place of what was
// said for it before; several behaviours apply one after another, and none
// makes it answer rightly again. The name "*" means all names for which nothing
// is said.
func (s *Server) Behave(name string, behaviours ...Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviours[canonical(name)] = behaviours
}

// Pause makes the server leave every query unanswered; they still count.
func (s *Server) Pause() { s.setPaused(true) }

// Resume ends Pause.
func (s *Server) Resume() { s.setPaused(false) }

func (s *Server) setPaused(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
}

// Queries tells how often a name and type was asked for.
func (s *Server) Queries(name string, qtype uint16) Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[question{canonical(name), qtype}]
}

// WaitQueries waits until a name and type was asked for at least n times since
// the start, or until ctx ends.
func (s *Server) WaitQueries(ctx context.Context, name string, qtype uint16, n int) error {
	for {
		s.mu.Lock()
		count, asked := s.counts[question{canonical(name), qtype}], s.asked
		s.mu.Unlock()
		if count.Total() >= n {
			return nil
		}
		select {
		case <-asked:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d queries for %s %s: %w", count.Total(), n, name, dns.TypeToString[qtype], ctx.Err())
		}
	}
}

// CloseTCP closes the TCP side for good: connections are refused.
func (s *Server) CloseTCP() error { return shutdown(s.tcp) }

// Close ends the server; late answers are never given. A second call does
// nothing.
func (s *Server) Close() (err error) {
	s.close.Do(func() {
		close(s.closed)
		err = errors.Join(shutdown(s.udp), shutdown(s.tcp))
		s.served.Wait()
	})
	return err
}

func shutdown(server *dns.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	err := server.ShutdownContext(ctx)
	var down *dns.Error // "server not started": it is down already
	if errors.As(err, &down) {
		return nil
	}
	return err
}

func (s *Server) handler(udp bool) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		x := &exchange{query: query, udp: udp, closed: s.closed}
		behaviours, ok := s.prepare(x)
		if !ok {
			return
		}
		for _, behave := range behaviours {
			behave(x)
		}
		// The client may be gone; that is its own business.
		_ = x.send(w)
	})
}

// prepare counts the query and fills in the right answer, unless the server is
// to keep silent.
func (s *Server) prepare(x *exchange) (behaviours []Behaviour, ok bool) {
	q := x.query.Question[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	key := question{canonical(q.Name), q.Qtype}
	count := s.counts[key]
	if x.udp {
		count.UDP++
	} else {
		count.TCP++
	}
	s.counts[key] = count
	close(s.asked)
	s.asked = make(chan struct{})
	if s.paused {
		return nil, false
	}
	x.reply = s.rightReply(x.query)
	behaviours, ok = s.behaviours[key.name]
	if !ok {
		behaviours = s.behaviours[canonical("*")]
	}
	return behaviours, true
}

func (s *Server) rightReply(query *dns.Msg) *dns.Msg {
	q := query.Question[0]
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.Compress = true
	reply.RecursionAvailable = query.RecursionDesired
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(ednsSize, opt.Do())
		if opt.Version() != 0 {
			reply.Rcode = dns.RcodeBadVers
			return reply
		}
	}
	if q.Qclass != dns.ClassINET {
		reply.Rcode = dns.RcodeRefused
		return reply
	}
	reply.Authoritative = true
	var last string
	reply.Answer, reply.Rcode, last = s.zone.answer(q.Name, q.Qtype)
	if n := len(reply.Answer); n == 0 || reply.Answer[n-1].Header().Rrtype == dns.TypeCNAME && q.Qtype != dns.TypeCNAME && q.Qtype != dns.TypeANY {
		reply.Ns = []dns.RR{s.zone.authority(last, s.negativeTTL)}
	}
	return reply
}
