package milter

import (
	"context"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// FromCheck says what is made of the From field, which is what people read.
type FromCheck uint8

// The values of from.check.
const (
	FromOff     FromCheck = iota // not looked at
	FromReport                   // checked; written to Authentication-Results and log
	FromEnforce                  // and the policy acts on it
)

// Limits of what is read of From fields.
const (
	maxFromFields    = 4
	maxFromAddresses = 4
	maxFromField     = 16 << 10
)

// Reasons of a From result that no verification gives.
const (
	reasonBadFrom verifier.Reason = "bad-from" // no From field, or one that cannot be read
	reasonTrusted verifier.Reason = "trusted"  // from.trusted
)

// Trust says for whose mail the From field is not checked: mailing lists and
// forwarders the administrator knows. (List-Id anybody can write.)
type Trust struct {
	Senders *policy.Matcher // of MAIL FROM, which must have passed itself; nil: nobody
	Clients Networks
}

func (t Trust) covers(msg *message, envelope verifier.Result) bool {
	return t.Clients.contain(msg.origin.client) ||
		envelope.Status == verifier.Pass && t.Senders != nil && t.Senders.Match(wire.Fold(msg.sender))
}

// A fromResult is the result of the From field and the address that it is about,
// zero where there is none.
type fromResult struct {
	verifier.Result
	address wire.Address
}

// checkFrom finds the result of the From field (docs/design.md, "The From people
// see"). Of several addresses the worst counts.
func (m *message) checkFrom(ctx context.Context, envelope verifier.Result) fromResult {
	if m.engine.Settings.Trust.covers(m, envelope) {
		return fromResult{Result: verifier.Result{Status: verifier.Skipped, Reason: reasonTrusted}}
	}
	addresses, ok := m.fromAddresses()
	if !ok {
		return m.checkBadFrom(ctx)
	}
	var worst fromResult
	for i, a := range addresses {
		got := m.checkFromAddress(ctx, envelope, a)
		if i == 0 || badness(got.Status) > badness(worst.Status) {
			worst = got
		}
	}
	return worst
}

// checkBadFrom finds the result of From fields that cannot be read, or name too
// many. Programs which show mail read them all the same, so that whatever looks
// like an address counts where that makes it worse: otherwise a blank in the wrong
// place would be the way round req=yes. The key is shown to nobody for it.
func (m *message) checkBadFrom(ctx context.Context) fromResult {
	worst := fromResult{Result: verifier.Result{Status: verifier.PermError, Reason: reasonBadFrom}}
	for _, a := range addressesIn(m.from) {
		if m.addrErr == nil && a == m.address {
			continue // verified as such
		}
		got := fromResult{m.engine.Verifier.Verify(ctx, verifier.Query{Address: a}), a}
		if badness(got.Status) > badness(worst.Status) {
			worst = got
		}
	}
	return worst
}

// addressesIn returns the first things in fields that look like addresses.
func addressesIn(fields []string) (found []wire.Address) {
	for _, field := range fields[:min(len(fields), maxFromFields)] {
		words := strings.FieldsFunc(field[:min(len(field), maxFromField)], func(r rune) bool {
			return r <= ' ' || r == 0x7F || strings.ContainsRune(`<>()[]:;,"\`, r)
		})
		for _, word := range words {
			if len(found) == maxFromAddresses {
				return found
			}
			if !strings.Contains(word, "@") {
				continue
			}
			if a, err := wire.ParseAddress(word); err == nil && !slices.Contains(found, a) {
				found = append(found, a)
			}
		}
	}
	return found
}

func (m *message) checkFromAddress(ctx context.Context, envelope verifier.Result, a fromAddress) fromResult {
	result := func(r verifier.Result) fromResult { return fromResult{r, a.address} }
	null := m.sender == ""
	switch {
	case null && a.isDaemon():
		return result(verifier.Result{Status: verifier.Skipped, Reason: verifier.ReasonNullSender})
	case a.err != nil:
		return result(verifier.Unaddressable(a.err))
	case m.addrErr == nil && a.address == m.address:
		return result(envelope)
	case m.key.IsZero():
		return result(m.engine.Verifier.Verify(ctx, verifier.Query{Address: a.address}))
	case envelope.Status == verifier.None, null:
		return result(m.engine.Verifier.Verify(ctx, verifier.Query{Address: a.address, Key: m.key}))
	}
	// The key is the envelope sender's. Asking A's server about it would show a live
	// key to whoever wrote A into the field.
	r := m.engine.Verifier.Verify(ctx, verifier.Query{Address: a.address})
	if r.Status == verifier.NoKey || r.Status == verifier.Fail {
		r.Reason = verifier.ReasonKeyIsEnvelopes
	}
	return result(r)
}

// badness orders results for fields with several addresses.
func badness(s verifier.Status) int {
	switch s {
	case verifier.Pass:
		return 0
	case verifier.Skipped:
		return 1
	case verifier.None:
		return 2
	case verifier.NoKey:
		return 3
	case verifier.TempError:
		return 4
	case verifier.PermError:
		return 5
	}
	return 6
}

// A fromAddress is one mailbox of a From field.
type fromAddress struct {
	local   string
	address wire.Address
	err     error // of wire.ParseAddress
}

// isDaemon reports whether a mail system writes under this name.
func (a fromAddress) isDaemon() bool {
	return strings.EqualFold(a.local, "mailer-daemon") || strings.EqualFold(a.local, "postmaster")
}

// fromAddresses reads the mailboxes of the message's From fields, once.
func (m *message) fromAddresses() (addresses []fromAddress, ok bool) {
	a := &m.author
	if !a.read {
		if m.isFromSender() {
			local, _ := cutAddress(m.sender)
			a.addresses, a.ok = []fromAddress{{local, m.address, m.addrErr}}, true
		} else {
			a.addresses, a.ok = fromAddresses(m.from)
		}
		a.read = true
	}
	return a.addresses, a.ok
}

// isFromSender reports whether From names the envelope sender, to the letter and in
// the form of nearly all mail. That one has been parsed.
func (m *message) isFromSender() bool {
	if len(m.from) != 1 || len(m.from[0]) > maxFromField {
		return false
	}
	address, ok := plainMailbox(m.from[0])
	return ok && address == m.sender
}

// An author is what the From fields say, once they have been read.
type author struct {
	read      bool
	addresses []fromAddress
	ok        bool
}

// fromAddresses reads the mailboxes of all From fields. ok is false where there
// are none, too many, or something that cannot be read.
func fromAddresses(fields []string) (addresses []fromAddress, ok bool) {
	if len(fields) == 0 || len(fields) > maxFromFields {
		return nil, false
	}
	for _, field := range fields {
		if len(field) > maxFromField {
			return nil, false
		}
		if address, ok := plainMailbox(field); ok {
			local, _ := cutAddress(address)
			addresses = append(addresses, newFromAddress(local, address))
			continue
		}
		parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: anyCharset}}
		list, err := parser.ParseList(withoutBreaks.Replace(field))
		if err != nil || len(list) == 0 || len(list) > maxFromAddresses {
			return nil, false
		}
		for _, entry := range list {
			local, domain := cutAddress(entry.Address)
			// net/mail has taken the quotes off.
			addresses = append(addresses, newFromAddress(local, quoteLocal(local)+domain))
		}
	}
	return addresses, len(addresses) <= maxFromAddresses
}

func newFromAddress(local, mailbox string) fromAddress {
	a := fromAddress{local: local}
	a.address, a.err = wire.ParseAddress(mailbox)
	return a
}

// cutAddress splits an address before its last "@".
func cutAddress(s string) (local, domain string) {
	at := strings.LastIndexByte(s, '@')
	return s[:at], s[at:]
}

// plainMailbox reads a field that holds one mailbox in the form of nearly all mail,
// words of letters and digits and an address in angle brackets, or an address
// alone; for anything else ok is false, and a parser that knows all forms is asked.
func plainMailbox(field string) (address string, ok bool) {
	address = strings.Trim(field, " ")
	if phrase, rest, found := strings.Cut(address, "<"); found {
		for i := 0; i < len(phrase); i++ {
			if c := phrase[i]; c != ' ' && c != '-' && !isAlnum(c) {
				return "", false
			}
		}
		address, ok = strings.CutSuffix(rest, ">")
		if !ok {
			return "", false
		}
	}
	at := -1
	for i := 0; i < len(address); i++ {
		switch c := address[i]; {
		case isAlnum(c), strings.IndexByte("-_+=", c) >= 0:
		case c == '.' && i > 0 && i < len(address)-1 && address[i-1] != '.' && address[i-1] != '@' && address[i+1] != '@':
		case c == '@' && at < 0 && i > 0 && i < len(address)-1:
			at = i
		default:
			return "", false
		}
	}
	return address, at > 0
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// anyCharset lets display names be in any charset: nobody reads them here.
func anyCharset(_ string, in io.Reader) (io.Reader, error) { return in, nil }

func quoteLocal(local string) string {
	return `"` + escapeQuoted.Replace(local) + `"`
}

var (
	withoutBreaks = strings.NewReplacer("\r", "", "\n", "")
	escapeQuoted  = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
)
