package verifier

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/wire"
)

func TestDiscover(t *testing.T) {
	var more []string
	for i := range wire.MaxServers + 2 {
		more = append(more, fmt.Sprintf(`many.test. 50 IN TXT "AS=as%d.test:7425"`, i))
	}
	for i := range maxNearMisses + 2 {
		more = append(more, fmt.Sprintf(`missed.test. 50 IN TXT "AS = as.test:7425; pri=%d"`, i))
	}
	ns := startDNS(t, append(more,
		"a.test. 100 IN CNAME b.test.",
		`b.test. 50 IN TXT "v=spf1 -all"`,
		`b.test. 50 IN TXT "AS=as.test:7425; tls=yes; req=yes"`,
		`b.test. 50 IN TXT "AS=clear.test:7425"`,
		`b.test. 50 IN TXT "AS=as.test:25; tls=yes"`,
		`b.test. 50 IN TXT "AS=[::1]:7425; tls=yes"`,
		`b.test. 50 IN TXT "AS=as.test"`)...)
	ns.Behave("a.test", testdns.Authenticated())
	ns.Behave("down.test", testdns.Rcode(dns.RcodeServerFailure))
	v := startVerifier(t, options(ns.Addr()))
	d := v.Discover(t.Context(), "A.test.")
	want := Discovery{
		Domain: "a.test",
		Texts: []string{"v=spf1 -all", "AS=as.test:7425; tls=yes; req=yes", "AS=clear.test:7425",
			"AS=as.test:25; tls=yes", "AS=[::1]:7425; tls=yes", "AS=as.test"},
		CNAMEs:   []string{"b.test."},
		Used:     []wire.Record{{Server: wire.Server{Host: "as.test", Port: 7425, TLS: true}, Pri: 10, Required: true}},
		Required: true, Published: true, AD: true, TTL: 50 * time.Second, Resolver: ns.Addr(),
	}
	if diff := cmp.Diff(want, d, cmpopts.IgnoreFields(Discovery{}, "Took", "Refused")); diff != "" {
		t.Error(diff)
	}
	if len(d.Refused) != 4 {
		t.Errorf("refused: %+v", d.Refused)
	}
	if d := v.Discover(t.Context(), "many.test"); len(d.Used) != wire.MaxServers || len(d.Refused) != 2 || d.Refused[1].Why != errTooMany {
		t.Errorf("many: %d used, refused %+v", len(d.Used), d.Refused)
	}
	if d := v.Discover(t.Context(), "missed.test"); d.Published || len(d.NearMisses) != maxNearMisses || d.NearMisses[0].Right != "AS=as.test:7425; pri=0" {
		t.Errorf("missed: published %v, %d near misses: %+v", d.Published, len(d.NearMisses), d.NearMisses)
	}
	if d := v.Discover(t.Context(), "down.test"); reasonOf(d.Err) != ReasonDNSFailure {
		t.Errorf("down: %v", d.Err)
	}
	if d := v.Discover(t.Context(), "gone.test"); d.Err != nil || d.Published {
		t.Errorf("gone: %+v", d)
	}
	if d := v.Discover(t.Context(), "bad..test"); d.Err == nil {
		t.Error("a domain that is none")
	}
	if n := v.records.domains.len(); n != 0 {
		t.Errorf("Discover left %d domains in the cache", n)
	}
}
