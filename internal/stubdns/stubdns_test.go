package stubdns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

const testID = 4711

// response packs an answer to a TXT question about a.test.
func response(t testing.TB, change func(*dns.Msg)) []byte {
	t.Helper()
	req := new(dns.Msg)
	req.SetQuestion("a.test.", dns.TypeTXT)
	req.Id = testID
	return reply(req, change)[0]
}

func TestParseAnswer(t *testing.T) {
	answer := func(lines ...string) func(*dns.Msg) {
		return func(m *dns.Msg) {
			for _, line := range lines {
				m.Answer = append(m.Answer, rr(t, line))
			}
		}
	}
	soa := rr(t, "test. 600 IN SOA ns.test. host.test. 1 3600 600 86400 120")
	var long []string
	for i := range maxCNAMEs + 2 {
		long = append(long, fmt.Sprintf("%s 300 IN CNAME n%d.test.", []string{"a.test.", fmt.Sprintf("n%d.test.", i-1)}[min(i, 1)], i))
	}
	longest := append(slices.Clone(long[:maxCNAMEs]), fmt.Sprintf(`n%d.test. 300 IN TXT "one"`, maxCNAMEs-1))
	var chain []string
	for i := range maxCNAMEs {
		chain = append(chain, fmt.Sprintf("n%d.test.", i))
	}
	tests := []struct {
		name   string
		packet []byte
		want   Answer
		err    error
	}{
		{"the longest chain", response(t, answer(longest...)), Answer{Texts: []string{"one"}, TTL: 300 * time.Second, CNAMEs: chain}, nil},
		{"one more", response(t, answer(append(slices.Clone(long[:maxCNAMEs+1]), fmt.Sprintf(`n%d.test. 300 IN TXT "one"`, maxCNAMEs))...)), Answer{}, errCNAMEs},
		{"two records", response(t, answer(`a.test. 300 IN TXT "one"`, `a.test. 200 IN TXT "t" "wo"`)),
			Answer{Texts: []string{"one", "two"}, TTL: 200 * time.Second}, nil},
		{"octets and quotes", response(t, answer(`a.test. 300 IN TXT "\195\169\"\\;\010 x"`)),
			Answer{Texts: []string{"\xc3\xa9\"\\;\n x"}, TTL: 300 * time.Second}, nil},
		{"empty text", response(t, answer(`a.test. 300 IN TXT ""`)), Answer{Texts: []string{""}, TTL: 300 * time.Second}, nil},
		{"TTL of a week", response(t, answer(`a.test. 604800 IN TXT "one"`)), Answer{Texts: []string{"one"}, TTL: 604800 * time.Second}, nil},
		{"TTL with the top bit", response(t, answer(`a.test. 4000000000 IN TXT "one"`)), Answer{Texts: []string{"one"}}, nil},
		{"AD", response(t, func(m *dns.Msg) { m.AuthenticatedData = true; answer(`a.test. 300 IN TXT "one"`)(m) }),
			Answer{Texts: []string{"one"}, TTL: 300 * time.Second, AD: true}, nil},
		{"other owner, type and class ignored", response(t, answer(`b.test. 300 IN TXT "b"`, `a.test. 1 CH TXT "ch"`,
			`a.test. 1 IN A 192.0.2.1`, `A.TEST. 300 IN TXT "one"`)), Answer{Texts: []string{"one"}, TTL: 300 * time.Second}, nil},
		{"CNAMEs in any order", response(t, answer(`c.test. 300 IN TXT "c"`, `b.test. 20 IN CNAME c.test.`, `a.test. 300 IN CNAME B.test.`)),
			Answer{Texts: []string{"c"}, TTL: 20 * time.Second, CNAMEs: []string{"B.test.", "c.test."}}, nil},
		{"CNAME to nowhere yet", response(t, answer(`a.test. 300 IN CNAME b.test.`)),
			Answer{TTL: 300 * time.Second, CNAMEs: []string{"b.test."}, next: "b.test."}, nil},
		{"CNAME to a name without", response(t, func(m *dns.Msg) { answer(`a.test. 300 IN CNAME b.test.`)(m); m.Ns = []dns.RR{soa} }),
			Answer{TTL: 120 * time.Second, CNAMEs: []string{"b.test."}}, nil},
		{"CNAME to a name that is none", response(t, func(m *dns.Msg) { answer(`a.test. 300 IN CNAME b.test.`)(m); m.Rcode = dns.RcodeNameError }),
			Answer{CNAMEs: []string{"b.test."}}, nil},
		{"CNAME loop", response(t, answer(`a.test. 300 IN CNAME b.test.`, `b.test. 300 IN CNAME a.test.`)), Answer{}, errCNAMEs},
		{"CNAME chain without end", response(t, answer(long...)), Answer{}, errCNAMEs},
		{"no name, with SOA", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError; m.Ns = []dns.RR{soa} }), Answer{TTL: 120 * time.Second}, nil},
		{"no name, without", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), Answer{}, nil},
		{"no such records", response(t, func(m *dns.Msg) { m.Ns = []dns.RR{soa} }), Answer{TTL: 120 * time.Second}, nil},
		{"no such records, without SOA", response(t, nil), Answer{}, nil},
		{"referral", response(t, func(m *dns.Msg) { m.Ns = []dns.RR{rr(t, "test. 300 IN NS ns.test.")} }), Answer{}, errLame},
		{"no recursion, no authority", response(t, func(m *dns.Msg) { m.RecursionAvailable = false }), Answer{}, errLame},
		{"SERVFAIL", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), Answer{}, cmpopts.AnyError},
		{"REFUSED without question", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeRefused; m.Question = nil }), Answer{}, cmpopts.AnyError},
		{"success without question", response(t, func(m *dns.Msg) { m.Question = nil }), Answer{}, errNotOurs},
		{"no name without question", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError; m.Question = nil }), Answer{}, errNotOurs},
		{"FORMERR", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeFormatError }), Answer{}, errNoEDNS},
		{"NOTIMP", response(t, func(m *dns.Msg) { m.Rcode = dns.RcodeNotImplemented }), Answer{}, errNoEDNS},
		{"BADVERS", response(t, func(m *dns.Msg) { m.SetEdns0(1232, false); m.Rcode = dns.RcodeBadVers }), Answer{}, errNoEDNS},
		{"truncated", response(t, func(m *dns.Msg) { m.Truncated = true }), Answer{}, errTruncated},
		{"truncated in a record", cut(response(t, func(m *dns.Msg) { m.Truncated = true; answer(`a.test. 300 IN TXT "one"`)(m) }), 3), Answer{}, errTruncated},
		{"cut short", cut(response(t, answer(`a.test. 300 IN TXT "one"`)), 3), Answer{}, errUnreadable},
		{"header only", response(t, nil)[:12], Answer{}, errNotOurs},
		{"half a header", response(t, nil)[:7], Answer{}, errNotOurs},
		{"nothing", nil, Answer{}, errNotOurs},
		{"other id", response(t, func(m *dns.Msg) { m.Id++ }), Answer{}, errNotOurs},
		{"a question itself", response(t, func(m *dns.Msg) { m.Response = false }), Answer{}, errNotOurs},
		{"other opcode", response(t, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), Answer{}, errNotOurs},
		{"other name", response(t, func(m *dns.Msg) { m.Question[0].Name = "b.test." }), Answer{}, errNotOurs},
		{"other type", response(t, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }), Answer{}, errNotOurs},
		{"other class", response(t, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), Answer{}, errNotOurs},
		{"two questions", response(t, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), Answer{}, errNotOurs},
		{"name in other case", response(t, func(m *dns.Msg) { m.Question[0].Name = "A.tesT."; answer(`a.test. 300 IN TXT "one"`)(m) }),
			Answer{Texts: []string{"one"}, TTL: 300 * time.Second}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseAnswer(tt.packet, question{"a.test.", typeTXT}, testID)
			if !cmp.Equal(err, tt.err, cmpopts.EquateErrors()) || tt.err == cmpopts.AnyError && errors.Is(err, errNotOurs) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Answer{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func cut(p []byte, n int) []byte { return p[:len(p)-n] }

// FuzzParseAnswer: whatever arrives, nothing breaks, and what is believed keeps the bounds.
func FuzzParseAnswer(f *testing.F) {
	f.Add(response(f, nil))
	f.Add(response(f, func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.Answer = []dns.RR{rr(f, `a.test. 300 IN CNAME b.test.`), rr(f, `b.test. 300 IN TXT "AS=as.test:7425" "\195\169\\"`)}
	}))
	f.Add(response(f, func(m *dns.Msg) {
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{rr(f, "test. 600 IN SOA ns.test. host.test. 1 3600 600 86400 120")}
	}))
	f.Add(response(f, func(m *dns.Msg) { m.Truncated = true }))
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, kind := range []recordType{typeTXT, typeA, typeAAAA} {
			a, err := parseAnswer(packet, question{"a.test.", kind}, testID)
			if err != nil {
				continue
			}
			if len(packet) < 12 || packet[2]&0x80 == 0 || a.TTL < 0 || a.TTL > maxTTL || len(a.CNAMEs) > maxCNAMEs ||
				kind != typeTXT && len(a.Texts) > 0 || kind == typeTXT && len(a.addrs) > 0 {
				t.Errorf("%+v", a)
			}
			total := 0
			for _, text := range a.Texts {
				total += len(text)
			}
			// Compression repeats names only, so that texts cannot be longer than the packet.
			if total > len(packet) {
				t.Errorf("%d octets of text in %d", total, len(packet))
			}
		}
	})
}

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

func TestParseResolvConf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "[127.0.0.1:53]"},
		{"search example.com\n# nameserver 192.0.2.1\noptions timeout:1\n", "[127.0.0.1:53]"},
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1 \n\tnameserver fe80::1%eth0", "[192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53]"},
		{"nameserver nonsense\nnameserver\nnameserver 192.0.2.1", "[192.0.2.1:53]"},
		{strings.Repeat("nameserver 192.0.2.1\n", 5), "[192.0.2.1:53 192.0.2.1:53 192.0.2.1:53]"},
	} {
		if got := fmt.Sprint(parseResolvConf(tt.text)); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

// TestResolvConf: the file is read again when it changes, and a file that is gone
// changes nothing.
func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		next := path + ".next" // as resolvconf(8) does it
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		servers := FromResolvConf(path, slog.New(slog.DiscardHandler))
		check := func(when, want string) {
			t.Helper()
			if got := fmt.Sprint(servers()); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
		}
		check("no file", "[127.0.0.1:53]")
		write("nameserver 192.0.2.1\n")
		time.Sleep(resolvConfCheck)
		check("written", "[192.0.2.1:53]")
		write("nameserver 192.0.2.2\n")
		check("changed just now", "[192.0.2.1:53]")
		time.Sleep(resolvConfCheck)
		check("changed", "[192.0.2.2:53]")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(resolvConfCheck)
		check("removed", "[192.0.2.2:53]")
	})
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

// closedAddr is an address on loopback where nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	pc, l := listenBoth(t)
	pc.Close()
	l.Close()
	return pc.LocalAddr().String()
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
