package milter

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
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
	address  wire.Address
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

// propValue writes an address as a pvalue that needs no quotes, however its readers
// split the field: of the local part everything but letters, digits and ".+-_/" is
// percent-encoded, so that no sender can write "=", ";" or a blank here. That is
// another encoding than the canonical one: of the local part itself, without quotes
// and backslashes. A canonical domain holds nothing that would need it.
func propValue(address wire.Address) string {
	if address.IsZero() {
		return ""
	}
	local := address.Local()
	b := make([]byte, 0, len(local)+1+len(address.Domain()))
	for i := 0; i < len(local); i++ {
		if c := local[i]; esmtp.IsAlnum(c) || strings.IndexByte(".+-_/", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	b = append(append(b, '@'), address.Domain()...)
	if len(b) > maxPropValue {
		return ""
	}
	return string(b)
}

const upperHex = "0123456789ABCDEF"

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
