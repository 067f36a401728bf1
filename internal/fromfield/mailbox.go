package fromfield

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// endsWord reports whether a is the mailbox with text directly before it that a person
// does not read as a part of it: a sign or a word of another script, as in
// "客服alice@ok.test" or "Alice|alice@ok.test".
func (m Mailbox) endsWord(a wire.Address) bool {
	if m.Address.IsZero() || m.Address.IsDomain() || a.Domain() != m.Address.Domain() {
		return false
	}
	local := a.Local()
	n := len(local) - len(m.Local)
	if n <= 0 || !strings.EqualFold(local[n:], m.Local) {
		return false
	}
	before := local[:n]
	if strings.IndexByte("/|*~#&{}^?=", before[n-1]) >= 0 || !strings.ContainsFunc(before, isLetterOrDigit) {
		return true
	}
	if !strings.ContainsFunc(before, isOtherScript) {
		return false
	}
	// The second octet of a character in a charset that is not decoded may be ASCII.
	return before[n-1] >= utf8.RuneSelf || n > 1 && before[n-2] >= utf8.RuneSelf
}

func isLetterOrDigit(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

// isOtherScript reports whether r is neither ASCII nor a Latin letter.
func isOtherScript(r rune) bool { return r >= utf8.RuneSelf && !unicode.Is(unicode.Latin, r) }

// newMailbox reads an addr-spec without comments and blanks. ok is false where its
// domain can be no domain.
func newMailbox(text string) (m Mailbox, ok bool) {
	local, domain, _ := esmtp.Cut(text)
	local = withoutThin(local)
	text = local + "@" + domain
	a, err := wire.ParseAddress(text)
	switch {
	case err == nil:
		return Mailbox{a.Local(), a}, true
	case errors.Is(err, wire.ErrDomainLiteral):
		return Mailbox{Local: local}, true
	}
	// Programs drop what cannot be seen, and backslashes.
	domain = visible(strings.ReplaceAll(domain, `\`, ""))
	local = strings.TrimSuffix(local, `\`)
	if i := strings.IndexAny(domain, `"[]()`); i >= 0 {
		domain = domain[:i] // where many programs stop reading
	}
	if a, err = wire.ParseAddress(local + "@" + domain); err == nil {
		return Mailbox{a.Local(), a}, true
	}
	if a, err = wire.DomainAddress(local + "@" + domain); err == nil {
		return Mailbox{local, a}, true
	}
	return Mailbox{}, false
}

// SeenDomain returns an address that stands for the domain which people see in a mailbox
// whose domain can be none (wire.DomainAddress): without what does not show and what
// programs drop, up to the first character that no domain has. ok is false where nothing
// is left.
func SeenDomain(mailbox string) (a wire.Address, ok bool) {
	_, domain, _ := esmtp.Cut(mailbox)
	domain = domainRun(withoutQuotes(visible(domain)))
	if strings.IndexByte(domain, '.') < 0 {
		return wire.Address{}, false
	}
	a, err := wire.DomainAddress("@" + domain)
	return a, err == nil
}

// withoutThin returns a local part without characters that have no width: people do not
// see the difference.
func withoutThin(local string) string {
	if esmtp.IsASCII(local) {
		return local
	}
	return dropRunes(local, func(r rune) bool { return r != utf8.RuneError && isThin(r) })
}

// visible returns s in compatibility form, without blanks and what has no width.
func visible(s string) string {
	return dropRunes(norm.NFKC.String(s), isUnseen)
}

// isUnseen reports whether r is a blank or does not show at all.
func isUnseen(r rune) bool { return esmtp.IsBlank(r) || isThin(r) }

// isThin reports whether r has no width: it cannot be seen, or is in place of octets that
// are not UTF-8.
func isThin(r rune) bool { return r == unicode.ReplacementChar || esmtp.IsInvisible(r) }
