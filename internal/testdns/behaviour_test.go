package testdns

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

const rightTXT = `_authkey.a.test. 60 TXT "right"`

// Behaviours whose answer a client of miekg/dns can read.
func TestBehaviours(t *testing.T) {
	for _, tt := range []struct {
		name      string
		behaviour Behaviour
		change    func(*dns.Msg) // of the query
		network   string         // default udp
		want      func(*dns.Msg) bool
		answer    []string
	}{
		{name: "wrong question", behaviour: WrongQuestion(), answer: []string{rightTXT},
			want: func(r *dns.Msg) bool { return r.Question[0].Name == "other.invalid." }},
		{name: "not a response", behaviour: NotAResponse(), answer: []string{rightTXT},
			want: func(r *dns.Msg) bool { return !r.Response }},
		{name: "truncated, UDP", behaviour: Truncated(), want: func(r *dns.Msg) bool { return r.Truncated }},
		{name: "truncated, TCP", behaviour: Truncated(), network: "tcp", answer: []string{rightTXT},
			want: func(r *dns.Msg) bool { return !r.Truncated }},
		{name: "truncated without TCP", behaviour: TruncatedWithoutTCP(), want: func(r *dns.Msg) bool { return r.Truncated }},
		{name: "servfail", behaviour: Rcode(dns.RcodeServerFailure), want: func(r *dns.Msg) bool { return r.Rcode == dns.RcodeServerFailure }},
		{name: "refused", behaviour: Rcode(dns.RcodeRefused), want: func(r *dns.Msg) bool { return r.Rcode == dns.RcodeRefused }},
		{name: "lame", behaviour: Lame(), want: func(r *dns.Msg) bool {
			return r.Rcode == dns.RcodeSuccess && len(r.Ns) == 0 && !r.Authoritative && !r.RecursionAvailable
		}},
		{name: "formerr", behaviour: NoEDNS(), change: func(m *dns.Msg) { m.SetEdns0(1232, false) },
			want: func(r *dns.Msg) bool { return r.Rcode == dns.RcodeFormatError && r.IsEdns0() == nil }},
		{name: "formerr, no EDNS", behaviour: NoEDNS(), answer: []string{rightTXT},
			want: func(r *dns.Msg) bool { return r.Rcode == dns.RcodeSuccess }},
		{name: "authenticated, AD", behaviour: Authenticated(), change: func(m *dns.Msg) { m.AuthenticatedData = true },
			answer: []string{rightTXT}, want: func(r *dns.Msg) bool { return r.AuthenticatedData }},
		{name: "authenticated, DO", behaviour: Authenticated(), change: func(m *dns.Msg) { m.SetEdns0(1232, true) },
			answer: []string{rightTXT}, want: func(r *dns.Msg) bool { return r.AuthenticatedData && r.IsEdns0().Do() }},
		{name: "authenticated, not asked", behaviour: Authenticated(),
			answer: []string{rightTXT}, want: func(r *dns.Msg) bool { return !r.AuthenticatedData }},
		{name: "CNAME loop", behaviour: CNAMELoop(), want: func(r *dns.Msg) bool { return len(r.Ns) == 0 },
			answer: []string{"_authkey.a.test. 60 CNAME loop._authkey.a.test.", "loop._authkey.a.test. 60 CNAME _authkey.a.test."}},
		{name: "CNAME chain", behaviour: CNAMEChain(2), want: func(*dns.Msg) bool { return true },
			answer: []string{"_authkey.a.test. 60 CNAME c1._authkey.a.test.", "c1._authkey.a.test. 60 CNAME c2._authkey.a.test.", `c2._authkey.a.test. 60 TXT "right"`}},
		{name: "wrong owner", behaviour: WrongOwner("b.test"), want: func(*dns.Msg) bool { return true },
			answer: []string{`b.test. 60 TXT "right"`}},
		{name: "split", behaviour: SplitTXT(2), want: func(*dns.Msg) bool { return true },
			answer: []string{`_authkey.a.test. 60 TXT "ri" "gh" "t"`}},
		{name: "first", behaviour: First(0, Silent()), want: func(*dns.Msg) bool { return true }, answer: []string{rightTXT}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, `_authkey.a.test. 60 IN TXT "right"`)
			s.Behave("_AUTHKEY.a.test", tt.behaviour)
			m := txtQuery("_authkey.a.test.", false)
			if tt.change != nil {
				tt.change(m)
			}
			r := mustAsk(t, s, tt.network, m)
			if !tt.want(r) {
				t.Errorf("answer %v", r)
			}
			if diff := cmp.Diff(tt.answer, show(r.Answer)); diff != "" {
				t.Error(diff)
			}
			s.Behave("_authkey.a.test.") // rightly again
			if diff := cmp.Diff([]string{rightTXT}, show(mustAsk(t, s, "udp", m).Answer)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCNAMEOnly(t *testing.T) {
	s := startServer(t, zoneRecords...)
	s.Behave("alias2.test.", CNAMEOnly())
	got := show(mustAsk(t, s, "udp", txtQuery("alias2.test.", false)).Answer)
	if diff := cmp.Diff([]string{"alias2.test. 30 CNAME alias.test."}, got); diff != "" {
		t.Error(diff)
	}
}

// Answers that are none.
func TestForgedBytes(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	m := txtQuery("a.test.", false)
	s.Behave("a.test.", WrongID())
	wrong := rawUDP(t, s, m)
	if r := new(dns.Msg); r.Unpack(wrong) != nil || r.Id == m.Id || len(r.Answer) != 1 {
		t.Errorf("wrong id: %q", wrong)
	}
	s.Behave("a.test.", Garbage())
	garbage := rawUDP(t, s, m)
	if r := new(dns.Msg); r.Unpack(garbage) == nil || !bytes.Equal(garbage[:2], wrongID(m.Id)) {
		t.Errorf("garbage: %q", garbage)
	}
	for _, raw := range []string{"x", "abc", strings.Repeat("z", 700)} {
		s.Behave("a.test.", Raw([]byte(raw)))
		want := []byte(raw)
		if len(want) >= 2 {
			copy(want, wrongID(m.Id))
		}
		if got := rawUDP(t, s, m); !bytes.Equal(got, want) {
			t.Errorf("Raw(%q) = %q", raw, got)
		}
	}
}

func wrongID(id uint16) []byte { return []byte{byte(id >> 8), byte(id)} }

func TestHangUp(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	s.Behave("a.test.", TruncatedWithoutTCP())
	if r, err := exchangeOver("tcp", s, txtQuery("a.test.", false), patience); !errors.Is(err, io.EOF) {
		t.Errorf("over TCP: %v, %v", r, err)
	}
}

func TestSilence(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`, `b.test. 60 IN TXT "x"`)
	s.Behave("*", First(2, Silent()))
	s.Behave("b.test")
	mustBeSilent(t, s, "udp", 1)
	mustBeSilent(t, s, "tcp", 2)
	mustAsk(t, s, "udp", txtQuery("b.test.", false))
	mustAsk(t, s, "udp", txtQuery("a.test.", false)) // the third
}

func TestLate(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	release := make(chan struct{})
	s.Behave("a.test.", Late(release))
	answered := make(chan error, 1)
	go func() {
		_, err := exchangeOver("udp", s, txtQuery("a.test.", false), patience)
		answered <- err
	}()
	if err := s.WaitQueries(t.Context(), "a.test.", dns.TypeTXT, 1); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answered:
		t.Fatalf("answered before the release: %v", err)
	default:
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	// Close must not wait for a release that never comes; Cleanup closes.
	s.Behave("a.test.", Late(nil))
	mustBeSilent(t, s, "udp", 2)
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		parts []string
		size  int
		want  []string
	}{
		{[]string{"abc", "de"}, 2, []string{"ab", "cd", "e"}},
		{[]string{`\195\169\"a`}, 1, []string{`\195`, `\169`, `\"`, "a"}},
		{[]string{`a\`}, 1, []string{"a", `\`}},
		{nil, 3, nil},
	} {
		if diff := cmp.Diff(tt.want, split(tt.parts, tt.size)); diff != "" {
			t.Errorf("split(%q, %d): %s", tt.parts, tt.size, diff)
		}
	}
}
