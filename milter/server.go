package milter

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/oplog"
)

// A Server serves MTAs. Make one with New.
type Server struct {
	log     *slog.Logger
	options []gomilter.Option // of the library

	stopping atomic.Bool        // messages that begin now are answered 451
	inFlight atomic.Int64       // messages begun before that and not yet answered
	answered atomic.Int64       // messages that reached their end
	sessions atomic.Int64       // session goroutines that have negotiated and not ended
	ctx      context.Context    // of every question; ends when the ctx of Shutdown does
	cancel   context.CancelFunc // ends it

	mu        sync.Mutex
	engine    *Engine // in force
	listeners []net.Listener
	conns     map[*conn]struct{}

	tooMany  oplog.Limit // for "too many connections"
	frames   oplog.Limit // for "malformed frame"
	degraded sync.Once
}

// New returns a Server that answers by engine, which Swap can replace. Call Serve for
// each listener. log gets a line for each message (docs/operations.md); go-milter's own
// warnings go to the log of the Server made last.
func New(log *slog.Logger, engine *Engine) *Server {
	s := &Server{log: log, conns: make(map[*conn]struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.Swap(engine)
	routeLibraryWarnings(log)
	s.options = s.libraryOptions()
	return s
}

// Swap puts another Engine in force for the messages that begin from now on. Each
// Engine can be put in force once.
func (s *Server) Swap(engine *Engine) {
	engine.prepare()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.engine; old != nil {
		old.retired = true
		old.releaseIfUnused()
	}
	s.engine = engine
}

const (
	// drainGrace is for the last answers to be written once questions have been
	// cut short, and for the last goroutines to end.
	drainGrace = time.Second
	drainPoll  = 5 * time.Millisecond
)

// Shutdown stops accepting, lets the messages in flight be finished until ctx ends,
// answers 451 to those that are left then, and closes every connection. A message that
// begins meanwhile, on a connection still open, is answered 451 too. Shutdown returns up to
// a second after ctx has ended: the last answers have that long to be written.
func (s *Server) Shutdown(ctx context.Context) {
	s.stopping.Store(true)
	s.mu.Lock()
	for _, ln := range s.listeners {
		_ = ln.Close() // it is not used any more, so that an error does not matter
	}
	s.mu.Unlock()

	if !poll(ctx, s.quiet) {
		s.log.Warn("shutdown deadline reached, messages interrupted", "messages", s.inFlight.Load())
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
