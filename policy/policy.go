package policy

import (
	"github.com/authkey/authkey/verifier"
)

// Options is the administrator's part of a Policy. The zero Options are those of an empty
// configuration: a fail is marked, a temperror of a domain that requires keys is deferred,
// everything else is accepted, and recipients may choose otherwise.
type Options struct {
	// Test: nothing is changed, and the Plan says what would be done.
	Test bool
	// Rules come before the Defaults. Of two rules that are equally specific the first
	// that chooses an action for the result counts.
	Rules []Rule
	// Defaults apply to recipients for whom neither a preference nor a rule chooses. An
	// Unset action is that of an empty configuration.
	Defaults Actions
	// Allowed are the actions that recipients may choose; nil means all but TempFail, with
	// which one recipient could delay the copies of all others. A preference for another
	// action counts as none (NotePreferenceNotAllowed).
	Allowed []Action
	// Floor is the most lenient action for each result; Unset is no floor.
	Floor Actions
	// DeferUnknown: where a recipient's preference could not be looked up, the message is
	// deferred. Otherwise the next layer is asked.
	DeferUnknown bool
	// Separate: recipients whose Profiles differ get transactions of their own.
	Separate bool
	// UnmarkMixed matters where some recipients have Mark, others Accept, and the copies
	// of the first cannot be sent to other addresses. True marks no copy, false marks all
	// copies.
	UnmarkMixed bool
	// EnforceFrom: the result of the From field counts too, with the actions of From. An
	// Unset action there is Mark for a fail, and Accept for all else.
	EnforceFrom bool
	From        Actions
	// Readdress is the address to which a marked recipient's copy goes, QuarantineMailbox
	// that of a quarantined one. {local} and {domain} in them stand for the recipient's.
	// Empty: a marked copy is marked by the header alone; the MTA holds a quarantined
	// message.
	Readdress, QuarantineMailbox string
	Texts                        Texts
}

// A Policy decides what is done with messages. Make one with New. It does not change, and is
// safe for concurrent use.
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

// New returns the Policy of opts. It checks nothing: the program that reads a configuration
// can report faults with their lines, as authkey-milter does. Faults have these effects: a
// pattern of a Rule that is not in the form which Fold makes matches nothing; a placeholder
// other than {local} and {domain} is text of the address; an address longer than 320 octets
// or with control characters is not used (NoteNoReaddress). Actions must be those of
// AllActions.
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

// standard is what an empty configuration does. What cannot be verified is accepted, since
// a failing DNS must not stop mail; but a domain that says req=yes wants it to wait.
func standard(s slot, required bool) Action {
	switch {
	case s == slotFail:
		return Mark
	case s == slotTempError && required:
		return TempFail
	}
	return Accept
}

// Abilities says which changes the MTA lets a filter make.
type Abilities struct {
	Quarantine      bool // hold a message
	DeleteRecipient bool // remove a recipient from the envelope
	AddRecipient    bool // add one
}

// A Recipient is one RCPT of a message, with what was looked up about it.
type Recipient struct {
	Address string // of RCPT, without angle brackets
	// Folded is Fold(Address), or of the address as the MTA reads it where the client
	// wrote it differently. Empty: the Policy calls Fold each time.
	Folded string
	// Preference is the recipient's own; zero where there is none.
	Preference Preference
	// PreferenceFailed: the look-up failed, so that there may be one.
	PreferenceFailed bool
	// NoDSN: the sender wants no DSN about a failure for this recipient (RFC 3461 section
	// 4.1: NOTIFY=NEVER, or a list without FAILURE). A refusal then needs none.
	NoDSN bool
}

// An Envelope is what a decision needs to know of a message besides its result.
type Envelope struct {
	// Sender is the envelope sender, in the form that Fold makes; "" is the null sender.
	Sender string
	// Recipients of one transaction. Where there are none, the Plan is that for one recipient
	// without an address.
	Recipients []Recipient
	Abilities  Abilities
	// From is the result of the From field, used only with Options.EnforceFrom. Zero: the
	// field was not checked.
	From verifier.Result
	// DSNAllowed: the sender may be sent a DSN about recipients who refuse what others
	// accept. Where not, the message is marked for them (NoteNoDSN). If finding that out is
	// expensive, call Decide with true; call it again with false only if the Plan has DSNs
	// that may not be sent.
	DSNAllowed bool
}

// Decide makes the Plan for a message, where res is the result for its envelope sender.
func (p *Policy) Decide(env Envelope, res verifier.Result) Plan {
	var ids [maxIDs]int32
	q := p.question(&env, &res, ids[:0])
	recipients := env.Recipients
	first, alike := q.alike(recipients)
	switch {
	case alike && first.action == Accept: // most messages: there is nothing to do
		plan := Plan{Action: Accept, By: first.by, Notes: first.notes}
		if p.opts.Test {
			plan.Would = Accept
		}
		return plan
	case alike && len(recipients) > 1 && !p.oneByOne(first.action):
		recipients = recipients[:1] // speaks for all of them
	}
	return p.planFor(&q, env, res, recipients, false)
}

// Separates reports whether the session is to answer at RCPT: 452 to each recipient whose
// Profile is not that of the first one, who then gets a transaction of his own.
func (p *Policy) Separates() bool { return p.opts.Separate && !p.opts.Test }

// A Profile is the action that a recipient's layers choose for each result. Where the
// Profiles of all recipients of a message are equal (==), there is nothing to merge.
type Profile [slots + 1]Action

// Profile returns the Profile of one recipient of mail from the sender, who is in the form
// that Fold makes.
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

// alike returns the ruling of all the recipients, if they have the same one.
func (q *question) alike(recipients []Recipient) (ruling, bool) {
	if len(recipients) == 0 {
		return q.rule(&Recipient{}), true
	}
	first := q.rule(&recipients[0])
	for i := range recipients[1:] {
		if q.rule(&recipients[i+1]) != first {
			return ruling{}, false
		}
	}
	return first, true
}
