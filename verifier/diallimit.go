package verifier

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// How many connections are dialled in a second (docs/protocol.md section 4): nobody may
// have us flood a third party. A token bucket of rate r and burst b lets through r+b in
// the worst second, so that these give at most 50. Peers that never answered share a
// smaller bucket: a thousand servers that do not answer must not keep us from one that
// does.
const (
	dialRate, dialBurst         = 40, 10
	strangerRate, strangerBurst = 32, 8
	// One network gets no more than this: somebody whose servers answer once and close
	// the connection, each on another port, would use up the limit for all.
	networkRate, networkBurst = 8, 8

	// maxPeers bounds the memory of who answered before, and of networks.
	maxPeers = 4096
)

// A dialLimiter limits new connections: it says when an address may be dialled.
type dialLimiter struct {
	all, strangers *rate.Limiter
	own            []netip.Prefix // the administrator's, which have no limit per network

	mu       sync.Mutex
	networks map[netip.Prefix]*rate.Limiter // those dialled lately
	answered map[netip.AddrPort]struct{}    // peers that have answered a question
	dialled  map[netip.AddrPort]*dialLock   // strangers being dialled
}

// A dialLock lets one dial at a time to a stranger through. Unlike a sync.Mutex it can be
// waited for with a deadline.
type dialLock struct {
	free  chan struct{} // holds one value while nobody dials
	users int           // guarded by dialLimiter.mu
}

// newDialLimiter makes the limiter of a Verifier which may dial the networks own.
func newDialLimiter(own ...netip.Prefix) *dialLimiter {
	return &dialLimiter{
		own:       own,
		all:       rate.NewLimiter(dialRate, dialBurst),
		strangers: rate.NewLimiter(strangerRate, strangerBurst),
		networks:  make(map[netip.Prefix]*rate.Limiter),
		answered:  make(map[netip.AddrPort]struct{}),
		dialled:   make(map[netip.AddrPort]*dialLock),
	}
}

// wait waits until peer may be dialled, once. The caller calls release when the
// dial has ended. The error is a *failure of ReasonDialBudget.
func (l *dialLimiter) wait(ctx context.Context, peer netip.AddrPort) (release func(), err error) {
	release = func() {}
	if lock := l.lock(peer); lock != nil {
		select {
		case <-lock.free:
		case <-ctx.Done():
			l.unlock(peer, lock)
			return nil, failuref(ReasonDialBudget, "another dial to %v is under way", peer)
		}
		release = func() {
			lock.free <- struct{}{}
			l.unlock(peer, lock)
		}
		if err := l.strangers.Wait(ctx); err != nil {
			release()
			return nil, failuref(ReasonDialBudget, "too many dials to new servers: %w", err)
		}
	}
	if bucket := l.network(peer.Addr()); bucket != nil {
		if err := bucket.Wait(ctx); err != nil {
			release()
			return nil, failuref(ReasonDialBudget, "too many dials to the network of %v: %w", peer, err)
		}
	}
	if err := l.all.Wait(ctx); err != nil {
		release()
		return nil, failuref(ReasonDialBudget, "too many dials: %w", err)
	}
	return release, nil
}

// network returns the bucket of an address's network, of the size that one owner
// usually has; nil for the administrator's own. It forgets those that are full again,
// whose memory makes no difference.
func (l *dialLimiter) network(addr netip.Addr) *rate.Limiter {
	if slices.ContainsFunc(l.own, func(n netip.Prefix) bool { return n.Contains(addr) }) {
		return nil
	}
	bits := 24
	if addr.Is6() {
		bits = 48
	}
	prefix, _ := addr.Prefix(bits) // dialled addresses are valid and have no zone
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.networks[prefix]
	if bucket == nil {
		if len(l.networks) >= maxPeers {
			maps.DeleteFunc(l.networks, func(_ netip.Prefix, b *rate.Limiter) bool { return b.Tokens() >= networkBurst })
		}
		bucket = rate.NewLimiter(networkRate, networkBurst)
		l.networks[prefix] = bucket
	}
	return bucket
}

// lock returns the lock of a peer which never answered, nil for any other. Each one
// needs an unlock.
func (l *dialLimiter) lock(peer netip.AddrPort) *dialLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.answered[peer]; ok {
		return nil
	}
	lock := l.dialled[peer]
	if lock == nil {
		lock = &dialLock{free: make(chan struct{}, 1)}
		lock.free <- struct{}{}
		l.dialled[peer] = lock
	}
	lock.users++
	return lock
}

func (l *dialLimiter) unlock(peer netip.AddrPort, lock *dialLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lock.users--; lock.users == 0 {
		delete(l.dialled, peer)
	}
}

// noteAnswer takes note that a peer answered a question: it is no stranger any more.
func (l *dialLimiter) noteAnswer(peer netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.answered[peer]; ok {
		return
	}
	for old := range l.answered { // any one; it becomes known again when it answers
		if len(l.answered) < maxPeers {
			break
		}
		delete(l.answered, old)
	}
	l.answered[peer] = struct{}{}
}
