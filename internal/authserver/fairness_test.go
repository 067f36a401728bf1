package authserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/keyring"
)

// ownNetwork gives the calling goroutine, and the connections that it makes, a network of
// its own until the end of the test, with a loopback interface that has any address it is
// given. It takes root.
func ownNetwork(t *testing.T) (addAddress func(netip.Addr)) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network of its own, which takes root: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	return func(addr netip.Addr) {
		t.Helper()
		request := struct { // in6_ifreq of linux/ipv6.h
			addr   [16]byte
			prefix uint32
			index  int32
		}{addr.As16(), 128, 1}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
			t.Fatalf("add %s: %v", addr, errno)
		}
	}
}

// Whoever has a network of addresses takes no more of the places than whoever has one: a
// newcomer gets in, and who is at work keeps his place.
func TestNobodyTakesAllConnectionsFromManyAddresses(t *testing.T) {
	const places, newcomers = 300, 20
	tests := []struct {
		name     string
		attacker func(i int) string
		newcomer func(i int) string
	}{
		{"one /24", func(i int) string { return fmt.Sprintf("127.7.7.%d", 1+i%250) }, func(i int) string { return fmt.Sprintf("127.9.9.%d", 1+i) }},
		{"one /24, and the newcomers are in it", func(i int) string { return fmt.Sprintf("127.7.7.%d", 1+i%200) }, func(i int) string { return fmt.Sprintf("127.7.7.%d", 210+i) }},
		{"as many /24s", func(i int) string { return fmt.Sprintf("127.%d.%d.1", 10+i/200, i%200) }, func(i int) string { return fmt.Sprintf("127.9.%d.1", i) }},
		{"one /64", func(i int) string { return fmt.Sprintf("2001:db8:1:1::%x", 1+i) }, func(i int) string { return fmt.Sprintf("2001:db8:9:%x::1", i) }},
		{"/64s of one /48", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }, func(i int) string { return fmt.Sprintf("2001:db8:9:%x::1", i) }},
		{"/64s of one /48, and the newcomers are in it", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", 0xf00+i) }},
		{"/48s of one /32", func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i) }, func(i int) string { return fmt.Sprintf("2001:db9:%x::1", i) }},
		{"/48s of one /32, and the newcomers are in it", func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i) }, func(i int) string { return fmt.Sprintf("2001:db8:%x::1", 0xf00+i) }},
		{"/32s", func(i int) string { return fmt.Sprintf("2001:%x::1", 0x1000+i) }, func(i int) string { return fmt.Sprintf("2001:%x::1", 0x2000+i) }},
		{"an IPv6 /48, and the newcomers are of IPv4", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }, func(i int) string { return fmt.Sprintf("127.9.9.%d", 1+i) }},
		{"an IPv4 /24, and the newcomers are of IPv6", func(i int) string { return fmt.Sprintf("127.7.7.%d", 1+i%250) }, func(i int) string { return fmt.Sprintf("2001:db8:9:%x::1", i) }},
	}
	d := testDomain(t, "example.com", "bob")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			add := ownNetwork(t)
			limits := testLimits()
			limits.Connections = places
			s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
			v4 := listen(t, s, nil)
			v6 := listenOn(t, s, "[::1]:0")
			from := func(ip string) *peer {
				t.Helper()
				addr := netip.MustParseAddr(ip)
				server := v4
				if addr.Is6() {
					add(addr)
					server = v6
				}
				var nc net.Conn
				var err error
				waitFor(t, "the address", func() bool { // a new one takes the kernel a moment
					nc, err = (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))}).DialContext(t.Context(), "tcp", server)
					return !errors.Is(err, unix.EADDRNOTAVAIL)
				})
				if err != nil {
					t.Fatal(err)
				}
				return newPeer(t, nc)
			}
			asks := func(p *peer) bool {
				if _, err := io.WriteString(p, "VERIFY 1 bob@example.com x\n"); err != nil {
					return false
				}
				line, err := p.r.ReadString('\n')
				return err == nil && line == "VERIFY_REPLY 1 bob@example.com INVALIDKEY\r\n"
			}
			var atWork []*peer
			for i := range 5 {
				atWork = append(atWork, from(fmt.Sprintf("127.100.%d.1", i)))
			}
			for i := range places - len(atWork) {
				from(tt.attacker(i)) // who says nothing
			}
			waitFor(t, "all places taken", func() bool { return s.Stats().Open == places })
			served := 0
			for i := range newcomers {
				for j, p := range atWork {
					if !asks(p) {
						t.Fatalf("newcomer %d: client %d, who is at work, has lost his place", i, j)
					}
				}
				if p := from(tt.newcomer(i)); asks(p) {
					served++
				}
			}
			if served != newcomers {
				t.Errorf("%d of %d newcomers are served", served, newcomers)
			}
			if got := s.Stats(); got.Refused != 0 || got.Evicted != newcomers || got.Open > places {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Of the connections of one network, the one that has been idle for longest gives way.
func TestTheLongestIdleGivesWay(t *testing.T) {
	limits := testLimits()
	limits.Connections = 4
	s := New(Options{Limits: limits, Now: clock})
	address := listen(t, s, nil)
	from := func(ip string) *peer {
		t.Helper()
		nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, nc)
		p.send("x\n")
		if got := p.line(); got != "ERROR 0 syntax" {
			t.Fatalf("%s: %q", ip, got)
		}
		return p
	}
	speak := func(p *peer) {
		p.send("x\n")
		if got := p.line(); got != "ERROR 0 syntax" {
			t.Errorf("%q", got)
		}
	}
	var all []*peer
	for i := range 4 {
		all = append(all, from(fmt.Sprintf("127.0.%d.1", i)))
	}
	speak(all[0])
	speak(all[2])
	from("127.0.9.1")
	all[1].wantEnd()
	from("127.0.10.1")
	all[3].wantEnd()
	speak(all[0])
	speak(all[2])
}

// A network of clients may ask more than one of them, and not as much as all of them.
func TestRatePerNetwork(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	tests := []struct {
		name   string
		client func(i int) string
		want   int
	}{
		{"one client", func(int) string { return "[2001:db8::1]:1" }, 10},
		{"an IPv6 /64", func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i) }, 10},
		{"an IPv6 /48", func(i int) string { return fmt.Sprintf("[2001:db8:0:%x::1]:1", i) }, 10 * networkShare},
		{"an IPv6 /32", func(i int) string { return fmt.Sprintf("[2001:db8:%x::1]:1", i) }, 10 * providerShare},
		{"many IPv6 /32s", func(i int) string { return fmt.Sprintf("[2001:%x::1]:1", 0x1000+i) }, 10 * 40},
		{"an IPv4 /24", func(i int) string { return fmt.Sprintf("192.0.2.%d:1", i) }, 10 * networkShare},
		{"many IPv4 /24s", func(i int) string { return fmt.Sprintf("10.0.%d.1:1", i) }, 10 * 40},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limits := testLimits()
			limits.PerClient = Rate{Questions: 10, Per: 1000 * 3600 * 1e9}
			s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
			answered := 0
			var open []*client // as if they stayed connected
			for i := range 40 {
				c := &scriptedConn{remote: tt.client(i), input: strings.Repeat("VERIFY 5 bob@example.com x\n", 12)}
				open = append(open, s.clients.enter(c.RemoteAddr()))
				c.run(s)
				answered += strings.Count(c.output.String(), "INVALIDKEY")
			}
			// The first client of a network is it, until there is another one.
			if answered < tt.want || answered > tt.want+10 {
				t.Errorf("%d answered, want %d", answered, tt.want)
			}
			for _, c := range open {
				s.clients.leave(c, now)
			}
			if held := s.clients; len(held.networks) > 80 {
				t.Errorf("%d networks of %d clients", len(held.networks), len(held.all))
			}
		})
	}
}

// Networks go with the last of their clients.
func TestNetworksAreForgotten(t *testing.T) {
	table := newClients(Rate{Questions: 10, Per: 1e9})
	var all []*client
	for i := range 100 {
		all = append(all, table.enter(&net.TCPAddr{IP: net.ParseIP(fmt.Sprintf("2001:db8:%x::1", i/10))}))
	}
	if n := len(table.networks); n != 11 {
		t.Errorf("%d networks, want one /32 and ten /48s", n)
	}
	for _, c := range all {
		table.leave(c, now)
	}
	if len(table.networks) != 0 || len(table.all) != 0 {
		t.Errorf("%d networks, %d clients are left", len(table.networks), len(table.all))
	}
}

// Lines that cannot be understood are questions too: each costs a token.
func TestBadLinesCostTokens(t *testing.T) {
	d := testDomain(t, "example.com", "bob")
	for bad, counted := range map[string]Stats{"VERIFY 5 x\n": {Syntax: 7}, "VERIFY 5 bob%zz@example.com x\n": {Syntax: 7},
		"VERIFY 5 bob@elsewhere.test x\n": {NotServed: 7}, "EHLO x\n": {Syntax: 7}} {
		limits := testLimits()
		limits.PerClient = Rate{Questions: 10, Per: 1000 * 3600 * 1e9}
		s := New(Options{Domains: []*keyring.Domain{d}, Limits: limits, Now: clock})
		c := &scriptedConn{remote: "192.0.2.1:1", input: strings.Repeat(bad, 7) + strings.Repeat("VERIFY 5 bob@example.com x\n", 7)}
		c.run(s)
		out := c.output.String()
		if answered, busy := strings.Count(out, "INVALIDKEY"), strings.Count(out, "ERROR 5 busy"); answered != 3 || busy != 4 {
			t.Errorf("%q: %d answered, %d busy: %s", bad, answered, busy, out)
		}
		if got := s.Stats(); got.Syntax != counted.Syntax || got.NotServed != counted.NotServed {
			t.Errorf("%q is counted as %+v, want %+v", bad, got, counted)
		}
	}
}

// TestNetworksCountTheirConnections: what has ended counts no more.
func TestNetworksCountTheirConnections(t *testing.T) {
	all := newClients(Rate{})
	addr := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip)} }
	first, second := all.enter(addr("192.0.2.1")), all.enter(addr("192.0.2.2"))
	all.enter(addr("192.0.2.2"))
	if held, want := second.held(), (order{3, 2, 2, 2}); held != want {
		t.Errorf("held %v, want %v", held, want)
	}
	all.leave(first, now)
	if held, want := second.held(), (order{2, 2, 2, 2}); held != want {
		t.Errorf("after one has left: held %v, want %v", held, want)
	}
}

// TestOnePlaceAtATime: a connection that gives way is gone at once, so that the next
// newcomer does not get the same place.
func TestOnePlaceAtATime(t *testing.T) {
	s := New(Options{Limits: testLimits(), Now: clock})
	newcomer := s.clients.enter(&net.TCPAddr{IP: net.ParseIP("198.51.100.1")})
	for range 2 {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		s.conns[&conn{s: s, net: ours, client: s.clients.enter(&net.TCPAddr{IP: net.ParseIP("192.0.2.1")})}] = struct{}{}
	}
	for left := 1; left >= 0; left-- {
		if !s.evictFor(newcomer) || len(s.conns) != left {
			t.Errorf("%d connections are left, want %d", len(s.conns), left)
		}
	}
	if s.evictFor(newcomer) {
		t.Error("a place where there is nobody")
	}
}
