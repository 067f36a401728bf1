package authserver

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/internal/wire"
)

const (
	// writeSize is how many octets of replies are gathered before they are sent
	// even while further questions are at hand.
	writeSize = 8 << 10
	// maxBadLines is how many lines without even a sequence number a client may send: it
	// speaks another protocol.
	maxBadLines = 20
	// maxLinger is how many octets are still read, and not used, from a client that has a
	// last reply to read.
	maxLinger = 64 << 10
)

// writeBuffers holds buffers that no connection uses now: an idle one has none.
var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, writeSize+wire.MaxLine)
	return &b
}}

// A conn is one client's connection. One goroutine serves it; others may call hurry, drain
// and cut.
type conn struct {
	s      *Server
	net    net.Conn
	client *client
	heard  atomic.Int64 // when the last whole line was read, or the connection accepted: nanoseconds of begun
	in     lineReader

	out     *[]byte // replies not sent yet; nil if there are none
	pending int     // how many
	bad     int     // lines that were not understood
	timed   bool    // the time for the next line runs already

	mu      sync.Mutex // guards what follows, and setting the read deadline
	readBy  time.Time  // that deadline
	drainBy time.Time  // not zero: the time for everything
}

// begun is when the process began: times counted from it do not change with the clock.
var begun = time.Now()

// hear notes that a whole line was read.
func (c *conn) hear() { c.heard.Store(int64(time.Since(begun))) }

// serve answers the client until one side ends the connection.
func (c *conn) serve() {
	defer c.s.forget(c)
	defer c.recoverPanic()
	defer func() { c.s.clients.leave(c.client, c.s.now()) }()
	if secure, ok := c.net.(*tls.Conn); ok {
		c.mu.Lock()
		c.setReadTimeout(handshakeTimeout)
		c.mu.Unlock()
		c.net.SetWriteDeadline(time.Now().Add(handshakeTimeout))
		if err := secure.Handshake(); err != nil {
			c.s.counts.handshakes.Add(1)
			return
		}
	}
	c.in.fill = c.fill
	if c.answerAll() {
		c.linger()
	}
}

// recoverPanic ends the connection only, not the process, after a fault of ours.
func (c *conn) recoverPanic() {
	v := recover()
	if v == nil {
		return
	}
	c.s.counts.panics.Add(1)
	oplog.Panic(c.s.log, "panic while serving a connection", v, "client", c.net.RemoteAddr().String())
}

// answerAll answers line after line. It reports whether it was the server that ended the
// connection, so that the client may not have read the last reply yet.
func (c *conn) answerAll() (ours bool) {
	for {
		c.timed = false
		line, err := c.in.next()
		switch {
		case errors.Is(err, errTooLong):
			c.s.counts.tooLong.Add(1)
			// The beginning of the line may have the sequence number of the question.
			req, _ := wire.ParseRequest(string(line))
			c.fault(req.Seq, wire.CodeTooLong, "")
			return c.flush() == nil
		case err != nil:
			return c.draining() && c.flush() == nil
		}
		if c.timed { // the line was waited for; once for all lines that arrive together
			c.hear()
		}
		c.answer(string(line))
		if c.bad >= maxBadLines {
			return c.flush() == nil
		}
		if len(*c.out) >= writeSize || c.pending >= c.s.limits.Load().Outstanding {
			if c.flush() != nil {
				return false
			}
		}
	}
}

// answer answers one line.
func (c *conn) answer(line string) {
	now := c.s.now()
	req, err := wire.ParseRequest(line)
	if err != nil && req.Seq == 0 {
		c.bad++
	}
	if !c.client.allow(now) {
		c.s.counts.busy.Add(1)
		c.fault(req.Seq, wire.CodeBusy, "")
		return
	}
	if err != nil {
		c.s.counts.syntax.Add(1)
		c.fault(req.Seq, wire.CodeSyntax, "")
		return
	}
	address, err := wire.DecodeAddress(req.Address)
	domain := (*c.s.domains.Load())[address.Domain()] // none where the address is none
	switch {
	case domain != nil:
		c.reply(c.verdict(domain, address, req, now))
	case err == nil, errors.Is(err, wire.ErrDomain), errors.Is(err, wire.ErrDomainLiteral):
		c.s.counts.notServed.Add(1)
		c.fault(req.Seq, wire.CodeNotServed, "")
	default:
		c.s.counts.syntax.Add(1)
		c.fault(req.Seq, wire.CodeSyntax, "address")
	}
}

// verdict asks the domain.
func (c *conn) verdict(domain *keyring.Domain, address wire.Address, req wire.Request, now time.Time) wire.Reply {
	reply := wire.Reply{Seq: req.Seq, Address: req.Address}
	answer, err := domain.Verify(address, req.Key, now)
	switch {
	case err != nil:
		c.s.counts.tempFail.Add(1)
		reply.Verdict = wire.TempFail
		if _, ok := c.s.logNoList.Allow(); ok {
			c.s.log.Error("cannot answer requests", "domain", domain.Name(), "error", err)
		}
	case answer.Valid:
		c.s.counts.valid.Add(1)
		reply.Verdict, reply.TTL, reply.HasTTL = wire.ValidKey, answer.TTL, true
	default:
		c.s.counts.invalid.Add(1)
		reply.Verdict = wire.InvalidKey
	}
	return reply
}

// fault replies with an ERROR line. The text is for people.
func (c *conn) fault(seq uint64, code wire.Code, text string) {
	c.reply(wire.Reply{Seq: seq, Verdict: wire.Error, Code: code, Text: text})
}

func (c *conn) reply(r wire.Reply) {
	if c.out == nil {
		c.out = writeBuffers.Get().(*[]byte)
	}
	*c.out = r.Append(*c.out)
	c.pending++
}

// flush sends the replies gathered.
func (c *conn) flush() error {
	if c.out == nil {
		return nil
	}
	c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.net.Write(*c.out)
	*c.out = (*c.out)[:0]
	writeBuffers.Put(c.out)
	c.out, c.pending = nil, 0
	return err
}

// fill reads more input. Replies are held back until it is wanted.
func (c *conn) fill(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	if !c.timed { // one time for the whole line, however many pieces it comes in
		c.mu.Lock() // or hurry could come between the limit and the deadline
		c.setReadTimeout(c.s.limits.Load().IdleTimeout)
		c.mu.Unlock()
		c.timed = true
	}
	return c.net.Read(p)
}

// setReadTimeout gives the client so long from now, unless the server is about to
// end. c.mu is held.
func (c *conn) setReadTimeout(d time.Duration) {
	by := time.Now().Add(d)
	if !c.drainBy.IsZero() {
		by = c.drainBy
	}
	c.readUntil(by)
}

// readUntil sets the read deadline. c.mu is held.
func (c *conn) readUntil(by time.Time) {
	c.readBy = by
	c.net.SetReadDeadline(by)
}

// hurry brings the deadline of the read that waits now forward to the time given.
func (c *conn) hurry(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if by.Before(c.readBy) {
		c.readUntil(by)
	}
}

// drain ends the connection at the time given: no read lasts longer.
func (c *conn) drain(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainBy = by
	c.readUntil(by)
}

func (c *conn) draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.drainBy.IsZero()
}

// cut ends the connection now, without telling the client.
func (c *conn) cut() {
	if secure, ok := c.net.(*tls.Conn); ok {
		secure.NetConn().Close() // Close would wait to send an alert
		return
	}
	c.net.Close()
}

// linger gives the client time to read the last reply: closing a socket with
// unread input resets the connection, and the reply may be lost with it.
func (c *conn) linger() {
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.mu.Lock()
	c.readUntil(time.Now().Add(lingerTime))
	c.mu.Unlock()
	io.Copy(io.Discard, io.LimitReader(c.net, maxLinger))
}
