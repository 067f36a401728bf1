package milter

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Back-off of the accept loop while the process has no descriptors left.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// Serve answers MTAs on ln until Shutdown, which closes ln. It may be called for several
// listeners, each in a goroutine of its own.
//
// It returns nil after Shutdown, at once if that came first. An error means that ln was
// closed by other means. Other errors of Accept, such as a lack of descriptors, are
// logged, and it tries again within a second.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	stopped := s.stopping.Load() // then Shutdown may have closed the listeners of the list already
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()
	if stopped {
		_ = ln.Close()
		return nil
	}
	backoff := acceptBackoffMin
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			backoff = acceptBackoffMin
			if admitted := s.admit(c); admitted != nil {
				s.runLibrary(admitted)
			}
			continue
		case s.stopping.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve %s: %w", ln.Addr(), err)
		}
		s.log.Error("cannot accept a milter connection", "listen", ln.Addr().String(), "error", err.Error(), "retry_in", backoff.String())
		select {
		case <-s.ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, acceptBackoffMax)
	}
}

// admit makes c one of the server's connections, or closes it where there are
// too many.
func (s *Server) admit(c net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := s.engine.Limits
	if len(s.conns) >= limits.Connections {
		_ = c.Close()
		if left, ok := s.tooMany.Allow(); ok {
			s.log.Error("too many milter connections: closed the new one", "limit", limits.Connections, "suppressed", left)
		}
		return nil
	}
	var admitted *conn
	admitted = newConn(c, limits.IdleTimeout, s.refusedFrame, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, admitted)
	})
	s.conns[admitted] = struct{}{}
	return admitted
}

// refusedFrame logs why a connection is closed.
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
