package milter

import (
	"context"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// Preferences looks up what recipients chose.
type Preferences interface {
	// Known does the same as Fill where that needs no waiting, and reports whether it did.
	Known([]policy.Recipient) bool
	// Fill sets the preference of each recipient, or that it could not be looked up. It
	// returns how many could not, and the error of the first of these.
	Fill(context.Context, []policy.Recipient) (failed int, err error)
}

// A handler takes a message that was collected to its outcome. A session has one at the
// end of a message, and so has Examine.
type handler struct {
	abilities policy.Abilities              // of the MTA
	progress  func()                        // called every progressEvery while work waits; may be nil
	panicked  func(panic any, where string) // called after a panic, which is recovered then; nil: panics are not recovered
}

// An outcome is what is to be done with one message: what the policy says, unless there is
// a reply of the milter's own.
type outcome struct {
	results
	env  policy.Envelope
	plan policy.Plan
	own  ownReply // not zero: this is the answer, and plan does not count

	attachment Attachment // of our own users' mail

	deliverErr error // why a DSN or notice could not be handed over
	prefsErr   error // why preferences could not be looked up
}

// decide finds out what is to be done with a message. It changes nothing, and tells nobody.
func (h handler) decide(ctx context.Context, msg *message) (out outcome) {
	switch {
	case msg.broken:
		return out.refuse(filterError)
	case msg.uncounted:
		return out.refuse(shuttingDown)
	case msg.overflow:
		return out.refuse(tooManyRecipients)
	case out.deletions(msg) > maxDeletions:
		return out.refuse(tooManyFields)
	}
	var ok bool
	out.results, ok = h.ask(ctx, msg)
	switch {
	case !ok, out.envelope.Reason == verifier.ReasonBroken, out.from.Reason == verifier.ReasonBroken:
		return out.refuse(filterError) // our fault, not that of the sender's AS
	case ctx.Err() != nil && (out.envelope.Status == verifier.TempError || out.from.Status == verifier.TempError):
		return out.refuse(shuttingDown)
	}
	if msg.class == inbound {
		ok = h.plan(ctx, msg, &out)
	} else {
		out.plan = policy.Plan{Action: policy.Accept, By: policy.ByDefault}
		out.attachment = attach(msg)
	}
	switch {
	case !ok:
		return out.refuse(filterError)
	case out.attachment.Defer:
		return out.refuse(noKeyNow)
	case out.deletions(msg) > maxDeletions:
		return out.refuse(tooManyFields)
	}
	return out
}

// plan looks up what the recipients want, and has the policy decide. It reports false
// after a panic.
func (h handler) plan(ctx context.Context, msg *message, out *outcome) (ok bool) {
	p := msg.engine.Preferences
	if p != nil && !msg.separate && !p.Known(msg.recipients) { // separate: RCPT asked already
		var err error
		if !h.work("preferences", func() { _, err = p.Fill(ctx, msg.recipients) }) {
			return false
		}
		out.prefsErr = err
	}
	out.env = policy.Envelope{
		Sender: policy.Fold(msg.sender), Recipients: msg.recipients, Abilities: h.abilities,
		From: out.from.Result, DSNAllowed: true,
	}
	out.plan = msg.engine.Policy.Decide(out.env, out.envelope)
	if len(out.plan.Recipients) > 0 && !mayTellSender(msg, out) {
		out.env.DSNAllowed = false
		out.plan = msg.engine.Policy.Decide(out.env, out.envelope)
	}
	return true
}

// refuse answers with a reply of ours and changes nothing.
func (o outcome) refuse(r ownReply) outcome {
	o.own = r
	return o
}

// discards reports whether nobody gets the message, and the client is answered 250.
func (o *outcome) discards() bool {
	return o.plan.Action == policy.Discard || o.plan.Action == policy.DiscardNotify
}

// delivers reports whether anything of the message is left for the MTA to keep,
// so that it has to be changed.
func (o *outcome) delivers() bool { return o.reply().IsZero() && !o.discards() }
