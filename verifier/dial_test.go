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

	"golang.org/x/time/rate"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/wire"
)

func TestAddressRules(t *testing.T) {
	r := dialRules{networks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}}
	tests := []struct {
		addr string
		ok   bool
	}{
		{"8.8.8.8", true}, {"1.1.1.1", true}, {"223.255.255.255", true}, {"100.63.255.255", true}, {"100.128.0.1", true},
		{"172.15.0.1", true}, {"172.32.0.1", true}, {"198.17.0.1", true}, {"198.20.0.1", true},
		{"2606:4700::1", true}, {"2a00:1450::1", true}, {"2001:200::1", true}, {"2001:4860:4860::8888", true}, {"3ffe::1", true},
		{"::ffff:8.8.8.8", true}, {"64:ff9b::808:808", true},

		{"0.0.0.0", false}, {"0.1.2.3", false}, {"10.0.0.1", false}, {"100.64.0.1", false}, {"100.127.255.255", false},
		{"127.0.0.1", false}, {"127.9.9.9", false}, {"169.254.169.254", false}, {"172.16.0.1", false}, {"172.31.255.255", false},
		{"192.0.0.1", false}, {"192.0.2.1", false}, {"192.88.99.1", false}, {"192.168.1.1", false}, {"198.18.0.1", false},
		{"198.19.255.255", false}, {"198.51.100.1", false}, {"203.0.113.1", false}, {"224.0.0.1", false}, {"239.255.255.255", false},
		{"240.0.0.1", false}, {"255.255.255.255", false},
		{"::", false}, {"::1", false}, {"::8.8.8.8", false}, {"fe80::1", false}, {"fec0::1", false}, {"fc00::1", false}, {"fd12::1", false},
		{"ff02::1", false}, {"100::1", false}, {"2001:db8::1", false}, {"3fff::1", false}, {"5f00::1", false}, {"4000::1", false},
		{"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", false}, {"::ffff:169.254.169.254", false},
		{"64:ff9b::7f00:1", false}, {"64:ff9b::a9fe:a9fe", false}, {"64:ff9b::a00:1", false}, {"64:ff9b:1::808:808", false},
		{"2002:7f00:1::", false}, {"2002:a00:1::1", false}, {"2002:c0a8:101::1", false},
		{"2001:0:7f00:1::", false}, {"2001:0:808:808:0:0:80ff:fffe", false}, {"2001:2::1", false}, {"2001:10::1", false}, {"2001:20::1", false},

		{"10.1.2.3", true}, {"::ffff:10.1.2.3", true}, {"64:ff9b::a01:203", true}, {"fd00:1::1", true}, {"10.2.0.1", false}, {"fd00:2::1", false},
	}
	for _, tt := range tests {
		err := r.address(netip.MustParseAddr(tt.addr))
		if (err == nil) != tt.ok || err != nil && reasonOf(err) != ReasonASForbidden {
			t.Errorf("%s: %v", tt.addr, err)
		}
	}
	if (dialRules{}).address(netip.Addr{}) == nil || (dialRules{}).address(netip.MustParseAddr("2606:4700::1%eth0")) == nil {
		t.Error("no address, or one with a zone, is allowed")
	}
}

func TestServerRules(t *testing.T) {
	r := dialRules{ports: []uint16{443}}
	strict := dialRules{requireTLS: true}
	tests := []struct {
		rules  dialRules
		server wire.Server
		want   Reason
	}{
		{r, wire.Server{Host: "as.test", Port: 1024}, ""},
		{r, wire.Server{Host: "as.test", Port: 443}, ""},
		{r, wire.Server{Host: "as.test", Port: 1023}, ReasonASForbidden},
		{r, wire.Server{Host: "as.test", Port: 25, TLS: true}, ReasonASForbidden},
		{r, wire.Server{Host: "127.0.0.1", Port: 7425}, ReasonASForbidden},
		{r, wire.Server{Host: "::1", Port: 7425}, ReasonASForbidden},
		{r, wire.Server{Host: "8.8.8.8", Port: 7425}, ""},
		{strict, wire.Server{Host: "as.test", Port: 7425}, ReasonASClearText},
		{strict, wire.Server{Host: "as.test", Port: 7425, TLS: true}, ""},
	}
	for _, tt := range tests {
		err := tt.rules.server(tt.server)
		if (err == nil) != (tt.want == "") || err != nil && reasonOf(err) != tt.want {
			t.Errorf("%v: %v, want %q", tt.server, err, tt.want)
		}
	}
}

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

// TestDialBudget: however many servers strangers name, never more than 50 dials in
// a second; those who answered before still get through.
func TestDialBudget(t *testing.T) {
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

// TestDialBudgetIsShared: whoever has many servers that answer, all in one
// network, does not keep us from another server that answers.
func TestDialBudgetIsShared(t *testing.T) {
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

// TestNetworksOfTheDialBudget: one bucket for what one owner usually has, and none for the
// administrator's own.
func TestNetworksOfTheDialBudget(t *testing.T) {
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
