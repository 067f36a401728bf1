// Package esmtp holds the syntax of mail addresses and of ESMTP parameters that several
// packages need: quoting, source routes, sub-addresses (RFC 5321 section 4.1.2, RFC 6531),
// and what MAIL and RCPT say about delivery status notifications (RFC 3461, RFC 6533).
//
// It is about how an address is written, not whether it exists. The canonical form of the
// AuthKey protocol is in package wire, the addresses that a From field names are in package
// fromfield. The package does no I/O and imports no other package of the project.
package esmtp

import (
	"iter"
	"strings"
	"unicode/utf8"
)

// Limits in octets.
const (
	// MaxMailbox is the length of a mailbox: a local part of 64 (RFC 5321 section
	// 4.5.3.1.1), "@", and a domain of 255 (section 4.5.3.1.2).
	MaxMailbox = 64 + 1 + 255
	// MaxDomain is the length of a domain name as text without the root's dot (RFC 1035
	// section 2.3.4).
	MaxDomain = 253
)

// Cut splits a mailbox at its last "@". found is false where there is none, and local is
// all of it. The local part stays as it is written, with its quotes if it has any.
func Cut(mailbox string) (local, domain string, found bool) {
	if at := strings.LastIndexByte(mailbox, '@'); at >= 0 {
		return mailbox[:at], mailbox[at+1:], true
	}
	return mailbox, "", false
}

// CutUnquoted is Cut at the last "@" outside quotes (Quoted-string of RFC 5321 section
// 4.1.2). Without one, local is all of the mailbox. ok is false where a quote never ends, so
// that it cannot be known what the domain is.
func CutUnquoted(mailbox string) (local, domain string, ok bool) {
	at, quoted := -1, false
	for i := 0; i < len(mailbox); i++ {
		switch mailbox[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '@':
			if !quoted {
				at = i
			}
		}
	}
	if quoted || at < 0 {
		return mailbox, "", !quoted
	}
	return mailbox[:at], mailbox[at+1:], true
}

// Unquoted yields the octets of s outside quotes, with their indexes: not the quotes, nor
// what follows a backslash. A quote that never ends goes to the end of s.
func Unquoted(s string) iter.Seq2[int, byte] {
	return func(yield func(int, byte) bool) {
		quoted := false
		for i := 0; i < len(s); i++ {
			c := s[i]
			if c == '"' {
				quoted = !quoted
			} else if !quoted && !yield(i, c) {
				return
			}
			if c == '\\' {
				i++
			}
		}
	}
}

// IndexUnquoted returns the index of the first octet of s outside quotes that is one of
// chars, or -1.
func IndexUnquoted(s, chars string) int {
	for i, c := range Unquoted(s) {
		if strings.IndexByte(chars, c) >= 0 {
			return i
		}
	}
	return -1
}

// DropSourceRoute removes a source route ("@a,@b:"), which SHOULD be ignored (A-d-l in RFC
// 5321 section 4.1.2). A colon inside a domain literal does not end it.
func DropSourceRoute(path string) string {
	if path == "" || path[0] != '@' {
		return path
	}
	literal := false
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '[':
			literal = true
		case ']':
			literal = false
		case '"':
			return path
		case ':':
			if !literal {
				return path[i+1:]
			}
		}
	}
	return path
}

// CutSubaddress returns the user of a local part that is a sub-address ("user+tag", as in
// RFC 5233 section 1) and has no quotes. ok is false for any other local part.
func CutSubaddress(local string) (user string, ok bool) {
	i := strings.IndexByte(local, '+')
	if i <= 0 {
		return "", false
	}
	return local[:i], true
}

// QuoteLocal writes a local part, given without quotes, as a Dot-string or else as a
// Quoted-string (RFC 5321 section 4.1.2). It is the inverse of UnquoteLocal.
func QuoteLocal(local string) string {
	if IsDotAtom(local) {
		return local
	}
	return Quote(local)
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Quote writes s as a quoted string (RFC 5321 section 4.1.2, RFC 5322 section 3.2.4). The
// caller makes sure that s has no characters that are not allowed in one.
func Quote(s string) string { return `"` + escapes.Replace(s) + `"` }

// UnquoteLocal returns a local part without the quotes and backslashes of a Quoted-string
// (RFC 5321 section 4.1.2).
func UnquoteLocal(s string) string {
	if strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			continue
		case '\\':
			if i+1 < len(s) {
				i++
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// IsDotAtom reports whether a local part needs no quotes: it is a Dot-string (RFC 5321
// section 4.1.2), with UTF-8 counted as atext (RFC 6531 section 3.3).
func IsDotAtom(local string) bool {
	if local == "" || local[0] == '.' || local[len(local)-1] == '.' {
		return false
	}
	for i := 0; i < len(local); i++ {
		switch c := local[i]; {
		case c == '.':
			if local[i-1] == '.' {
				return false
			}
		case IsAlnum(c), c >= utf8.RuneSelf:
		case strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// HasWildcard reports whether a local part without quotes was probably meant as a pattern:
// it has a "*", or begins with the % of SQL. No list of ours has patterns, so that it would
// match nobody.
func HasWildcard(local string) bool {
	return !strings.HasPrefix(local, `"`) && (strings.Contains(local, "*") || strings.HasPrefix(local, "%"))
}

// IsAlnum reports whether c is a letter or a digit of ASCII.
func IsAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// IsASCII reports whether s has no character outside ASCII.
func IsASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// LowerASCII puts the letters of ASCII into lower case, and leaves all others.
func LowerASCII(s string) string {
	lower := []byte(s)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}
