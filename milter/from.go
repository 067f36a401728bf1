package milter

import (
	"context"
	"slices"
	"sync"

	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

// checkFrom finds the result of the From fields (docs/protocol.md section 5.3). Of
// several addresses the worst counts.
func checkFrom(ctx context.Context, msg *message, envelope verifier.Result) fromResult {
	if r, ok := knownFrom(msg, envelope); ok {
		return r
	}
	reading := msg.author.read(msg)
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
	for i, got := range checkAddresses(ctx, msg, envelope, reading) {
		switch {
		case i >= len(reading.Mailboxes) && !got.Required:
			// Of what is only shown, domains that require keys count, and no others.
		case isWorse(got.Status, worst.Status):
			worst = got
		}
	}
	return worst
}

// checkAddresses finds the results of all addresses of the From fields, first those of
// the mailboxes. They are asked about side by side: a domain whose name servers are
// slow must not use up the time in which the next one could be asked about.
func checkAddresses(ctx context.Context, msg *message, envelope verifier.Result, reading *fromfield.Reading) []fromResult {
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
		check := func() { results[i] = checkShown(ctx, msg, reading.Shown[i-n]) }
		if i < n {
			check = func() { results[i] = checkMailbox(ctx, msg, envelope, reading.Mailboxes[i], several) }
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
func checkMailbox(ctx context.Context, msg *message, envelope verifier.Result, box fromfield.Mailbox, several bool) fromResult {
	a := box.Address
	null := msg.sender == ""
	ask := func(key wire.Key) fromResult {
		return fromResult{msg.engine.Verifier.Verify(ctx, verifier.Query{Address: a, Key: key}), a}
	}
	switch {
	case null && box.IsDaemon():
		return fromResult{verifier.Result{Status: verifier.Skipped, Reason: verifier.ReasonNullSender}, a}
	case a.IsZero():
		return fromResult{verifier.Unaddressable(wire.ErrDomainLiteral), a}
	case msg.addrErr == nil && a == msg.address:
		return fromResult{envelope, a}
	case msg.key.IsZero(), msg.addrErr == nil && a.Domain() == msg.address.Domain():
		// The server of the envelope sender's domain sees the key anyway, and knows
		// which spellings are one mailbox.
		return ask(msg.key)
	case !several && (envelope.Status == verifier.None || null):
		return ask(msg.key)
	}
	// The key is the envelope sender's, or it is not known whose it is. If the server of
	// the From's domain were asked about it, a forger with a domain of his own could
	// have somebody else's valid key shown to his server.
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
// some program could show. Of all servers only that of the envelope sender's domain is asked
// about it with the key.
func checkShown(ctx context.Context, msg *message, a wire.Address) fromResult {
	q := verifier.Query{Address: a}
	if msg.addrErr == nil && a.Domain() == msg.address.Domain() {
		if a == msg.address {
			return fromResult{} // verified as the envelope sender
		}
		q.Key = msg.key
	}
	return fromResult{msg.engine.Verifier.Verify(ctx, q), a}
}

// mildToSevere orders results for fields with several addresses.
var mildToSevere = []verifier.Status{verifier.Pass, verifier.Skipped, verifier.None, verifier.NoKey,
	verifier.TempError, verifier.PermError, verifier.Fail}

func isWorse(a, b verifier.Status) bool {
	return slices.Index(mildToSevere, a) > slices.Index(mildToSevere, b)
}
