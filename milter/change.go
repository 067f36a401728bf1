package milter

import (
	"fmt"
	"strings"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// maxDeletions bounds the header deletions of one message. Some 12 000 make
// Postfix's cleanup abort, and normal mail has one or two.
const maxDeletions = 256

// deletions counts the fields to delete.
func (o *outcome) deletions(msg *message) int {
	var buf [maxRemovals]removal
	n := 0
	for _, r := range o.removals(buf[:0], msg) {
		n += r.count
	}
	return n
}

// A removal is the deletion of the fields of one name.
type removal struct {
	name  string
	count int
	which []int // their indexes, 1-based, among the fields of that name; nil: all of them
}

// maxRemovals is how many names removals can have.
const maxRemovals = 5

// removals appends to list the fields that are removed, which depends on whose mail it is.
// That Authentication-Results of others which claim to be ours must go is RFC 8601 section 5.
func (o *outcome) removals(list []removal, msg *message) []removal {
	if o.removesKeys(msg) {
		list = append(list, removal{keyField, msg.counts[keyKind], nil})
	}
	// Fields that only this milter writes: our own users and relays do not.
	list = append(list,
		removal{newKeyField, msg.counts[newKeyKind], nil},
		removal{quarantineField, msg.counts[quarantineKind], nil},
		removal{authResField, len(msg.authRes), msg.authRes})
	if o.plan.Mark && msg.class == inbound {
		list = append(list, removal{msg.engine.Settings.MarkHeader, msg.counts[markKind], nil})
	}
	return list
}

// removesKeys reports whether the keys that a message came with are removed. Those of a
// submission stay, unless all its recipients are our own, or the Attacher gives it another
// key, or says that it must have none (Strip).
func (o *outcome) removesKeys(msg *message) bool {
	return msg.class != submission || o.attachment.Strip || !o.attachment.Key.IsZero() || msg.staysHere()
}

// change tells the MTA every change. Deletions come first, and go from the last
// field of a name to the first: Postfix renumbers the rest after each one.
func (o *outcome) change(msg *message, c *changes) error {
	if !o.delivers() {
		return nil
	}
	var buf [maxRemovals]removal
	for _, r := range o.removals(buf[:0], msg) {
		for i := r.count - 1; i >= 0; i-- {
			index := i + 1
			if r.which != nil {
				index = r.which[i]
			}
			c.delete(index, r.name)
		}
	}
	for _, value := range o.plan.QuarantineFields {
		c.insert(quarantineField, value)
	}
	if o.plan.Mark {
		c.insert(msg.engine.Settings.MarkHeader, msg.engine.Settings.MarkValue)
	}
	if value := o.authRes(msg); value != "" {
		c.insert(authResField, value)
	}
	if !o.attachment.Key.IsZero() { // the client's own was removed above
		c.insert(agentField, o.attachment.Agent)
		c.insert(keyField, o.attachment.Key.Reveal())
	}
	if len(o.plan.Recipients) > 0 {
		o.changeRecipients(msg, c)
	}
	if o.plan.Hold {
		c.try("quarantine", c.library.Quarantine, o.quarantineReason())
	}
	return c.err
}

// changeRecipients takes recipients off the envelope and puts others on it.
func (o *outcome) changeRecipients(msg *message, c *changes) {
	for _, r := range o.plan.Recipients {
		if r.Disposition == policy.Keep {
			continue
		}
		c.try("delete recipient", c.library.DeleteRecipient, r.Address)
		// Postfix knows some recipients only as it reads them. An MTA ignores the deletion
		// of a recipient that it does not know.
		if understood, ok := msg.understood[r.Address]; ok {
			c.try("delete recipient", c.library.DeleteRecipient, understood)
		}
	}
	for _, added := range o.plan.Added {
		c.try("add recipient", func(address string) error { return c.library.AddRecipient(address, "") }, added)
	}
}

// changes tells an MTA one change after the other, up to the first that fails.
type changes struct {
	library gomilter.Modifier // for recipients and quarantine
	header  *conn             // past it, for header fields
	err     error             // why one failed
}

func (c *changes) delete(index int, name string) {
	if c.err == nil {
		if err := c.header.change('m', index, name, ""); err != nil {
			c.err = fmt.Errorf("delete %s: %w", name, err)
		}
	}
}

func (c *changes) insert(name, value string) {
	if c.err == nil {
		if err := c.header.change('i', 0, name, value); err != nil {
			c.err = fmt.Errorf("insert %s: %w", name, err)
		}
	}
}

func (c *changes) try(what string, change func(string) error, argument string) {
	if c.err == nil {
		if err := change(argument); err != nil {
			c.err = fmt.Errorf("%s: %w", what, err)
		}
	}
}

// quarantineReason is what the MTA shows beside the held message.
func (o *outcome) quarantineReason() string {
	res := o.envelope
	if o.plan.By == policy.ByFrom {
		res = o.from.Result
	}
	reason := "authkey: " + string(res.Status)
	if res.Reason != "" {
		reason += " (" + string(res.Reason) + ")"
	}
	return reason
}

// authMethod is our method in Authentication-Results (RFC 8601 section 2.2;
// docs/protocol.md section 5).
const authMethod = "x-authkey"

// usualAuthRes is enough for the field of most messages, in octets.
const usualAuthRes = 256

// authRes is the value of our Authentication-Results (RFC 8601 section 2.2), or "" where
// every result was skipped. Line breaks are the "\n\t" that a milter hands over.
func (o *outcome) authRes(msg *message) string {
	b := append(make([]byte, 0, usualAuthRes), authID(msg.authID)...)
	none := len(b)
	b = appendResult(b, o.envelope, " smtp.mailfrom=", msg.address)
	b = appendResult(b, o.from.Result, " header.from=", o.from.address)
	if len(b) == none {
		return ""
	}
	return string(b)
}

// appendResult appends one result (resinfo of RFC 8601 section 2.2), with the address as a
// property (sections 2.3 and 2.7).
func appendResult(b []byte, r verifier.Result, property string, address wire.Address) []byte {
	word, reason := methodResult(r)
	if word == "" {
		return b
	}
	b = append(append(b, ";\n\t"+authMethod+"="...), word...)
	if reason != "" {
		b = append(append(b, " reason="...), quoteString(reason)...)
	}
	if value := propValue(address); value != "" {
		b = append(append(b, property...), value...)
	}
	return b
}

// methodResult maps a result to the words of RFC 8601 section 2.7, which has no "nokey".
func methodResult(r verifier.Result) (word, reason string) {
	switch r.Status {
	case verifier.Skipped:
		return "", ""
	case verifier.NoKey:
		return "none", "no AuthKey"
	}
	return string(r.Status), string(r.Reason)
}

// authID writes an authserv-id (RFC 8601 sections 2.2 and 2.5), which is a token of RFC
// 2045 section 5.1 or has to be quoted.
func authID(id string) string {
	if id != "" && strings.Trim(id, tokenOctets) == "" {
		return id
	}
	return quoteString(id)
}

// tokenOctets are those of which a token consists.
const tokenOctets = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!#$%&'*+^_`{|}~"

// maxPropValue keeps an Authentication-Results line below the 998 octets of RFC 5322
// section 2.1.1. A longer address is left out; the result is written without it.
const maxPropValue = 900

// propValue writes an address as a pvalue (RFC 8601 section 2.2) that needs no quotes: all
// ASCII but letters, digits and ".+-_/" is percent-encoded, so that no sender can write "=",
// ";" or a blank here, however a reader splits the field. It differs from the canonical form
// of the address: what is encoded is the local part without quotes and backslashes.
func propValue(address wire.Address) string {
	value := esmtp.SafeASCII(mailboxOf(address))
	if len(value) > maxPropValue {
		return ""
	}
	return value
}

// mailboxOf is an address without quotes and encoding, "" for none.
func mailboxOf(a wire.Address) string {
	if a.IsZero() {
		return ""
	}
	return a.Local() + "@" + a.Domain()
}

// quoteString writes a quoted-string (RFC 5322 section 3.2.4); an octet that it cannot have
// becomes "?".
func quoteString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c > 0x7E:
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
