package policy

import (
	"fmt"
	"strings"
)

// An Action is what is done with a message for one recipient. Actions are ordered from the
// most lenient to the strictest, so that a < b means that b is stricter. The zero Action,
// Unset, chooses nothing: the next layer is asked.
type Action uint8

// The actions, with the number of the scheme's scenario where it is one.
const (
	Unset         Action = iota
	Accept               // 1: delivered unchanged
	Mark                 // 2: delivered with a header field that marks it
	Quarantine           // held by the MTA, or sent to a mailbox where somebody looks at it
	TempFail             // deferred: the client is answered 451 and tries again
	Discard              // 3: accepted and not delivered, nobody is told
	DiscardNotify        // 5: accepted and not delivered, the recipient is told
	Reject               // 4: refused with 550, the client's MTA tells the sender
	RejectNotify         // 6: refused with 550, the recipient is told too
)

var actionNames = [...]string{
	Accept: "accept", Mark: "mark", Quarantine: "quarantine", TempFail: "tempfail",
	Discard: "discard", DiscardNotify: "discard-notify", Reject: "reject", RejectNotify: "reject-notify",
}

// AllActions lists every Action but Unset, from the most lenient to the strictest.
func AllActions() []Action {
	return []Action{Accept, Mark, Quarantine, TempFail, Discard, DiscardNotify, Reject, RejectNotify}
}

// ParseAction reads an action's name as configurations and preferences spell it, such as
// "discard-notify"; "" is Unset. The error lists the names.
func ParseAction(s string) (Action, error) {
	if s == "" {
		return Unset, nil
	}
	for _, a := range AllActions() {
		if actionNames[a] == s {
			return a, nil
		}
	}
	return Unset, fmt.Errorf("unknown action %q: want one of %s", s, strings.Join(actionNames[Accept:], ", "))
}

// String returns the action's name, "" for Unset.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Delivers reports whether a recipient with this action gets the message, or may still get
// it (Quarantine).
func (a Action) Delivers() bool { return a == Accept || a == Mark || a == Quarantine }

// Notifies reports whether the recipient is told that the message was not delivered.
func (a Action) Notifies() bool { return a == DiscardNotify || a == RejectNotify }

// or returns a, or b where a is Unset.
func (a Action) or(b Action) Action {
	if a != Unset {
		return a
	}
	return b
}

// refuses reports whether the SMTP client is answered 550.
func (a Action) refuses() bool { return a == Reject || a == RejectNotify }
