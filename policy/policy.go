package policy

import (
	"github.com/authkey/authkey/verifier"
)

// Options is the administrator's part of a Policy.
type Options struct {
	// Test: decide as ever, change nothing (mode: test).
	Test bool
	// Rules come before the Defaults.
	Rules []Rule
	// Defaults is the outermost layer. An Unset action means the standard one.
	Defaults Wishes
	// Allowed is what recipients may choose; nil means everything but TempFail,
	// with which one of them could hold up everybody else's copy.
	Allowed []Action
	// Floor is the mildest action for each result; Unset is no floor.
	Floor Wishes
	// DeferUnknown: where a recipient's preference could not be looked up, the
	// message is deferred. Otherwise the next layer is asked.
	DeferUnknown bool
	// Separate: recipients whose Profiles differ get transactions of their own.
	Separate bool
	// UnmarkMixed: where a header that marks would mark the message for recipients
	// who accept it too, nobody's is marked. Otherwise everybody's is.
	UnmarkMixed bool
	// EnforceFrom: the result of the From field has a say, by the actions of From
	// (Unset: fail is Mark, all else Accept).
	EnforceFrom bool
	From        Wishes
	// Readdress makes the address that a marked recipient's copy goes to, and
	// QuarantineMailbox that of quarantined ones: addresses in which {local} and
	// {domain} stand for the recipient's. Empty: marked by the header alone, and
	// held by the MTA.
	Readdress, QuarantineMailbox string
	Texts                        Texts
}

// A Policy decides. It is immutable and safe for concurrent use.
type Policy struct {
	opts      Options
	rules     *rules
	defaults  [slots]Action
	floor     [slots]Action
	from      [slots]Action
	allowed   [RejectNotify + 1]bool
	readdress *template
	mailbox   *template
}

// New returns the Policy of opts.
func New(opts Options) *Policy {
	compiled := compile(opts.Rules)
	opts.Rules = nil
	p := &Policy{
		opts:      opts,
		rules:     compiled,
		defaults:  opts.Defaults.bySlot(),
		floor:     opts.Floor.bySlot(),
		from:      opts.From.bySlot(),
		readdress: parseTemplate(opts.Readdress),
		mailbox:   parseTemplate(opts.QuarantineMailbox),
	}
	for s := range slots {
		p.from[s] = p.from[s].or(standard(s, false))
	}
	allowed := opts.Allowed
	if allowed == nil {
		allowed = []Action{Accept, Mark, Quarantine, Discard, DiscardNotify, Reject, RejectNotify}
	}
	for _, a := range allowed {
		if int(a) < len(p.allowed) {
			p.allowed[a] = true
		}
	}
	return p
}

// standard is what an empty configuration does. A DNS that is lame must not make
// us an outage, so that what cannot be verified is accepted; but a domain that
// says req=yes has asked for rigour.
func standard(s slot, required bool) Action {
	switch {
	case s == slotFail:
		return Mark
	case s == slotTempError && required:
		return TempFail
	}
	return Accept
}

// Abilities says what the MTA lets a filter do.
type Abilities struct {
	Quarantine      bool // hold a message
	DeleteRecipient bool // take a recipient off the envelope
	AddRecipient    bool // put one on
}

// A Recipient is one RCPT of a message, with what was looked up about it.
type Recipient struct {
	Address string // as RCPT gave it
	// Folded is wire.Fold of it; "" means that it is the Address in lower case.
	Folded string
	// Preference is the recipient's own; zero where there is none.
	Preference Preference
	// PreferenceFailed: whether there is one could not be found out.
	PreferenceFailed bool
	// NoDSN: the sender asked for no failure notification about this recipient
	// (RFC 3461: NOTIFY=NEVER, or a list without FAILURE).
	NoDSN bool
}

// An Envelope is what a decision needs to know of a message besides its result.
type Envelope struct {
	// Sender is the envelope sender in folded form, "" the null sender.
	Sender     string
	Recipients []Recipient
	Abilities  Abilities
	// From is the result of the From field; of use only with Options.EnforceFrom.
	// Zero where the field was not checked.
	From verifier.Result
	// DSNAllowed: the sender may be sent a DSN about recipients who refuse what
	// others accept. It matters only to a Plan that would have DSNs, so that a
	// caller for whom the answer is dear decides with true first and, where the
	// Plan has any, asks and decides again.
	DSNAllowed bool
}

// Decide makes the Plan for a message whose envelope sender had result res.
func (p *Policy) Decide(env Envelope, res verifier.Result) Plan {
	var ids [maxIDs]int32
	q := p.question(&env, &res, ids[:0])
	if first, ok := q.alike(env.Recipients); ok && first.action == Accept { // most messages, and nothing to be done
		plan := Plan{Action: Accept, By: first.by, Notes: first.notes}
		if p.opts.Test {
			plan.Would = Accept
		}
		return plan
	}
	return p.decide(env, res, false)
}

// Separates reports whether the session is to answer at RCPT: 452 to each recipient whose
// Profile is not that of the first one, who then gets a transaction of his own.
func (p *Policy) Separates() bool { return p.opts.Separate && !p.opts.Test }

// A Profile is what a recipient's layers come to for every result. Where all
// Profiles of a message's recipients are equal (==) nothing has to be reconciled.
type Profile [slots + 1]Action

// Profile returns the Profile of one recipient of mail from the sender, which is
// in folded form.
func (p *Policy) Profile(sender string, r Recipient) Profile {
	var ids [maxIDs]int32
	senders := p.rules.senders.find(splitMailbox(sender), ids[:0])
	var profile Profile
	for s := range slots {
		profile[s] = p.ruling(&r, senders, s, false).action
	}
	profile[slots] = p.ruling(&r, senders, slotTempError, true).action
	return profile
}
