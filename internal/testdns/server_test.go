package testdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds an exchange that is expected to be answered; shortly is how long an
// answer is waited for that is not expected, once the server has the query.
const (
	patience = time.Minute
	shortly  = 100 * time.Millisecond
)

func startServer(t *testing.T, records ...string) *Server {
	t.Helper()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
	if err := s.Set(records...); err != nil {
		t.Fatal(err)
	}
	return s
}

func txtQuery(name string, edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	if edns {
		m.SetEdns0(1232, false)
	}
	return m
}

func exchangeOver(network string, s *Server, m *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	c := dns.Client{Net: network, Timeout: timeout}
	r, _, err := c.Exchange(m, s.Addr())
	return r, err
}

func mustAsk(t *testing.T, s *Server, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	r, err := exchangeOver(network, s, m, patience)
	if err != nil {
		t.Fatalf("%s over %s: %v", m.Question[0].Name, network, err)
	}
	return r
}

// mustBeSilent sends a query for a.test., the n-th that the server gets, and wants no
// answer.
func mustBeSilent(t *testing.T, s *Server, network string, n int) {
	t.Helper()
	c, err := dns.DialTimeout(network, s.Addr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMsg(txtQuery("a.test.", false)); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitQueries(t.Context(), "a.test.", dns.TypeTXT, n); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(shortly)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.ReadMsg(); err == nil {
		t.Errorf("over %s: %v", network, r)
	}
}

// rawUDP sends a query and returns whatever comes back.
func rawUDP(t *testing.T, s *Server, m *dns.Msg) []byte {
	t.Helper()
	conn, err := net.Dial("udp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, dns.MaxMsgSize)
	n, err := conn.Read(got)
	if err != nil {
		t.Fatal(err)
	}
	return got[:n]
}

// show writes records in short: owner, type, data.
func show(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		h := rr.Header()
		data := strings.TrimPrefix(rr.String(), h.String())
		out = append(out, fmt.Sprintf("%s %d %s %s", h.Name, h.Ttl, dns.TypeToString[h.Rrtype], data))
	}
	return out
}

var zoneRecords = []string{
	`_authkey.a.test. 60 IN TXT "v=1; " "two"`,
	`_authkey.a.test. 60 IN TXT "other"`,
	`deep.er.a.test. 60 IN A 192.0.2.1`,
	`alias.test. 30 IN CNAME _authkey.A.test.`,
	`alias2.test. 30 IN CNAME alias.test.`,
	`dangling.test. 30 IN CNAME nowhere.test.`,
	`empty.test. 30 IN CNAME er.a.test.`,
	`loop1.test. 30 IN CNAME loop2.test.`,
	`loop2.test. 30 IN CNAME loop1.test.`,
	`z.test. 100 IN SOA ns.z.test. h.z.test. 1 2 3 4 50`,
}

const rootSOA = ". 300 SOA ns.testdns.invalid. hostmaster.testdns.invalid. 1 3600 600 86400 300"

func TestRightAnswers(t *testing.T) {
	s := startServer(t, zoneRecords...)
	two := []string{`_authkey.a.test. 60 TXT "v=1; " "two"`, `_authkey.a.test. 60 TXT "other"`}
	aimed := []string{`_authkey.A.test. 60 TXT "v=1; " "two"`, `_authkey.A.test. 60 TXT "other"`}
	for _, tt := range []struct {
		name   string
		qtype  uint16
		rcode  int
		answer []string
		ns     []string
	}{
		{"_authkey.a.test.", dns.TypeTXT, dns.RcodeSuccess, two, nil},
		{"_AuthKey.a.TEST.", dns.TypeTXT, dns.RcodeSuccess, []string{`_AuthKey.a.TEST. 60 TXT "v=1; " "two"`, `_AuthKey.a.TEST. 60 TXT "other"`}, nil},
		{"_authkey.a.test.", dns.TypeA, dns.RcodeSuccess, nil, []string{rootSOA}},
		{"er.a.test.", dns.TypeTXT, dns.RcodeSuccess, nil, []string{rootSOA}},
		{"r.a.test.", dns.TypeTXT, dns.RcodeNameError, nil, []string{rootSOA}},
		{"nowhere.test.", dns.TypeTXT, dns.RcodeNameError, nil, []string{rootSOA}},
		{"x.y.z.test.", dns.TypeTXT, dns.RcodeNameError, nil, []string{"z.test. 50 SOA ns.z.test. h.z.test. 1 2 3 4 50"}},
		{"z.test.", dns.TypeTXT, dns.RcodeSuccess, nil, []string{"z.test. 50 SOA ns.z.test. h.z.test. 1 2 3 4 50"}},
		{"alias2.test.", dns.TypeTXT, dns.RcodeSuccess, append([]string{"alias2.test. 30 CNAME alias.test.", "alias.test. 30 CNAME _authkey.A.test."}, aimed...), nil},
		{"alias2.test.", dns.TypeCNAME, dns.RcodeSuccess, []string{"alias2.test. 30 CNAME alias.test."}, nil},
		{"dangling.test.", dns.TypeTXT, dns.RcodeNameError, []string{"dangling.test. 30 CNAME nowhere.test."}, []string{rootSOA}},
		{"empty.test.", dns.TypeTXT, dns.RcodeSuccess, []string{"empty.test. 30 CNAME er.a.test."}, []string{rootSOA}},
		{"loop1.test.", dns.TypeTXT, dns.RcodeSuccess, []string{"loop1.test. 30 CNAME loop2.test.", "loop2.test. 30 CNAME loop1.test."}, []string{rootSOA}},
		{"alias.test.", dns.TypeANY, dns.RcodeSuccess, []string{"alias.test. 30 CNAME _authkey.A.test."}, nil},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := txtQuery(tt.name, true)
			m.Question[0].Qtype = tt.qtype
			r := mustAsk(t, s, network, m)
			if r.Rcode != tt.rcode || !r.Authoritative || !r.RecursionAvailable || r.AuthenticatedData || r.Truncated || r.IsEdns0() == nil {
				t.Errorf("%s over %s: %v", tt.name, network, r.MsgHdr)
			}
			if diff := cmp.Diff(tt.answer, show(r.Answer)); diff != "" {
				t.Errorf("%s: %s", tt.name, diff)
			}
			if diff := cmp.Diff(tt.ns, show(r.Ns)); diff != "" {
				t.Errorf("%s: %s", tt.name, diff)
			}
		}
	}
}

func TestSetRemoveAndNegativeTTL(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "old"`, `a.test. 60 IN TXT "older"`, `a.test. 60 IN A 192.0.2.1`)
	if err := s.Set(`A.test. 5 IN TXT "new"`); err != nil {
		t.Fatal(err)
	}
	if got := show(mustAsk(t, s, "udp", txtQuery("a.test.", false)).Answer); !slices.Equal(got, []string{`a.test. 5 TXT "new"`}) {
		t.Errorf("after Set: %v", got)
	}
	s.SetNegativeTTL(7)
	s.Remove("a.TEST", dns.TypeTXT)
	r := mustAsk(t, s, "udp", txtQuery("a.test.", false))
	if r.Rcode != dns.RcodeSuccess || len(r.Ns) != 1 || r.Ns[0].Header().Ttl != 7 || r.Ns[0].(*dns.SOA).Minttl != 7 {
		t.Errorf("after Remove: %v", r)
	}
	s.Remove("a.test", dns.TypeANY)
	if r := mustAsk(t, s, "udp", txtQuery("a.test.", false)); r.Rcode != dns.RcodeNameError {
		t.Errorf("after removing all: %v", r)
	}
	for _, bad := range []string{"", "a.test. IN A nonsense", "; comment"} {
		if err := s.Set(`b.test. IN TXT "x"`, bad); err == nil {
			t.Errorf("Set took %q", bad)
		}
	}
	if r := mustAsk(t, s, "udp", txtQuery("b.test.", false)); r.Rcode != dns.RcodeNameError {
		t.Error("a Set that failed has set something")
	}
}

func TestTruncationBySize(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "right"`)
	s.Behave("a.test", ManyTXT(500))
	for _, tt := range []struct {
		network string
		edns    bool
		limit   int
	}{{"udp", false, 512}, {"udp", true, 1232}, {"tcp", false, dns.MaxMsgSize}} {
		r := mustAsk(t, s, tt.network, txtQuery("a.test.", tt.edns))
		if r.Truncated != (tt.network == "udp") {
			t.Errorf("%+v: TC = %v", tt, r.Truncated)
		}
		r.Compress = true
		if n := r.Len(); n > tt.limit {
			t.Errorf("%+v: %d bytes", tt, n)
		}
		if tt.network == "tcp" && (len(r.Answer) != 501 || r.Answer[500].(*dns.TXT).Txt[0] != "right") {
			t.Errorf("%d records", len(r.Answer))
		}
	}
}

func TestUnusualQueries(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	chaos := txtQuery("a.test.", false)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	if r := mustAsk(t, s, "udp", chaos); r.Rcode != dns.RcodeRefused {
		t.Errorf("class CH: %v", r)
	}
	future := txtQuery("a.test.", true)
	future.IsEdns0().SetVersion(1)
	if r := mustAsk(t, s, "udp", future); r.Rcode != dns.RcodeBadVers || len(r.Answer) != 0 {
		t.Errorf("EDNS version 1: %v", r)
	}
}

func TestQueries(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	waited := make(chan error, 1)
	go func() { waited <- s.WaitQueries(t.Context(), "a.test", dns.TypeTXT, 3) }()
	mustAsk(t, s, "udp", txtQuery("a.test.", false))
	mustAsk(t, s, "udp", txtQuery("A.TEST.", false))
	mustAsk(t, s, "tcp", txtQuery("a.test.", false))
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if got := s.Queries("a.test.", dns.TypeTXT); got != (Count{UDP: 2, TCP: 1}) || got.Total() != 3 {
		t.Errorf("Queries = %+v", got)
	}
	if got := s.Queries("a.test.", dns.TypeA); got.Total() != 0 {
		t.Errorf("Queries for A = %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitQueries(ctx, "a.test", dns.TypeTXT, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitQueries = %v", err)
	}
}

func TestPauseAndResume(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	s.Pause()
	mustBeSilent(t, s, "udp", 1)
	mustBeSilent(t, s, "tcp", 2)
	s.Resume()
	mustAsk(t, s, "udp", txtQuery("a.test.", false))
	mustAsk(t, s, "tcp", txtQuery("a.test.", false))
}

func TestCloseTCP(t *testing.T) {
	s := startServer(t, `a.test. 60 IN TXT "x"`)
	for range 2 {
		if err := s.CloseTCP(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exchangeOver("tcp", s, txtQuery("a.test.", false), patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("over TCP: %v", err)
	}
	mustAsk(t, s, "udp", txtQuery("a.test.", false))
}
