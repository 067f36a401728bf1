package milter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// SelfCheck connects to one of the Server's own sockets and negotiates, as an MTA
// does. An error means that MTAs are not served. That there are too many
// connections for one more is none: somebody had to close it.
func (s *Server) SelfCheck(ctx context.Context) error {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	if len(listeners) == 0 {
		return errors.New("no socket is served")
	}
	addr := listeners[0].Addr()
	c, err := new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return fmt.Errorf("connect to ourselves: %w", err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	// Version 6, and everything offered.
	const offer = "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"
	var answer [5]byte
	if _, err = io.WriteString(c, offer); err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil
	case err != nil:
		return fmt.Errorf("negotiate with ourselves: %w", err)
	case answer[4] != 'O':
		return fmt.Errorf("negotiate with ourselves: answer %q", answer[4])
	}
	_, err = io.WriteString(c, "\x00\x00\x00\x01Q")
	return err
}

// Status says in one line what is going on.
func (s *Server) Status() string {
	return fmt.Sprintf("MTA connections: %d, messages in flight: %d, %d messages answered",
		s.Connections(), s.inFlight.Load(), s.answered.Load())
}
