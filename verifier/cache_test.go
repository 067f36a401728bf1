package verifier

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

func TestDigest(t *testing.T) {
	c := NewCache(10)
	a, k := address(t, "u@a.test"), wire.JoinKeys("key")
	d := c.digest(a, k)
	if d != c.digest(a, k) {
		t.Error("the same pair, another digest")
	}
	others := map[string]digest{
		"key":     c.digest(a, wire.JoinKeys("kez")),
		"address": c.digest(address(t, "v@a.test"), k),
		"border":  c.digest(address(t, "u@a.testk"), wire.JoinKeys("ey")),
		"secret":  NewCache(10).digest(a, k),
	}
	for what, other := range others {
		if other == d {
			t.Errorf("another %s, the same digest", what)
		}
	}
	// A pool may hand out a new one; the one that was used holds no key any more.
	c.digest(a, k)
	h := c.hashers.Get().(*hasher)
	if strings.Contains(string(h.buf[:cap(h.buf)]), "key") {
		t.Error("the key stays in memory")
	}
	c.hashers.Put(h)
	// Hashers are shared, one at a time.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if c.digest(a, k) != d {
					t.Error("another digest beside others")
				}
			}
		})
	}
	wg.Wait()
}

func TestCacheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCache(10)
		a := address(t, "u@a.test")
		one, two := c.digest(a, wire.JoinKeys("one")), c.digest(a, wire.JoinKeys("two"))
		state := func(wantOne, wantTwo time.Duration) {
			t.Helper()
			ttlOne, okOne := c.valid(a, one)
			ttlTwo, okTwo := c.valid(a, two)
			if ttlOne != wantOne || ttlTwo != wantTwo || okOne != (wantOne > 0) || okTwo != (wantTwo > 0) {
				t.Errorf("one %v %v, two %v %v; want %v, %v", ttlOne, okOne, ttlTwo, okTwo, wantOne, wantTwo)
			}
			if c.has(a) != (wantOne > 0 || wantTwo > 0) {
				t.Error("has")
			}
		}
		c.put(a, one, time.Minute)
		state(time.Minute, 0)
		for i := range one {
			other := one
			other[i] ^= 1
			if _, ok := c.valid(a, other); ok {
				t.Errorf("octet %d of the digest does not count", i)
			}
		}
		time.Sleep(59 * time.Second)
		state(time.Second, 0)
		time.Sleep(time.Second)
		state(0, 0)
		c.put(a, one, time.Minute)
		c.put(a, two, time.Hour)
		state(0, time.Hour)
		c.put(a, one, 0) // not to be kept
		state(0, 0)
		if c.Len() != 0 {
			t.Errorf("%d entries", c.Len())
		}
	})
}

// TestCacheOfLongAddresses: they are kept like others, and cost little more.
func TestCacheOfLongAddresses(t *testing.T) {
	const entries = 4
	c := NewCache(entries)
	long := func(i int) wire.Address { return address(t, fmt.Sprintf("%s%d@a.test", strings.Repeat("x", 900), i)) }
	for i := range 2 * entries {
		a := long(i)
		d := c.digest(a, wire.JoinKeys("key"))
		c.put(a, d, time.Hour)
		if _, ok := c.valid(a, d); !ok || !c.has(a) {
			t.Error("a long address is not remembered")
		}
		if _, ok := c.valid(long(i+1), d); ok || c.has(long(i+1)) {
			t.Error("a long address is taken for another")
		}
		if _, ok := c.valid(a, c.digest(a, wire.JoinKeys("other"))); ok {
			t.Error("any key of a long address will do")
		}
	}
	if c.Len() != entries {
		t.Errorf("%d entries", c.Len())
	}
	for n := c.keys.head; n != nil; n = n.older {
		if len(n.key) > maxIndex {
			t.Errorf("%d octets to find an address", len(n.key))
		}
	}
	if last := long(2*entries - 1); !c.Flush(last) || c.has(last) {
		t.Error("a long address cannot be flushed")
	}
}

// TestReplyTTL: what an AS says counts up to the configured bound.
func TestReplyTTL(t *testing.T) {
	v := &Verifier{defaultTTL: 5 * time.Minute, maxTTL: time.Hour}
	tests := []struct {
		reply wire.Reply
		want  time.Duration
	}{
		{wire.Reply{}, 5 * time.Minute},
		{wire.Reply{HasTTL: true}, 0},
		{wire.Reply{HasTTL: true, TTL: time.Second}, time.Second},
		{wire.Reply{HasTTL: true, TTL: 9 * time.Hour}, time.Hour},
	}
	for _, tt := range tests {
		if got := v.ttl(tt.reply); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.reply, got, tt.want)
		}
	}
}
