package fromfield

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// decodeWords replaces the encoded words of s (RFC 2047) by what they stand for, also
// where that RFC allows none. Blanks between two of them go. Of a charset that is not
// known the octets stay as they are.
func decodeWords(s string) string {
	var (
		b       strings.Builder
		pending = 0 // what is not copied yet begins here
		last    = -1
	)
	for i := 0; ; {
		n := strings.Index(s[i:], "=?")
		if n < 0 {
			b.WriteString(s[pending:])
			return b.String()
		}
		i += n
		charset, text, end := cutEncoded(s, i)
		if end < 0 {
			i += len("=?")
			continue
		}
		if pending != last || strings.Trim(s[pending:i], " \t") != "" {
			b.WriteString(s[pending:i])
		}
		b.WriteString(decodeWord(charset, text[0], text[2:]))
		i, pending, last = end, end, end
	}
}

// decodeWord decodes the text of one encoded word.
func decodeWord(charset string, enc byte, text string) string {
	charset, _, _ = strings.Cut(strings.ToLower(charset), "*") // RFC 2231 section 5
	var raw []byte
	if enc == 'q' || enc == 'Q' {
		raw = decodeQ(text)
	} else {
		raw = decodeB(text)
	}
	if charset == "utf-7" || charset == "utf7" || charset == "unicode-1-1-utf-7" {
		return decodeUTF7(string(raw))
	}
	if isUTF8(charset) {
		return string(raw)
	}
	e := charsetOf(charset)
	if e == nil {
		return string(raw)
	}
	out, err := e.NewDecoder().Bytes(raw)
	if err != nil {
		return string(raw)
	}
	return string(out)
}

func isUTF8(charset string) bool {
	return charset == "utf-8" || charset == "utf8" || charset == "us-ascii" || charset == "ascii"
}

// charsetOf finds a charset by any of its usual names; nil: it is not known.
func charsetOf(name string) encoding.Encoding {
	if e, err := htmlindex.Get(name); err == nil {
		return e
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil && e != nil {
		return e
	}
	if e, err := ianaindex.IANA.Encoding(name); err == nil {
		return e
	}
	return nil
}

// decodeQ decodes the Q encoding; what is none stands for itself.
func decodeQ(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '_':
			b = append(b, ' ')
		case c == '=' && i+2 < len(s) && hex(s[i+1]) >= 0 && hex(s[i+2]) >= 0:
			b = append(b, byte(hex(s[i+1])<<4|hex(s[i+2])))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return b
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// decodeB decodes base64 without minding padding and characters that do not belong.
func decodeB(s string) []byte {
	clean := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c := s[i]; isAlnum(c) || c == '+' || c == '/' {
			clean = append(clean, c)
		}
	}
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	n, _ := base64.RawStdEncoding.Decode(out, clean) // of what is left every prefix decodes
	return out[:n]
}

// decodeUTF7 decodes UTF-7 (RFC 2152).
func decodeUTF7(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "+")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n := 0
		for n < len(rest) && (isAlnum(rest[n]) || rest[n] == '+' || rest[n] == '/') {
			n++
		}
		if n == 0 {
			b.WriteByte('+')
		}
		raw := decodeB(rest[:n])
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		b.WriteString(string(utf16.Decode(units)))
		s = strings.TrimPrefix(rest[n:], "-")
	}
}
