package verifier

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/time/rate"
)

// The dial budget (docs/protocol.md section 4): nobody may use us as a cannon. A
// bucket of rate r and burst b lets through r+b in the worst second, so that
// these give at most 50. Peers that never answered share a smaller bucket: a
// thousand names which lead nowhere must not keep us from a server that works.
const (
	dialRate, dialBurst         = 40, 10
	strangerRate, strangerBurst = 32, 8
	// One network gets no more than this: somebody whose servers answer once and
	// hang up, each on one of sixty thousand ports, would take all there is.
	networkRate, networkBurst = 8, 8

	// maxPeers bounds the memory of who answered before, and of networks.
	maxPeers = 4096
)

// A budget says when an address may be dialled.
type budget struct {
	all, strangers *rate.Limiter
	own            []netip.Prefix // the administrator's, whom no stranger can use up

	mu       sync.Mutex
	networks map[netip.Prefix]*rate.Limiter // those dialled lately
	peers    map[netip.AddrPort]struct{}    // have answered a question
	gates    map[netip.AddrPort]*gate       // strangers being dialled
}

// A gate lets one dial at a time through.
type gate struct {
	free  chan struct{} // holds one value while nobody dials
	users int           // guarded by budget.mu
}

// newBudget makes the budget of a verifier which may dial the networks own.
func newBudget(own ...netip.Prefix) *budget {
	return &budget{
		own:       own,
		all:       rate.NewLimiter(dialRate, dialBurst),
		strangers: rate.NewLimiter(strangerRate, strangerBurst),
		networks:  make(map[netip.Prefix]*rate.Limiter),
		peers:     make(map[netip.AddrPort]struct{}),
		gates:     make(map[netip.AddrPort]*gate),
	}
}

// admit waits until peer may be dialled, once. The caller calls release when the
// dial is over. The error is a *failure of ReasonDialBudget.
func (b *budget) admit(ctx context.Context, peer netip.AddrPort) (release func(), err error) {
	release = func() {}
	if g := b.gate(peer); g != nil {
		select {
		case <-g.free:
		case <-ctx.Done():
			b.leave(peer, g)
			return nil, failuref(ReasonDialBudget, "another dial to %v is under way", peer)
		}
		release = func() {
			g.free <- struct{}{}
			b.leave(peer, g)
		}
		if err := b.strangers.Wait(ctx); err != nil {
			release()
			return nil, failuref(ReasonDialBudget, "too many dials to new servers: %w", err)
		}
	}
	if l := b.network(peer.Addr()); l != nil {
		if err := l.Wait(ctx); err != nil {
			release()
			return nil, failuref(ReasonDialBudget, "too many dials to the network of %v: %w", peer, err)
		}
	}
	if err := b.all.Wait(ctx); err != nil {
		release()
		return nil, failuref(ReasonDialBudget, "too many dials: %w", err)
	}
	return release, nil
}

// network returns the bucket of an address's network, of the size that one owner
// usually has; nil for the administrator's own. It forgets those that are full again,
// whose memory makes no difference.
func (b *budget) network(addr netip.Addr) *rate.Limiter {
	if slices.ContainsFunc(b.own, func(n netip.Prefix) bool { return n.Contains(addr) }) {
		return nil
	}
	bits := 24
	if addr.Is6() {
		bits = 48
	}
	prefix, _ := addr.Prefix(bits) // dialled addresses are valid and have no zone
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.networks[prefix]
	if l == nil {
		if len(b.networks) >= maxPeers {
			maps.DeleteFunc(b.networks, func(_ netip.Prefix, l *rate.Limiter) bool { return l.Tokens() >= networkBurst })
		}
		l = rate.NewLimiter(networkRate, networkBurst)
		b.networks[prefix] = l
	}
	return l
}

// gate returns the gate of a peer which never answered, nil for any other.
func (b *budget) gate(peer netip.AddrPort) *gate {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.peers[peer]; ok {
		return nil
	}
	g := b.gates[peer]
	if g == nil {
		g = &gate{free: make(chan struct{}, 1)}
		g.free <- struct{}{}
		b.gates[peer] = g
	}
	g.users++
	return g
}

func (b *budget) leave(peer netip.AddrPort, g *gate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(b.gates, peer)
	}
}

// answered takes note that a peer answered a question.
func (b *budget) answered(peer netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.peers[peer]; ok {
		return
	}
	for old := range b.peers { // any one; it becomes known again when it answers
		if len(b.peers) < maxPeers {
			break
		}
		delete(b.peers, old)
	}
	b.peers[peer] = struct{}{}
}
