package milter

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/fromfield"
)

// claimsAuthKey reports whether the value of an Authentication-Results field claims a
// result of our method, under whatever authserv-id: only this milter writes one.
//
// Some programs read this field with a parser of RFC 8601, some split it at ";", and many
// search it for "x-authkey=pass", also after decoding it for people. What any of them could
// find counts, also in a comment or in quotes. This includes another filter's field that
// repeats such a text of the sender's: it is removed too, to the sender's disadvantage alone.
func claimsAuthKey(value string) bool {
	if textClaims(value) {
		return true
	}
	if !strings.Contains(value, "=?") {
		return false
	}
	return hasOtherCharset(value) || textClaims(fromfield.DecodeWords(value)) ||
		textClaims(fromfield.DecodeWords(fromfield.JoinWords(value)))
}

// textClaims is claimsAuthKey for one way to read the value.
func textClaims(text string) bool {
	if !esmtp.IsASCII(text) {
		text = norm.NFKC.String(text) // full-width letters, the Kelvin sign
	}
	text = strings.ToLower(text)
	outside, whole := withoutComments(text)
	return holdsClaim(skeleton(text)) || holdsClaim(skeleton(outside)) ||
		!whole && strings.Contains(skeleton(text), authMethod) // programs differ about where its parts end
}

// holdsClaim looks for the method, perhaps a version, and "=" (methodspec of RFC 8601
// section 2.2).
func holdsClaim(skeleton string) bool {
	for {
		_, rest, found := strings.Cut(skeleton, authMethod)
		if !found {
			return false
		}
		skeleton = rest
		if version, ok := strings.CutPrefix(rest, "/"); ok {
			rest = strings.TrimLeft(version, "0123456789.")
		}
		if strings.HasPrefix(rest, "=") {
			return true
		}
	}
}

// skeleton returns a text without everything that may be between the parts of a claim and
// not be seen: blanks of all kinds, folds, quotes, backslashes, and what is neither ASCII
// nor a hyphen or minus sign, which becomes "-".
func skeleton(s string) string {
	b := make([]byte, 0, len(s))
	for i, r := range s {
		switch {
		case r >= utf8.RuneSelf && unicode.Is(unicode.Pd, r), r == '\u2212':
			b = append(b, '-')
		case r > ' ' && r < 0x7F && r != '"' && r != '\\':
			b = append(b, s[i])
		}
	}
	return string(b)
}

// withoutComments drops the comments of RFC 5322 section 3.2.2; a parenthesis inside quotes
// (section 3.2.4) begins none. whole is false where a comment or a quoted string does not
// end.
func withoutComments(s string) (rest string, whole bool) {
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && (quoted || depth > 0):
			if i++; i < len(s) && depth == 0 {
				b.WriteByte(s[i])
			}
			continue
		case c == '"' && depth == 0:
			quoted = !quoted
		case c == '(' && !quoted:
			depth++
			continue
		case c == ')' && depth > 0:
			depth--
			continue
		}
		if depth == 0 {
			b.WriteByte(s[i])
		}
	}
	return b.String(), depth == 0 && !quoted
}

// asciiCharsets are the beginnings of the names of charsets that write ASCII as it is.
var asciiCharsets = []string{"utf-8", "us-ascii", "ascii", "iso-8859-", "windows-125", "cp125", "koi8-",
	"gb", "big5", "euc-", "shift_jis"}

// hasOtherCharset reports whether an encoded word (RFC 2047 section 2), also a malformed
// one, is in a charset that does not write ASCII as it is: it could say anything.
func hasOtherCharset(s string) bool {
	for {
		_, rest, found := strings.Cut(s, "=?")
		if !found {
			return false
		}
		charset, rest2, found := strings.Cut(rest, "?")
		encoding, rest2, found2 := strings.Cut(rest2, "?")
		_, after, found3 := strings.Cut(rest2, "?=")
		if !found || !found2 || !found3 || len(encoding) != 1 {
			s = rest // none
			continue
		}
		charset, _, _ = strings.Cut(strings.ToLower(charset), "*") // a language: RFC 2231 section 5
		if !slices.ContainsFunc(asciiCharsets, func(known string) bool { return strings.HasPrefix(charset, known) }) {
			return true
		}
		s = after
	}
}

// speaksAs reports whether the authserv-id of a field is one of ids, but for the case of
// letters (RFC 8601 section 2.5).
func speaksAs(value string, ids []string) bool {
	id, _, found := strings.Cut(value, ";")
	id = strings.Trim(id, " \t\r\n")
	return found && slices.ContainsFunc(ids, func(own string) bool { return strings.EqualFold(own, id) })
}
