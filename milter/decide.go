package milter

import (
	"context"
	"slices"
	"time"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// progressEvery keeps an MTA waiting while an AS is asked; Sendmail gives up
// after 10 s by default.
const progressEvery = 3 * time.Second

// A judge takes a message to its outcome. A session is one, and so is Examine.
type judge struct {
	abilities policy.Abilities
	// working is called every progressEvery while somebody is asked; may be nil.
	working func()
	// panicked reports a panic in the goroutine that asks, which is recovered.
	guard func(msg *message, where string)
}

// decide finds out what is to become of a message. It changes nothing, except
// that DSNs and notices are handed over: that goes before the verdict.
func (j judge) decide(ctx context.Context, msg *message) outcome {
	var out outcome
	switch {
	case msg.broken, msg.uncounted:
		return out.refuse(policy.FilterError)
	case msg.overflow:
		return out.refuse(policy.TooManyRecipients)
	case msg.deletions(false) > maxDeletions:
		return out.refuse(policy.TooManyFields)
	}
	out.results = j.investigate(ctx, msg)
	if msg.broken || out.envelope.Reason == verifier.ReasonBroken || out.from.Reason == verifier.ReasonBroken || ctx.Err() != nil && (out.envelope.Status == verifier.TempError || out.from.Status == verifier.TempError) {
		return out.refuse(policy.FilterError) // our fault, not that of the sender's AS
	}
	if msg.class != inbound {
		out.plan = policy.Plan{Action: policy.Accept, By: policy.ByDefault}
		if out.attachment = msg.attach(); out.attachment.Defer {
			return out.refuse(policy.NoKeyNow)
		}
		msg.stripped = out.attachment.Strip || !out.attachment.Key.IsZero()
		if msg.deletions(false) > maxDeletions {
			return out.refuse(policy.TooManyFields)
		}
		return out
	}
	if msg.engine.Preferences != nil && !msg.separate { // else RCPT asked already
		out.prefsFailed, out.prefsErr = j.preferences(ctx, msg)
		if msg.broken {
			return out.refuse(policy.FilterError)
		}
	}
	out.env = policy.Envelope{
		Sender: policy.Fold(msg.sender), Recipients: msg.recipients, Abilities: j.abilities,
		From: out.from.Result, DSNAllowed: true,
	}
	out.plan = msg.engine.Policy.Decide(out.env, out.envelope)
	msg.allowDSN(&out)
	if out.plan.Mark && msg.deletions(true) > maxDeletions {
		return out.refuse(policy.TooManyFields)
	}
	if len(out.plan.Recipients) > 0 {
		out.err = j.notify(ctx, msg, out)
	}
	if out.err != nil || msg.broken {
		return out.refuse(policy.FilterError)
	}
	return out
}

// results is what was found out about a message.
type results struct {
	envelope verifier.Result
	from     fromResult // Skipped where the From field is not checked
}

// investigate verifies a message, at once if nobody needs to be asked.
func (j judge) investigate(ctx context.Context, msg *message) results {
	if r, ok := msg.known(); ok {
		return r
	}
	var r results
	j.work(msg, "verify", func() { r = msg.ask(ctx) })
	return r
}

// preferences looks up the recipients' preferences, at once if nobody needs to be
// asked. It returns how many look-ups failed, and why the first of them did.
func (j judge) preferences(ctx context.Context, msg *message) (failed int, err error) {
	if msg.engine.Preferences.Known(msg.recipients) {
		return 0, nil
	}
	j.work(msg, "preferences", func() { failed, err = msg.engine.Preferences.Fill(ctx, msg.recipients) })
	return failed, err
}

// notify hands over what has to be told.
func (j judge) notify(ctx context.Context, msg *message, out outcome) (err error) {
	j.work(msg, "notify", func() { err = msg.notify(ctx, &out) })
	return err
}

// work does what may take its time, and meanwhile keeps the MTA waiting.
func (j judge) work(msg *message, what string, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer j.guard(msg, what)
		do()
	}()
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	for {
		select {
		case <-done:
			return
		case <-progress.C:
			if j.working != nil {
				j.working()
			}
		}
	}
}

// known is what can be said of a message without asking anybody: that it is not
// checked, or that its key is in the cache and its From field is its sender's.
func (m *message) known() (r results, ok bool) {
	r.from.Status = verifier.Skipped
	switch {
	case m.class != inbound:
		r.envelope = verifier.Result{Status: verifier.Skipped, Reason: verifier.Reason(m.class.String())}
		return r, true
	case m.addrErr != nil:
		r.envelope = verifier.Unaddressable(m.addrErr)
	default:
		r.envelope, ok = m.engine.Verifier.Cached(verifier.Query{Address: m.address, Key: m.key})
		if !ok {
			return r, false
		}
	}
	if m.engine.Settings.From == FromOff {
		return r, true
	}
	if !m.isFromSender() {
		return r, false
	}
	r.from = m.checkFrom(context.Background(), r.envelope) // asks nobody, then
	return r, true
}

// ask verifies the sender, then the From field, which depends on it.
func (m *message) ask(ctx context.Context) results {
	r := results{from: fromResult{Result: verifier.Result{Status: verifier.Skipped}}}
	if m.addrErr != nil {
		r.envelope = verifier.Unaddressable(m.addrErr)
	} else {
		r.envelope = m.engine.Verifier.Verify(ctx, verifier.Query{Address: m.address, Key: m.key})
	}
	if m.engine.Settings.From == FromOff {
		return r
	}
	// As long again as the sender may take, for all addresses together.
	ctx, cancel := context.WithTimeout(ctx, m.engine.Settings.VerifyTimeout)
	defer cancel()
	r.from = m.checkFrom(ctx, r.envelope)
	return r
}

// allowDSN asks whether the sender may be told of recipients who refused, where
// the plan wants that, and plans again where not.
func (m *message) allowDSN(out *outcome) {
	if !slices.ContainsFunc(out.plan.Recipients, func(r policy.RecipientPlan) bool { return r.DSN }) {
		return
	}
	if m.engine.Notifier != nil && m.engine.Notifier.AllowDSN(m.original(out)) {
		return
	}
	out.env.DSNAllowed = false
	out.plan = m.engine.Policy.Decide(out.env, out.envelope)
}
