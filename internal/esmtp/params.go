package esmtp

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// TypeUTF8 is the address type of RFC 6533 section 3, in lower case.
const TypeUTF8 = "utf-8"

// maxParam bounds what is taken of an ENVID or ORCPT, in octets. RFC 3461 allows 100 for an
// ENVID (section 4.4) and 500 for an ORCPT (section 4.2).
const maxParam = 500

// DeclinesDSN reports whether the parameters of a RCPT say that the sender does not want
// a DSN about a failure: NOTIFY without FAILURE (RFC 3461 section 4.1).
func DeclinesDSN(rcptArgs string) bool {
	notify := param(rcptArgs, "NOTIFY")
	if notify == "" {
		return false
	}
	for word := range strings.SplitSeq(notify, ",") {
		if strings.EqualFold(word, "FAILURE") {
			return false
		}
	}
	return true
}

// EnvelopeID returns the ENVID among the parameters of a MAIL, decoded (RFC 3461 section
// 4.4); "" if there is none, or none of printable ASCII.
func EnvelopeID(mailArgs string) string {
	id, ok := decodeXtext(param(mailArgs, "ENVID"))
	if !ok || len(id) > maxParam || !isPrintable(id) {
		return ""
	}
	return strings.TrimSpace(id)
}

// OriginalRecipient returns the ORCPT among the parameters of a RCPT, decoded: the address
// type in lower case and the address (RFC 3461 section 4.2, RFC 6533 section 3). Both are
// empty if there is none, or none that can be shown: only an address of TypeUTF8 may have
// characters outside printable ASCII, and none that control.
func OriginalRecipient(rcptArgs string) (kind, address string) {
	kind, encoded, ok := strings.Cut(param(rcptArgs, "ORCPT"), ";")
	if !ok || kind == "" || len(kind) > maxParam || strings.Trim(strings.ToLower(kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", ""
	}
	if strings.EqualFold(kind, TypeUTF8) {
		address, ok = decodeUnitext(encoded)
		ok = ok && utf8.ValidString(address) && !strings.ContainsFunc(address, IsControl)
	} else {
		address, ok = decodeXtext(encoded)
		ok = ok && isPrintable(address)
	}
	if !ok || address == "" || len(address) > maxParam {
		return "", ""
	}
	return strings.ToLower(kind), address
}

// param returns the value of the first parameter of that name which has one, in a list
// separated by blanks (esmtp-param of RFC 5321 section 4.1.2).
func param(args, name string) string {
	for arg := range strings.FieldsSeq(args) {
		if key, value, _ := strings.Cut(arg, "="); value != "" && strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// decodeXtext undoes the xtext of RFC 3461 section 4.
func decodeXtext(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

// decodeUnitext undoes both encodings of RFC 6533 section 3, in which \x{…} is a code point.
// It undoes the xtext of RFC 3461 section 4 too, which some programs use here.
func decodeUnitext(s string) (string, bool) {
	s, ok := decodeXtext(s)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		hex, rest, closed := strings.Cut(after, "}")
		n, err := strconv.ParseUint(hex, 16, 32)
		if !closed || err != nil || !utf8.ValidRune(rune(n)) {
			return "", false
		}
		b.WriteRune(rune(n))
		s = rest
	}
}
