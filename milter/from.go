package milter

import (
	"context"
	"slices"
	"sync"

	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// FromCheck says what is made of the From field, which is what people read.
type FromCheck uint8

// The values of from.check.
const (
	FromOff     FromCheck = iota // not looked at
	FromReport                   // checked; written to Authentication-Results and log
	FromEnforce                  // and the policy acts on it
)

// Reasons of a From result that no verification gives.
const (
	reasonBadFrom   verifier.Reason = "bad-from"   // permerror: no From field, or no address in it
	reasonFromLimit verifier.Reason = "from-limit" // fail: more octets, fields or addresses than honest mail has
	reasonTrusted   verifier.Reason = "trusted"    // skipped: from.trusted
)

// Trust says for whose mail the From field is not checked: mailing lists and
// forwarders the administrator knows. (List-Id anybody can write.)
type Trust struct {
	Senders *policy.Matcher // of MAIL FROM, which must have passed itself; nil: nobody
	Clients Networks
}

func (t Trust) covers(msg *message, envelope verifier.Result) bool {
	return t.Clients.contain(msg.origin.client) ||
		envelope.Status == verifier.Pass && t.Senders != nil && t.Senders.Match(policy.Fold(msg.sender))
}

// A fromResult is the result of the From field and the address that it is about,
// zero where there is none.
type fromResult struct {
	verifier.Result
	address wire.Address
}

// An author is what the From fields say: as they came, and as they are read, which is
// done when somebody wants to know.
type author struct {
	fields  fromfield.Fields
	reading *fromfield.Reading
}

// readFrom reads the message's From fields, once.
func (m *message) readFrom() *fromfield.Reading {
	if m.author.reading == nil {
		r := m.fromSender()
		if r == nil {
			r = new(fromfield.Reading)
			*r = m.author.fields.Read()
		}
		m.author.reading = r
	}
	return m.author.reading
}

// fromSender is the reading of a sole From field that names the envelope sender, to the
// letter and in the form of nearly all mail; otherwise nil. That address has been
// parsed.
func (m *message) fromSender() *fromfield.Reading {
	field, ok := m.author.fields.Sole()
	if !ok || m.addrErr != nil {
		return nil
	}
	if address, ok := fromfield.Plain(field); !ok || address != m.sender {
		return nil
	}
	return &fromfield.Reading{Mailboxes: []fromfield.Mailbox{{Local: m.address.Local(), Address: m.address}}}
}

// isFromSender reports whether the From fields name the envelope sender and nobody
// else, so that its result is theirs.
func (m *message) isFromSender() bool {
	r := m.readFrom()
	return !r.Excess && !r.Unreadable && len(r.Shown) == 0 && len(r.Mailboxes) == 1 &&
		m.addrErr == nil && r.Mailboxes[0].Address == m.address
}

// checkFrom finds the result of the From fields (docs/protocol.md section 5.3). Of
// several addresses the worst counts.
func (m *message) checkFrom(ctx context.Context, envelope verifier.Result) fromResult {
	if m.engine.Settings.Trust.covers(m, envelope) {
		return fromResult{Result: verifier.Result{Status: verifier.Skipped, Reason: reasonTrusted}}
	}
	if m.isFromSender() {
		return fromResult{envelope, m.address}
	}
	reading := m.readFrom()
	switch {
	case reading.Excess:
		return fromResult{Result: verifier.Result{Status: verifier.Fail, Reason: reasonFromLimit}}
	case len(reading.Mailboxes)+len(reading.Shown) == 0:
		return fromResult{Result: verifier.Result{Status: verifier.PermError, Reason: reasonBadFrom}}
	}
	var worst fromResult
	if reading.Unreadable || len(reading.Mailboxes) == 0 {
		worst.Result = verifier.Result{Status: verifier.PermError, Reason: reasonBadFrom}
	}
	for i, got := range m.checkAddresses(ctx, envelope, reading) {
		switch {
		case i >= len(reading.Mailboxes) && !got.Required:
			// Of what is only shown, domains that require keys count, and no others.
		case worst.Status == "" || badness(got.Status) > badness(worst.Status):
			worst = got
		}
	}
	return worst
}

// checkAddresses finds the results of all addresses of the From fields, first those of
// the mailboxes. They are asked about side by side: a domain whose name servers are
// slow must not use up the time in which the next one could be asked about.
func (m *message) checkAddresses(ctx context.Context, envelope verifier.Result, reading *fromfield.Reading) []fromResult {
	var (
		n       = len(reading.Mailboxes)
		results = make([]fromResult, n+len(reading.Shown))
		several = slices.ContainsFunc(reading.Mailboxes, func(b fromfield.Mailbox) bool {
			return b.Address.Domain() != reading.Mailboxes[0].Address.Domain()
		})
		all    sync.WaitGroup
		panics = make([]any, len(results))
	)
	for i := range results {
		check := func() { results[i] = m.checkShown(ctx, reading.Shown[i-n]) }
		if i < n {
			check = func() { results[i] = m.checkMailbox(ctx, envelope, reading.Mailboxes[i], several) }
		}
		if len(results) == 1 {
			check()
			break
		}
		all.Go(func() {
			defer func() { panics[i] = recover() }()
			check()
		})
	}
	all.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p) // where the session recovers
		}
	}
	return results
}

// checkMailbox finds the result of one mailbox. several: the mailboxes are of more
// than one domain, so that nobody can say whose a key is.
func (m *message) checkMailbox(ctx context.Context, envelope verifier.Result, box fromfield.Mailbox, several bool) fromResult {
	a := box.Address
	null := m.sender == ""
	ask := func(key wire.Key) fromResult {
		return fromResult{m.engine.Verifier.Verify(ctx, verifier.Query{Address: a, Key: key}), a}
	}
	switch {
	case null && box.IsDaemon():
		return fromResult{verifier.Result{Status: verifier.Skipped, Reason: verifier.ReasonNullSender}, a}
	case a.IsZero():
		return fromResult{verifier.Unaddressable(wire.ErrDomainLiteral), a}
	case m.addrErr == nil && a == m.address:
		return fromResult{envelope, a}
	case m.key.IsZero(), m.addrErr == nil && a.Domain() == m.address.Domain():
		// The server of the envelope sender's domain sees the key anyway, and knows
		// which spellings are one mailbox.
		return ask(m.key)
	case !several && (envelope.Status == verifier.None || null):
		return ask(m.key)
	}
	// The key is the envelope sender's, or nobody can say whose. Asking A's server about
	// it would show a live key to whoever wrote A into the field.
	r := ask(wire.Key{})
	if r.Status == verifier.NoKey || r.Status == verifier.Fail {
		r.Reason = verifier.ReasonKeyIsEnvelopes
		if several {
			r.Reason = verifier.ReasonKeyIsAmbiguous
		}
	}
	return r
}

// checkShown finds the result of an address that is no mailbox of the fields, but that
// some program could show. The key is shown to nobody for it but to the server of the
// envelope sender's domain.
func (m *message) checkShown(ctx context.Context, a wire.Address) fromResult {
	q := verifier.Query{Address: a}
	if m.addrErr == nil && a.Domain() == m.address.Domain() {
		if a == m.address {
			return fromResult{} // verified as the envelope sender
		}
		q.Key = m.key
	}
	return fromResult{m.engine.Verifier.Verify(ctx, q), a}
}

// badness orders results for fields with several addresses.
func badness(s verifier.Status) int {
	switch s {
	case verifier.Pass:
		return 0
	case verifier.Skipped:
		return 1
	case verifier.None:
		return 2
	case verifier.NoKey:
		return 3
	case verifier.TempError:
		return 4
	case verifier.PermError:
		return 5
	}
	return 6
}
