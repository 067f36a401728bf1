package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// A want is what has to become of a message whose sender could be verified.
type want struct {
	// Result and From are the words of Authentication-Results for the envelope sender
	// and for the From field: "pass", "fail" or "none".
	Result, From string
	// Refused: the client hears 550, and nothing is delivered or held.
	Refused bool
	// Boxes are the recipients whose copies are delivered, Held those for whom the MTA
	// holds the message. Where neither is set and it is not Refused, it is discarded.
	Boxes, Held []string
	// DSN are the recipients whom the sender is told about, Notices those who are told.
	DSN, Notices []string
	// Submission: it comes from one of our own users, so that it is not verified.
	Submission bool
	// Attached is the key with which a submission leaves; "" for none.
	Attached string
}

// A message is one that a client sends, and of which it keeps the history.
type message struct {
	ID    string // in its Message-ID, and in its envelope sender where that is unique
	Kind  string
	From  string // envelope sender
	Rcpts []string
	Login string   // of a submission
	Keys  []string `json:"-"` // that are in it
	Data  []byte   `json:"-"`
	Want  want
	// Before is what may happen instead while a change that its outcome depends on has
	// not been taken up; nil where there is no such change.
	Before *want
	// Overdue: the change must have been taken up when it was sent: Before does not
	// count any more.
	Overdue bool
}

// heard is what a client heard about one attempt.
type heard string

const (
	accepted heard = "accepted" // 2xx to the message
	refused  heard = "refused"  // 5xx
	deferred heard = "deferred" // 4xx, or the connection broke before the message was sent
	lost     heard = "lost"     // the connection broke after that: nobody can tell
)

// An attempt is one try to hand a message over.
type attempt struct {
	Begun, Ended time.Time
	Heard        heard
	Reply        string // or the error
	QueueID      string
}

// A history is a message and what its client heard.
type history struct {
	message
	Attempts []attempt
}

// last is what the client heard in the end.
func (h *history) last() heard {
	if len(h.Attempts) == 0 {
		return deferred
	}
	return h.Attempts[len(h.Attempts)-1].Heard
}

// count is how many attempts ended so.
func (h *history) count(what heard) (n int) {
	for _, a := range h.Attempts {
		if a.Heard == what {
			n++
		}
	}
	return n
}

// span is from the first attempt's begin to the last one's end.
func (h *history) span() (from, to time.Time) {
	if len(h.Attempts) == 0 {
		return from, to
	}
	return h.Attempts[0].Begun, h.Attempts[len(h.Attempts)-1].Ended
}

// A delivery is a copy of a message, delivered to or held for one recipient.
type delivery struct {
	ID, Rcpt string
	Held     bool
	// Results and Froms are the words of all x-authkey results in its
	// Authentication-Results fields, for the envelope sender and the From field.
	Results, Froms []string
	Keys           []string // values of X-Auth-Key
}

// A notification is a DSN or a notice that was handed over.
type notification struct {
	Kind  string // "dsn" or "notice"
	ID    string // of the message
	To    string
	About []string // a DSN's recipients
}

// A disturbance is something done to the system at a time.
type disturbance struct {
	What     string
	From, To time.Time
}

// Kinds of disturbances that the accountant has to know.
const (
	milterKilled = "milter killed"
	mtaKilled    = "MTA killed"
	ledgerFull   = "ledger on a full disk"
)

// A logLine is the milter's line about a message.
type logLine struct{ QueueID, From, Action string }

// observations are everything that was observed in one run.
type observations struct {
	Letters      []*history
	Deliveries   []delivery
	Told         []notification
	Log          []logLine
	Disturbances []disturbance
	// LaterCopies: the MTA may deliver again what it was killed at delivering.
	LaterCopies bool
	// Repeats is how many notices of a message one kill of the milter may repeat.
	Repeats int
	// SureLines: what was refused, discarded or told has its log line whatever is killed.
	SureLines bool
}

// write writes the observations to a file.
func (b *observations) write(path string) error {
	text, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// A fault is something that must not have happened.
type fault struct {
	What    string
	History *history // nil where it is not about one message
	Log     []string // the milter's lines about it
}

// details are what differs between faults of one sort.
var details = regexp.MustCompile(`[^\s]*\d[^\s]*|[^\s]+@[^\s]+|"[^"]*"`)

// sort is the fault without its details.
func (f fault) sort() string {
	what, _, _ := strings.Cut(f.What, "\n")
	return details.ReplaceAllString(what, "…")
}

func (f fault) String() string {
	if f.History == nil {
		return f.What
	}
	var b strings.Builder
	h := f.History
	fmt.Fprintf(&b, "%s\n  %s (%s) from %s to %s", f.What, h.ID, h.Kind, h.From, abbreviate(h.Rcpts))
	for _, a := range h.Attempts {
		fmt.Fprintf(&b, "\n    %s to %s  %s: %s", clock(a.Begun), clock(a.Ended), a.Heard, a.Reply)
	}
	for _, line := range f.Log {
		b.WriteString("\n    log: " + line)
	}
	return b.String()
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// abbreviate lists some of many.
func abbreviate(list []string) string {
	const some = 6
	if len(list) <= some {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:some], ", "), len(list)-some)
}
