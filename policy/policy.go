package policy

import "github.com/authkey/authkey/verifier"

// A Layer says who decided; it is the log's by= value.
type Layer string

// The layers of decision that exist so far.
const (
	ByDefault Layer = "default" // policy.<result> of the configuration
)

// Wishes is an action per result. An Unset one leaves the result to the next layer.
type Wishes struct {
	Pass, Fail, NoKey, None, TempError, PermError Action
}

func (w Wishes) forStatus(s verifier.Status) Action {
	switch s {
	case verifier.Pass:
		return w.Pass
	case verifier.Fail:
		return w.Fail
	case verifier.NoKey:
		return w.NoKey
	case verifier.None:
		return w.None
	case verifier.TempError:
		return w.TempError
	case verifier.PermError:
		return w.PermError
	}
	return Unset
}

// Options is the administrator's part of a Policy.
type Options struct {
	// Test: decide as ever, change nothing (mode: test).
	Test bool
	// Defaults is the outermost layer. An Unset action means the standard one.
	Defaults Wishes
	Texts    Texts
}

// A Policy decides. It is immutable and safe for concurrent use.
type Policy struct {
	opts Options
}

// New returns the Policy of opts.
func New(opts Options) *Policy { return &Policy{opts: opts} }

// Abilities says what the MTA lets a filter do.
type Abilities struct {
	Quarantine bool // hold a message
}

// An Envelope is what a decision needs to know of a message besides its result.
type Envelope struct {
	Recipients []string // as RCPT TO gave them
	Abilities  Abilities
}

// A Note is the log's note= value: something that a postmaster may ask about.
type Note string

// Notes.
const (
	NoteNoQuarantine Note = "no-quarantine" // the MTA cannot hold mail, marked instead
)

// A Plan is what becomes of one message.
type Plan struct {
	// Action is what is done with the message; in test mode, accept.
	Action Action
	// Would is what would have been done, in test mode only.
	Would Action
	By    Layer
	Note  Note
	// Reply is what the client hears; zero for 250.
	Reply Reply
}

// Decide makes the Plan for a message whose envelope sender had result res.
func (p *Policy) Decide(env Envelope, res verifier.Result) Plan {
	plan := Plan{Action: p.wish(res), By: ByDefault}
	if plan.Action == Quarantine && !env.Abilities.Quarantine {
		plan.Action, plan.Note = Mark, NoteNoQuarantine
	}
	if p.opts.Test {
		plan.Would, plan.Action = plan.Action, Accept
	}
	plan.Reply = p.reply(plan.Action, res)
	return plan
}

// wish asks the layers, outermost last.
func (p *Policy) wish(res verifier.Result) Action {
	if a := p.opts.Defaults.forStatus(res.Status); a != Unset {
		return a
	}
	return standard(res)
}

// standard is what an empty configuration does. A DNS that is lame must not make
// us an outage, so that what cannot be verified is accepted; but a domain that
// says req=yes has asked for rigour.
func standard(res verifier.Result) Action {
	switch {
	case res.Status == verifier.Fail:
		return Mark
	case res.Status == verifier.TempError && res.Required:
		return TempFail
	}
	return Accept
}

func (p *Policy) reply(a Action, res verifier.Result) Reply {
	switch {
	case a.refuses():
		return p.opts.Texts.rejection(res)
	case a == TempFail:
		return p.opts.Texts.deferral()
	}
	return Reply{}
}
