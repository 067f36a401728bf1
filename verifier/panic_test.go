package verifier

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
)

// A brokenConn panics when it is read or written.
type brokenConn struct {
	net.Conn
	read, write bool
}

func (c brokenConn) Read(b []byte) (int, error) {
	if c.read {
		panic("read: secret")
	}
	return c.Conn.Read(b)
}

func (c brokenConn) Write(b []byte) (int, error) {
	if c.write {
		panic("write: secret")
	}
	return c.Conn.Write(b)
}

// TestPanic: a fault of ours costs the question its answer and no more, and the next
// question finds all in order.
func TestPanic(t *testing.T) {
	const asAddress = "8.8.8.1"
	answer := func(string) (stubdns.Answer, error) {
		return stubdns.Answer{Texts: []string{"AS=as.test:7425"}, TTL: time.Hour}, nil
	}
	swallow := func(c net.Conn) {
		b := make([]byte, 512)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}
	broken := func(read, write bool) func(*Verifier) {
		return func(v *Verifier) {
			connect := v.pool.dialer.connect
			v.pool.dialer.connect = func(ctx context.Context, peer netip.AddrPort) (net.Conn, error) {
				c, err := connect(ctx, peer)
				return brokenConn{c, read, write}, err
			}
		}
	}
	for name, spoil := range map[string]func(*Verifier){
		"records": func(v *Verifier) {
			v.dns = &book{texts: func(string) (stubdns.Answer, error) { panic("secret") }}
		},
		"name servers": func(v *Verifier) {
			v.dns = stubdns.New(func() []netip.AddrPort { panic("secret") }, time.Second, v.log)
		},
		"dial": func(v *Verifier) {
			v.pool.dialer.connect = func(context.Context, netip.AddrPort) (net.Conn, error) { panic("secret") }
		},
		"pool":  func(v *Verifier) { v.pool.targets = nil },
		"read":  broken(true, false),
		"write": broken(false, true),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				b := &book{hosts: map[string][]string{"as.test": {asAddress}}, texts: answer}
				n := &network{script: map[string]func(net.Conn){asAddress: swallow}}
				v := inBubble(t, b, n, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				spoil(v)
				check(t, v, query(t, "alice@a.test", "good"), TempError, ReasonBroken)
				if text := log.String(); !strings.Contains(text, "panic in a ") || strings.Contains(text, "secret") {
					t.Errorf("log: %s", text)
				}
			})
		})
	}
}
