package policy

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// Fold returns the form in which mailboxes are compared with the patterns of rules and with
// recipients' preferences: the local part in lower case and without quotes, the domain in
// lower-case A-labels, no source route, no dot at the end of the domain. A rule for a mailbox
// therefore applies to every spelling of it. A mailbox without a domain, with a domain
// literal or with a domain that is no host name is only put into lower case.
//
// The last "@" of the result separates local part and domain. Fold of the result is the
// result, unless the local part needs quotes.
func Fold(mailbox string) string {
	if isFolded(mailbox) {
		return mailbox
	}
	a, err := wire.ParseAddress(mailbox)
	if err != nil {
		return strings.ToLower(mailbox)
	}
	return strings.ToLower(a.Local()) + "@" + a.Domain()
}

// isFolded reports whether a mailbox is certainly its own folded form, as most are.
func isFolded(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '@', c == '-', c == '_', c == '+', c == '=':
		case c == '.' && i < len(s)-1:
		default:
			return false
		}
	}
	return s != "" && s[0] != '@'
}

// A mailbox is an address in folded form, in two parts.
type mailbox struct{ local, domain string }

func splitMailbox(folded string) mailbox {
	local, domain, _ := esmtp.Cut(folded)
	return mailbox{local, domain}
}

// user returns the mailbox to which a sub-address (user+tag) belongs; ok is false for a
// mailbox that is no sub-address.
func (m mailbox) user() (user mailbox, ok bool) {
	local, ok := esmtp.CutSubaddress(m.local)
	return mailbox{local, m.domain}, ok
}
