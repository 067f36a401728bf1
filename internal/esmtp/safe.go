package esmtp

import (
	"strings"
	"unicode/utf8"
)

// SafeAddress writes an address that came from outside, for log lines, headers and texts in
// which people or programs may search. All ASCII in it but letters, digits and what addresses
// usually have is percent-encoded, so that a stranger can write neither "result=pass" nor a
// blank, a quote or a second "@" there. It is for people: the address cannot always be
// restored from it.
func SafeAddress(s string) string {
	at := strings.LastIndexByte(s, '@')
	for i := 0; i < len(s); i++ {
		if !isSafe(s[i], i, at) {
			return encodeUnsafe(s, at)
		}
	}
	return s
}

// SafeASCII is SafeAddress for places that hold only ASCII: all other octets are
// percent-encoded too.
func SafeASCII(s string) string {
	s = SafeAddress(s)
	if IsASCII(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] < utf8.RuneSelf {
			b.WriteByte(s[i])
		} else {
			percent(&b, s[i])
		}
	}
	return b.String()
}

func encodeUnsafe(s string, at int) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if isSafe(s[i], i, at) {
			b.WriteByte(s[i])
		} else {
			percent(&b, s[i])
		}
	}
	return b.String()
}

// isSafe reports whether the octet c at index i of an address, whose "@" is at index at, is
// written as it is. Brackets and colons are those of domain literals (RFC 5321 section
// 4.1.3).
func isSafe(c byte, i, at int) bool {
	switch {
	case c >= utf8.RuneSelf, IsAlnum(c), i == at:
		return true
	case i > at && at >= 0 && strings.IndexByte("[]:", c) >= 0:
		return true
	}
	return strings.IndexByte(".+-_/", c) >= 0
}

func percent(b *strings.Builder, c byte) {
	const hex = "0123456789ABCDEF"
	b.Write([]byte{'%', hex[c>>4], hex[c&15]})
}
