package fromfield

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// scan takes the longest run of characters of a domain after each "@", with the local part
// before it. If there is no "@", the older forms count that MTAs rewrite to an address:
// user%domain and domain!user.
func (r *reader) scan(s string) {
	if strings.IndexByte(s, '@') < 0 {
		r.scanOlder(s)
		return
	}
	for start := 0; ; {
		n := strings.IndexByte(s[start:], '@')
		if n < 0 {
			return
		}
		at := start + n
		local, domain := s[localStart(s, start, at, endsLocal):at], domainRun(s[at+1:])
		if local == "" {
			local = quotedLocal(s, start, at)
		}
		r.found(local, domain)
		if r.whole {
			// The domain alone without what does not show, and without blanks: the local
			// part stays a whole word.
			for _, tight := range distinct(domain, tightRun(s[at+1:], isThin), tightRun(s[at+1:], isUnseen))[1:] {
				r.found(local, tight)
			}
		}
		if r.excess {
			return
		}
		start = at + 1
	}
}

func (r *reader) scanOlder(s string) {
	for i := 0; i < len(s) && !r.excess; i++ {
		switch s[i] {
		case '%':
			r.found(s[localStart(s, 0, i, endsOlder):i], domainRun(s[i+1:]))
		case '!':
			start := localStart(s, 0, i, endsOlder)
			r.found(localRun(s[i+1:]), domainRun(s[start:i]))
		}
		if s[i] == '%' || s[i] == '!' {
			s = s[i+1:]
			i = -1
		}
	}
}

// found takes an address that the field has in one of the forms that are looked at.
func (r *reader) found(local, domain string) {
	local, domain = withoutThin(strings.TrimLeft(local, "'`")), strings.Trim(domain, ".-_")
	for strings.Contains(domain, "..") {
		domain = strings.ReplaceAll(domain, "..", ".")
	}
	if !esmtp.IsASCII(domain) {
		if word := latinWord(domain); word != domain {
			r.found(local, word)
		}
		if r.alike && strings.ContainsFunc(domain, isOtherScript) {
			return // a mixture that no program shows
		}
	} else if strings.IndexByte(domain, '.') < 0 {
		return
	}
	text := local + "@" + domain
	if whole, ok := r.seen[text]; ok && (whole || !r.whole) {
		return
	}
	if r.seen == nil {
		r.seen = make(map[string]bool)
	}
	r.seen[text] = r.whole
	a, err := wire.ParseAddress(text)
	if errors.Is(err, wire.ErrDomain) && !esmtp.IsASCII(domain) {
		// Characters beyond ASCII can end the domain, too.
		ascii, _, _ := strings.Cut(strings.Map(onlyASCII, domain), "\x00")
		r.found(local, ascii)
		return
	}
	if err != nil {
		if a, err = wire.DomainAddress(text); err != nil {
			return
		}
	}
	if strings.IndexByte(a.Domain(), '.') >= 0 {
		r.show(a)
	}
}

// latinWord returns the beginning of a domain before the first character that is neither a
// Latin letter nor ASCII: a person reads the domain up to a sign, a dash or another script.
func latinWord(domain string) string {
	domain = norm.NFC.String(domain)
	i := strings.IndexFunc(domain, isOtherScript)
	if i < 0 {
		return domain
	}
	return strings.TrimRight(domain[:i], ".-_")
}

// onlyASCII maps all other characters to NUL.
func onlyASCII(r rune) rune {
	if r >= utf8.RuneSelf {
		return 0
	}
	return r
}

// domainRun returns the characters of a domain at the beginning of s.
func domainRun(s string) string {
	i := 0
	for i < len(s) && (esmtp.IsAlnum(s[i]) || s[i] == '.' || s[i] == '-' || s[i] == '_' || s[i] >= utf8.RuneSelf) {
		i++
	}
	return s[:i]
}

// tightRun is domainRun over what is dropped.
func tightRun(s string, drop func(rune) bool) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case drop(r):
		case r < utf8.RuneSelf && domainRun(s[i:i+1]) == "":
			return b.String()
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quotedLocal returns what the quoted string right before s[at] holds, if there is one
// at start or after it, and it is the whole local part.
func quotedLocal(s string, start, at int) string {
	start = max(start, at-maxLocalRun)
	if at-1 <= start || s[at-1] != '"' {
		return ""
	}
	open := strings.LastIndexByte(s[start:at-1], '"')
	if open < 0 || open > 0 && !endsLocal(s[start+open-1]) {
		return ""
	}
	return withoutQuotes(s[start+open : at])
}

// maxLocalRun bounds how much before an "@" is taken for its local part. More is too
// long for the protocol anyway.
const maxLocalRun = 2 * wire.MaxAddress

// localStart returns where the local part before s[at] begins, at start or after it.
func localStart(s string, start, at int, ends func(byte) bool) int {
	start = max(start, at-maxLocalRun)
	end := at
	for at > start && !ends(s[at-1]) {
		at--
	}
	if at >= 2 && at < end && s[at-1] == '(' && s[at-2] == 0x1B {
		at++ // the last octet of an escape sequence of ISO-2022
	}
	return at
}

// localRun returns the characters of a local part at the beginning of s.
func localRun(s string) string {
	i := 0
	for i < len(s) && i < maxLocalRun && !endsOlder(s[i]) {
		i++
	}
	return s[:i]
}

// endsLocal reports whether no local part without quotes has c.
func endsLocal(c byte) bool {
	return c <= ' ' || c == 0x7F || strings.IndexByte(`<>()[]:;,"\@`, c) >= 0
}

// endsOlder is endsLocal in the older forms.
func endsOlder(c byte) bool { return endsLocal(c) || c == '!' || c == '%' }
