package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// perConnection is how many messages one MTA connection carries.
	perConnection = 10
	// usualConnections is how many are open at a time.
	usualConnections = 8
	// patience is how long a filter may say nothing at all.
	patience = 30 * time.Second
	// pollEvery is how often the client looks whether it is to stop.
	pollEvery = 100 * time.Millisecond
)

// A load is what the client does to a filter: so many connections at a time, each
// closed after perConnection messages and replaced by another. Between the writes
// of one message the other connections have their turns. One thread serves all, so
// that the client costs little beside what it measures.
type load struct {
	socket      string // path of a unix socket, or host:port
	connections int
	// next is the n-th message, from 0; nil ends the load.
	next func(n int) *message
	// duration, unless 0, ends the load too: no message begins after it.
	duration time.Duration
	// first is the number of the first message's copy; numbered, unless nil, says
	// which number the n-th has.
	first    int
	numbered func(n int) int
	// timed: the time that every message takes is kept.
	timed bool
}

// same returns the next of a load that plays one message, most times (0: for ever).
func same(m *message, most int) func(int) *message {
	return func(n int) *message {
		if most > 0 && n >= most {
			return nil
		}
		return m
	}
}

// An outcome is what came of a load.
type outcome struct {
	begun   int // messages, faulty ones included
	answers map[byte]int
	changes map[byte]int // by the modification's code
	elapsed time.Duration
	times   []time.Duration // of messages that were answered, where the load is timed
}

// answered returns how many messages got an answer.
func (o outcome) answered() int {
	n := 0
	for _, count := range o.answers {
		n += count
	}
	return n
}

// client runs one load.
type client struct {
	load
	address unix.Sockaddr
	family  int
	epoll   int
	open    map[int32]*link // by descriptor
	turns   []*link         // have something to send without waiting

	agreed []byte // the filter's negotiation frame, the same each time
	terms  terms
	plans  map[planKey][]step

	outcome
	began time.Time
	heard time.Time
}

type planKey struct {
	m     *message
	first bool
}

// A link is one connection to the filter.
type link struct {
	fd       int
	messages int // begun
	current  *message
	number   int
	steps    []step
	at       int  // in steps; -1 in negotiation
	waiting  bool // for the reply to that step
	in       []byte
	sent     time.Time // when the message began
}

// readSize is more than any filter says to one message here.
const readSize = 4096

// run plays the load and returns when every message has been answered.
func (l load) run(ctx context.Context) (outcome, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := &client{load: l, open: map[int32]*link{}, plans: map[planKey][]step{}}
	c.outcome = outcome{answers: map[byte]int{}, changes: map[byte]int{}}
	var err error
	if c.family, c.address, err = resolve(l.socket); err != nil {
		return c.outcome, err
	}
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return c.outcome, err
	}
	defer unix.Close(c.epoll)
	defer func() {
		for _, k := range c.open {
			unix.Close(k.fd)
		}
	}()
	c.began = time.Now()
	c.heard = c.began
	for range l.connections {
		if err := c.connect(); err != nil {
			return c.outcome, err
		}
	}
	err = c.loop(ctx)
	c.elapsed = time.Since(c.began)
	return c.outcome, err
}

func resolve(socket string) (family int, sa unix.Sockaddr, err error) {
	if strings.HasPrefix(socket, "/") {
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: socket}, nil
	}
	var port int
	if _, err := fmt.Sscanf(socket, "127.0.0.1:%d", &port); err != nil {
		return 0, nil, fmt.Errorf("socket %q is neither a path nor 127.0.0.1:PORT", socket)
	}
	return unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}, nil
}

func (c *client) loop(ctx context.Context) error {
	events := make([]unix.EpollEvent, c.connections)
	var turns []*link
	for len(c.open) > 0 {
		wait := int(pollEvery.Milliseconds())
		if len(c.turns) > 0 {
			wait = 0
		}
		n, err := unix.EpollWait(c.epoll, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll: %w", err)
		}
		if n <= 0 && wait > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if time.Since(c.heard) > patience {
				return fmt.Errorf("the filter says nothing for %s, with %d messages open", patience, len(c.open))
			}
			continue
		}
		for _, e := range events[:max(n, 0)] {
			if err := c.readable(c.open[e.Fd]); err != nil {
				return err
			}
		}
		turns = append(turns[:0], c.turns...)
		c.turns = c.turns[:0]
		for _, k := range turns {
			if _, err := c.send(k); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// connect opens a connection, unless the load is over.
func (c *client) connect() error {
	if c.over() || c.next(c.begun) == nil {
		return nil
	}
	fd, err := unix.Socket(c.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	k := &link{fd: fd, at: -1, in: make([]byte, 0, readSize)}
	c.open[int32(fd)] = k
	if err := unix.Connect(fd, c.address); err != nil {
		return fmt.Errorf("connect to %s: %w", c.socket, err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return err
	}
	return k.write(offer())
}

func (c *client) over() bool { return c.duration > 0 && time.Since(c.began) >= c.duration }

// write sends all of b; where the filter does not read, it waits.
func (k *link) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(k.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write to the filter: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// readable takes in what a filter says.
func (c *client) readable(k *link) error {
	if cap(k.in) == len(k.in) {
		return errors.New("the filter says too much")
	}
	n, err := unix.Read(k.fd, k.in[len(k.in):cap(k.in)])
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case n == 0 || errors.Is(err, unix.ECONNRESET):
		if k.current == nil || k.current.ending != malformed {
			return fmt.Errorf("the filter closed a connection, in its message %d", k.messages)
		}
		return c.replace(k)
	case err != nil:
		return fmt.Errorf("read from the filter: %w", err)
	}
	c.heard = time.Now()
	k.in = k.in[:len(k.in)+n]
	used := 0
	for {
		rest := k.in[used:]
		if len(rest) < headSize {
			break
		}
		size, code, err := parseHead(rest, cap(k.in))
		if err != nil {
			return err
		}
		if len(rest) < size {
			break
		}
		used += size
		if gone, err := c.take(k, code, rest[headSize:size]); err != nil || gone {
			return err
		}
	}
	k.in = k.in[:copy(k.in, k.in[used:])]
	return nil
}

// take deals with one frame; gone: the link is closed.
func (c *client) take(k *link, code byte, data []byte) (gone bool, err error) {
	if k.at < 0 {
		if err := c.agree(code, data); err != nil {
			return false, err
		}
		return c.begin(k)
	}
	switch {
	case code == 'p':
		return false, nil
	case !isAnswer(code):
		if !k.waiting || !k.steps[k.at].end {
			return false, fmt.Errorf("the filter changes a message (%c) before its end", code)
		}
		c.changes[code]++
		return false, nil
	}
	if !k.waiting {
		return false, fmt.Errorf("the filter replies %c to what needs no reply", code)
	}
	k.waiting = false
	if k.steps[k.at].end {
		c.answers[code]++
		if c.timed {
			c.times = append(c.times, c.heard.Sub(k.sent))
		}
		return c.begin(k)
	}
	if code != 'c' && code != 's' {
		return false, fmt.Errorf("the filter replies %c before the end of the message", code)
	}
	k.at++
	return c.send(k)
}

// agree takes the filter's negotiation frame, which is to be the same each time.
func (c *client) agree(code byte, data []byte) (err error) {
	if code != 'O' {
		return fmt.Errorf("the filter replies %c to the negotiation", code)
	}
	if c.agreed != nil && bytes.Equal(c.agreed, data) {
		return nil
	}
	if c.agreed != nil {
		return errors.New("the filter negotiates something else each time")
	}
	c.agreed = bytes.Clone(data)
	c.terms, err = parseTerms(data)
	return err
}

// begin begins the next message on a connection, or closes it.
func (c *client) begin(k *link) (gone bool, err error) {
	var m *message
	if k.messages < perConnection && !c.over() {
		m = c.next(c.begun)
	}
	if m == nil {
		if err := k.write(appendFrame(nil, 'Q', "")); err != nil {
			return false, err
		}
		return true, c.replace(k)
	}
	k.current, k.number = m, c.first+c.begun
	if c.numbered != nil {
		k.number = c.numbered(c.begun)
	}
	k.steps, k.at = c.plan(m, k.messages == 0), 0
	if c.timed {
		k.sent = time.Now()
	}
	c.begun++
	k.messages++
	return c.send(k)
}

// plan returns the steps of a message, which all links share: a step is written
// to and sent at once.
func (c *client) plan(m *message, first bool) []step {
	key := planKey{m, first}
	if c.plans[key] == nil {
		c.plans[key] = c.terms.compile(m, first)
	}
	return c.plans[key]
}

// send sends the step that a link is at. The next one gets its turn after the other
// links', unless the filter has to reply before.
func (c *client) send(k *link) (gone bool, err error) {
	s := &k.steps[k.at]
	s.number(k.number)
	if err := k.write(s.send); err != nil {
		return false, err
	}
	switch {
	case s.wait:
		k.waiting = true
	case k.at+1 < len(k.steps):
		k.at++
		c.turns = append(c.turns, k)
	case k.current.ending == aborted: // there is no answer to wait for
		return c.begin(k)
	case k.current.ending == dropped:
		return true, c.replace(k)
	}
	return false, nil
}

// replace closes a link and opens another.
func (c *client) replace(k *link) error {
	delete(c.open, int32(k.fd))
	if err := unix.Close(k.fd); err != nil {
		return err
	}
	return c.connect()
}
