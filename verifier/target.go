package verifier

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

const (
	// maxConns is how many connections to one AS are open at a time.
	maxConns = 2
	// spreadAt is how many questions one connection carries before a second is made.
	spreadAt = 100
)

// errOutOfTime says that the verification's own time ended, and that the AS had too little
// of it for its silence to count as a failure.
var errOutOfTime = &failure{reason: ReasonASTimeout, err: errors.New("no time left")}

// A target is one AS: its connections, whether it is left alone, and who waits for it.
type target struct {
	*pool
	server  Server
	breaker breaker

	users int       // guarded by pool.mu
	used  time.Time // guarded by pool.mu

	mu       sync.Mutex
	conns    []*conn
	dialing  *dialing  // at most one at a time
	waiters  list.List // of chan struct{}: those who wait for capacity, first come first served
	answered bool      // it has answered a question at some time
	closed   bool
}

// A dialing is a dial under way, for whose end several may wait.
type dialing struct {
	done chan struct{}
	err  error // set before done is closed
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

func (t *target) leftAlone() error {
	return failuref(ReasonASLeftAlone, "%v failed too often", t.server)
}

// try asks once, and once more if a pooled connection turns out to have ended.
func (t *target) try(ctx context.Context, address Address, key Key) (wire.Reply, error) {
	var since time.Time // use no connection older than this
	timeout := t.replyTimeout
	for again := false; ; again = true {
		c, q, err := t.send(ctx, address, key, since)
		if err != nil {
			return wire.Reply{}, err
		}
		o := c.await(ctx, q, timeout)
		switch {
		case o.err == nil:
			t.noteAnswer(c)
			return o.reply, nil
		case errors.Is(o.err, errEnded) && (q.pooled || o.afterAnswers) && !again:
			since = c.endedAt
			timeout -= time.Since(q.asked)
			continue
		case errors.Is(o.err, errEnded):
			return wire.Reply{}, failuref(ReasonASRefused, "%v closed the connection without a reply", t.server)
		case o.err == errOutOfTime:
		case reasonOf(o.err) == ReasonASTimeout:
			t.breaker.failed(time.Now())
		}
		return wire.Reply{}, o.err
	}
}

// noteAnswer takes note of an answer that came over c.
func (t *target) noteAnswer(c *conn) {
	t.breaker.answered()
	t.mu.Lock()
	first := !t.answered
	t.answered = true
	if first && t.waiters.Len() > 0 {
		t.startDial()
	}
	t.mu.Unlock()
	if first {
		t.dialer.limiter.noteAnswer(c.peer)
	}
}

// send puts the question on a connection with capacity, which it finds, makes or waits
// for. A connection made before since is used only if there can be no other.
func (t *target) send(ctx context.Context, address Address, key Key, since time.Time) (*conn, *question, error) {
	for pooled := true; ; {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, nil, failuref(ReasonCancelled, "closed")
		}
		if c, q := t.enqueue(address, key, since, pooled); q != nil {
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
		if !since.IsZero() { // no newer one is to be had
			since = time.Time{}
			t.mu.Unlock()
			continue
		}
		if err := t.waitForCapacity(ctx); err != nil { // unlocks
			return nil, nil, err
		}
		if t.breaker.open(time.Now()) { // by now
			return nil, nil, t.leftAlone()
		}
	}
}

// enqueue puts the question on the connection with the most capacity, and has another
// connection made where that becomes little. The results are nil if no connection has
// any. t.mu is held.
func (t *target) enqueue(address Address, key Key, since time.Time, pooled bool) (*conn, *question) {
	var best *conn
	most := 0
	for _, c := range t.conns {
		if capacity := c.capacity(); capacity > most && !c.made.Before(since) {
			best, most = c, capacity
		}
	}
	if best == nil {
		return nil, nil
	}
	if maxOutstanding-most >= spreadAt {
		t.startDial()
	}
	return best, best.enqueue(address, key, pooled)
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

// connect dials the server, as the Verifier and not on behalf of one question.
func (t *target) connect() (_ link, err error) {
	defer t.life.recoverAs(&err)
	return t.dialer.dial(t.life.ctx, t.server)
}

// dial makes a connection, and ends d.
func (t *target) dial(d *dialing) {
	l, err := t.connect()
	if err != nil && t.life.ctx.Err() == nil && reasonOf(err).countsAgainstAS() {
		t.breaker.failed(time.Now())
	}
	var c *conn
	if err == nil {
		c = newConn(l, t, randomSeq())
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
		// Not started only when the Verifier ends, and the connection with it.
		t.life.spawn(func() { t.run(c, func() { c.readLoop(c) }) })
		t.life.spawn(func() { t.run(c, func() { c.writeLoop(t.replyTimeout) }) })
		if closed {
			c.end(errEnded)
		}
	}
	d.err = err
	close(d.done)
}

// run runs the loop of one direction of a connection, and ends the connection if that
// panics.
func (t *target) run(c *conn, loop func()) {
	var err error
	defer func() {
		if err != nil {
			c.end(err)
		}
	}()
	defer t.life.recoverAs(&err)
	loop()
}

// removeConn takes an ended connection out, and takes note of a failure if its end is one.
// asked: questions waited for their answers; answered: it had answered some.
func (t *target) removeConn(c *conn, why error, asked, answered bool) {
	betweenQuestions := errors.Is(why, errEnded) && answered
	if asked && !betweenQuestions || reasonOf(why) == ReasonASViolation {
		t.breaker.failed(time.Now())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns = slices.DeleteFunc(t.conns, func(other *conn) bool { return other == c })
	t.wake(t.waiters.Len())
}

// waitForCapacity waits until some connection may have capacity again. It is called with
// t.mu held and returns without.
func (t *target) waitForCapacity(ctx context.Context) error {
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
	case <-turn: // too late for this one
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

// capacityFreed says that a connection has capacity for one more question.
func (t *target) capacityFreed() {
	t.mu.Lock()
	t.wake(1)
	t.mu.Unlock()
}
