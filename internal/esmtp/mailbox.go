// Package esmtp holds the syntax of mail addresses and of ESMTP parameters that several
// packages need: quoting, source routes, sub-addresses (RFC 5321 section 4.1.2, RFC 6531),
// and what MAIL and RCPT say about delivery status notifications (RFC 3461, RFC 6533).
//
// It says how an address is written, not whether anybody has it: the canonical form of the
// AuthKey protocol is in package wire, what a From field names in package fromfield. The
// package does no I/O and knows no other package of the project.
package esmtp

import (
	"iter"
	"strings"
	"unicode/utf8"
)

// Limits in octets.
const (
	// MaxMailbox is the length of a mailbox by RFC 5321 section 4.5.3.1: a local part of
	// 64 and a domain of 255.
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

// CutUnquoted is Cut at the last "@" outside quotes. Without one, local is all of the
// mailbox. ok is false where a quote never ends: nothing tells then what is domain.
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

// DropSourceRoute removes the "@a,@b:" of RFC 5321 section 4.1.2, which says that it
// SHOULD be ignored. A colon inside a domain literal does not end it.
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

// CutSubaddress returns the user to whom a local part without quotes belongs that is a
// sub-address ("user+tag"). ok is false for any other.
func CutSubaddress(local string) (user string, ok bool) {
	i := strings.IndexByte(local, '+')
	if i <= 0 {
		return "", false
	}
	return local[:i], true
}

// QuoteLocal writes a local part, which has no quotes, with those it needs. It is the
// inverse of UnquoteLocal.
func QuoteLocal(local string) string {
	if IsDotAtom(local) {
		return local
	}
	return Quote(local)
}

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Quote writes s as a quoted string (RFC 5321 section 4.1.2, RFC 5322 section 3.2.4). The
// caller sees to it that s has no characters that cannot stand in one.
func Quote(s string) string { return `"` + escapes.Replace(s) + `"` }

// UnquoteLocal returns the local part that is meant by one with quotes and backslashes.
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

// IsDotAtom reports whether a local part needs no quotes: it is a Dot-string of RFC 5321,
// with the UTF-8 of RFC 6531 counted as atext.
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

// HasWildcard reports whether a local part, as people write one without quotes, was
// probably meant as a pattern: with a star, or with the leading % of SQL. No list knows
// patterns, so that it would match nobody.
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
