package milter

import (
	"context"
	"time"

	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// Verifier is what a session asks. *verifier.Verifier is the real one.
type Verifier interface {
	// Cached answers at once, if it can, without asking anybody.
	Cached(verifier.Query) (verifier.Result, bool)
	// Verify asks; it returns within the verifier's own deadline or when ctx ends.
	Verify(context.Context, verifier.Query) verifier.Result
	// Prefetch begins to look up the AS of an address about which Verify will be asked
	// soon. It does not wait.
	Prefetch(verifier.Address)
}

// results is what was found out about a message.
type results struct {
	envelope verifier.Result
	from     fromResult // Skipped where the From field is not checked
}

// A fromResult is the result of the From field and the address that it is about,
// zero where there is none.
type fromResult struct {
	verifier.Result
	address verifier.Address
}

var skipped = fromResult{Result: verifier.Result{Status: verifier.Skipped}}

// ask finds the results of a message, at once if neither DNS nor an AS needs to be asked.
// It reports false after a panic.
func (h handler) ask(ctx context.Context, msg *message) (results, bool) {
	if r, ok := known(msg); ok {
		return r, true
	}
	var r results
	ok := h.work("verify", func() { r = verify(ctx, msg) })
	return r, ok
}

// known is what can be said of a message without asking anybody: that it is not
// checked, or that its key is in the cache and its From field is its sender's.
func known(msg *message) (r results, ok bool) {
	r.from = skipped
	switch {
	case msg.class != inbound:
		r.envelope = verifier.Result{Status: verifier.Skipped, Reason: verifier.Reason(msg.class.String())}
		return r, true
	case msg.addrErr != nil:
		r.envelope = verifier.Unaddressable(msg.addrErr)
	default:
		if r.envelope, ok = msg.engine.Verifier.Cached(verifier.Query{Address: msg.address, Key: msg.key}); !ok {
			return r, false
		}
	}
	if msg.engine.Settings.From == FromOff {
		return r, true
	}
	r.from, ok = knownFrom(msg, r.envelope)
	return r, ok
}

// verify verifies the sender, then the From field, which depends on it.
func verify(ctx context.Context, msg *message) results {
	r := results{from: skipped}
	if msg.addrErr != nil {
		r.envelope = verifier.Unaddressable(msg.addrErr)
	} else {
		r.envelope = msg.engine.Verifier.Verify(ctx, verifier.Query{Address: msg.address, Key: msg.key})
	}
	if msg.engine.Settings.From == FromOff {
		return r
	}
	// A time of their own for all addresses together, beside that of the sender.
	ctx, cancel := context.WithTimeout(ctx, msg.engine.Settings.FromTimeout)
	defer cancel()
	r.from = checkFrom(ctx, msg, r.envelope)
	return r
}

// knownFrom is the result of the From field where nobody needs to be asked: the field is not
// checked, or it names the envelope sender and nobody else, and has the same result.
func knownFrom(msg *message, envelope verifier.Result) (r fromResult, ok bool) {
	if msg.engine.Settings.FromTrusted.covers(msg, envelope) {
		return fromResult{Result: verifier.Result{Status: verifier.Skipped, Reason: reasonTrusted}}, true
	}
	reading := msg.author.read(msg)
	if !reading.Excess && !reading.Unreadable && len(reading.Shown) == 0 && len(reading.Mailboxes) == 1 &&
		msg.addrErr == nil && reading.Mailboxes[0].Address == msg.address {
		return fromResult{envelope, msg.address}, true
	}
	return fromResult{}, false
}

func (t Trusted) covers(msg *message, envelope verifier.Result) bool {
	return t.Clients.contain(msg.origin.client) ||
		envelope.Status == verifier.Pass && t.Senders != nil && t.Senders.Match(policy.Fold(msg.sender))
}

// An author is what the From fields say: as they came and, once that is needed, as they are
// read.
type author struct {
	fields  fromfield.Fields
	reading *fromfield.Reading
}

// read reads the fields, once.
func (a *author) read(msg *message) *fromfield.Reading {
	if a.reading == nil {
		if a.reading = a.sender(msg); a.reading == nil {
			r := a.fields.Read()
			a.reading = &r
		}
	}
	return a.reading
}

// sender is the reading of a sole From field that names the envelope sender in exactly the
// same spelling and in the form that nearly all mail has; otherwise nil. The address need
// not be parsed again.
func (a *author) sender(msg *message) *fromfield.Reading {
	field, ok := a.fields.Sole()
	if !ok || msg.addrErr != nil {
		return nil
	}
	if address, ok := fromfield.Plain(field); !ok || address != msg.sender {
		return nil
	}
	return &fromfield.Reading{Mailboxes: []fromfield.Mailbox{{Local: msg.address.Local(), Address: msg.address}}}
}

// progressEvery is how often the MTA is told to go on waiting; Sendmail stops waiting
// after 10 s by default.
const progressEvery = 3 * time.Second

// work does what may take its time, and meanwhile keeps the MTA waiting. It reports
// false after a panic.
func (h handler) work(what string, do func()) (ok bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if h.panicked != nil {
			defer func() {
				if p := recover(); p != nil {
					h.panicked(p, what)
				}
			}()
		}
		do()
		ok = true
	}()
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	for {
		select {
		case <-done:
			return ok
		case <-progress.C:
			if h.progress != nil {
				h.progress()
			}
		}
	}
}
