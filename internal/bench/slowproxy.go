package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A slowProxy passes TCP connections on to a server, and delays what the server says.
type slowProxy struct {
	ln     net.Listener
	server string
	lag    atomic.Int64 // a time.Duration
	ctx    context.Context
	end    context.CancelFunc
	wg     sync.WaitGroup
}

const (
	slowReads  = 16 << 10
	slowPieces = 4096 // that one connection holds back at most
)

// startSlowProxy starts a slowProxy without delay (lag). It ends with close.
func startSlowProxy(server string) (*slowProxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &slowProxy{ln: ln, server: server}
	l.ctx, l.end = context.WithCancel(context.Background())
	l.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.pass(c) })
		}
	})
	return l, nil
}

func (l *slowProxy) close() error {
	l.end()
	err := l.ln.Close()
	l.wg.Wait()
	return err
}

// pass serves one connection until either side ends it.
func (l *slowProxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.server)
	if err != nil {
		return
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(client.Close(), server.Close()) })
	defer stop()
	held := make(chan piece, slowPieces)
	var both sync.WaitGroup
	both.Go(func() {
		defer cancel()
		_, _ = io.Copy(server, client) // whoever ends it
	})
	both.Go(func() {
		defer close(held)
		l.hold(ctx, server, held)
	})
	release(ctx, client, held)
	cancel()
	both.Wait()
}

// A piece is something that a server said, and when it may be passed on.
type piece struct {
	octets []byte
	due    time.Time
}

// hold reads what the server says.
func (l *slowProxy) hold(ctx context.Context, server io.Reader, held chan<- piece) {
	for {
		b := make([]byte, slowReads)
		n, err := server.Read(b)
		if n > 0 {
			select {
			case held <- piece{b[:n], time.Now().Add(time.Duration(l.lag.Load()))}:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// release passes on what is due, in order.
func release(ctx context.Context, client io.Writer, held <-chan piece) {
	for p := range held {
		timer := time.NewTimer(time.Until(p.due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if _, err := client.Write(p.octets); err != nil {
			return
		}
	}
}
