package milter

import (
	"context"
	"net/netip"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// A Sample is a message to be examined without an MTA.
type Sample struct {
	Client     netip.Addr // zero: a stranger whose address is not known
	Sender     string     // MAIL FROM without angle brackets; "" the null sender
	Recipients []string
	Header     []Field
}

// An Examination is everything that a session would find out about a message, what it would
// decide, and why.
type Examination struct {
	Class       string // "inbound", "exempt" or "submission"
	Address     string // the envelope sender in canonical form, "" if it has none
	Envelope    verifier.Result
	From        verifier.Result // Skipped where the From field is not checked
	FromAddress string
	Keys        int // X-Auth-Key fields
	Removed     int // of them, in what is delivered
	Forged      int // Authentication-Results removed as forged

	// Reply is the answer to the client; zero for 250.
	Reply policy.Reply
	// Plan, and what each layer says (Policy.Explain). Both are empty where the milter
	// replies without asking the policy, and where the message is not inbound.
	Plan  policy.Plan
	Steps [][]policy.Step
	// AuthRes is the Authentication-Results that would be written, "" for none.
	AuthRes string
	// PreferencesError says why preferences could not be looked up; nil if they could.
	PreferencesError error
}

// Examine takes a message through the same steps as a session, up to the decision, and says
// what would be done with it. It changes and sends nothing. It asks the Engine's
// Verifier, Preferences and Attacher, and the Notifier whether a DSN may be sent.
func Examine(ctx context.Context, engine *Engine, s Sample) Examination {
	engine.prepare()
	msg := newMessage(engine, origin{client: s.Client}, s.Client.String(), "", s.Sender, "")
	for _, rcpt := range s.Recipients {
		msg.addRecipient(rcpt, rcpt, "")
	}
	for _, f := range s.Header {
		msg.addField([]byte(f.Name), []byte(f.Value))
	}
	h := handler{abilities: policy.Abilities{Quarantine: true, DeleteRecipient: true, AddRecipient: true}}
	out := h.decide(ctx, msg)
	e := Examination{
		Class: msg.class.String(), Address: msg.address.String(),
		Envelope: out.envelope, From: out.from.Result, FromAddress: out.from.address.String(),
		Keys: msg.counts[keyKind], Reply: out.reply(), PreferencesError: out.prefsErr,
	}
	if out.delivers() {
		e.Forged = len(msg.authRes)
		if out.removesKeys(msg) {
			e.Removed = msg.counts[keyKind]
		}
		e.AuthRes = out.authRes(msg)
	}
	if out.own.IsZero() && msg.class == inbound {
		e.Plan, e.Steps = engine.Policy.Explain(out.env, out.envelope)
	} else if out.own.IsZero() {
		e.Plan = out.plan
	}
	return e
}
