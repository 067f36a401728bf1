package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/authkey/authkey/internal/wire"
)

// selfCheck asks this server over one of its own sockets about a domain that no AS serves.
// Any answer will do, also busy.
func selfCheck(ctx context.Context, s socket) error {
	c, err := new(net.Dialer).DialContext(ctx, s.Addr().Network(), s.Addr().String())
	if err != nil {
		return fmt.Errorf("connect to ourselves: %w", err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if s.secure {
		// Whether the certificate is right is not what is asked here, and it names
		// another host than this address.
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	key, err := wire.ParseKey("self-check")
	if err != nil {
		return err
	}
	question := wire.Request{Seq: 1, Address: "self-check@self-check.invalid", Key: key}
	if _, err = c.Write(question.Append(nil)); err == nil {
		_, err = bufio.NewReaderSize(c, wire.MaxLine).ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) { // closed at once: too many connections
		return fmt.Errorf("ask ourselves: %w", err)
	}
	return nil
}

// status says in one line what is going on, and at its end with which configuration, for
// the doctor.
func (s *service) status() string {
	n := s.server.Stats()
	return fmt.Sprintf("%d connections, %d keys valid, %d invalid, %d questions refused; configuration %s",
		n.Open, n.Valid, n.Invalid, n.NotServed+n.Syntax+n.TooLong+n.Busy+n.TempFail, s.fingerprint)
}
