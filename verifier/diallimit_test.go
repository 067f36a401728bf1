package verifier

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/authkey/authkey/internal/wire"
)

// TestDialLimit: however many servers strangers name, never more than 50 dials in
// a second; those who answered before still get through.
func TestDialLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const strangers = 300
		b := &book{hosts: map[string][]string{"known.test": {"9.9.9.9"}}}
		n := &network{script: map[string]func(net.Conn){"9.9.9.9": func(c net.Conn) { c.Read(make([]byte, 1)) }}}
		for i := range strangers {
			addr := fmt.Sprintf("8.%d.%d.1", i/250, i%250+1)
			b.hosts[fmt.Sprintf("as%d.test", i)] = []string{addr}
			n.script[addr] = nil
		}
		v := inBubble(t, b, n, Options{})
		v.pool.dialer.limiter.noteAnswer(netip.MustParseAddrPort("9.9.9.9:7425"))
		var wg sync.WaitGroup
		var mu sync.Mutex
		reasons := make(map[Reason]int)
		for i := range strangers {
			wg.Go(func() {
				_, err := v.pool.dialer.dial(t.Context(), wire.Server{Host: fmt.Sprintf("as%d.test", i), Port: 7425})
				mu.Lock()
				reasons[reasonOf(err)]++
				mu.Unlock()
			})
		}
		synctest.Wait()
		began := time.Now()
		l, err := v.pool.dialer.dial(t.Context(), wire.Server{Host: "known.test", Port: 7425})
		if err != nil {
			t.Fatalf("a server that answered before: %v", err)
		}
		l.Close()
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("a server that answered before: after %v", took)
		}
		wg.Wait()
		if reasons[ReasonDialBudget]+reasons[ReasonASRefused] != strangers || reasons[ReasonASRefused] < 60 {
			t.Errorf("%v", reasons)
		}
		for i := range n.times {
			in := 0
			for _, other := range n.times[i:] {
				if other.Sub(n.times[i]) < time.Second {
					in++
				}
			}
			if in > 50 {
				t.Fatalf("%d dials in a second", in)
			}
		}
	})
}

// TestOneDialToStranger: a thousand names for one address do not flood it either.
func TestOneDialToStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDialLimiter()
		victim := netip.MustParseAddrPort("8.8.8.8:7425")
		release, err := b.wait(t.Context(), victim)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.wait(ctx, victim); reasonOf(err) != ReasonDialBudget {
			t.Errorf("a second dial beside the first: %v", err)
		}
		next := make(chan error)
		go func() {
			release, err := b.wait(context.Background(), victim)
			if err == nil {
				release()
			}
			next <- err
		}()
		synctest.Wait()
		release()
		if err := <-next; err != nil {
			t.Errorf("after the first: %v", err)
		}
		b.noteAnswer(victim)
		for range 3 {
			if _, err := b.wait(t.Context(), victim); err != nil {
				t.Errorf("once it answered: %v", err)
			}
		}
		if len(b.dialled) != 0 {
			t.Errorf("%d locks are left", len(b.dialled))
		}
		for i := range maxPeers + 10 {
			b.noteAnswer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, 9, byte(i >> 8), byte(i)}), 7425))
		}
		if len(b.answered) > maxPeers {
			t.Errorf("%d peers", len(b.answered))
		}
	})
}

// TestDialLimitIsShared: whoever has many servers that answer, all in one
// network, does not keep us from another server that answers.
func TestDialLimitIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDialLimiter()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for port := range uint16(300) {
			peer := netip.AddrPortFrom(netip.MustParseAddr("8.8.8.8"), 2000+port)
			b.noteAnswer(peer)
			wg.Go(func() {
				if release, err := b.wait(ctx, peer); err == nil {
					release()
				}
			})
		}
		synctest.Wait()
		good := netip.MustParseAddrPort("9.9.9.9:7425")
		b.noteAnswer(good)
		began := time.Now()
		release, err := b.wait(ctx, good)
		if err != nil || time.Since(began) > 100*time.Millisecond {
			t.Fatalf("the other server: %v after %v", err, time.Since(began))
		}
		release()
		wg.Wait()
	})
}

// TestNetworksOfTheDialLimit: one bucket for what one owner usually has, and none for the
// administrator's own.
func TestNetworksOfTheDialLimit(t *testing.T) {
	b := newDialLimiter(netip.MustParsePrefix("10.0.0.0/8"))
	bucket := func(addr string) *rate.Limiter { return b.network(netip.MustParseAddr(addr)) }
	for _, tt := range []struct {
		one, other string
		same       bool
	}{
		{"8.8.8.1", "8.8.8.255", true}, {"8.8.8.1", "8.8.9.1", false},
		{"2600:1:2::1", "2600:1:2:ffff::1", true}, {"2600:1:2::1", "2600:1:3::1", false},
	} {
		if got := bucket(tt.one) == bucket(tt.other); got != tt.same {
			t.Errorf("%s and %s share a bucket: %v", tt.one, tt.other, got)
		}
	}
	if bucket("10.1.2.3") != nil || bucket("8.8.8.1") == nil {
		t.Error("the administrator's own network has a bucket, or a stranger's none")
	}
}

// TestNetworksAreForgotten, but not one that would get more connections if it were.
func TestNetworksAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newDialLimiter()
		busy := b.network(netip.MustParseAddr("8.8.8.1"))
		busy.Allow()
		for i := range maxPeers {
			b.network(netip.AddrFrom4([4]byte{9, byte(i >> 8), byte(i), 1}))
		}
		if n := len(b.networks); n != 2 || b.network(netip.MustParseAddr("8.8.8.1")) != busy {
			t.Errorf("%d networks are left, want the busy one and the last", n)
		}
	})
}
