package verifier

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// Limits of one connection (docs/protocol.md sections 2 and 4).
const (
	// maxOutstanding is how many questions may wait for their replies.
	maxOutstanding = 1000
	// idleTimeout ends a connection on which nobody waits.
	idleTimeout = 60 * time.Second
	// maxAge ends any connection, so that changes of DNS and certificates are seen;
	// by up to ageSpread earlier, so that two made together do not end together.
	maxAge    = time.Hour
	ageSpread = 15 * time.Minute
	// maxLate is how many replies beyond one for each question are dropped before the
	// server breaks the protocol.
	maxLate = 1000
	// keptBuffer is how large a write buffer may be to be used again.
	keptBuffer = 64 << 10
)

// errEnded says that the server, or we, ended a connection between two lines. A
// question may be asked again elsewhere.
var errEnded = errors.New("connection ended")

// A conn is one pipelined connection to an AS. Its readLoop and its writeLoop run until
// end is called; whoever has a question enqueues a line for the second and awaits what the
// first reads.
type conn struct {
	link
	owner *target
	made  time.Time
	idle  *time.Timer // ends it when nobody waits
	age   *time.Timer // retires it

	wake  chan struct{} // there is something to write
	ended chan struct{} // closed by end

	mu       sync.Mutex
	err      error // why it ended; nil until then
	endedAt  time.Time
	retired  bool // takes no more questions
	pending  map[uint64]*question
	first    uint64 // sequence numbers sent are first up to next, exclusively
	next     uint64
	sent     uint64
	replies  uint64    // to any question sent
	lastLine time.Time // when the last whole line came
	out      []byte    // lines to write
}

// A question is a VERIFY line that waits for its reply.
type question struct {
	seq     uint64
	address string
	asked   time.Time
	pooled  bool         // the connection was open before
	done    chan outcome // gets one value
}

// An outcome is what became of a question.
type outcome struct {
	reply wire.Reply
	err   error
	// afterAnswers: the connection had answered something before it ended.
	afterAnswers bool
}

func newConn(l link, owner *target, first uint64) *conn {
	c := &conn{
		link:    l,
		owner:   owner,
		made:    time.Now(),
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		pending: make(map[uint64]*question),
		first:   first,
		next:    first,
	}
	c.idle = time.AfterFunc(idleTimeout, func() { c.endIf(errEnded, func() bool { return len(c.pending) == 0 }) })
	c.age = time.AfterFunc(maxAge-rand.N(ageSpread), c.retire)
	return c
}

// randomSeq returns the first sequence number of a connection, which is never 0.
func randomSeq() uint64 { return max(1, rand.Uint64()) }

// capacity returns how many more questions the connection takes now.
func (c *conn) capacity() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.retired {
		return 0
	}
	return maxOutstanding - len(c.pending)
}

// enqueue has a VERIFY line written; nil if the connection takes no more questions.
func (c *conn) enqueue(address Address, key Key, pooled bool) *question {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.retired || len(c.pending) >= maxOutstanding {
		return nil
	}
	if c.next == 0 { // it wrapped
		c.next = 1
	}
	q := &question{seq: c.next, address: address.String(), asked: time.Now(), pooled: pooled, done: make(chan outcome, 1)}
	c.next++
	c.sent++
	if len(c.pending) == 0 {
		c.idle.Stop()
	}
	c.pending[q.seq] = q
	c.out = wire.Request{Seq: q.seq, Address: q.address, Key: key}.Append(c.out)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return q
}

// abandon gives a question up; false if it has its outcome meanwhile. slow says that it
// waited for as long as an AS may take: if not one whole line came in that time, the
// connection gets no more questions.
func (c *conn) abandon(q *question, slow bool) bool {
	c.mu.Lock()
	_, waiting := c.pending[q.seq]
	if waiting {
		delete(c.pending, q.seq)
		if slow && c.lastLine.Before(q.asked) {
			c.retired = true
		}
	}
	c.mu.Unlock()
	if waiting {
		c.questionEnded()
	}
	return waiting
}

// questionEnded says that a question is no longer pending.
func (c *conn) questionEnded() {
	c.endIf(errEnded, func() bool {
		if len(c.pending) == 0 {
			c.idle.Reset(idleTimeout)
		}
		return len(c.pending) == 0 && c.retired
	})
	c.owner.capacityFreed()
}

// retire gives the connection no more questions, and ends it after its last one.
func (c *conn) retire() {
	c.endIf(errEnded, func() bool {
		c.retired = true
		return len(c.pending) == 0
	})
}

// end closes the connection for a reason, which becomes the outcome of every pending
// question.
func (c *conn) end(why error) { c.endIf(why, func() bool { return true }) }

// endIf is end if a condition holds under the connection's lock.
func (c *conn) endIf(why error, condition func() bool) {
	c.mu.Lock()
	if c.err != nil || !condition() {
		c.mu.Unlock()
		return
	}
	pending := c.markEnded(why)
	c.mu.Unlock()
	c.finish(why, pending)
}

// markEnded marks the connection as ended, and returns its pending questions for finish.
// c.mu is held.
func (c *conn) markEnded(why error) map[uint64]*question {
	c.err, c.endedAt = why, time.Now()
	pending := c.pending
	c.pending = nil
	clear(c.out)
	c.out = nil
	c.idle.Stop()
	c.age.Stop()
	return pending
}

// finish does what follows from the end. The target forgets the connection first, so that a
// question that is asked again does not get the same one.
func (c *conn) finish(why error, pending map[uint64]*question) {
	close(c.ended)
	answered := c.answered()
	c.owner.removeConn(c, why, len(pending) > 0, answered)
	for _, q := range pending {
		q.done <- outcome{err: why, afterAnswers: answered}
	}
	c.raw.Close() // not TLS's: it would wait for a peer that does not read
}

// answered reports whether the connection has answered any question.
func (c *conn) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replies > 0
}

// writeLoop sends what is enqueued until the connection ends.
func (c *conn) writeLoop(timeout time.Duration) {
	var buf []byte
	for {
		select {
		case <-c.wake:
		case <-c.ended:
			return
		}
		c.mu.Lock()
		buf, c.out = c.out, buf[:0]
		c.mu.Unlock()
		if len(buf) == 0 { // an earlier round took it all
			continue
		}
		c.SetWriteDeadline(time.Now().Add(timeout))
		_, err := c.Write(buf)
		clear(buf) // of keys
		if cap(buf) > keptBuffer {
			buf = nil
		}
		if err != nil {
			c.end(whyEnded(err, false))
			return
		}
	}
}

// readLoop reads replies until the stream or the connection ends.
func (c *conn) readLoop(stream io.Reader) {
	r := bufio.NewReaderSize(stream, wire.MaxLine)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			c.end(whyEnded(err, len(line) > 0))
			return
		}
		line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
		if err := c.handleReply(string(line)); err != nil {
			c.end(err)
			return
		}
	}
}

// whyEnded says what the error of a read or write means; partial, whether a line had begun.
func whyEnded(err error, partial bool) error {
	var opErr *net.OpError
	var recordErr tls.RecordHeaderError
	var netErr net.Error
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return failuref(ReasonASViolation, "line is longer than %d octets", wire.MaxLine)
	case errors.As(err, &recordErr):
		return failuref(ReasonASViolation, "clear text inside TLS: %w", err)
	case errors.As(err, &opErr) && opErr.Op == "remote error": // a TLS alert
		return failuref(ReasonASTLS, "%w", err)
	case errors.As(err, &netErr) && netErr.Timeout():
		return failuref(ReasonASTimeout, "the server takes no questions: %w", err)
	case partial:
		return failuref(ReasonASViolation, "connection ended in the middle of a line: %w", err)
	}
	return errEnded
}

// handleReply hands a line to the question that it answers. An error is a violation of
// the protocol (docs/protocol.md section 3).
func (c *conn) handleReply(line string) error {
	reply, err := wire.ParseReply(line)
	if err != nil {
		return failuref(ReasonASViolation, "%w", err)
	}
	if reply.Seq == 0 {
		return failuref(ReasonASViolation, "ERROR 0 %s", codeName(reply.Code))
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.lastLine = time.Now()
	q := c.pending[reply.Seq]
	switch {
	case q == nil && reply.Seq-c.first >= c.next-c.first:
		err = failuref(ReasonASViolation, "reply to a question never asked")
	case q == nil:
		if c.replies++; c.replies > c.sent+maxLate {
			err = failuref(ReasonASViolation, "too many replies to the same questions")
		}
	case reply.Verdict != wire.Error && reply.Address != q.address:
		q, err = nil, failuref(ReasonASViolation, "reply about another address")
	default:
		c.replies++
		delete(c.pending, reply.Seq)
	}
	c.mu.Unlock()
	if q != nil {
		q.done <- outcome{reply: reply}
		c.questionEnded()
	}
	return err
}

// await waits for the outcome of a question, for at most timeout. A timeout is a *failure.
func (c *conn) await(ctx context.Context, q *question, timeout time.Duration) outcome {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case o := <-q.done:
		return o
	case <-timer.C:
		if !c.abandon(q, true) {
			return <-q.done
		}
		return outcome{err: failuref(ReasonASTimeout, "no reply within %v", timeout)}
	case <-ctx.Done():
		// Half of the time that an AS has is enough to say that it is slow.
		slow := time.Since(q.asked) >= timeout/2
		if !c.abandon(q, slow) {
			return <-q.done
		}
		if !slow {
			return outcome{err: errOutOfTime}
		}
		return outcome{err: failuref(ReasonASTimeout, "no reply: %w", ctx.Err())}
	}
}
