package keyring

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/wire"
)

// Errors about an address.
var (
	// ErrUnknownAddress says that the domain's list does not have the address.
	ErrUnknownAddress = errors.New("address is not in the list")
	// ErrOtherDomain says that the address belongs to another domain.
	ErrOtherDomain = errors.New("address is of another domain")
)

// A Form says which spellings of a local part are the same address. It is part
// of what a key is derived from: all machines of a domain must agree on it.
//
// A BATV signature ("prvs=tag=user") is taken off, then a sub-address
// ("user+tag"), then the rest is put into lower case.
type Form struct {
	// Domain, in any spelling that wire.ParseDomain takes.
	Domain string
	// CaseSensitive keeps Bob and bob apart.
	CaseSensitive bool
	// Subaddress is the set of characters of which the first one in a local part,
	// other than at its beginning, starts the sub-address, like Postfix's
	// recipient_delimiter. Empty: there are no sub-addresses.
	Subaddress string
}

// subaddressChars are the characters that may begin a sub-address: those of an
// unquoted local part which are no letters or digits.
const subaddressChars = "!#$%&'*+-./=?^_`{|}~"

// check returns the form with its domain in canonical spelling.
func (f Form) check() (Form, error) {
	domain, err := wire.ParseDomain(f.Domain)
	if err != nil {
		return Form{}, fmt.Errorf("domain %q: %w", f.Domain, err)
	}
	f.Domain = domain
	if strings.Trim(f.Subaddress, subaddressChars) != "" {
		return Form{}, fmt.Errorf("domain %s: subaddress %q is not made of the characters %s", domain, f.Subaddress, subaddressChars)
	}
	return f, nil
}

// local returns the mapped local part of an address: plain text, without
// encoding and quotes.
func (f Form) local(a wire.Address) string {
	encoded := a.String()
	local := encoded[:len(encoded)-len(a.Domain())-1]
	if strings.ContainsAny(local, `%"\`) { // rare, and Local copies
		local = a.Local()
	}
	local = withoutBATV(local)
	if i := f.subaddress(local); i > 0 {
		local = local[:i]
	}
	// What is not UTF-8 has no case, and ToLower would make different octets the same.
	if !f.CaseSensitive && utf8.ValidString(local) {
		local = norm.NFC.String(strings.ToLower(local)) // lower case may compose anew
	}
	return local
}

// subaddress returns where in local a sub-address begins, or -1.
func (f Form) subaddress(local string) int {
	if f.Subaddress == "" || local == "" {
		return -1
	}
	if i := strings.IndexAny(local[1:], f.Subaddress); i >= 0 {
		return i + 1
	}
	return -1
}

// withoutBATV maps "prvs=" tag "=" user to user
// (draft-levine-smtp-batv, the "prvs" scheme).
func withoutBATV(local string) string {
	const scheme = "prvs="
	if len(local) <= len(scheme) || !strings.EqualFold(local[:len(scheme)], scheme) {
		return local
	}
	tag, user, ok := strings.Cut(local[len(scheme):], "=")
	if !ok || tag == "" || user == "" {
		return local
	}
	for i := 0; i < len(tag); i++ {
		c := tag[i] | 0x20 // lower case, if it is a letter
		if (c < 'a' || c > 'z') && (tag[i] < '0' || tag[i] > '9') {
			return local
		}
	}
	return user
}

// parse reads an address as people write it, in a list or to a tool: a whole
// mailbox of the domain, or a local part. What has a sub-address or a BATV
// signature names more than it seems to and is refused.
func (f Form) parse(text string) (local string, err error) {
	for i := 0; i < len(text); i++ {
		if text[i] < 0x20 || text[i] == 0x7F {
			return "", errors.New("address has a control character")
		}
	}
	if !utf8.ValidString(text) {
		return "", errors.New("address is not UTF-8")
	}
	// Package wire takes what MTAs let pass. A list is written by people, or replaced
	// by something else altogether, and that must not pass for one.
	if hasSpecial(text) {
		return "", errors.New("address has a character that can stand in quotes only")
	}
	mailbox := text
	if !hasDomain(text) {
		mailbox = text + "@" + f.Domain
	}
	a, err := wire.ParseAddress(mailbox)
	if err != nil {
		return "", err
	}
	if a.Domain() != f.Domain {
		return "", fmt.Errorf("%w: %s is not in %s", ErrOtherDomain, quoteShort(text), f.Domain)
	}
	full := a.Local()
	if user := withoutBATV(full); user != full {
		return "", fmt.Errorf("%s is a BATV form of %s: list that", quoteShort(full), quoteShort(user))
	}
	if i := f.subaddress(full); i > 0 {
		return "", fmt.Errorf("%s is a sub-address of %s: list that, or change subaddress", quoteShort(full), quoteShort(full[:i]))
	}
	local = f.local(a)
	if len(local) > len(full) { // some letters grow in lower case
		if _, err := wire.ParseAddress(f.spell(local)); err != nil {
			return "", err
		}
	}
	return local, nil
}

// spell is the inverse of parse: the mailbox as a line of the list has it.
func (f Form) spell(local string) string {
	if local == "" || local[0] == '#' || strings.ContainsAny(local, " \"\\@"+specials) {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	return local + "@" + f.Domain
}

// specials are the characters that RFC 5322 lets stand in a local part in quotes
// only, but for quote, backslash and "@", which have a meaning here.
const specials = "()<>[]:;,"

// hasSpecial reports whether there is one of specials in the local part of text,
// outside quotes.
func hasSpecial(text string) bool {
	quoted, found, inLocal := false, false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '@':
			inLocal = found
		case strings.IndexByte(specials, c) >= 0:
			found = true
		}
	}
	return inLocal || found && !hasDomain(text)
}

// hasDomain reports whether there is an "@" outside quotes.
func hasDomain(text string) bool {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '@':
			if !quoted {
				return true
			}
		}
	}
	return false
}

// quoteShort quotes what came from a file for an error text, cut to a bound.
func quoteShort(s string) string {
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
