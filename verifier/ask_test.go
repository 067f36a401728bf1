package verifier

import (
	"context"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/wire"
)

// Ask asks the server that it is given, and nobody else: not DNS, not the cache.
func TestAsk(t *testing.T) {
	as := startAS(t, nil, honest)
	busy := startAS(t, nil, func(s *session) {
		for req, ok := s.next(); ok; req, ok = s.next() {
			s.say("ERROR %d busy\r\n", req.Seq)
		}
	})
	at := func(port uint16) wire.Server { return wire.Server{Host: "127.0.0.1", Port: port} }
	ns := startDNS(t)
	v := startVerifier(t, options(ns.Addr()))
	for _, tc := range []struct {
		name   string
		server wire.Server
		query  Query
		status Status
		reason Reason
	}{
		{"valid", at(as.port), query(t, "bob@a.example", "good"), Pass, ""},
		{"again", at(as.port), query(t, "bob@a.example", "good"), Pass, ""},
		{"invalid", at(as.port), query(t, "bob@a.example", "bad"), Fail, ReasonInvalidKey},
		{"busy", at(busy.port), query(t, "bob@a.example", "good"), TempError, ReasonASBusy},
		{"refused", at(closedPort(t)), query(t, "bob@a.example", "good"), TempError, ReasonASRefused},
		{"forbidden", wire.Server{Host: "192.168.1.1", Port: 7425}, query(t, "bob@a.example", "good"), PermError, ReasonASForbidden},
		{"bad key", at(as.port), Query{Address: address(t, "bob@a.example"), Key: wire.JoinKeys("a b")}, Fail, ReasonBadKey},
		{"no key", at(as.port), Query{Address: address(t, "bob@a.example")}, NoKey, ""},
		{"no address", at(as.port), Query{}, None, ReasonBadAddress},
	} {
		got := v.Ask(context.Background(), tc.server, tc.query)
		if got.Status != tc.status || got.Reason != tc.reason || got.Cached {
			t.Errorf("%s: %+v, want %s %s", tc.name, got, tc.status, tc.reason)
		}
	}
	if n, m := ns.Queries("a.example", dns.TypeTXT).Total(), v.cache.Len(); n != 0 || m != 0 {
		t.Errorf("DNS was asked %d times, and %d keys are in the cache", n, m)
	}
	closed := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	closed.Close()
	if got := closed.Ask(context.Background(), at(as.port), query(t, "bob@a.example", "good")); got.Status != TempError || got.Reason != ReasonCancelled {
		t.Errorf("closed: %+v", got)
	}
}
