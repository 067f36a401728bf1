package testdns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func stopResolver(t *testing.T, r *Resolver) {
	t.Helper()
	for range 2 {
		if err := r.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
}

func askResolver(t *testing.T, r *Resolver, name string) *dns.Msg {
	t.Helper()
	c := dns.Client{Timeout: patience}
	m, _, err := c.Exchange(txtQuery(name, true), r.Addr())
	if err != nil {
		t.Fatalf("%s: %v; log:\n%s", name, err, r.Log())
	}
	return m
}

func TestDnsmasq(t *testing.T) {
	if err := EnsureDnsmasq(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, `far.test. 60 IN TXT "far"`)
	r, err := StartDnsmasq(t.Context(), []TXT{{"_authkey.a.test.", []string{"v=1; x", `a,"b\c`}}},
		"server=/far.test/"+strings.Replace(s.Addr(), ":", "#", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer stopResolver(t, r)
	got := askResolver(t, r, "_authkey.a.test.")
	if diff := cmp.Diff([]string{`_authkey.a.test. 0 TXT "v=1; x" "a,\"b\\c"`}, show(got.Answer)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{`far.test. 60 TXT "far"`}, show(askResolver(t, r, "far.test.").Answer)); diff != "" {
		t.Error(diff)
	}
	if m := askResolver(t, r, "other.test."); m.Rcode != dns.RcodeRefused {
		t.Errorf("other.test.: %v", m)
	}
	if !strings.Contains(r.Log(), "_authkey.a.test") {
		t.Errorf("log:\n%s", r.Log())
	}
	if r, err := StartDnsmasq(t.Context(), nil, "nonsense-option"); err == nil {
		t.Error("started with a bad configuration")
		stopResolver(t, r)
	}
}

func TestUnbound(t *testing.T) {
	if err := EnsureUnbound(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, `far.test. 60 IN TXT "far"`, `alias.test. 60 IN CNAME far.test.`)
	s.Behave("broken.test.", Rcode(dns.RcodeServerFailure))
	r, err := StartUnbound(t.Context(), UnboundOptions{
		Forward:   s.Addr(),
		LocalData: []string{`_authkey.a.test. 42 IN TXT "v=1; x" "y"`},
		Config:    []string{"verbosity: 2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stopResolver(t, r)
	for name, want := range map[string][]string{
		"_authkey.a.test.": {`_authkey.a.test. 42 TXT "v=1; x" "y"`},
		"alias.test.":      {"alias.test. 60 CNAME far.test.", `far.test. 60 TXT "far"`},
	} {
		if diff := cmp.Diff(want, show(askResolver(t, r, name).Answer)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if m := askResolver(t, r, "nowhere.test."); m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 {
		t.Errorf("nowhere.test.: %v", m)
	}
	if m := askResolver(t, r, "broken.test."); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("broken.test.: %v", m)
	}
	if s.Queries("alias.test.", dns.TypeTXT).Total() == 0 {
		t.Error("unbound did not ask the server")
	}
	if r.Log() == "" {
		t.Error("no log")
	}
	if _, err := StartUnbound(t.Context(), UnboundOptions{Forward: "nonsense"}); err == nil {
		t.Error("took a forward address without port")
	}
}
