package notify

import "strings"

// A Mode says which senders get DSNs (notify.dsn).
type Mode string

// Modes.
const (
	Never         Mode = "never"
	Authenticated Mode = "authenticated" // those that a key, spf or dkim shows not to be forged
	Always        Mode = "always"        // forged ones too
)

// A Suppression says in one hyphenated token why something is not sent. The
// empty one means that it may be.
type Suppression string

// Suppressions.
const (
	Allowed Suppression = ""

	ByMode          Suppression = "mode"            // DSN: notify.dsn is never
	NullSender      Suppression = "null-sender"     // there is no sender, or the mail is itself a report
	BadAddress      Suppression = "bad-address"     // an address that cannot be written to
	OwnMessage      Suppression = "own-message"     // about mail of ours
	AutoSubmitted   Suppression = "auto-submitted"  // RFC 3834: a program wrote it
	Precedence      Suppression = "precedence"      // DSN: bulk, list or junk
	List            Suppression = "list"            // DSN: a mailing list's
	Header          Suppression = "header"          // too large to be read whole
	Unauthenticated Suppression = "unauthenticated" // DSN: the sender may be forged
	SenderRate      Suppression = "rate-sender"     // DSN: notify.rate.per_sender
	RecipientRate   Suppression = "rate-recipient"  // notice: notify.rate.per_recipient
	GlobalRate      Suppression = "rate-global"     // notify.rate.global
)

// mayDSN applies the rules for DSNs but the rates.
func mayDSN(o *original, mode Mode) Suppression {
	if mode == Never {
		return ByMode
	}
	if why := mayReport(o); why != Allowed {
		return why
	}
	if _, err := mailbox(o.Sender); err != nil {
		return BadAddress
	}
	for _, v := range o.values("Precedence") {
		switch firstWord(v) {
		case "bulk", "list", "junk":
			return Precedence
		}
	}
	if len(o.values("List-Id")) > 0 {
		return List
	}
	if mode != Always && !o.SenderAuthenticated {
		return Unauthenticated
	}
	return Allowed
}

// mayNotice applies the rules for a notice but the rates. There are notices about mail of
// lists too: the recipient asked for them, and they are sent to nobody outside.
func mayNotice(o *original, to string) Suppression {
	if why := mayReport(o); why != Allowed {
		return why
	}
	if _, err := mailbox(to); err != nil {
		return BadAddress
	}
	return Allowed
}

// mayReport applies the rules that DSNs and notices have in common: there is none about a
// bounce (RFC 5321 section 6.1), about mail of our own, or about automatic mail (RFC 3834
// section 2).
func mayReport(o *original) Suppression {
	switch {
	case o.Sender == "":
		return NullSender
	case len(o.values(reportField)) > 0:
		return OwnMessage
	}
	for _, v := range o.values("Auto-Submitted") {
		if firstWord(v) != "no" { // a program writes any other word, known or not (RFC 3834 section 5)
			return AutoSubmitted
		}
	}
	if o.Truncated {
		return Header
	}
	return Allowed
}

// firstWord returns the first word of a structured field, in lower case, without comments
// (RFC 5322 section 3.2.2) and parameters.
func firstWord(v string) string {
	var word strings.Builder
	depth := 0
	for i := 0; i < len(v); i++ {
		c := v[i]
		switch {
		case depth > 0 && c == '\\':
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0 && c > 0x20 && c != ';' && c != ',':
			word.WriteByte(c)
			continue
		}
		if word.Len() > 0 || depth == 0 && (c == ';' || c == ',') {
			break
		}
	}
	return strings.ToLower(word.String())
}
