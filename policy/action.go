package policy

import (
	"fmt"
	"strings"
)

// An Action is what is done with a message for one recipient. Actions are
// ordered by severity, mild to severe, so that < and max say what is milder and
// what is severer. The zero Action is unset: whoever meets it asks the next layer.
type Action uint8

// The actions, and the scenario of the scheme each one is.
const (
	Unset         Action = iota
	Accept               // 1: delivered as it is
	Mark                 // 2: delivered with the mark header
	Quarantine           // held by the MTA for a person to look at
	TempFail             // 451: not now
	Discard              // 3: accepted and thrown away, nobody told
	DiscardNotify        // 5: thrown away, the recipient told
	Reject               // 4: 550, the sender's MTA tells the sender
	RejectNotify         // 6: 550, the recipient told as well
)

var actionNames = [...]string{
	Accept: "accept", Mark: "mark", Quarantine: "quarantine", TempFail: "tempfail",
	Discard: "discard", DiscardNotify: "discard-notify", Reject: "reject", RejectNotify: "reject-notify",
}

// Actions lists every Action but Unset, mild to severe.
func Actions() []Action {
	return []Action{Accept, Mark, Quarantine, TempFail, Discard, DiscardNotify, Reject, RejectNotify}
}

// ParseAction reads an action's name as configurations and preferences spell
// it; "" is Unset.
func ParseAction(s string) (Action, error) {
	if s == "" {
		return Unset, nil
	}
	for _, a := range Actions() {
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

// Delivers reports whether a recipient with this action gets the message, or
// could still get it (quarantine).
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

// refuses reports whether the SMTP client hears 550.
func (a Action) refuses() bool { return a == Reject || a == RejectNotify }

// discards reports whether the message is to vanish with 250.
func (a Action) discards() bool { return a == Discard || a == DiscardNotify }
