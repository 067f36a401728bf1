package milter

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// Verifier is what a session asks. *verifier.Verifier is the real one.
type Verifier interface {
	// Cached answers at once, if it can, without asking anybody.
	Cached(verifier.Query) (verifier.Result, bool)
	// Verify asks; it returns within the verifier's own deadline or when ctx ends.
	Verify(context.Context, verifier.Query) verifier.Result
	// Prefetch starts finding the AS of an address, since a question will follow.
	// It does not wait.
	Prefetch(wire.Address)
}

// Preferences knows what recipients want. *prefs.Directory is the real one.
type Preferences interface {
	// Known does the same as Fill if nobody has to be waited for, and reports
	// whether it could.
	Known([]policy.Recipient) bool
	// Fill sets the preference of each recipient, or that it could not be looked up;
	// it returns how many could not, and why the first.
	Fill(context.Context, []policy.Recipient) (failed int, err error)
}

// Settings is the administrator's part of a session.
type Settings struct {
	AuthservID     string   // "" = the MTA's {j}, else HostName
	HostName       string   // of this machine
	TrustedIDs     []string // further ids under which exempt clients may keep results
	LocalDomains   []string // lower-case A-labels
	ExemptNetworks Networks
	KeepResults    bool // of exempt clients, under our ids: they check and clean by themselves
	Submission     Submission
	MarkHeader     string
	MarkValue      string

	From          FromCheck
	Trust         Trust
	VerifyTimeout time.Duration // for the addresses of the From field together
	NotifyTrust   []Voucher     // filters before us that vouch for senders
}

// An Engine is one configuration in force. A message ends under the Engine under
// which it began, also where another has been put in place meanwhile.
type Engine struct {
	Settings Settings
	Limits   Limits
	Verifier Verifier
	Policy   *policy.Policy

	Preferences Preferences // nil: there are none
	Notifier    Notifier    // nil: the policy never asks for DSNs or notices
	Attacher    Attacher    // nil: our own users' mail gets no keys

	// Release, unless nil, is called once: when another Engine is in force and the
	// last message that began under this one has ended. It must not block.
	Release func()

	authIDs  []string // under which an exempt client's results may stay, but for the MTA's {j}; the first is ours
	lengths  lengths  // of the names of fields that matter
	messages int      // begun and not ended; under Server.mu
	retired  bool     // likewise
}

// Limits bounds what MTAs can make us hold. Those of connections apply to the
// connections that are opened while an Engine is in force.
type Limits struct {
	Connections int           // more are accepted and closed at once
	IdleTimeout time.Duration // for one frame of an MTA
	Recipients  int           // of one message; more are answered 451
}

// A Server serves MTAs. Make one with New.
type Server struct {
	log     *slog.Logger
	options []gomilter.Option // of the library

	stopping atomic.Bool        // messages that begin now hear 451
	inFlight atomic.Int64       // messages begun before that and not yet answered
	answered atomic.Int64       // messages that reached their end
	sessions atomic.Int64       // session goroutines that have negotiated and not ended
	ctx      context.Context    // of every question; ends when Shutdown's patience does
	cancel   context.CancelFunc // ends it

	mu        sync.Mutex
	engine    *Engine // in force
	listeners []net.Listener
	conns     map[*conn]struct{}

	tooMany  oplog.Limit // for "too many connections"
	frames   oplog.Limit // for "malformed frame"
	degraded sync.Once
}

// New returns a Server that answers by engine. Call Serve for each listener.
func New(log *slog.Logger, engine *Engine) *Server {
	s := &Server{log: log, conns: make(map[*conn]struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.Swap(engine)
	routeLibraryWarnings(log)
	s.options = []gomilter.Option{
		gomilter.WithActions(wantedActions),
		gomilter.WithProtocols(wantedProtocol),
		gomilter.WithNegotiationCallback(s.negotiate),
		gomilter.WithMacroRequest(gomilter.StageConnect, macrosAtConnect),
		gomilter.WithMacroRequest(gomilter.StageMail, macrosAtMail),
		gomilter.WithMacroRequest(gomilter.StageRcpt, macrosAtRcpt),
		gomilter.WithMacroRequest(gomilter.StageEOH, macrosAtEOH),
		gomilter.WithMacroRequest(gomilter.StageEOM, macrosAtEnd),
		gomilter.WithWriteTimeout(0), // conn bounds writes
	}
	return s
}

// Swap puts another configuration in force for the messages that begin from now on.
func (s *Server) Swap(engine *Engine) {
	engine.prepare()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.engine; old != nil {
		old.retired = true
		old.releaseIfDone()
	}
	s.engine = engine
}

// prepare computes what messages under the Engine share.
func (e *Engine) prepare() {
	own := e.Settings.AuthservID
	if own == "" {
		own = e.Settings.HostName
	}
	e.authIDs = append([]string{own}, e.Settings.TrustedIDs...)
	var l lengths
	for _, name := range e.Settings.fields() {
		l.add(len(name))
	}
	e.lengths = l
}

// acquire binds a message that begins to the Engine in force.
func (s *Server) acquire() *Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.engine.messages++
	return s.engine
}

// release ends a message's hold on its Engine.
func (s *Server) release(e *Engine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.messages--
	e.releaseIfDone()
}

func (e *Engine) releaseIfDone() {
	if e.retired && e.messages == 0 && e.Release != nil {
		e.Release()
	}
}

// Serve answers MTAs on ln until Shutdown. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	stopped := s.stopping.Load() // and Shutdown may have been through the list already
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()
	if stopped {
		_ = ln.Close()
		return nil
	}
	l := &listener{Listener: ln, srv: s}
	for {
		c, err := l.accept()
		switch {
		case err == nil:
			s.serve(c)
		case s.stopping.Load():
			return nil
		default:
			return fmt.Errorf("serve %s: %w", ln.Addr(), err)
		}
	}
}

const (
	// drainGrace is for the last answers to be written once questions have been
	// cut short, and for the last goroutines to end.
	drainGrace = time.Second
	drainPoll  = 5 * time.Millisecond
)

// Shutdown stops accepting, lets the messages in flight be finished until ctx
// ends, has those that are then left answered 451, and closes every connection.
// A message that begins meanwhile, on a connection still open, hears 451.
func (s *Server) Shutdown(ctx context.Context) {
	s.stopping.Store(true)
	s.mu.Lock()
	for _, ln := range s.listeners {
		_ = ln.Close() // nobody is to hear of an error: it serves no more
	}
	s.mu.Unlock()

	if !poll(ctx, s.quiet) {
		s.log.Warn("stopping before every message was finished", "messages", s.inFlight.Load())
	}
	s.cancel()
	grace, cancel := context.WithTimeout(context.Background(), drainGrace)
	defer cancel()
	poll(grace, s.quiet)
	s.closeConns()
	poll(grace, func() bool { return s.sessions.Load() == 0 })
}

func (s *Server) closeConns() {
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // which takes s.mu
	}
}

// quiet reports whether every message in flight has been answered and every
// answer has been written.
func (s *Server) quiet() bool {
	if s.inFlight.Load() > 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.held.Load() {
			return false
		}
	}
	return true
}

// poll asks done until it says yes or ctx ends; it returns what done said last.
func poll(ctx context.Context, done func() bool) bool {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return done()
		case <-tick.C:
		}
	}
	return true
}
