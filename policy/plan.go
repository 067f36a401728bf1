package policy

import "strings"

// A Plan is what becomes of one message. Whoever carries it out takes the
// recipients to be deleted or replaced off the envelope first, then puts Added
// on it; hands over the DSNs and notices before it answers; and has nothing to
// decide.
type Plan struct {
	// Action is what is done with the message; in test mode, Accept. Where
	// recipients differ it is the severest action among those who keep the message.
	// Discard and DiscardNotify: nobody gets it, and the client hears 250.
	Action Action
	// Would is what would have been done, in test mode only.
	Would Action
	// By is who decided the Action, or Would.
	By    Layer
	Notes Notes
	// Reply is what the client hears; zero for 250.
	Reply Reply
	// Mark: the header gets the field that marks, and loses those of strangers.
	Mark bool
	// Hold: the MTA is to hold the message, for all its recipients.
	Hold bool
	// QuarantineFields are the values of X-Authkey-Quarantine fields to add.
	QuarantineFields []string
	// Added are the addresses to put on the envelope, each once.
	Added []string
	// Recipients says what becomes of each, in the order of the Envelope. It is nil
	// where Action is done for all of them, all stay, and none is told.
	Recipients []RecipientPlan
}

// A RecipientPlan is what becomes of the message for one recipient.
type RecipientPlan struct {
	Address string // as RCPT gave it
	Wish    Action // what the layers said
	Action  Action // what is done, the other recipients considered; in test mode, Accept
	Would   Action // what would have been done, in test mode only
	By      Layer  // whose the Wish is
	Rule    int    // the deciding rule's index in Options.Rules; -1 for none
	Notes   Notes

	Disposition Disposition
	Target      string // the address in place of this one, where that is replaced
	DSN         bool   // the sender is told that this recipient refused
	Reply       Reply  // with DSN: what the client would have heard, had it been for this one alone
	Notice      bool   // the recipient is told that a message was not delivered
	Language    string // of the notice; "" is the default one
}

// A Disposition is what is done with a recipient of the envelope.
type Disposition uint8

// Dispositions.
const (
	Keep    Disposition = iota
	Delete              // taken off the envelope
	Replace             // taken off, and Target put on
)

var dispositionNames = [...]string{Keep: "keep", Delete: "delete", Replace: "replace"}

// String returns the disposition in a word.
func (d Disposition) String() string { return dispositionNames[d] }

// Differ reports whether not all recipients get, or in test mode would get, the
// same action: the log then lists them.
func (p *Plan) Differ() bool {
	for i := range p.Recipients {
		first, r := &p.Recipients[0], &p.Recipients[i]
		if r.Action != first.Action || r.Would != first.Would {
			return true
		}
	}
	return false
}

// Notes are the log's note= values: things that a postmaster may ask about.
type Notes uint16

// Notes, in the order in which they are listed.
const (
	NoteNoQuarantine         Notes = 1 << iota // the MTA cannot hold mail: marked instead
	NoteNoDelete                               // the MTA does not let recipients be taken off: marked instead
	NoteNoReaddress                            // the recipient's copy could not be readdressed
	NoteNoDSN                                  // refused, but the sender may not be told: marked instead
	NoteHeldForAll                             // held for recipients who wanted it delivered too
	NoteMarkedForAll                           // marked for recipients who wanted it unmarked
	NoteNotMarked                              // left unmarked for the sake of other recipients
	NotePreferenceFailed                       // the preference could not be looked up
	NotePreferenceNotAllowed                   // the preference is none that recipients may choose
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
