package verifier

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
)

// TestUnreachableHosts: a domain's records cannot make us ask DNS about many names of
// somebody else, nor about the same ones for every message.
func TestUnreachableHosts(t *testing.T) {
	const good = "good.test:7425"
	tests := []struct {
		name   string
		hosts  map[string][]string // beside good.test
		asks   string              // AS records, in order of pri
		status Status
		reason Reason
		looked string // names asked about by two verifications a second apart
	}{
		{"two lead nowhere", nil, "a.victim.test:7425 b.victim.test:7425 c.victim.test:7425 " + good, PermError, ReasonASNoHost, "a.victim.test:1 b.victim.test:1"},
		{"one leads nowhere", nil, "a.victim.test:7425 " + good, TempError, ReasonASRefused, "a.victim.test:1 good.test:2"},
		{"one, on two ports", nil, "a.victim.test:7425 a.victim.test:7426 " + good, TempError, ReasonASRefused, "a.victim.test:1 good.test:2"},
		{"one, on many ports", nil, "a.victim.test:7425 a.victim.test:7426 a.victim.test:7427 " + good, TempError, ReasonASRefused, "a.victim.test:1 good.test:2"},
		{"an address behind them", nil, "a.victim.test:7425 b.victim.test:7425 c.victim.test:7425 8.8.8.2:7425", TempError, ReasonASRefused, "a.victim.test:1 b.victim.test:1"},
		{"DNS fails", map[string][]string{"a.victim.test": {"fails"}, "b.victim.test": {"fails"}},
			"a.victim.test:7425 b.victim.test:7425 c.victim.test:7425 " + good, TempError, ReasonDNSFailure, "a.victim.test:1 b.victim.test:1"},
		{"not to be dialled", map[string][]string{"a.victim.test": {"10.0.0.1"}, "b.victim.test": {"127.0.0.1", "fe80::1"}},
			"a.victim.test:7425 b.victim.test:7425 c.victim.test:7425 " + good, PermError, ReasonASForbidden, "a.victim.test:2 b.victim.test:2"},
		{"one of each", map[string][]string{"a.victim.test": {"fails"}, "b.victim.test": {"10.0.0.1"}},
			"a.victim.test:7425 b.victim.test:7425 c.victim.test:7425 " + good, TempError, ReasonDNSFailure, "a.victim.test:1 b.victim.test:2"},
		// For these no name is looked up.
		{"forbidden ports and addresses", nil, "a.victim.test:25 b.victim.test:25 c.victim.test:25 127.0.0.1:7425 127.0.0.2:7425 " + good, TempError, ReasonASRefused, "good.test:2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var texts []string
				for i, host := range strings.Fields(tt.asks) {
					texts = append(texts, fmt.Sprintf("AS=%s; pri=%d", host, i))
				}
				b := &book{
					hosts: map[string][]string{"good.test": {"8.8.8.1"}},
					texts: func(string) (stubdns.Answer, error) { return stubdns.Answer{Texts: texts, TTL: time.Hour}, nil },
				}
				maps.Copy(b.hosts, tt.hosts)
				n := &network{script: map[string]func(net.Conn){"8.8.8.1": nil, "8.8.8.2": nil}}
				v := inBubble(t, b, n, Options{})
				for i := range 2 { // another key each, so that nothing is known
					check(t, v, query(t, "alice@a.test", fmt.Sprint("key", i)), tt.status, tt.reason)
					time.Sleep(time.Second)
				}
				delete(b.asked, "a.test")
				var looked []string
				for _, host := range slices.Sorted(maps.Keys(b.asked)) {
					looked = append(looked, fmt.Sprint(host, ":", b.asked[host]))
				}
				if got := strings.Join(looked, " "); got != tt.looked {
					t.Errorf("asked about %s, want %s", got, tt.looked)
				}
			})
		})
	}
}

// TestUnreachableHostsEnd: a name without address is asked about again after a minute, one
// that DNS failed for after five seconds, and a new Verifier knows what its
// predecessor knew.
func TestUnreachableHostsEnd(t *testing.T) {
	for host, after := range map[string]time.Duration{"none.test": noAddressTTL, "lame.test": failureTTL} {
		synctest.Test(t, func(t *testing.T) {
			b := &book{
				hosts: map[string][]string{"lame.test": {"fails"}},
				texts: func(string) (stubdns.Answer, error) {
					return stubdns.Answer{Texts: []string{"AS=" + host + ":7425"}, TTL: time.Hour}, nil
				},
			}
			n := &network{script: map[string]func(net.Conn){"8.8.8.1": func(c net.Conn) { c.Read(make([]byte, 1)) }}}
			records := NewRecords()
			for i, wait := range []time.Duration{0, after - time.Second, 2 * time.Second} {
				time.Sleep(wait)
				inBubble(t, b, n, Options{Records: records}).Verify(t.Context(), query(t, "alice@a.test", fmt.Sprint("key", i)))
				if want := 1 + i/2; b.asked[host] != want {
					t.Errorf("%s was asked about %d times after %v, want %d", host, b.asked[host], wait, want)
				}
			}
			b.hosts[host] = []string{"8.8.8.1"}
			time.Sleep(after)
			inBubble(t, b, n, Options{Records: records}).Verify(t.Context(), query(t, "alice@a.test", "key"))
			if len(n.dialed) == 0 {
				t.Errorf("%s is not dialled once it has an address", host)
			}
		})
	}
}

// TestCancelledLookup: who leaves while DNS is asked says nothing about the host.
func TestCancelledLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := inBubble(t, &book{hosts: map[string][]string{"lame.test": {"fails"}}}, &network{}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, known := range []bool{false, true} {
			if _, err := v.pool.dialer.lookup(ctx, "lame.test"); err == nil {
				t.Error("it has an address")
			}
			if _, _, got := v.records.unreachable.get("lame.test", time.Now()); got != known {
				t.Errorf("remembered as unreachable: %v, want %v", got, known)
			}
			ctx = t.Context()
		}
	})
}
