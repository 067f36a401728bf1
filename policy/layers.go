package policy

import (
	"github.com/authkey/authkey/verifier"
)

// A Layer says who decided; it is the log's by= value.
type Layer string

// The layers in the order in which they are asked: the first that says something decides.
// The last two may only replace that by a stricter action.
const (
	ByPreference    Layer = "pref"             // the recipient's own preference
	ByRecipientRule Layer = "rule-rcpt"        // a rule for the recipient's address
	ByDomainRule    Layer = "rule-rcpt-domain" // a rule for the recipient's domain
	BySenderRule    Layer = "rule-sender"      // a rule for the envelope sender
	ByDefault       Layer = "default"          // policy.<result> of the configuration
	ByFloor         Layer = "floor"            // policy.floor
	ByFrom          Layer = "from"             // from.actions
)

// noRule is the number of the rule where none decided.
const noRule = -1

// A ruling is what the layers say for one recipient.
type ruling struct {
	action Action
	by     Layer
	rule   int32 // noRule, or the index in Options.Rules
	notes  Notes
}

// Mailbox returns the form of the address with which rules and preferences are looked up.
func (r *Recipient) Mailbox() string {
	if r.Folded != "" {
		return r.Folded
	}
	return Fold(r.Address)
}

// ruling asks the layers for one recipient, up to the floor.
func (p *Policy) ruling(r *Recipient, senders []int32, s slot, required bool) ruling {
	var notes Notes
	if r.PreferenceFailed {
		notes = NotePreferenceFailed
		if p.opts.DeferUnknown {
			// Not raised to the floor: the floor could lose the message, and with what is
			// known that is not justified. Nobody gets the message now.
			return ruling{TempFail, ByPreference, noRule, notes}
		}
	} else if a := r.Preference.at(s); a != Unset {
		if p.allows(a) {
			return p.raise(ruling{a, ByPreference, noRule, notes}, s)
		}
		notes = NotePreferenceNotAllowed
	}
	if len(p.rules.actions) > 0 {
		if c, layer := p.rules.choose(splitMailbox(r.Mailbox()), senders, s); c.action != Unset {
			return p.raise(ruling{c.action, layer, c.rule, notes}, s)
		}
	}
	return p.raise(ruling{p.byDefault(s, required), ByDefault, noRule, notes}, s)
}

func (p *Policy) allows(a Action) bool { return int(a) < len(p.allowed) && p.allowed[a] }

func (p *Policy) byDefault(s slot, required bool) Action {
	return p.defaults[s].or(standard(s, required))
}

// raise lifts a ruling to the floor.
func (p *Policy) raise(r ruling, s slot) ruling {
	if p.floor[s] > r.action {
		r.action, r.by, r.rule = p.floor[s], ByFloor, noRule
	}
	return r
}

// A question is what the layers need to know of a message.
type question struct {
	*Policy
	slot     slot // noSlot: nothing was verified, and no layer is asked
	required bool
	senders  []int32 // the sender patterns that match the sender, the most specific first
	from     Action  // the most lenient one that the From field's result allows; Unset: any
}

func (p *Policy) question(env *Envelope, res *verifier.Result, ids []int32) question {
	q := question{Policy: p, slot: slotOf(res.Status), required: res.Required}
	q.senders = p.rules.senders.find(splitMailbox(env.Sender), ids)
	if p.opts.EnforceFrom {
		if s := slotOf(env.From.Status); s != noSlot {
			q.from = p.from[s]
		}
	}
	return q
}

// rule says what is to be done for one recipient: what the layers say about the envelope
// sender's result, or what Options.From says about the From field's where that is stricter.
func (q *question) rule(r *Recipient) ruling {
	rul := ruling{Accept, ByDefault, noRule, 0}
	if q.slot != noSlot {
		rul = q.ruling(r, q.senders, q.slot, q.required)
	}
	if q.from > rul.action {
		rul.action, rul.by, rul.rule = q.from, ByFrom, noRule
	}
	return rul
}

// A slot is a result's index in an array of actions.
type slot uint8

// Slots of the results about which there is something to choose.
const (
	slotPass slot = iota
	slotFail
	slotNoKey
	slotNone
	slotTempError
	slotPermError
	slots
	noSlot = slots
)

func slotOf(s verifier.Status) slot {
	switch s {
	case verifier.Pass:
		return slotPass
	case verifier.Fail:
		return slotFail
	case verifier.NoKey:
		return slotNoKey
	case verifier.None:
		return slotNone
	case verifier.TempError:
		return slotTempError
	case verifier.PermError:
		return slotPermError
	}
	return noSlot
}

func (a *Actions) bySlot() [slots]Action {
	return [slots]Action{slotPass: a.Pass, slotFail: a.Fail, slotNoKey: a.NoKey,
		slotNone: a.None, slotTempError: a.TempError, slotPermError: a.PermError}
}

// at returns the action for a result other than noSlot.
func (a *Actions) at(s slot) Action { return a.bySlot()[s] }
