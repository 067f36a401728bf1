package notify

import (
	"strings"
	"time"

	"github.com/authkey/authkey/policy"
)

// reportField is the field by which our own mail is known, should it come back
// without its null sender and Auto-Submitted.
const reportField = "X-Authkey-Report"

// A Field is one header field of an Original as the MTA gave it, folded or not.
type Field struct{ Name, Value string }

// An Original is the message that DSNs and notices are about. Everything in it
// may come from a stranger; it is checked, quoted and bounded here.
type Original struct {
	QueueID  string
	Sender   string // MAIL FROM without angle brackets; empty: the null sender
	MailArgs string // the ESMTP parameters of MAIL, separated by blanks
	Client   string // address of the SMTP client; may be empty
	MTA      string // the name under which the MTA received it: Reporting-MTA; may be empty
	Arrived  time.Time

	// Header holds the fields in their order, those with AuthKeys or not.
	Header []Field
	// Truncated: there were more fields than whoever collects them keeps. Nothing is
	// then sent about the message, since one of those might have forbidden it.
	Truncated bool

	// SenderAuthenticated: the envelope result is pass, or a trusted filter's
	// Authentication-Results say spf or dkim pass for the sender's domain.
	SenderAuthenticated bool

	// Checked is the address whose result decided: that of MAIL FROM, or that of
	// the From field. Empty means Sender.
	Checked string
	Result  string // the result that decided, docs/protocol.md section 5
	Reason  string // its reason, docs/design.md
}

// A Failure is a recipient whom the sender is to be told of.
type Failure struct {
	Recipient string       // RCPT TO without angle brackets
	RcptArgs  string       // its ESMTP parameters, separated by blanks
	Reply     policy.Reply // what the client would have heard, had it been for this one alone
}

// A Notice is a recipient who is to be told of the Original.
type Notice struct {
	Recipient string // RCPT TO without angle brackets
	Language  string // of the recipient, such as de or pt-BR; empty or unknown: English
	Refused   bool   // the sender hears of it; otherwise it was thrown away
}

// values returns the values of all fields of a name.
func (o *Original) values(name string) []string {
	var list []string
	for _, f := range o.Header {
		if isField(f, name) {
			list = append(list, f.Value)
		}
	}
	return list
}

// value returns the value of the first field of a name.
func (o *Original) value(name string) string {
	for _, f := range o.Header {
		if isField(f, name) {
			return f.Value
		}
	}
	return ""
}

func isField(f Field, name string) bool { return strings.EqualFold(strings.TrimSpace(f.Name), name) }

// checked is the address that the result is about.
func (o *Original) checked() string {
	if o.Checked != "" {
		return o.Checked
	}
	return o.Sender
}

// traceFields are fields that differ from one attempt to deliver a message to the next:
// those that hosts and filters on the way add, and signatures, which some clients make
// anew each time. Prefixes end in a hyphen.
var traceFields = []string{
	"received", "x-received", "received-spf", "return-path", "delivered-to", "x-original-to",
	"authentication-results", "arc-", "dkim-signature", "x-google-dkim-signature", "domainkey-signature",
	"x-greylist", keyField, newKeyField,
}

func isTrace(f Field) bool {
	for _, name := range traceFields {
		if isField(f, name) || strings.HasSuffix(name, "-") && len(f.Name) >= len(name) && strings.EqualFold(f.Name[:len(name)], name) {
			return true
		}
	}
	return false
}

// identity tells one message from another, and is the same when a client comes
// back with it: its sender and its header, but for the trace fields. The Message-ID is
// part of that, and alone would not do: whoever writes a message may write somebody
// else's into it.
func (o *Original) identity() identity {
	parts := make([]string, 0, 2+2*len(o.Header))
	parts = append(parts, "message", o.Sender)
	for _, f := range o.Header {
		if !isTrace(f) {
			parts = append(parts, strings.ToLower(strings.TrimSpace(f.Name)), strings.TrimSpace(f.Value))
		}
	}
	return identity(digestOf(parts...))
}

// An identity stands for one message of one sender.
type identity digest

// dsn stands for the DSN about the message, whoever it is about.
func (id identity) dsn() digest { return digestOf(string(id[:]), kindDSN) }

// report stands for what is said about one recipient.
func (id identity) report(kind, recipient string) digest {
	return digestOf(string(id[:]), kind, recipient)
}

// messageID returns the Message-ID if it is well-formed enough to refer to.
func (o *Original) messageID() string {
	id := strings.TrimSpace(o.value("Message-ID"))
	inner, opened := strings.CutPrefix(id, "<")
	inner, closed := strings.CutSuffix(inner, ">")
	if !opened || !closed || len(inner) > maxMessageID || strings.IndexByte(inner, '@') < 1 {
		return ""
	}
	for i := 0; i < len(inner); i++ {
		if c := inner[i]; c <= 0x20 || c >= 0x7F || strings.IndexByte(`<>()[],;:\"`, c) >= 0 {
			return ""
		}
	}
	return id
}

// maxMessageID keeps a reference to a Message-ID on one line.
const maxMessageID = 900
