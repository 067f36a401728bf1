package verifier

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdns"
)

// TestRealResolvers: the whole walk through an unbound and a dnsmasq.
func TestRealResolvers(t *testing.T) {
	as := startAS(t, nil, honest)
	record := strings.Trim(as.record(""), `"`)
	authority, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { authority.Close() })
	lines := []string{
		fmt.Sprintf("plain.test. 300 IN TXT %q", record),
		"alias.test. 300 IN CNAME plain.test.",
		fmt.Sprintf("named.test. 300 IN TXT %q", fmt.Sprintf("AS=as.test:%d; req=yes", as.port)),
		"as.test. 300 IN A 127.0.0.1",
		"loop.test. 300 IN CNAME loop2.test.",
		"loop2.test. 300 IN CNAME loop.test.",
		"spf.test. 300 IN TXT \"v=spf1 -all\"",
	}
	for i := range 400 {
		lines = append(lines, fmt.Sprintf("many.test. 300 IN TXT \"filler number %d of many\"", i))
	}
	lines = append(lines, fmt.Sprintf("many.test. 300 IN TXT %q", record))
	if err := authority.Set(lines...); err != nil {
		t.Fatal(err)
	}
	authority.Behave("broken.test.", testdns.Rcode(dns.RcodeServerFailure))

	resolvers := map[string]func() (*testdns.Resolver, error){
		"unbound": func() (*testdns.Resolver, error) {
			if err := testdns.EnsureUnbound(t.Context(), t.Logf); err != nil {
				return nil, err
			}
			return testdns.StartUnbound(t.Context(), testdns.UnboundOptions{Forward: authority.Addr()})
		},
		"dnsmasq": func() (*testdns.Resolver, error) {
			if err := testdns.EnsureDnsmasq(t.Context(), t.Logf); err != nil {
				return nil, err
			}
			return testdns.StartDnsmasq(t.Context(), nil, "server=/test/"+strings.Replace(authority.Addr(), ":", "#", 1))
		},
	}
	for name, start := range resolvers {
		t.Run(name, func(t *testing.T) {
			r, err := start()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Stop() })
			v := startVerifier(t, options(r.Addr()))
			for _, tt := range []struct {
				domain, key string
				status      Status
				reason      Reason
			}{
				{"plain.test", "good", Pass, ""},
				{"plain.test", "bogus", Fail, ReasonInvalidKey},
				{"plain.test", "", NoKey, ""},
				{"alias.test", "good", Pass, ""},
				{"named.test", "good", Pass, ""},
				{"named.test", "", Fail, ReasonRequired},
				{"many.test", "good", Pass, ""},
				{"spf.test", "good", None, ReasonNoAS},
				{"nowhere.test", "good", None, ReasonNoAS},
				{"broken.test", "good", TempError, ReasonDNSFailure},
				{"loop.test", "good", TempError, ReasonDNSFailure},
			} {
				check(t, v, query(t, "u@"+tt.domain, tt.key), tt.status, tt.reason)
			}
		})
	}
}
