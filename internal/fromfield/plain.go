package fromfield

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
)

// Plain reads a field that holds one mailbox in the form of nearly all mail: words of
// letters and digits and an address in angle brackets, or an address alone. For
// anything else ok is false. Every program reads such a field alike.
func Plain(field string) (address string, ok bool) {
	address = strings.Trim(field, " ")
	if phrase, rest, found := strings.Cut(address, "<"); found {
		for i := 0; i < len(phrase); i++ {
			if c := phrase[i]; c != ' ' && c != '-' && !esmtp.IsAlnum(c) {
				return "", false
			}
		}
		address, ok = strings.CutSuffix(rest, ">")
		if !ok {
			return "", false
		}
	}
	return address, isPlainAddress(address)
}

// named reads most of the other fields of everyday mail: any name, also quoted or in
// encoded words, and behind it the only "@" of the field in a plain address in angle
// brackets. For anything else ok is false. It saves what reading all forms costs.
func named(field string) (address string, ok bool) {
	open := strings.IndexByte(field, '<')
	if open < 0 {
		return "", false
	}
	quotes := 0
	for i := 0; i < open; i++ {
		switch c := field[i]; c {
		case '"':
			quotes++
		case '(', '\\', 0x1B, '\r', '\n':
			return "", false
		}
	}
	address, ok = strings.CutSuffix(strings.TrimRight(field[open+1:], " \t"), ">")
	if !ok || quotes%2 != 0 || !isPlainAddress(address) || !isClean(field, address) {
		return "", false
	}
	return address, true
}

// isPlainAddress reports whether s is an address of characters that nobody quotes or
// decodes: letters, digits, "-_", single dots, and in the local part "+=". A domain
// that programs may show in Unicode is none, nor one with a sign at its ends.
func isPlainAddress(s string) bool {
	at := -1
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case esmtp.IsAlnum(c), c == '-', c == '_', at < 0 && (c == '+' || c == '='):
		case c == '.' && i > 0 && i < len(s)-1 && s[i-1] != '.' && s[i-1] != '@' && s[i+1] != '@':
		case c == '@' && at < 0 && i > 0 && i < len(s)-1:
			at = i
		default:
			return false
		}
	}
	return at > 0 && esmtp.IsAlnum(s[at+1]) && esmtp.IsAlnum(s[len(s)-1]) && !hasALabel(s[at:])
}
