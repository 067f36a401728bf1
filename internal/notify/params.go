package notify

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// param returns the value of an ESMTP parameter in a list separated by blanks.
func param(args, name string) string {
	for arg := range strings.FieldsSeq(args) {
		if key, value, ok := strings.Cut(arg, "="); ok && strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}

// maxParam bounds what is repeated of an ENVID or ORCPT. RFC 3461 has 100 and
// 500 octets.
const maxParam = 500

// envelopeID reads ENVID of RFC 3461 section 4.4; "" if there is none that can be
// repeated.
func envelopeID(mailArgs string) string {
	id, ok := decodeXtext(param(mailArgs, "ENVID"))
	if !ok || len(id) > maxParam || !isPrintable(id) {
		return ""
	}
	return strings.TrimSpace(id)
}

// originalRecipient reads ORCPT of RFC 3461 section 4.2 and RFC 6533 section 3:
// the address type and the address, decoded. Both are empty if there is none that
// can be repeated.
func originalRecipient(rcptArgs string) (kind, addr string) {
	kind, encoded, ok := strings.Cut(param(rcptArgs, "ORCPT"), ";")
	if !ok || kind == "" || len(kind) > maxParam || strings.Trim(strings.ToLower(kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", ""
	}
	if strings.EqualFold(kind, typeUTF8) {
		addr, ok = decodeUnitext(encoded)
		ok = ok && utf8.ValidString(addr)
	} else {
		addr, ok = decodeXtext(encoded)
		ok = ok && isPrintable(addr)
	}
	if !ok || addr == "" || len(addr) > maxParam || strings.ContainsFunc(addr, isControl) {
		return "", ""
	}
	return strings.ToLower(kind), addr
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

// decodeUnitext undoes both encodings of RFC 6533 section 3, in which \x{…} stands
// for a code point. The xtext of RFC 3461, which some use here, is undone too.
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
