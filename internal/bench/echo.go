package main

import (
	"bufio"
	"context"
	"net"

	"github.com/authkey/authkey/internal/wire"
)

// serveEcho is a bare TCP line echo: the least that a server in Go which reads lines
// and answers lines can cost.
func serveEcho(ctx context.Context, socket string) error {
	ln, err := net.Listen("tcp", socket)
	if err != nil {
		return err
	}
	return serve(ctx, ln, echoLines)
}

// echoLines serves one connection until it ends. Lines that came together leave
// together, as authkey-server's replies do.
func echoLines(c net.Conn) error {
	r, w := bufio.NewReaderSize(c, 2*wire.MaxLine), bufio.NewWriterSize(c, 4*wire.MaxLine)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		if r.Buffered() > 0 {
			continue
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}
