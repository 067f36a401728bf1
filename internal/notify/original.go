package notify

import (
	"strings"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // so that encoded words of all charsets are decoded
	"github.com/emersion/go-message/mail"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
)

// reportField marks our own mail. We know it again by this field if it comes back without
// its null sender and its Auto-Submitted.
const reportField = "X-Authkey-Report"

// An original is the message that DSNs and notices are about. Everything in it may come
// from a stranger; it is checked, quoted and bounded here. If it is Truncated, nothing is
// sent about it: one of the fields that were left out might have forbidden it.
type original struct{ milter.Original }

// values returns the values of all fields of a name.
func (o *original) values(name string) []string {
	var list []string
	for _, f := range o.Header {
		if isField(f, name) {
			list = append(list, f.Value)
		}
	}
	return list
}

// value returns the value of the first field of a name.
func (o *original) value(name string) string {
	for _, f := range o.Header {
		if isField(f, name) {
			return f.Value
		}
	}
	return ""
}

func isField(f milter.Field, name string) bool {
	return strings.EqualFold(strings.TrimSpace(f.Name), name)
}

// checked is the address that the result is about.
func (o *original) checked() string {
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

func isTrace(f milter.Field) bool {
	for _, name := range traceFields {
		if isField(f, name) || strings.HasSuffix(name, "-") && len(f.Name) >= len(name) && strings.EqualFold(f.Name[:len(name)], name) {
			return true
		}
	}
	return false
}

// identity tells one message from another, and is the same when a client tries the message
// again. It is of the sender and the header without the trace fields. The Message-ID is part
// of that, and would not be enough alone: anybody can write the Message-ID of another message.
func (o *original) identity() identity {
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

// dsn is the digest of the DSN about the message, whichever recipients it is about.
func (id identity) dsn() digest { return digestOf(string(id[:]), kindDSN) }

// report is the digest of what is said about one recipient.
func (id identity) report(kind, recipient string) digest {
	return digestOf(string(id[:]), kind, recipient)
}

// text is the value of the first field of a name for a text of ours: encoded words
// decoded, in any charset known.
func (o *original) text(name string) string {
	var h message.Header
	h.Set(name, o.value(name))
	text, _ := h.Text(name) // as it came where it cannot be decoded
	return oneLine(text, maxValue)
}

// messageID returns the Message-ID (RFC 5322 section 3.6.4) without its brackets; "" if it is
// not well-formed enough to refer to.
func (o *original) messageID() string {
	var h mail.Header
	h.Set("Message-ID", o.value("Message-ID"))
	ids, err := h.MsgIDList("Message-ID")
	if err != nil || len(ids) != 1 || len(ids[0]) > maxMessageID || !esmtp.IsASCII(ids[0]) {
		return ""
	}
	return ids[0]
}

// maxMessageID keeps a reference to a Message-ID on one line.
const maxMessageID = 900
