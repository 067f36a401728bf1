package verifier

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

const (
	// maxTargets bounds how many AS are remembered, connected or left alone.
	maxTargets = 4096
	// evictSample is how many AS are looked at to find one to forget.
	evictSample = 32
)

// A pool holds the targets, whichever domains name them.
type pool struct {
	dialer       *dialer
	replyTimeout time.Duration
	life         *lifecycle

	mu      sync.Mutex
	targets map[Server]*target
}

// target returns the target of a server, and keeps it from being evicted until release; nil
// if all of maxTargets are in use.
func (p *pool) target(s Server) *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.targets[s]
	if t == nil {
		if len(p.targets) >= maxTargets && !p.evictOne() {
			return nil
		}
		t = &target{pool: p, server: s}
		p.targets[s] = t
	}
	t.users++
	t.used = time.Now()
	return t
}

func (p *pool) release(t *target) {
	p.mu.Lock()
	t.users--
	p.mu.Unlock()
}

// evictOne forgets a target that is not in use: of a sample without connection the one whose
// last use is longest ago, or, where every one has a connection, of all. Connected ones must
// count too, since a sender can name as many servers as are remembered, and keep the
// connections open. It reports false if all are in use. p.mu is held.
func (p *pool) evictOne() bool {
	var oldest, oldestConnected *target
	seen := 0
	for _, t := range p.targets { // in random order
		if t.users > 0 {
			continue
		}
		switch dialing, connected := t.state(); {
		case dialing:
		case connected:
			oldestConnected = t.older(oldestConnected)
		default:
			oldest = t.older(oldest)
			seen++
		}
		if seen == evictSample {
			break
		}
	}
	evicted := cmp.Or(oldest, oldestConnected)
	if evicted == nil {
		return false
	}
	delete(p.targets, evicted.server)
	evicted.close()
	return true
}

// close ends every connection; none is made after it.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.targets {
		t.close()
	}
}

// verify puts a question to one AS, unless we do not dial it or it is left alone. The
// error is a *failure, or one of DNS.
func (p *pool) verify(ctx context.Context, s Server, address Address, key Key) (wire.Reply, error) {
	if err := p.dialer.rules.server(s); err != nil {
		return wire.Reply{}, err
	}
	t := p.target(s)
	if t == nil {
		return wire.Reply{}, failuref(ReasonDialBudget, "%d servers are in use", maxTargets)
	}
	defer p.release(t)
	probe, ok := t.breaker.allow(time.Now())
	if !ok {
		return wire.Reply{}, t.leftAlone()
	}
	if probe {
		defer t.breaker.probed()
	}
	return t.try(ctx, address, key)
}
