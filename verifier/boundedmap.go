package verifier

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gocache "github.com/patrickmn/go-cache"
)

// A boundedMap is a map of at most max entries, each of which expires at a time of its own.
// What it evicts is chosen by the SIEVE algorithm (Zhang et al., NSDI 2024): there is one
// list in order of insertion, one bit per entry that a hit sets, and one pointer (hand) that
// moves from old to new, clears set bits, and evicts at the first clear one. When many
// entries are added that are never asked for again, they evict each other, and entries that
// are asked for stay.
//
// Readers take only go-cache's read lock. Expiry is kept here and not by
// go-cache, whose Get hides an expired item that its map and our list still hold.
type boundedMap[V any] struct {
	store *gocache.Cache // key → *node[V]
	max   int

	mu         sync.Mutex // one writer; guards the list
	head, tail *node[V]   // newest, oldest
	hand       *node[V]   // next to be looked at; nil is the tail
	n          int
}

// A node is immutable but for its links, which boundedMap.mu guards, and its bit.
type node[V any] struct {
	key          string
	newer, older *node[V]
	ends         deadline
	value        V
	visited      atomic.Bool
}

// A deadline has passed when one of two clocks says so: the calendar's may be set back, and
// the monotonic one stops while the machine sleeps.
type deadline struct {
	calendar int64         // Unix nanoseconds
	running  time.Duration // since started
}

// started is the beginning of the monotonic clock's count.
var started = time.Now()

func deadlineAt(t time.Time) deadline { return deadline{t.UnixNano(), t.Sub(started)} }

// left is how much time remains; it has passed if that is not above 0.
func (d deadline) left(now time.Time) time.Duration {
	return min(time.Duration(d.calendar-now.UnixNano()), d.running-now.Sub(started))
}

// newBoundedMap makes a boundedMap for max entries; 0 keeps nothing.
func newBoundedMap[V any](max int) *boundedMap[V] {
	return &boundedMap[V]{store: gocache.New(gocache.NoExpiration, 0), max: max}
}

// find returns the node of key, expired or not; nil if there is none.
func (m *boundedMap[V]) find(key string) *node[V] {
	item, ok := m.store.Get(key)
	if !ok {
		return nil
	}
	return item.(*node[V])
}

// peek returns the value of key, expired or not, and does not count as asking for it.
func (m *boundedMap[V]) peek(key string) (value V, ok bool) {
	n := m.find(key)
	if n == nil {
		return value, false
	}
	return n.value, true
}

// get returns the value of key and for how much longer it holds, and remembers that it
// was asked for.
func (m *boundedMap[V]) get(key string, now time.Time) (value V, left time.Duration, ok bool) {
	n := m.find(key)
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
func (m *boundedMap[V]) put(key string, value V, now, ends time.Time) {
	if m.max <= 0 {
		return
	}
	n := &node[V]{value: value, ends: deadlineAt(ends)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.find(key); old != nil {
		m.replace(old, n)
		return
	}
	if m.n >= m.max {
		m.evict(now)
	}
	n.key = strings.Clone(key) // not the longer string that it may be a part of
	if n.older = m.head; n.older != nil {
		n.older.newer = n
	} else {
		m.tail = n
	}
	m.head = n
	m.n++
	m.store.Set(n.key, n, gocache.NoExpiration)
}

// replace puts n where old is, in the list and in the store.
func (m *boundedMap[V]) replace(old, n *node[V]) {
	n.key, n.newer, n.older = old.key, old.newer, old.older
	n.visited.Store(old.visited.Load())
	if n.newer != nil {
		n.newer.older = n
	} else {
		m.head = n
	}
	if n.older != nil {
		n.older.newer = n
	} else {
		m.tail = n
	}
	if m.hand == old {
		m.hand = n
	}
	m.store.Set(n.key, n, gocache.NoExpiration)
}

// evict removes one entry: the first from the hand on which has expired or was
// not asked for since the hand last passed. m.n is above 0.
func (m *boundedMap[V]) evict(now time.Time) {
	n := m.hand
	for {
		if n == nil {
			n = m.tail
		}
		if n.ends.left(now) <= 0 || !n.visited.Load() {
			break
		}
		n.visited.Store(false)
		n = n.newer
	}
	m.hand = n.newer
	m.unlink(n)
}

func (m *boundedMap[V]) unlink(n *node[V]) {
	if m.hand == n {
		m.hand = n.newer
	}
	if n.newer != nil {
		n.newer.older = n.older
	} else {
		m.head = n.older
	}
	if n.older != nil {
		n.older.newer = n.newer
	} else {
		m.tail = n.newer
	}
	m.n--
	m.store.Delete(n.key)
}

// remove forgets key and reports whether there was anything to forget.
func (m *boundedMap[V]) remove(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.find(key)
	if n == nil {
		return false
	}
	m.unlink(n)
	return true
}

// len returns the number of entries, expired ones included.
func (m *boundedMap[V]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}
