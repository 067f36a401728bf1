package keyring

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/esmtp"
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
// A BATV signature ("prvs=tag=user" and its relatives) is taken off, then a sub-address
// ("user+tag"), then the rest is put into lower case.
//
// A local part with a character that cannot be seen, or that becomes ASCII in lower case or
// by normalisation, such as U+0130 or U+212A, is no address: it would look the same as
// another person's, or be compared as the same.
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

// local returns the local part of an address in the form from which keys are derived: plain
// text, without encoding and quotes. ok is false for one that is no address (see Form).
func (f Form) local(a wire.Address) (local string, ok bool) {
	encoded := a.String()
	local = encoded[:len(encoded)-len(a.Domain())-1]
	if strings.ContainsAny(local, `%"\`) { // rare, and Local copies
		local = a.Local()
	}
	local = withoutBATV(local)
	if user, ok := f.CutSubaddress(local); ok {
		local = user
	}
	// What is not UTF-8 has no case, and ToLower would make different octets the same.
	if !utf8.ValidString(local) {
		return local, true
	}
	ok = diskfile.CheckName(local) == nil
	if !f.CaseSensitive {
		local = norm.NFC.String(strings.ToLower(local)) // lower case may compose anew
	}
	return local, ok
}

// Own reports whether an address is written as the mailbox whose keys it has, but for the
// case of ASCII letters: it is no sub-address and no BATV form, and has no letter that is
// written otherwise in the form from which keys are derived.
func (f Form) Own(a wire.Address) bool {
	mapped, ok := f.local(a)
	own := a.Local()
	if !f.CaseSensitive {
		own = esmtp.LowerASCII(own)
	}
	return ok && mapped == own
}

// CutSubaddress returns the user of a local part that is a sub-address. ok is false for any
// other local part.
func (f Form) CutSubaddress(local string) (user string, ok bool) {
	if f.Subaddress == "" || local == "" {
		return "", false
	}
	i := strings.IndexAny(local[1:], f.Subaddress)
	if i < 0 {
		return "", false
	}
	return local[:i+1], true
}

// withoutBATV takes off the signature of a Bounce Address Tag (BATV), in the forms that
// are in use:
//
//	prvs=TAG=user     draft-levine-smtp-batv
//	prvs=user/TAG     its first drafts
//	msprvs1=TAG=user  Microsoft
//	btv1==TAG==user   Barracuda
//
// A tag has letters and digits only. Where both forms of prvs= fit, it is the first.
func withoutBATV(local string) string {
	scheme, rest, ok := strings.Cut(local, "=")
	if !ok {
		return local
	}
	tag, user := "", ""
	switch strings.ToLower(scheme) {
	case "prvs":
		tag, user, ok = strings.Cut(rest, "=")
		if i := strings.LastIndexByte(rest, '/'); i >= 0 && (!ok || !isTag(tag) || user == "") {
			user, tag, ok = rest[:i], rest[i+1:], true
		}
	case "msprvs1":
		tag, user, ok = strings.Cut(rest, "=")
	case "btv1":
		if rest, ok = strings.CutPrefix(rest, "="); ok {
			tag, user, ok = strings.Cut(rest, "==")
		}
	default:
		return local
	}
	if !ok || user == "" || !isTag(tag) {
		return local
	}
	return user
}

// isTag reports whether s can be the tag of a BATV signature.
func isTag(s string) bool {
	for i := range len(s) {
		if !esmtp.IsAlnum(s[i]) {
			return false
		}
	}
	return s != ""
}

// parse reads an address as people write it, in a list or to a tool: a whole mailbox of the
// domain, or a local part. A sub-address or a BATV form is refused, since its key is that of
// another address.
func (f Form) parse(text string) (local string, err error) {
	for i := 0; i < len(text); i++ {
		if text[i] < 0x20 || text[i] == 0x7F {
			return "", errors.New("address has a control character")
		}
	}
	if !utf8.ValidString(text) {
		return "", errors.New("address is not UTF-8")
	}
	if err := diskfile.CheckName(text); err != nil {
		return "", fmt.Errorf("address %w", err)
	}
	// Package wire takes what MTAs accept. A list is written by people, and a file that is
	// no list at all must not be taken for one.
	if hasSpecial(text) {
		return "", errors.New("address has a character that can stand in quotes only")
	}
	const all = "where every address has keys, write addresses: any in place of a list"
	if esmtp.HasWildcard(text) {
		return "", fmt.Errorf("%s has a wildcard, and matches nothing: %s", diskfile.Quote(text), all)
	}
	if bare := strings.TrimPrefix(text, "@"); strings.EqualFold(bare, f.Domain) {
		return "", fmt.Errorf("%s is the domain, and has no local part: %s", diskfile.Quote(text), all)
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
		return "", fmt.Errorf("%w: %s is not in %s", ErrOtherDomain, diskfile.Quote(text), f.Domain)
	}
	full := a.Local()
	if user := withoutBATV(full); user != full {
		return "", fmt.Errorf("%s is a BATV form of %s: list that", diskfile.Quote(full), diskfile.Quote(user))
	}
	if user, ok := f.CutSubaddress(full); ok {
		return "", fmt.Errorf("%s is a sub-address of %s: list that, or change subaddress", diskfile.Quote(full), diskfile.Quote(user))
	}
	local, ok := f.local(a)
	if !ok { // cannot be: CheckName has refused it
		return "", errors.New("address has a character that does not show or becomes ASCII")
	}
	if len(local) > len(full) { // some letters grow in lower case
		if _, err := wire.ParseAddress(f.spell(local)); err != nil {
			return "", err
		}
	}
	return local, nil
}

// spell is the inverse of parse: the mailbox as a line of the list has it.
func (f Form) spell(local string) string {
	if local == "" || local[0] == '#' || esmtp.HasWildcard(local) || strings.ContainsAny(local, " \"\\@"+specials) {
		local = esmtp.Quote(local)
	}
	return local + "@" + f.Domain
}

// specials are the characters that RFC 5322 section 3.2.3 allows in a local part only inside
// quotes. Quote, backslash and "@", which have a meaning here, are left out.
const specials = "()<>[]:;,"

// hasSpecial reports whether there is one of specials in the local part of text,
// outside quotes.
func hasSpecial(text string) bool {
	special, inLocal := false, false
	for _, c := range esmtp.Unquoted(text) {
		switch {
		case c == '@':
			inLocal = special
		case strings.IndexByte(specials, c) >= 0:
			special = true
		}
	}
	return inLocal || special && !hasDomain(text)
}

// hasDomain reports whether there is an "@" outside quotes.
func hasDomain(text string) bool { return esmtp.IndexUnquoted(text, "@") >= 0 }
