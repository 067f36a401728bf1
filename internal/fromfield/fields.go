package fromfield

import (
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/wire"
)

// Limits of what is read of one message. Normal mail is far below them.
const (
	MaxFields    = 4        // From fields
	MaxOctets    = 16 << 10 // of all their values together
	MaxTokens    = 1 << 11  // words, quoted strings and specials of one field
	MaxMailboxes = 8        // distinct mailboxes
	MaxDomains   = 10       // distinct domains of Shown: each is looked up in DNS
	MaxShown     = 32       // distinct addresses of Shown
)

// Fields collects the values of a message's From fields as they come, up to the
// limits.
type Fields struct {
	values []string
	octets int
	excess bool
}

// Add takes the value of one field, folded or not. After the first value beyond a
// limit nothing is kept any more.
func (f *Fields) Add(value string) {
	f.octets += len(value)
	if f.excess || len(f.values) == MaxFields || f.octets > MaxOctets {
		f.values, f.excess = nil, true
		return
	}
	f.values = append(f.values, value)
}

// Sole returns the value of the only field; ok is false where there is none, several,
// or more than is read.
func (f *Fields) Sole() (value string, ok bool) {
	if len(f.values) != 1 {
		return "", false
	}
	return f.values[0], true
}

// A Reading is what the From fields of a message say.
type Reading struct {
	// Mailboxes are the distinct mailboxes that the fields name, in their order.
	Mailboxes []Mailbox
	// Shown are the further addresses that some program could show.
	Shown []wire.Address
	// Unreadable: a field names something in the place of an address that is none.
	Unreadable bool
	// Excess: there is more than the limits of this package allow. The rest of the
	// Reading is empty then.
	Excess bool
}

// A Mailbox is one mailbox of a From field.
type Mailbox struct {
	// Local is the local part as people read it.
	Local string
	// Address is the canonical form. Where the local part is missing, or too long for
	// the protocol, it is that of the domain alone (wire.DomainAddress). It is zero
	// where the domain is an address literal.
	Address wire.Address
}

// IsDaemon reports whether a mail system writes under this name.
func (m Mailbox) IsDaemon() bool {
	return strings.EqualFold(m.Local, "mailer-daemon") || strings.EqualFold(m.Local, "postmaster")
}

// Read reads the fields.
func (f *Fields) Read() Reading {
	if f.excess {
		return Reading{Excess: true}
	}
	var r reader
	for _, value := range f.values {
		r.field(value)
	}
	return r.reading()
}

// A reader builds a Reading.
type reader struct {
	Reading
	excess  bool
	whole   bool            // what is looked at now is as it is in the field, but for comments
	wholes  []bool          // of Shown: seen so
	alike   bool            // what is looked at now has ASCII in place of characters that resemble it
	seen    map[string]bool // spellings that need no further look
	domains map[string]bool // of Shown
}

// field reads the value of one field.
func (r *reader) field(value string) {
	address, ok := Plain(value)
	if !ok {
		address, ok = named(value)
	}
	if ok {
		r.name(address)
		return
	}
	value = withoutBreaks.Replace(value)
	found := parse(value)
	r.excess = r.excess || found.excess
	if len(found.addrs) == 0 && strings.Contains(value, "=?") {
		// Programs that decode a field before they read it see more.
		found = parse(DecodeWords(value))
		found.clean = false
	}
	for _, a := range found.addrs {
		r.name(a)
	}
	for _, a := range found.shown {
		if m, ok := newMailbox(a); ok && !m.Address.IsZero() {
			r.whole = true
			r.show(m.Address)
		}
	}
	if !found.clean && !r.excess {
		r.look(value)
	}
}

// name takes a mailbox that a field names.
func (r *reader) name(text string) {
	m, ok := newMailbox(text)
	if !ok {
		r.Unreadable = true
		return
	}
	for _, other := range r.Mailboxes {
		if other == m || !m.Address.IsZero() && other.Address == m.Address {
			return
		}
	}
	if len(r.Mailboxes) == MaxMailboxes {
		r.excess = true
		return
	}
	r.Mailboxes = append(r.Mailboxes, m)
}

// show takes an address that some program could show.
func (r *reader) show(a wire.Address) {
	for i, other := range r.Shown {
		if other == a {
			r.wholes[i] = r.wholes[i] || r.whole
			return
		}
	}
	if r.domains == nil {
		r.domains = make(map[string]bool)
	}
	r.domains[a.Domain()] = true
	if len(r.domains) > MaxDomains || len(r.Shown) == MaxShown {
		r.excess = true
		return
	}
	r.Shown, r.wholes = append(r.Shown, a), append(r.wholes, r.whole)
}

// reading returns what was found in all fields. A further address in the domain of a mailbox
// counts only if it is a whole word with "@": what appears when blanks or quotes are taken
// out, and a domain without a local part, is mostly a piece of that mailbox.
func (r *reader) reading() Reading {
	if r.excess {
		return Reading{Excess: true}
	}
	named := make(map[string]bool)
	for _, m := range r.Mailboxes {
		named[m.Address.Domain()] = true
	}
	i := -1
	r.Shown = slices.DeleteFunc(r.Shown, func(a wire.Address) bool {
		i++
		return named[a.Domain()] && (!r.wholes[i] || a.IsDomain()) ||
			slices.ContainsFunc(r.Mailboxes, func(m Mailbox) bool { return m.Address == a || m.endsWord(a) })
	})
	return r.Reading
}

// withoutBreaks takes out the line breaks of a folded field; the blanks after them stay.
var withoutBreaks = strings.NewReplacer("\r", "", "\n", "")
