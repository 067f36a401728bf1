package main

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

// dialSlowProxy starts a slowProxy in front of a server, and connects to it.
func dialSlowProxy(t *testing.T, server string) (*slowProxy, net.Conn) {
	t.Helper()
	l, err := startSlowProxy(server)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", l.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return l, conn
}

func TestSlowProxy(t *testing.T) {
	l, conn := dialSlowProxy(t, startTestEcho(t).socket)
	in := bufio.NewReader(conn)
	for _, lag := range []time.Duration{0, 100 * time.Millisecond} {
		l.lag.Store(int64(lag))
		sent := time.Now()
		for _, line := range []string{"one\n", "two\n"} {
			if _, err := io.WriteString(conn, line); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"one\n", "two\n"} {
			if line, err := in.ReadString('\n'); line != want || err != nil {
				t.Fatalf("lag %s: %q, %v; want %q", lag, line, err, want)
			}
		}
		if took := time.Since(sent); took < lag {
			t.Errorf("lag %s: only %s", lag, took)
		}
	}
	// What is held back when it ends is lost.
	l.lag.Store(int64(time.Hour))
	if _, err := io.WriteString(conn, "three\n"); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if line, err := in.ReadString('\n'); err == nil {
		t.Errorf("%q after the end", line)
	}
}

func TestSlowProxyWithoutServer(t *testing.T) {
	l, conn := dialSlowProxy(t, "127.0.0.1:1")
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d octets from no server", n)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
