package verifier

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// Limits of the connections to AS.
const (
	// maxConns is how many connections to one AS are open at a time.
	maxConns = 2
	// spreadAt is how many questions one connection carries before a second is made.
	spreadAt = 100
	// maxTargets bounds how many AS are remembered, connected or left alone.
	maxTargets = 4096
	// evictSample is how many AS are looked at to find one to forget.
	evictSample = 32
)

// errOutOfTime says that the verification's own time ended before an AS had enough
// of it to be blamed.
var errOutOfTime = &failure{reason: ReasonASTimeout, err: errors.New("no time left")}

// A pool holds the targets, whichever domains name them.
type pool struct {
	dialer       *dialer
	replyTimeout time.Duration
	stats        *counters
	life         *life

	mu      sync.Mutex
	targets map[wire.Server]*target
}

// A target is one AS: its connections, whether it is left alone, and who waits.
type target struct {
	*pool
	server  wire.Server
	breaker breaker

	users int       // guarded by pool.mu
	used  time.Time // guarded by pool.mu

	mu       sync.Mutex
	conns    []*conn
	dialing  *dialing  // at most one at a time
	waiters  list.List // of chan struct{}: those who wait for room, first come first served
	answered bool      // it has answered a question at some time
	closed   bool
}

// A dialing is a dial that others may join.
type dialing struct {
	done chan struct{}
	err  error // set before done is closed
}

// target returns the one of a server, and holds it until release; nil if all of
// maxTargets are in use.
func (p *pool) target(s wire.Server) *target {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.targets[s]
	if t == nil {
		if len(p.targets) >= maxTargets && !p.forgetOne() {
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

// forgetOne makes place for a target: of some that are unused and unconnected, the
// one that has been for longest; where all are connected, of all that are unused. Somebody
// can name, and keep, as many servers as there is place for. p.mu is held.
func (p *pool) forgetOne() bool {
	var oldest, oldestConnected *target
	seen := 0
	for _, t := range p.targets { // in random order
		if t.users > 0 {
			continue
		}
		if dialing, connected := t.state(); dialing {
			continue
		} else if connected {
			oldestConnected = t.older(oldestConnected)
			continue
		}
		oldest = t.older(oldest)
		if seen++; seen == evictSample {
			break
		}
	}
	if oldest == nil {
		oldest = oldestConnected
	}
	if oldest == nil {
		return false
	}
	delete(p.targets, oldest.server)
	oldest.close()
	return true
}

func (t *target) state() (dialing, connected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dialing != nil, len(t.conns) > 0
}

// older returns the one of t and other, which may be nil, that was used less recently.
// pool.mu is held.
func (t *target) older(other *target) *target {
	if other == nil || t.used.Before(other.used) {
		return t
	}
	return other
}

// close ends the target's connections; none is made after it.
func (t *target) close() {
	t.mu.Lock()
	t.closed = true
	conns := t.conns
	t.conns = nil
	t.mu.Unlock()
	for _, c := range conns {
		c.end(errEnded)
	}
}

// close ends every connection; none is made after it.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.targets {
		t.close()
	}
}

// ask puts a question to one AS. The error is a *failure, or one of DNS.
func (p *pool) ask(ctx context.Context, s wire.Server, address wire.Address, key wire.Key) (wire.Reply, error) {
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
		p.stats.leftAlone.Add(1)
		return wire.Reply{}, t.leftAlone()
	}
	if probe {
		defer t.breaker.probed()
	}
	return t.ask(ctx, address, key)
}

func (t *target) leftAlone() error {
	return failuref(ReasonASLeftAlone, "%v failed too often", t.server)
}

// ask asks once, and once more if a pooled connection turns out to have ended.
func (t *target) ask(ctx context.Context, address wire.Address, key wire.Key) (wire.Reply, error) {
	var since time.Time // use no connection older than this
	patience := t.replyTimeout
	for again := false; ; again = true {
		c, q, err := t.submit(ctx, address, key, since)
		if err != nil {
			return wire.Reply{}, err
		}
		t.stats.questions.Add(1)
		h := c.await(ctx, q, patience)
		switch {
		case h.err == nil:
			t.heardFrom(c)
			return h.reply, nil
		case errors.Is(h.err, errEnded) && (q.pooled || h.spoken) && !again:
			t.stats.retries.Add(1)
			since = c.endedAt
			patience -= time.Since(q.asked)
			continue
		case errors.Is(h.err, errEnded):
			return wire.Reply{}, failuref(ReasonASRefused, "%v closed the connection without a reply", t.server)
		case h.err == errOutOfTime:
		case reasonOf(h.err) == ReasonASTimeout:
			t.stats.timeouts.Add(1)
			t.failed()
		}
		return wire.Reply{}, h.err
	}
}

// heardFrom takes note of an answer.
func (t *target) heardFrom(c *conn) {
	t.stats.answers.Add(1)
	t.breaker.answered()
	t.mu.Lock()
	first := !t.answered
	t.answered = true
	if first && t.waiters.Len() > 0 {
		t.startDial()
	}
	t.mu.Unlock()
	if first {
		t.dialer.budget.answered(c.peer)
	}
}

func (t *target) failed() {
	if t.breaker.failed(time.Now()) {
		t.stats.breakerOpenings.Add(1)
	}
}

// submit finds or makes a connection with room and puts the question on it.
func (t *target) submit(ctx context.Context, address wire.Address, key wire.Key, since time.Time) (*conn, *question, error) {
	for pooled := true; ; {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, nil, failuref(ReasonCancelled, "closed")
		}
		if c, q := t.place(address, key, since, pooled); q != nil {
			t.mu.Unlock()
			return c, q, nil
		}
		d := t.startDial()
		if d != nil {
			t.mu.Unlock()
			select {
			case <-d.done:
			case <-ctx.Done():
				return nil, nil, errOutOfTime
			}
			if d.err != nil {
				return nil, nil, d.err
			}
			pooled = false
			continue
		}
		if !since.IsZero() { // an old one, then
			since = time.Time{}
			t.mu.Unlock()
			continue
		}
		if err := t.wait(ctx); err != nil { // unlocks
			return nil, nil, err
		}
		if t.breaker.resting(time.Now()) { // by now
			return nil, nil, t.leftAlone()
		}
	}
}

// place puts the question on the connection with the most room, and has another
// connection made where that becomes little. t.mu is held.
func (t *target) place(address wire.Address, key wire.Key, since time.Time, pooled bool) (*conn, *question) {
	var best *conn
	most := 0
	for _, c := range t.conns {
		if room := c.room(); room > most && !c.born.Before(since) {
			best, most = c, room
		}
	}
	if best == nil {
		return nil, nil
	}
	if maxOutstanding-most >= spreadAt {
		t.startDial()
	}
	return best, best.ask(address, key, pooled)
}

// startDial returns the dial under way or starts one, if another connection is
// permitted: a server that never answered gets one. t.mu is held.
func (t *target) startDial() *dialing {
	limit := maxConns
	if !t.answered {
		limit = 1
	}
	if t.dialing != nil || len(t.conns) >= limit || t.closed {
		return t.dialing
	}
	d := &dialing{done: make(chan struct{})}
	t.dialing = d
	if !t.life.spawn(func() { t.dial(d) }) {
		t.dialing = nil
		d.err = failuref(ReasonCancelled, "closed")
		close(d.done)
	}
	return d
}

func (t *target) connect() (_ link, err error) {
	defer t.life.rescue(&err)
	return t.dialer.dial(t.life.ctx, t.server)
}

func (t *target) dial(d *dialing) {
	l, err := t.connect()
	if err != nil && t.life.ctx.Err() == nil && reasonOf(err).troubled() {
		t.failed()
	}
	var c *conn
	if err == nil {
		c = newConn(l, t, randomSeq())
		t.stats.connections.Add(1)
	}
	t.mu.Lock()
	t.dialing = nil
	closed := t.closed
	if c != nil && !closed {
		t.conns = append(t.conns, c)
	}
	t.wake(t.waiters.Len())
	t.mu.Unlock()
	if c != nil {
		// Refused only when the Verifier is at its end, which is the connection's too.
		t.life.spawn(func() { t.attend(c, func() { c.read(c) }) })
		t.life.spawn(func() { t.attend(c, func() { c.write(t.replyTimeout) }) })
		if closed {
			c.end(errEnded)
		}
	}
	d.err = err
	close(d.done)
}

// attend runs one side of a connection, which is at its end if that breaks.
func (t *target) attend(c *conn, side func()) {
	var err error
	defer func() {
		if err != nil {
			c.end(err)
		}
	}()
	defer t.life.rescue(&err)
	side()
}

// lost takes an ended connection out. asked: there were questions on it; spoken: it
// had answered some.
func (t *target) lost(c *conn, why error, asked, spoken bool) {
	t.stats.connections.Add(-1)
	switch {
	case errors.Is(why, errEnded):
		if asked && !spoken {
			t.failed()
		}
	case reasonOf(why) == ReasonASViolation:
		t.stats.violations.Add(1)
		t.failed()
	case asked:
		t.failed()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.conns {
		if other == c {
			t.conns = append(t.conns[:i:i], t.conns[i+1:]...)
			break
		}
	}
	t.wake(t.waiters.Len())
}

// wait waits until there may be room again. It is called with t.mu held and
// returns without.
func (t *target) wait(ctx context.Context) error {
	turn := make(chan struct{})
	place := t.waiters.PushBack(turn)
	t.mu.Unlock()
	timer := time.NewTimer(t.replyTimeout)
	defer timer.Stop()
	select {
	case <-turn:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-turn: // too late for us
		t.wake(1)
	default:
		t.waiters.Remove(place)
	}
	return failuref(ReasonASTimeout, "%v has too many questions to answer", t.server)
}

// wake lets the first n waiters look again. t.mu is held.
func (t *target) wake(n int) {
	for ; n > 0 && t.waiters.Len() > 0; n-- {
		close(t.waiters.Remove(t.waiters.Front()).(chan struct{}))
	}
}

// freed says that a connection has room for one more.
func (t *target) freed() {
	t.mu.Lock()
	t.wake(1)
	t.mu.Unlock()
}
