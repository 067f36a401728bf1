package verifier

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/wire"
)

// TestCheckServer: where a name leads, what of it is dialled, and what came of connecting.
func TestCheckServer(t *testing.T) {
	ca := newAuthority(t)
	plainAS := startAS(t, nil, honest)
	greeting := startAS(t, nil, func(s *session) { s.say("220 mx.test ESMTP\r\n"); <-s.done })
	good := startAS(t, ca.config(t, "good.test", time.Now().Add(time.Hour)), honest)
	other := startAS(t, ca.config(t, "other.test", time.Now().Add(time.Hour)), honest)
	ns := startDNS(t, "good.test. 300 IN A 127.0.0.1", "private.test. 300 IN A 10.0.0.1", "both.test. 300 IN A 127.0.0.1", "both.test. 300 IN A 10.0.0.1",
		"many.test. 300 IN A 9.9.9.1", "many.test. 300 IN A 9.9.9.2", "many.test. 300 IN A 9.9.9.3", "many.test. 300 IN A 9.9.9.4", "many.test. 300 IN A 9.9.9.5")
	ns.Behave("lame.test", testdns.Rcode(dns.RcodeServerFailure))
	o := options(ns.Addr())
	o.Roots = ca.pool()
	v := startVerifier(t, o)
	strict := options(ns.Addr())
	strict.AllowNetworks = nil
	stranger := startVerifier(t, strict)
	closed := closedPort(t)
	for _, tc := range []struct {
		name    string
		v       *Verifier
		server  wire.Server
		connect Connect
		addrs   int
		tried   int
		err     string // "" for a way to the server
	}{
		{"resolved", v, wire.Server{Host: "good.test", Port: good.port}, ConnectNone, 1, 0, ""},
		{"connected", v, wire.Server{Host: "127.0.0.1", Port: plainAS.port}, ConnectAllowed, 1, 1, ""},
		{"over TLS", v, wire.Server{Host: "good.test", Port: good.port, TLS: true}, ConnectAllowed, 1, 1, ""},
		{"another's certificate", v, wire.Server{Host: "good.test", Port: other.port, TLS: true}, ConnectAllowed, 1, 1, "other.test, not good.test"},
		{"no TLS there", v, wire.Server{Host: "127.0.0.1", Port: greeting.port, TLS: true}, ConnectAllowed, 1, 1, "tls: "},
		{"nobody listens", v, wire.Server{Host: "127.0.0.1", Port: closed}, ConnectAllowed, 1, 1, "refused"},
		{"no address", v, wire.Server{Host: "none.test", Port: 7425}, ConnectAllowed, 0, 0, "no address"},
		{"private", v, wire.Server{Host: "private.test", Port: 7425}, ConnectAllowed, 1, 0, "10.0.0.1 is not globally reachable"},
		{"one of two", v, wire.Server{Host: "both.test", Port: plainAS.port}, ConnectAllowed, 2, 1, ""},
		{"more than four", v, wire.Server{Host: "many.test", Port: 7425}, ConnectNone, 5, 0, ""},
		{"forbidden port", v, wire.Server{Host: "good.test", Port: 25}, ConnectAllowed, 1, 0, "port 25"},
		{"a stranger", stranger, wire.Server{Host: "good.test", Port: plainAS.port}, ConnectAllowed, 1, 0, "127.0.0.1 is not globally reachable"},
		{"one's own, reached", stranger, wire.Server{Host: "good.test", Port: plainAS.port}, ConnectAll, 1, 1, "127.0.0.1 is not globally reachable"},
	} {
		r := tc.v.CheckServer(t.Context(), tc.server, tc.connect)
		tried, surplus := 0, 0
		for _, a := range r.Addresses {
			if a.Tried {
				tried++
			}
			if a.Refused == errSurplus {
				surplus++
			}
			if tc.server.TLS && a.Tried && a.Err == nil && (a.TLS != "TLS 1.3" || a.CertificateEnds.Before(time.Now())) {
				t.Errorf("%s: %+v", tc.name, a)
			}
		}
		if (r.Err == nil) != (tc.err == "") || r.Err != nil && !strings.Contains(r.Err.Error(), tc.err) || len(r.Addresses) != tc.addrs || tried != tc.tried {
			t.Errorf("%s: %+v", tc.name, r)
		}
		if want := max(0, tc.addrs-maxAddresses); surplus != want {
			t.Errorf("%s: %d addresses too many, want %d", tc.name, surplus, want)
		}
	}
	if r := v.CheckServer(t.Context(), wire.Server{Host: "lame.test", Port: 7425}, ConnectNone); !errors.Is(r.Err, ErrDNSFailure) {
		t.Errorf("DNS fails: %+v", r)
	}
	if asked := plainAS.asked.Load() + good.asked.Load() + other.asked.Load(); asked != 0 {
		t.Errorf("%d questions were asked", asked)
	}
	ended := New(Options{AllowNetworks: []netip.Prefix{loopback}})
	ended.Close()
	if r := ended.CheckServer(context.Background(), wire.Server{Host: "127.0.0.1", Port: plainAS.port}, ConnectAllowed); r.Err == nil {
		t.Error("a closed Verifier connects")
	}
}
