package stubdns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
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
