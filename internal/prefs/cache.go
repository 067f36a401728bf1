package prefs

import (
	"sync"
	"time"

	"github.com/authkey/authkey/policy"
)

// A cache remembers answers for a while, and at most so many. It has two
// generations: what is new or asked for is in the young one; when that is full
// the old one is dropped and the young one takes its place. A nil cache
// remembers nothing.
type cache struct {
	ttl  time.Duration
	half int // how many answers a generation holds
	born time.Time

	mu         sync.Mutex
	young, old map[string]answer
}

type answer struct {
	preference policy.Preference
	ends       time.Duration // since cache.born, so that setting the clock does not matter
}

func newCache(ttl time.Duration, entries int) *cache {
	return &cache{ttl: ttl, half: max(1, entries/2), born: time.Now(), young: make(map[string]answer)}
}

func (c *cache) get(recipient string) (policy.Preference, bool) {
	if c == nil {
		return policy.Preference{}, false
	}
	now := time.Since(c.born)
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.young[recipient]
	if !ok {
		if a, ok = c.old[recipient]; ok && a.ends > now {
			c.keep(recipient, a)
		}
	}
	return a.preference, ok && a.ends > now
}

func (c *cache) put(recipient string, p policy.Preference) {
	if c == nil {
		return
	}
	ends := time.Since(c.born) + c.ttl
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(recipient, answer{p, ends})
}

// keep puts an answer into the young generation.
func (c *cache) keep(recipient string, a answer) {
	if len(c.young) >= c.half {
		c.old, c.young = c.young, make(map[string]answer)
	}
	c.young[recipient] = a
}
