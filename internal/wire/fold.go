package wire

import "strings"

// Fold returns the form in which the recipient's side compares mailboxes: with
// the patterns of rules, with recipients' preferences. Nothing of it goes over
// the wire. The local part is in lower case and without quoting, the domain in
// lower-case A-labels; a source route and the root's dot are gone, so that no
// other spelling of a mailbox gets round a rule for it. What ParseAddress
// refuses (no domain, a domain literal) is lower-cased as it stands.
//
// The last "@" separates local part and domain; folding twice changes nothing
// unless the local part needs quotes.
func Fold(mailbox string) string {
	if isFolded(mailbox) {
		return mailbox
	}
	a, err := ParseAddress(mailbox)
	if err != nil {
		return strings.ToLower(mailbox)
	}
	return strings.ToLower(a.Local()) + "@" + a.Domain()
}

// isFolded reports whether a mailbox is beyond doubt its own folded form: most are.
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
