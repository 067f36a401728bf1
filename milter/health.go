package milter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// SelfCheck connects to one of the Server's own sockets and negotiates, as an MTA
// does. An error means that MTAs are not served. If the connection is closed at
// once because there are too many, that is no error: the Server works.
func (s *Server) SelfCheck(ctx context.Context) error {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	if len(listeners) == 0 {
		return errors.New("no socket is served")
	}
	addr := listeners[0].Addr()
	if err := Negotiate(ctx, addr.Network(), addr.String()); err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("negotiate with ourselves: %w", err)
	}
	return nil
}

// What may come of Negotiate beside the errors of package net.
var (
	ErrClosed   = errors.New("it closes the connection at once")
	ErrSilent   = errors.New("it accepts the connection but sends nothing")
	ErrNoMilter = errors.New("what answers is no milter")
)

// Negotiate connects to a milter, this one or another, negotiates as an MTA does, and quits:
// a milter sees no message in that, and logs none. ctx should have a deadline.
func Negotiate(ctx context.Context, network, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	// SMFIC_OPTNEG of version 6, with every action and every step offered; its answer
	// has the same form.
	const offer, quit = "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff", "\x00\x00\x00\x01Q"
	var answer [5]byte
	// A program that has gone already may have said something before, so that it is read
	// all the same.
	_, unsent := io.WriteString(c, offer)
	n, err := io.ReadFull(c, answer[:])
	if n == 0 && err != nil && unsent != nil {
		err = unsent
	}
	var late net.Error
	switch {
	case n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		return ErrClosed
	case n > 0 && n < len(answer):
		return ErrNoMilter
	case errors.As(err, &late) && late.Timeout():
		return ErrSilent
	case err != nil:
		return err
	case answer[4] != 'O' || binary.BigEndian.Uint32(answer[:]) < 13:
		return ErrNoMilter
	}
	_, _ = io.WriteString(c, quit)
	return nil
}

// Status says in one line how many connections are open and messages are in flight, and how
// many messages were answered.
func (s *Server) Status() string {
	return fmt.Sprintf("MTA connections: %d, messages in flight: %d, %d messages answered",
		s.Connections(), s.inFlight.Load(), s.answered.Load())
}
