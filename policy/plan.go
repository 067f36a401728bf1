package policy

import "strings"

// A Plan says what is done with one message. The caller carries it out and decides nothing
// itself: it removes recipients with Delete or Replace from the envelope, adds Added, marks
// or holds the message, hands over the DSNs and notices, and only then answers.
type Plan struct {
	// Action is what is done with the message; in test mode, Accept. Where recipients
	// differ it is the strictest action of those who stay on the envelope. Discard and
	// DiscardNotify: nobody gets the message, and the client is answered 250.
	Action Action
	// Would is what would have been done, in test mode only.
	Would Action
	// By is the layer that decided the Action, or Would.
	By    Layer
	Notes Notes
	// Reply is the answer to the client; zero for 250.
	Reply Reply
	// Mark: the field that marks the message is added. Fields of that name which came with
	// the message are removed, since anybody may have written them.
	Mark bool
	// Hold: the MTA holds the message, for all its recipients.
	Hold bool
	// QuarantineFields are the values of X-Authkey-Quarantine fields to add.
	QuarantineFields []string
	// Added are the recipients to add to the envelope, each once.
	Added []string
	// Recipients says what is done for each recipient, in the order of the Envelope. It is
	// nil where the Action is done for all of them, all stay, and there is no DSN or notice.
	Recipients []RecipientPlan
}

// A RecipientPlan says what is done with the message for one recipient.
type RecipientPlan struct {
	Address string // as RCPT gave it
	Chosen  Action // what the layers chose for this recipient
	Action  Action // what is done after merging with the other recipients; in test mode, Accept
	Would   Action // what would have been done, in test mode only
	By      Layer  // the layer that chose Chosen
	Rule    int    // the deciding rule's index in Options.Rules; -1 for none
	Notes   Notes

	Disposition Disposition
	Target      string // the address in place of this one, where that is replaced
	DSN         bool   // a DSN tells the sender that this recipient refused
	Reply       Reply  // with DSN: the answer if this were the only recipient
	Notice      bool   // a notice tells the recipient that a message was not delivered
	Language    string // of the notice; "" is the default
}

// A Disposition is what is done with a recipient of the envelope.
type Disposition uint8

// Dispositions.
const (
	Keep    Disposition = iota
	Delete              // removed from the envelope
	Replace             // removed, and Target added
)

var dispositionNames = [...]string{Keep: "keep", Delete: "delete", Replace: "replace"}

// String returns the disposition in a word.
func (d Disposition) String() string { return dispositionNames[d] }

// Differ reports whether not all recipients get, or in test mode would get, the
// same action: the log then lists them.
func (p *Plan) Differ() bool { return differ(p.Recipients) }

func differ(list []RecipientPlan) bool {
	for i := range list {
		if list[i].Action != list[0].Action || list[i].Would != list[0].Would {
			return true
		}
	}
	return false
}

// Notes are remarks about a Plan, such as why it differs from what was chosen; the log has
// them as note=.
type Notes uint16

// Notes, in the order in which they are listed.
const (
	NoteNoQuarantine         Notes = 1 << iota // the MTA cannot hold mail: marked instead
	NoteNoDelete                               // the MTA does not let recipients be removed: marked instead
	NoteNoReaddress                            // the recipient's copy could not be readdressed
	NoteNoDSN                                  // refused, but the sender may not be told: marked instead
	NoteHeldForAll                             // held for recipients whose action is Accept or Mark too
	NoteMarkedForAll                           // marked for recipients whose action is Accept too
	NoteNotMarked                              // left unmarked, since other recipients' action is Accept
	NotePreferenceFailed                       // the preference could not be looked up
	NotePreferenceNotAllowed                   // the preference is an action that recipients may not choose
)

var noteNames = [...]string{"no-quarantine", "no-delete", "no-readdress", "no-dsn", "held-for-all",
	"marked-for-all", "not-marked", "preference-failed", "preference-not-allowed"}

// String lists the notes, with commas between; "" where there are none.
func (n Notes) String() string {
	if n == 0 {
		return ""
	}
	var names []string
	for i, name := range noteNames {
		if n&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
