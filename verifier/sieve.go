package verifier

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gocache "github.com/patrickmn/go-cache"
)

// A sieve is a go-cache bounded in entries by SIEVE (Zhang et al., NSDI 2024):
// one list in order of insertion, one bit an entry that a hit sets, and one hand
// that moves from old to new, clears set bits and evicts at the first clear one.
// A flood of entries that nobody asks for again evicts itself and leaves alone
// those that are asked for.
//
// Readers take only go-cache's read lock. Expiry is kept here and not by
// go-cache, whose Get hides an expired item that its map and our list still hold.
type sieve[V any] struct {
	store *gocache.Cache // key → *node[V]
	max   int

	mu         sync.Mutex // one writer; guards the list
	head, tail *node[V]   // newest, oldest
	hand       *node[V]   // next to be looked at; nil is the tail
	n          int
}

// A node is immutable but for its links, which sieve.mu guards, and its bit.
type node[V any] struct {
	key          string
	newer, older *node[V]
	ends         deadline
	value        V
	visited      atomic.Bool
}

// A deadline has passed when either clock says so: the calendar's may be set back,
// and the other stands still while the machine sleeps.
type deadline struct {
	calendar int64         // Unix nanoseconds
	running  time.Duration // since started
}

// started is where the clock that nobody sets is counted from.
var started = time.Now()

func deadlineAt(t time.Time) deadline { return deadline{t.UnixNano(), t.Sub(started)} }

// left is how much time remains; it has passed if that is not above 0.
func (d deadline) left(now time.Time) time.Duration {
	return min(time.Duration(d.calendar-now.UnixNano()), d.running-now.Sub(started))
}

// newSieve makes a sieve for max entries; 0 keeps nothing.
func newSieve[V any](max int) *sieve[V] {
	return &sieve[V]{store: gocache.New(gocache.NoExpiration, 0), max: max}
}

func (s *sieve[V]) find(key string) *node[V] {
	item, ok := s.store.Get(key)
	if !ok {
		return nil
	}
	return item.(*node[V])
}

// get returns the value of key and for how much longer it holds, and remembers that it
// was asked for.
func (s *sieve[V]) get(key string, now time.Time) (value V, left time.Duration, ok bool) {
	n := s.find(key)
	if n == nil {
		return value, 0, false
	}
	if left = n.ends.left(now); left <= 0 {
		return value, 0, false
	}
	n.visit()
	return n.value, left, true
}

// visit sets the bit. Looking first spares the cache line of a hot entry a write.
func (n *node[V]) visit() {
	if !n.visited.Load() {
		n.visited.Store(true)
	}
}

// put sets the value of key until ends.
func (s *sieve[V]) put(key string, value V, now, ends time.Time) {
	if s.max <= 0 {
		return
	}
	n := &node[V]{value: value, ends: deadlineAt(ends)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.find(key); old != nil {
		s.replace(old, n)
		return
	}
	if s.n >= s.max {
		s.evict(now)
	}
	n.key = strings.Clone(key) // not the longer string that it may be a part of
	if n.older = s.head; n.older != nil {
		n.older.newer = n
	} else {
		s.tail = n
	}
	s.head = n
	s.n++
	s.store.Set(n.key, n, gocache.NoExpiration)
}

// replace puts n where old is, in the list and in the store.
func (s *sieve[V]) replace(old, n *node[V]) {
	n.key, n.newer, n.older = old.key, old.newer, old.older
	n.visited.Store(old.visited.Load())
	if n.newer != nil {
		n.newer.older = n
	} else {
		s.head = n
	}
	if n.older != nil {
		n.older.newer = n
	} else {
		s.tail = n
	}
	if s.hand == old {
		s.hand = n
	}
	s.store.Set(n.key, n, gocache.NoExpiration)
}

// evict removes one entry: the first from the hand on which has expired or was
// not asked for since the hand last passed. s.n is above 0.
func (s *sieve[V]) evict(now time.Time) {
	n := s.hand
	for {
		if n == nil {
			n = s.tail
		}
		if n.ends.left(now) <= 0 || !n.visited.Load() {
			break
		}
		n.visited.Store(false)
		n = n.newer
	}
	s.hand = n.newer
	s.unlink(n)
}

func (s *sieve[V]) unlink(n *node[V]) {
	if s.hand == n {
		s.hand = n.newer
	}
	if n.newer != nil {
		n.newer.older = n.older
	} else {
		s.head = n.older
	}
	if n.older != nil {
		n.older.newer = n.newer
	} else {
		s.tail = n.newer
	}
	s.n--
	s.store.Delete(n.key)
}

// remove forgets key and reports whether there was anything to forget.
func (s *sieve[V]) remove(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.find(key)
	if n == nil {
		return false
	}
	s.unlink(n)
	return true
}

// len returns the number of entries, expired ones included.
func (s *sieve[V]) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}
