package policy

import (
	"strings"

	"github.com/authkey/authkey/verifier"
)

// A Layer says who decided; it is the log's by= value.
type Layer string

// The layers of decision, the first that says something first, and the two that
// may make severer what it said.
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

// Mailbox returns the folded form, in which rules and preferences know r.
func (r *Recipient) Mailbox() string {
	if r.Folded != "" {
		return r.Folded
	}
	return strings.ToLower(r.Address)
}

// ruling asks the layers for one recipient, up to the floor.
func (p *Policy) ruling(r *Recipient, senders []int32, s slot, required bool) ruling {
	var notes Notes
	if r.PreferenceFailed {
		notes = NotePreferenceFailed
		if p.opts.DeferUnknown {
			// Not raised to the floor: nothing is known that would justify losing the
			// message, and nobody gets it now.
			return ruling{TempFail, ByPreference, noRule, notes}
		}
	} else if a := r.Preference.at(s); a != Unset {
		if p.allows(a) {
			return p.raise(ruling{a, ByPreference, noRule, notes}, s)
		}
		notes = NotePreferenceNotAllowed
	}
	if len(p.rules.wishes) > 0 {
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

// A question is a message as the layers see it.
type question struct {
	*Policy
	slot     slot // noSlot: nothing was verified, and nothing is asked
	required bool
	senders  []int32 // the sender patterns that the sender fits, the most specific first
	from     Action  // the mildest that the From field's result lets pass
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

// rule says what is to be done for one recipient: the severer of what the layers
// say of the envelope sender's result and what from.actions say of the From's.
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
