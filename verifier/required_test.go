package verifier

import (
	"context"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/wire"
)

// requiringRecords remember that req.test says req=yes, for some time already.
func requiringRecords(age time.Duration) *Records {
	then := time.Now().Add(-age)
	r := NewRecords()
	r.remember("req.test", newDomainRecords(stubdns.Answer{Texts: []string{"AS=127.0.0.1:1; req=yes"}, TTL: time.Minute}, then), then)
	return r
}

// TestRequiredWhenTimeIsShort: a domain's req=yes is not forgotten where the
// verification's time ends before DNS's.
func TestRequiredWhenTimeIsShort(t *testing.T) {
	o := options(startSilentDNS(t).Addr())
	o.Records, o.Timeout, o.DNSTimeout = requiringRecords(2*time.Hour), 200*time.Millisecond, 2*time.Second
	v := startVerifier(t, o)
	for _, key := range []string{"", "bad key", "good"} {
		if r := v.Verify(context.Background(), query(t, "alice@req.test", key)); !r.Required {
			t.Errorf("key %q: %s/%s, and not required", key, r.Status, r.Reason)
		}
	}
}

// TestDomainAlone: an address that is too long to have a key is asked about nowhere but
// in DNS, whatever key the message has.
func TestDomainAlone(t *testing.T) {
	o := options("127.0.0.1:1")
	o.Records = requiringRecords(0)
	v := startVerifier(t, o)
	address, err := wire.DomainAddress("x@req.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "bad key", "good"} {
		q := Query{Address: address, Key: wire.Key{}.Join(key)}
		check(t, v, q, Fail, ReasonRequired)
		if _, ok := v.Cached(q); ok {
			t.Errorf("key %q: cached", key)
		}
	}
}

// TestRequiredUnderOverload: nor where too many verifications are under way.
func TestRequiredUnderOverload(t *testing.T) {
	o := options("127.0.0.1:1")
	o.Records = requiringRecords(0)
	v := startVerifier(t, o)
	v.underway = make(chan struct{})
	if r := check(t, v, query(t, "alice@req.test", "good"), TempError, ReasonOverload); !r.Required {
		t.Error("not required")
	}
}
