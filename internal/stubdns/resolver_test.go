package stubdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// startResolver makes a Resolver that asks servers.
func startResolver(t *testing.T, timeout time.Duration, servers ...string) *Resolver {
	t.Helper()
	var addrs []netip.AddrPort
	for _, s := range servers {
		addrs = append(addrs, netip.MustParseAddrPort(s))
	}
	return New(func() []netip.AddrPort { return addrs }, timeout, slog.New(slog.DiscardHandler))
}

// TestLookup: what name servers do, and what comes of it.
func TestLookup(t *testing.T) {
	good := `a.test. 300 IN TXT "one"`
	var many []string
	for i := range 700 {
		many = append(many, fmt.Sprintf(`a.test. 300 IN TXT "record number %d of many, to fill a message"`, i))
	}
	answering := func(network string, req *dns.Msg) [][]byte { return zone(t, good)(network, req) }
	tests := []struct {
		name    string
		handler func(string, *dns.Msg) [][]byte
		texts   int
		err     error
	}{
		{"plain", answering, 1, nil},
		{"hundreds of records, over TCP", zone(t, many...), len(many), nil},
		{"forged packets first", func(network string, req *dns.Msg) [][]byte {
			real := answering(network, req)[0]
			forge := func(change func(*dns.Msg)) []byte {
				m := new(dns.Msg)
				m.Unpack(real)
				m.Answer = []dns.RR{rr(t, `a.test. 300 IN TXT "forged"`), rr(t, `a.test. 300 IN TXT "twice"`)}
				change(m)
				p, _ := m.Pack()
				return p
			}
			return [][]byte{
				{}, []byte("x"), []byte(strings.Repeat("garbage", 100)),
				forge(func(m *dns.Msg) { m.Id ^= 1 }),
				forge(func(m *dns.Msg) { m.Response = false }),
				forge(func(m *dns.Msg) { m.Question[0].Name = "b.test." }),
				forge(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }),
				forge(func(m *dns.Msg) { m.Question = nil }),
				forge(func(m *dns.Msg) { m.Id ^= 2; m.Rcode = dns.RcodeNameError }),
				real,
			}
		}, 1, nil},
		{"no EDNS", func(network string, req *dns.Msg) [][]byte {
			if req.IsEdns0() != nil {
				return rcode(dns.RcodeFormatError)(network, req)
			}
			return answering(network, req)
		}, 1, nil},
		{"FORMERR whatever is asked", rcode(dns.RcodeFormatError), 0, ErrFailure},
		{"truncated over TCP too", func(_ string, req *dns.Msg) [][]byte {
			return reply(req, func(m *dns.Msg) { m.Truncated = true })
		}, 0, ErrFailure},
		{"another's answer over TCP", func(network string, req *dns.Msg) [][]byte {
			return reply(req, func(m *dns.Msg) {
				if m.Truncated = network == "udp"; !m.Truncated {
					m.Id ^= 1
				}
			})
		}, 0, ErrFailure},
		{"chain in pieces", func(_ string, req *dns.Msg) [][]byte {
			return reply(req, func(m *dns.Msg) {
				next := map[string]string{
					"a.test.": "a.test. 300 IN CNAME b.test.", "b.test.": "b.test. 300 IN CNAME c.test.", "c.test.": `c.test. 300 IN TXT "one"`,
				}[req.Question[0].Name]
				m.Answer = []dns.RR{rr(t, next)}
			})
		}, 1, nil},
		{"chain in too many pieces", func(_ string, req *dns.Msg) [][]byte {
			return reply(req, func(m *dns.Msg) {
				name := req.Question[0].Name
				m.Answer = []dns.RR{rr(t, name+" 300 IN CNAME x"+name)}
				if strings.HasPrefix(name, "xxxx") {
					m.Answer = []dns.RR{rr(t, name+` 300 IN TXT "one"`)}
				}
			})
		}, 0, ErrFailure},
		{"loop in pieces", func(_ string, req *dns.Msg) [][]byte {
			return reply(req, func(m *dns.Msg) {
				next := map[string]string{"a.test.": "b.test.", "b.test.": "a.test."}[req.Question[0].Name]
				m.Answer = []dns.RR{rr(t, req.Question[0].Name+" 300 IN CNAME "+next)}
			})
		}, 0, ErrFailure},
		{"SERVFAIL", rcode(dns.RcodeServerFailure), 0, ErrFailure},
		{"REFUSED", rcode(dns.RcodeRefused), 0, ErrFailure},
		{"a response code without a name", rcode(12), 0, ErrFailure},
		{"silent", silence, 0, ErrTimeout},
		{"no name", rcode(dns.RcodeNameError), 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := startNameServer(t, tt.handler)
			timeout := patience
			if tt.err == ErrTimeout {
				timeout = soon
			}
			r := startResolver(t, timeout, ns.addr)
			began := time.Now()
			a, err := r.TXT(t.Context(), "A.test")
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || len(a.Texts) != tt.texts {
				t.Errorf("%d texts, %v; want %d, %v", len(a.Texts), err, tt.texts, tt.err)
			}
			if slices.Contains(a.Texts, "forged") {
				t.Error("believed a forged packet")
			}
			if took := time.Since(began); took >= patience {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestNameServers: one server that works is enough, and one that hangs is asked
// last from then on.
func TestNameServers(t *testing.T) {
	good := startNameServer(t, zone(t, `a.test. 300 IN TXT "one"`))
	servfail := startNameServer(t, rcode(dns.RcodeServerFailure))
	hung := startNameServer(t, silence)
	dead := closedAddr(t)
	for _, tt := range []struct {
		name    string
		servers []string
		err     error
	}{
		{"first fails", []string{servfail.addr, good.addr}, nil},
		{"first is dead", []string{dead, good.addr}, nil},
		{"first hangs", []string{hung.addr, good.addr}, nil},
		{"all but one", []string{hung.addr, dead, servfail.addr, good.addr}, nil},
		{"all fail", []string{servfail.addr, dead}, ErrFailure},
		{"one hangs, one fails", []string{hung.addr, servfail.addr}, ErrFailure},
		{"none", nil, ErrFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timeout := patience
			if slices.Contains(tt.servers, hung.addr) && tt.err != nil {
				timeout = 5 * time.Second // which it takes, all but one interval of it for the one that fails
			}
			r := startResolver(t, timeout, tt.servers...)
			a, err := r.TXT(t.Context(), "a.test")
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || err == nil && a.Server.String() != good.addr {
				t.Errorf("%v by %v, want %v", err, a.Server, tt.err)
			}
		})
	}
	t.Run("the one that hangs is asked last", func(t *testing.T) {
		r := startResolver(t, patience, hung.addr, good.addr)
		servers := r.servers()
		for range 10 {
			if _, err := r.TXT(t.Context(), "a.test"); err != nil {
				t.Fatal(err)
			}
			if got := r.order(time.Now()); got[0] != servers[1] {
				t.Fatalf("the next to ask: %v", got)
			}
		}
		// After a while one question, and only one, tries it again.
		later := time.Now().Add(demotion + time.Second)
		if got := r.order(later); got[0] != servers[0] {
			t.Errorf("later: %v", got)
		}
		if got := r.order(later); got[0] != servers[1] {
			t.Errorf("the one after: %v", got)
		}
	})
	t.Run("the caller leaves", func(t *testing.T) {
		r := startResolver(t, time.Minute, hung.addr)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := r.TXT(ctx, "a.test"); !errors.Is(err, ErrTimeout) || time.Since(began) >= time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestLookupsAreBounded: while as many are open as may be, another one waits for its turn,
// and no longer than for an answer.
func TestLookupsAreBounded(t *testing.T) {
	ns := startNameServer(t, zone(t, `a.test. 300 IN TXT "one"`))
	r := startResolver(t, soon, ns.addr)
	for range maxLookups {
		r.open <- struct{}{}
	}
	if a, err := r.TXT(t.Context(), "a.test"); !errors.Is(err, ErrTimeout) || len(a.Texts) > 0 {
		t.Errorf("%d texts, %v; want %v", len(a.Texts), err, ErrTimeout)
	}
	r.timeout = patience
	answered := make(chan error)
	go func() {
		_, err := r.TXT(t.Context(), "a.test")
		answered <- err
	}()
	<-r.open
	if err := <-answered; err != nil {
		t.Errorf("when one has ended: %v", err)
	}
	if n := len(r.open); n != maxLookups-1 {
		t.Errorf("%d are open, want %d", n, maxLookups-1)
	}
}

// TestNameThatCannotBeAsked is a failure, and no panic.
func TestNameThatCannotBeAsked(t *testing.T) {
	r := startResolver(t, patience, startNameServer(t, silence).addr)
	if _, err := r.TXT(t.Context(), strings.Repeat("x", 64)+".test"); !errors.Is(err, ErrFailure) {
		t.Error(err)
	}
}

// TestServerThatIsGone: nothing is kept about a server that is no longer configured.
func TestServerThatIsGone(t *testing.T) {
	servers := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")}
	r := New(func() []netip.AddrPort { return servers }, patience, slog.New(slog.DiscardHandler))
	r.learn([]try{{server: servers[0]}, {server: servers[1]}}, 1)
	if got := r.order(time.Now()); got[0] != servers[1] || len(r.slow) != 1 {
		t.Fatalf("order %v, %d demoted", got, len(r.slow))
	}
	servers = servers[1:]
	if got := r.order(time.Now()); !slices.Equal(got, servers) || len(r.slow) != 0 {
		t.Errorf("order %v, %d demoted", got, len(r.slow))
	}
}

// TestSilenceIsNoFailure: the end of a lookup's time ends its questions too, which must not
// pass for failures of the servers.
func TestSilenceIsNoFailure(t *testing.T) {
	r := startResolver(t, 20*time.Millisecond, startNameServer(t, silence).addr)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if _, err := r.TXT(t.Context(), "a.test"); !errors.Is(err, ErrTimeout) {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestAddresses(t *testing.T) {
	served := zone(t, "both.test. 300 IN A 192.0.2.1", "both.test. 300 IN A 192.0.2.2", "both.test. 300 IN AAAA 2001:db8::1",
		"four.test. 300 IN A 192.0.2.1", "text.test. 300 IN TXT x", "half.test. 300 IN A 192.0.2.3", "half2.test. 300 IN TXT x")
	ns := startNameServer(t, func(network string, req *dns.Msg) [][]byte {
		if q := req.Question[0]; strings.HasPrefix(q.Name, "half") && q.Qtype == dns.TypeAAAA {
			return rcode(dns.RcodeServerFailure)(network, req)
		}
		return served(network, req)
	})
	r := startResolver(t, patience, ns.addr)
	for _, tt := range []struct {
		host, want string
		err        error
	}{
		{"both.test", "[2001:db8::1 192.0.2.1 192.0.2.2]", nil},
		{"four.test", "[192.0.2.1]", nil},
		{"text.test", "[]", nil},
		{"none.test", "[]", nil},
		{"half.test", "[192.0.2.3]", nil},
		{"half2.test", "[]", ErrFailure}, // there may be an address
	} {
		got, err := r.Addresses(t.Context(), tt.host)
		if fmt.Sprint(got) != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %v, %v", tt.host, got, err)
		}
	}
}

// TestQuestionPorts: each question comes from a port and with an id of its own.
func TestQuestionPorts(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	r := startResolver(t, patience, pc.LocalAddr().String())
	ports, ids := make(map[string]bool), make(map[uint16]bool)
	const lookups = 8
	pc.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 512)
	for range lookups {
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { r.TXT(ctx, "a.test") })
		n, from, err := pc.ReadFrom(buf)
		cancel()
		asking.Wait()
		if err != nil {
			t.Fatal(err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil || m.Question[0].Name != "a.test." || !m.RecursionDesired || m.IsEdns0().UDPSize() != ednsSize {
			t.Fatalf("%v %v", m, err)
		}
		ports[from.String()], ids[m.Id] = true, true
	}
	if len(ports) < lookups-2 || len(ids) < lookups-2 {
		t.Errorf("%d ports and %d ids in %d questions", len(ports), len(ids), lookups)
	}
}

// closedAddr is an address on loopback where nobody listens: the port belongs to a socket
// that hears one other port only, so that nobody else can listen there meanwhile.
func closedAddr(t *testing.T) string {
	t.Helper()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:9")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String()
}

// TestPanic: a fault of ours costs one lookup, and the log does not repeat what it was about.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	r := New(func() []netip.AddrPort { panic("secret") }, patience, slog.New(slog.NewTextHandler(&log, nil)))
	if _, err := r.TXT(t.Context(), "a.test"); !errors.Is(err, ErrPanic) {
		t.Errorf("TXT: %v", err)
	}
	if _, err := r.Addresses(t.Context(), "a.test"); !errors.Is(err, ErrPanic) {
		t.Errorf("Addresses: %v", err)
	}
	if text := log.String(); !strings.Contains(text, "panic in a DNS lookup") || strings.Contains(text, "secret") {
		t.Errorf("log: %s", text)
	}
}
