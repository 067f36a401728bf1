package milter

import (
	"errors"
	"net"
	"time"

	gomilter "github.com/d--j/go-milter"
)

// Back-off of the accept loop while the process has no descriptors left.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// A listener makes connections of ours. It bounds their number, and outlives errors
// of Accept: the library would stop serving at the first.
type listener struct {
	net.Listener
	srv *Server
}

// accept returns an error only when the listener is closed.
func (l *listener) accept() (*conn, error) {
	backoff := acceptBackoffMin
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			backoff = acceptBackoffMin
			if wrapped := l.srv.admit(c); wrapped != nil {
				return wrapped, nil
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) || l.srv.stopping.Load() {
			return nil, err
		}
		l.srv.log.Error("cannot accept a milter connection", "listen", l.Addr().String(), "error", err.Error(), "retry_in", backoff.String())
		select {
		case <-l.srv.ctx.Done():
			return nil, net.ErrClosed
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, acceptBackoffMax)
	}
}

// serve has the library serve one connection, in a goroutine that it starts. The
// library has no other way to tell a session which connection is its own than a
// server of the session's own, which costs some allocations.
func (s *Server) serve(c *conn) {
	lib := gomilter.NewServer(append(s.options[:len(s.options):len(s.options)], gomilter.WithDynamicMilter(
		func(_ uint32, actions gomilter.OptAction, protocol gomilter.OptProtocol, _ gomilter.DataSize) gomilter.Milter {
			return s.newSession(c, actions, protocol)
		}))...)
	_ = lib.Serve(&once{conn: c}) // ends with the listener, at once
}

// A once is a listener that accepts one connection, which is there already.
type once struct{ conn *conn }

func (o *once) Accept() (net.Conn, error) {
	if c := o.conn; c != nil {
		o.conn = nil
		return c, nil
	}
	return nil, net.ErrClosed
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return nil }

// admit makes c one of the server's connections, or closes it where there are
// too many.
func (s *Server) admit(c net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := s.engine.Limits
	if len(s.conns) >= limits.Connections {
		_ = c.Close()
		if left, ok := s.tooMany.Allow(); ok {
			s.log.Error("too many milter connections, closed one at once", "limit", limits.Connections, "suppressed", left)
		}
		return nil
	}
	var wrapped *conn
	wrapped = newConn(c, limits.IdleTimeout, s.refusedFrame, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, wrapped)
	})
	s.conns[wrapped] = struct{}{}
	return wrapped
}

func (s *Server) refusedFrame(err error) {
	if left, ok := s.frames.Allow(); ok {
		s.log.Error("closed a milter connection", "error", err.Error(), "suppressed", left)
	}
}

// Connections returns how many MTA connections are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
