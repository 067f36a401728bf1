package verifier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/wire"
)

// A book is a resolver of fixed contents.
type book struct {
	hosts map[string][]string // "fails": DNS fails
	texts func(domain string) (stubdns.Answer, error)

	mu    sync.Mutex
	asked map[string]int
}

func (b *book) TXT(_ context.Context, name string) (stubdns.Answer, error) {
	b.mu.Lock()
	if b.asked == nil {
		b.asked = make(map[string]int)
	}
	b.asked[name]++
	b.mu.Unlock()
	return b.texts(name)
}

func (b *book) Addresses(_ context.Context, host string) ([]netip.Addr, error) {
	b.mu.Lock()
	if b.asked == nil {
		b.asked = make(map[string]int)
	}
	b.asked[host]++
	b.mu.Unlock()
	var all []netip.Addr
	for _, a := range b.hosts[host] {
		if a == "fails" {
			return nil, ErrDNSFailure
		}
		all = append(all, netip.MustParseAddr(a))
	}
	return all, nil
}

// A network is what a dialer's connect sees in a test: addresses that accept,
// refuse or swallow.
type network struct {
	mu     sync.Mutex
	script map[string]func(net.Conn) // by address; nil refuses, absent swallows
	dialed []string
	times  []time.Time
	wg     sync.WaitGroup
}

var errRefused = errors.New("connection refused")

func (n *network) connect(ctx context.Context, peer netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, peer.Addr().String())
	n.times = append(n.times, time.Now())
	script, ok := n.script[peer.Addr().String()]
	n.mu.Unlock()
	switch {
	case !ok:
		<-ctx.Done()
		return nil, ctx.Err()
	case script == nil:
		return nil, errRefused
	}
	ours, theirs := net.Pipe()
	n.wg.Go(func() {
		defer theirs.Close()
		script(theirs)
	})
	return ours, nil
}

// inBubble makes a Verifier whose DNS and network are a test's, for use inside
// synctest.
func inBubble(t *testing.T, b *book, n *network, o Options) *Verifier {
	t.Helper()
	if o.Cache == nil {
		o.Cache = NewCache(100)
	}
	v := New(o)
	v.dns, v.pool.dialer.dns, v.pool.dialer.connect = b, b, n.connect
	t.Cleanup(func() {
		v.Close()
		n.wg.Wait()
	})
	return v
}

// TestDialAddresses: which addresses of a host are tried, in which order, and for
// how long.
func TestDialAddresses(t *testing.T) {
	accept := func(c net.Conn) { c.Read(make([]byte, 1)) }
	tests := []struct {
		name   string
		addrs  []string
		script map[string]func(net.Conn)
		dialed string
		want   Reason // "" connects
		took   time.Duration
	}{
		{"the first works", []string{"2606::1", "8.8.8.1"}, map[string]func(net.Conn){"2606::1": accept}, "[2606::1]", "", 0},
		{"the first refuses", []string{"2606::1", "8.8.8.1"}, map[string]func(net.Conn){"2606::1": nil, "8.8.8.1": accept}, "[2606::1 8.8.8.1]", "", 0},
		{"the first is dead", []string{"2606::1", "8.8.8.1"}, map[string]func(net.Conn){"8.8.8.1": accept}, "[2606::1 8.8.8.1]", "", time.Second},
		{"three are dead", []string{"8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4"}, map[string]func(net.Conn){"8.8.8.4": accept},
			"[8.8.8.1 8.8.8.2 8.8.8.3 8.8.8.4]", "", 1500 * time.Millisecond},
		{"all are dead", []string{"8.8.8.1", "8.8.8.2"}, nil, "[8.8.8.1 8.8.8.2]", ReasonASTimeout, 2 * time.Second},
		{"all refuse", []string{"8.8.8.1", "8.8.8.2"}, map[string]func(net.Conn){"8.8.8.1": nil, "8.8.8.2": nil}, "[8.8.8.1 8.8.8.2]", ReasonASRefused, 0},
		{"forbidden ones are left out", []string{"127.0.0.1", "::ffff:10.0.0.1", "8.8.8.1"}, map[string]func(net.Conn){"8.8.8.1": accept}, "[8.8.8.1]", "", 0},
		{"only forbidden ones", []string{"127.0.0.1", "fe80::1"}, nil, "[]", ReasonASForbidden, 0},
		{"mapped and plain are the same", []string{"::ffff:8.8.8.1", "8.8.8.1"}, map[string]func(net.Conn){"8.8.8.1": nil}, "[8.8.8.1]", ReasonASRefused, 0},
		{"not too many", []string{"8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4", "8.8.8.5"},
			map[string]func(net.Conn){"8.8.8.1": nil, "8.8.8.2": nil, "8.8.8.3": nil, "8.8.8.4": nil, "8.8.8.5": accept},
			"[8.8.8.1 8.8.8.2 8.8.8.3 8.8.8.4]", ReasonASRefused, 0},
		{"none", nil, nil, "[]", ReasonASNoHost, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{script: tt.script}
				v := inBubble(t, &book{hosts: map[string][]string{"as.test": tt.addrs}}, n, Options{})
				began := time.Now()
				l, err := v.pool.dialer.dial(t.Context(), wire.Server{Host: "as.test", Port: 7425})
				if err == nil {
					l.Close()
				}
				if (err == nil) != (tt.want == "") || err != nil && reasonOf(err) != tt.want {
					t.Errorf("%v, want %q", err, tt.want)
				}
				if took := time.Since(began); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if got := fmt.Sprint(n.dialed); got != tt.dialed {
					t.Errorf("dialled %s, want %s", got, tt.dialed)
				}
			})
		})
	}
}
