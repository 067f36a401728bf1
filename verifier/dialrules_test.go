package verifier

import (
	"net/netip"
	"testing"

	"github.com/authkey/authkey/internal/wire"
)

func TestAddressRules(t *testing.T) {
	r := dialRules{networks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}}
	tests := []struct {
		addr string
		ok   bool
	}{
		{"8.8.8.8", true}, {"1.1.1.1", true}, {"223.255.255.255", true}, {"100.63.255.255", true}, {"100.128.0.1", true},
		{"172.15.0.1", true}, {"172.32.0.1", true}, {"198.17.0.1", true}, {"198.20.0.1", true},
		{"2606:4700::1", true}, {"2a00:1450::1", true}, {"2001:200::1", true}, {"2001:4860:4860::8888", true}, {"3ffe::1", true},
		{"::ffff:8.8.8.8", true}, {"64:ff9b::808:808", true},

		{"0.0.0.0", false}, {"0.1.2.3", false}, {"10.0.0.1", false}, {"100.64.0.1", false}, {"100.127.255.255", false},
		{"127.0.0.1", false}, {"127.9.9.9", false}, {"169.254.169.254", false}, {"172.16.0.1", false}, {"172.31.255.255", false},
		{"192.0.0.1", false}, {"192.0.2.1", false}, {"192.88.99.1", false}, {"192.168.1.1", false}, {"198.18.0.1", false},
		{"198.19.255.255", false}, {"198.51.100.1", false}, {"203.0.113.1", false}, {"224.0.0.1", false}, {"239.255.255.255", false},
		{"240.0.0.1", false}, {"255.255.255.255", false},
		{"::", false}, {"::1", false}, {"::8.8.8.8", false}, {"fe80::1", false}, {"fec0::1", false}, {"fc00::1", false}, {"fd12::1", false},
		{"ff02::1", false}, {"100::1", false}, {"2001:db8::1", false}, {"3fff::1", false}, {"5f00::1", false}, {"4000::1", false},
		{"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", false}, {"::ffff:169.254.169.254", false},
		{"64:ff9b::7f00:1", false}, {"64:ff9b::a9fe:a9fe", false}, {"64:ff9b::a00:1", false}, {"64:ff9b:1::808:808", false},
		{"2002:7f00:1::", false}, {"2002:a00:1::1", false}, {"2002:c0a8:101::1", false},
		{"2001:0:7f00:1::", false}, {"2001:0:808:808:0:0:80ff:fffe", false}, {"2001:2::1", false}, {"2001:10::1", false}, {"2001:20::1", false},

		{"10.1.2.3", true}, {"::ffff:10.1.2.3", true}, {"64:ff9b::a01:203", true}, {"fd00:1::1", true}, {"10.2.0.1", false}, {"fd00:2::1", false},
	}
	for _, tt := range tests {
		err := r.address(netip.MustParseAddr(tt.addr))
		if (err == nil) != tt.ok || err != nil && reasonOf(err) != ReasonASForbidden {
			t.Errorf("%s: %v", tt.addr, err)
		}
	}
	if (dialRules{}).address(netip.Addr{}) == nil || (dialRules{}).address(netip.MustParseAddr("2606:4700::1%eth0")) == nil {
		t.Error("no address, or one with a zone, is allowed")
	}
}

func TestServerRules(t *testing.T) {
	r := dialRules{ports: []uint16{443}}
	strict := dialRules{requireTLS: true}
	tests := []struct {
		rules  dialRules
		server wire.Server
		want   Reason
	}{
		{r, wire.Server{Host: "as.test", Port: 1024}, ""},
		{r, wire.Server{Host: "as.test", Port: 443}, ""},
		{r, wire.Server{Host: "as.test", Port: 1023}, ReasonASForbidden},
		{r, wire.Server{Host: "as.test", Port: 25, TLS: true}, ReasonASForbidden},
		{r, wire.Server{Host: "127.0.0.1", Port: 7425}, ReasonASForbidden},
		{r, wire.Server{Host: "::1", Port: 7425}, ReasonASForbidden},
		{r, wire.Server{Host: "8.8.8.8", Port: 7425}, ""},
		{strict, wire.Server{Host: "as.test", Port: 7425}, ReasonASClearText},
		{strict, wire.Server{Host: "as.test", Port: 7425, TLS: true}, ""},
	}
	for _, tt := range tests {
		err := tt.rules.server(tt.server)
		if (err == nil) != (tt.want == "") || err != nil && reasonOf(err) != tt.want {
			t.Errorf("%v: %v, want %q", tt.server, err, tt.want)
		}
	}
}
