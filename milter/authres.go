package milter

import (
	"slices"
	"strings"

	"github.com/authkey/authkey/verifier"
)

// Names of RFC 8601 and of docs/protocol.md section 5.
const (
	authResField = "Authentication-Results"
	authMethod   = "x-authkey"
)

// maxPropValue keeps an Authentication-Results line below the 998 octets of RFC
// 5322; a longer address is left out, the result stands without it.
const maxPropValue = 900

// usualAuthRes has room for the field of most messages.
const usualAuthRes = 256

// authResult is one x-authkey result for an Authentication-Results field.
type authResult struct {
	verifier.Result
	property string // "smtp.mailfrom" or "header.from"
	address  string // canonical
}

// formatAuthRes writes the value of our Authentication-Results field, or "" where
// every result was skipped. Line breaks are the "\n\t" that a milter hands over.
func formatAuthRes(id string, results ...authResult) string {
	b := append(make([]byte, 0, usualAuthRes), authID(id)...)
	none := len(b)
	for _, r := range results {
		word, reason := methodResult(r.Result)
		if word == "" {
			continue
		}
		b = append(append(b, ";\n\t"+authMethod+"="...), word...)
		if reason != "" {
			b = append(append(b, " reason="...), quoteString(reason)...)
		}
		if value := propValue(r.address); value != "" {
			b = append(append(append(append(b, ' '), r.property...), '='), value...)
		}
	}
	if len(b) == none {
		return ""
	}
	return string(b)
}

// methodResult maps a result to the words that RFC 8601 readers know.
func methodResult(r verifier.Result) (word, reason string) {
	switch r.Status {
	case verifier.Skipped:
		return "", ""
	case verifier.NoKey:
		return "none", "no AuthKey"
	}
	return string(r.Status), string(r.Reason)
}

func authID(id string) string {
	if isToken(id) {
		return id
	}
	return quoteString(id)
}

// propValue writes a canonical address as an RFC 8601 pvalue. Canonical addresses
// have a dot-atom or a quoted string before the "@", so that only a domain which
// is no host name (an underscore) makes quotes necessary.
func propValue(address string) string {
	if address == "" || len(address) > maxPropValue {
		return ""
	}
	domain := address[strings.LastIndexByte(address, '@')+1:]
	if domain != "" && isHostName(domain) && len(domain) < len(address) {
		return address
	}
	return quoteString(address)
}

// isHostName reports whether a canonical domain has only the characters of one.
func isHostName(domain string) bool {
	for i := 0; i < len(domain); i++ {
		if c := domain[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// quoteString writes an RFC 5322 quoted-string; what cannot stand in one becomes "?".
func quoteString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c > 0x7E:
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// isToken reports whether s is a token of RFC 2045.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	return c > 0x20 && c < 0x7F && strings.IndexByte(`()<>@,;:\"/[]?=`, c) < 0
}

// claimsAuthKey reports whether the value of an Authentication-Results field
// speaks under one of ids and claims a result of our method: a forgery, if it
// came from outside. A field under such an id which breaks off inside a comment
// or quotes, so that its readers may disagree about it, counts if it names our
// method anywhere.
//
// Readers of this header take comments between all tokens, quoted ids, versions
// and any case, hence a matcher of our own; a library that fails on one of these
// would let the forgery through.
func claimsAuthKey(value string, ids []string) bool {
	toks, whole := authTokens(value)
	if !whole && containsFold(value, authMethod) {
		// What the id is depends on who reads it.
		return len(toks) == 0 || matchesID(toks[0].text, ids) || !toks[0].word
	}
	if len(toks) == 0 || !matchesID(toks[0].text, ids) {
		return false
	}
	for i := 1; i < len(toks); i++ {
		if toks[i].word && strings.EqualFold(toks[i].text, authMethod) && assigns(toks[i+1:]) {
			return true
		}
	}
	return false
}

// assigns reports whether the tokens after a method make it a claim: "=", or a
// version and "=".
func assigns(toks []authToken) bool {
	if len(toks) >= 2 && toks[0].text == "/" && toks[1].word {
		toks = toks[2:]
	}
	return len(toks) > 0 && !toks[0].word && toks[0].text == "="
}

func matchesID(id string, ids []string) bool {
	id = strings.TrimSuffix(id, ".")
	return slices.ContainsFunc(ids, func(own string) bool { return strings.EqualFold(own, id) })
}

func containsFold(s, lower string) bool { return strings.Contains(strings.ToLower(s), lower) }

// An authToken is a word (token or quoted string, unquoted) or a single special.
type authToken struct {
	text string
	word bool
}

// maxAuthTokens bounds what is kept of one field. A field with more is none that
// an honest filter wrote; it counts as broken off.
const maxAuthTokens = 4096

// authTokens splits a field value at CFWS. whole is false where it breaks off
// inside a comment or a quoted string, or has too many tokens.
func authTokens(s string) (toks []authToken, whole bool) {
	for i := 0; i < len(s); {
		if len(toks) == maxAuthTokens {
			return toks, false
		}
		switch c := s[i]; {
		case c == '(':
			end := skipComment(s, i)
			if end < 0 {
				return toks, false
			}
			i = end
		case c == '"':
			text, end := unquote(s, i)
			if end < 0 {
				return toks, false
			}
			toks = append(toks, authToken{text, true})
			i = end
		case c <= 0x20 || c == 0x7F:
			i++
		case isWordByte(c):
			start := i
			for i < len(s) && isWordByte(s[i]) {
				i++
			}
			toks = append(toks, authToken{s[start:i], true})
		default:
			toks = append(toks, authToken{s[i : i+1], false})
			i++
		}
	}
	return toks, true
}

// isWordByte is generous: octets above ASCII belong to words.
func isWordByte(c byte) bool { return c >= 0x80 || isTokenByte(c) }

// skipComment returns the index after the comment that begins at s[i], or -1.
func skipComment(s string, i int) int {
	depth := 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// unquote returns what the quoted string at s[i] holds and the index after it, or -1.
func unquote(s string, i int) (text string, end int) {
	var b strings.Builder
	for i++; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i + 1
		case '\\':
			if i++; i == len(s) {
				return "", -1
			}
		}
		b.WriteByte(s[i])
	}
	return "", -1
}
