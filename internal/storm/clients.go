package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

const (
	// clients is how many send at once.
	clients = 6
	// tries is how often a message is tried before its client gives up, which is a fault:
	// no disturbance lasts that long.
	tries = 300
	// maxWaiting is how many deferred messages a client has at most.
	maxWaiting = 100
	// pace is how long a client rests after a message, so that messages do not grow more
	// numerous with the speed of the machine, nor take all of it.
	pace = 15 * time.Millisecond
)

// A load is several SMTP clients who send the mix, try again what was not answered for
// good, and record what they heard.
type load struct {
	w    *world
	seed uint64

	stopped  atomic.Bool
	given    atomic.Bool // up: nothing is tried again
	next     atomic.Uint64
	answered atomic.Int64
	running  sync.WaitGroup

	mu       sync.Mutex
	messages []*history
}

func newLoad(w *world, seed uint64) *load { return &load{w: w, seed: seed} }

// start starts the clients.
func (l *load) start() {
	for range clients {
		l.running.Go(l.client)
	}
}

// A waiting message is one that was deferred.
type waiting struct {
	*history
	due time.Time
}

// client is one client with its queue. Messages that were deferred do not keep it from
// sending others: a server may be left alone for half a minute.
func (l *load) client() {
	c := &client{w: l.w}
	defer c.hangUp()
	var queue []waiting
	for {
		now := time.Now()
		i := slices.IndexFunc(queue, func(q waiting) bool { return !q.due.After(now) })
		var h *history
		switch {
		case i >= 0:
			h = queue[i].history
			queue = slices.Delete(queue, i, i+1)
		case !l.stopped.Load() && len(queue) < maxWaiting:
			n := l.next.Add(1)
			pick := rand.New(rand.NewPCG(l.seed, n))
			h = l.enter(l.write(kinds[pick.IntN(len(kinds))], n))
		case len(queue) == 0:
			return
		}
		if l.given.Load() {
			return
		}
		if h != nil && !l.try(c, h) {
			queue = append(queue, waiting{h, time.Now().Add(retry(len(h.Attempts)))})
		}
		time.Sleep(rand.N(2 * pace))
	}
}

// retry is how long a client waits before it tries again, after so many attempts.
func retry(attempts int) time.Duration {
	return 50*time.Millisecond + rand.N(min(time.Duration(attempts)*100*time.Millisecond, time.Second))
}

// giveUp ends the clients, whatever still waits: there was an error.
func (l *load) giveUp() { l.given.Store(true) }

// stop waits until everything that was begun has been answered for good.
func (l *load) stop() {
	l.stopped.Store(true)
	l.running.Wait()
}

// write makes the message of a number.
func (l *load) write(k kind, n uint64) *message {
	return write(k, fmt.Sprintf("m%d", n), l.w.keys, l.seed, n)
}

// send sends a message of a kind beside the others, and returns its history. The client
// must not be used by others meanwhile.
func (l *load) send(c *client, k kind) *history {
	return l.deliver(c, l.write(k, l.next.Add(1)))
}

// deliver tries a message until it is answered for good.
func (l *load) deliver(c *client, m *message) *history {
	h := l.enter(m)
	for !l.try(c, h) && !l.given.Load() {
		time.Sleep(retry(len(h.Attempts)))
	}
	return h
}

// enter begins the history of a message.
func (l *load) enter(m *message) *history {
	h := &history{message: *m}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, h)
	return h
}

// try hands a message over once more. It reports whether nothing more is to be done: it
// was answered for good, or its client gives up.
func (l *load) try(c *client, h *history) bool {
	a := c.try(&h.message)
	h.Attempts = append(h.Attempts, a)
	done := a.Heard == accepted || a.Heard == refused
	if done {
		l.answered.Add(1)
	}
	return done || len(h.Attempts) >= tries
}

// flow waits for so many more answers.
func (l *load) flow(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	enough := l.answered.Load() + int64(n)
	if err := testdaemon.Poll(ctx, func() (bool, error) { return l.answered.Load() >= enough, nil }); err != nil {
		return fmt.Errorf("mail does not flow: %w", err)
	}
	return nil
}

// A client is one SMTP client, with the connection that it has if any.
type client struct {
	w    *world
	conn *testmta.Client
	from string // its address; "" for any
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Quit() // the other end may be dead
		c.conn = nil
	}
}

// try hands a message over once. Like a real client it begins a new connection after a
// 4xx, and does not believe that an MTA which speaks of its own disk has kept nothing.
func (c *client) try(m *message) (a attempt) {
	a.Begun = time.Now()
	defer func() { a.Ended = time.Now() }()
	from, login := "", ""
	if m.Login != "" {
		if c.w.sendmail != "" {
			from = ownClient
		} else {
			login = "LOGIN=" + m.Login
		}
	}
	// XCLIENT's login holds for the connection.
	if login != "" || from != c.from {
		c.hangUp()
	}
	if c.conn == nil {
		var err error
		if c.conn, err = testmta.DialFrom(from, c.w.mta.SMTPAddr()); err != nil {
			c.conn = nil
			a.Heard, a.Reply = deferred, err.Error()
			return a
		}
		c.from = from
	}
	out, err := c.conn.Send(testmta.Transaction{XClient: login, MailFrom: m.From, Rcpts: m.Rcpts, Data: m.Data})
	a.Heard, a.Reply, a.QueueID = listen(out, err)
	if len(out.Rcpts) == len(m.Rcpts) && a.Heard == accepted {
		for _, r := range out.Rcpts {
			if r.Code/100 != 2 {
				a.Reply = fmt.Sprintf("%s, and %s for a recipient", a.Reply, r)
			}
		}
	}
	if login != "" || a.Heard == deferred || a.Heard == lost {
		c.hangUp()
	}
	return a
}

// listen is what a client makes of an outcome.
func listen(out testmta.Outcome, err error) (what heard, reply, queueID string) {
	sent := false // the message itself
	for _, e := range out.Exchanges {
		sent = sent || e.Command == "DATA" && e.Reply.Code == 354
	}
	switch {
	case err != nil && sent:
		return lost, err.Error(), ""
	case err != nil:
		return deferred, err.Error(), ""
	case out.Accepted:
		return accepted, out.Final.String(), out.QueueID()
	case strings.Contains(out.Final.Text, "queue file write error"):
		return lost, out.Final.String(), "" // Postfix says so of a cleanup that died
	case out.Final.Code/100 == 5:
		return refused, out.Final.String(), ""
	}
	return deferred, out.Final.String(), ""
}

// errGivenUp says that a message was not answered for good.
var errGivenUp = errors.New("a letter was never answered for good")
