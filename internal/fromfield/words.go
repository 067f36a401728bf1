package fromfield

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"

	"github.com/authkey/authkey/internal/esmtp"
)

// blanks are what may be between encoded words of a field, folded or not.
const blanks = " \t\r\n"

// eachWord calls do for every encoded word of s, in order: where it begins and ends, its
// charset, and its encoding, "?" and text.
func eachWord(s string, do func(start, end int, charset, text string)) {
	final := strings.LastIndex(s, "?=") // no encoded word ends behind it
	for i := 0; ; {
		n := strings.Index(s[i:], "=?")
		if n < 0 || i+n > final {
			return
		}
		i += n
		charset, text, end := cutEncoded(s, i)
		if end < 0 {
			i += len("=?")
			continue
		}
		do(i, end, charset, text)
		i = end
	}
}

// DecodeWords decodes the encoded words of s (RFC 2047), also where that RFC allows none.
// Blanks between two of them are removed (section 6.2). The octets of a charset that is not
// known stay as they are.
func DecodeWords(s string) string {
	var b strings.Builder
	last := -1 // the end of the word before
	copied := 0
	eachWord(s, func(start, end int, charset, text string) {
		if copied != last || strings.Trim(s[copied:start], blanks) != "" {
			b.WriteString(s[copied:start])
		}
		b.WriteString(decodeWord(charset, text[0], text[2:]))
		copied, last = end, end
	})
	b.WriteString(s[copied:])
	return b.String()
}

// JoinWords makes one encoded word of those that follow each other and have the same
// charset and encoding: some programs do so before they decode, as others cut words
// in the middle of a character.
func JoinWords(s string) string {
	var b strings.Builder
	last, before := -1, "" // the end of the word before, its charset and encoding
	copied := 0
	eachWord(s, func(start, end int, charset, _ string) {
		text := start + len("=?") + len(charset) + len("?q?")
		if kind := s[start:text]; last >= 0 && strings.EqualFold(kind, before) && strings.Trim(s[last:start], blanks) == "" {
			b.WriteString(s[copied : last-len("?=")])
			copied = text
		} else {
			before = kind
		}
		last = end
	})
	b.WriteString(s[copied:])
	return b.String()
}

// decodeWord decodes the text of one encoded word. Where a charset takes the "@" away
// that is in the octets, those follow: a program that does not know it shows them.
func decodeWord(charset string, enc byte, text string) string {
	charset, _, _ = strings.Cut(strings.ToLower(charset), "*") // RFC 2231 section 5
	var raw string
	if enc == 'q' || enc == 'Q' {
		raw = string(decodeQ(text))
	} else {
		raw = decodeAnyB(text)
	}
	if isUTF8(charset) {
		return raw
	}
	decoded := fromCharset(charset, raw)
	if strings.IndexByte(raw, '@') >= 0 && strings.IndexByte(decoded, '@') < 0 {
		decoded += " " + raw
	}
	return decoded
}

var withoutHyphens = strings.NewReplacer("-", "", "_", "")

// fromCharset decodes octets; those of a charset that is not known stay.
func fromCharset(charset, raw string) string {
	switch withoutHyphens.Replace(charset) {
	case "utf7", "u7", "unicode11utf7", "csunicode11utf7":
		return decodeUTF7(raw)
	}
	e := charsetOf(charset)
	if e == nil {
		return raw
	}
	out, err := e.NewDecoder().String(raw)
	if err != nil {
		return raw
	}
	return out
}

func isUTF8(charset string) bool {
	return charset == "utf-8" || charset == "utf8" || charset == "us-ascii" || charset == "ascii"
}

// charsetOf finds a charset by any of its usual names; nil: it is not known. In all
// those of EBCDIC letters, digits and "." are at the same places, and "@" in most.
func charsetOf(name string) encoding.Encoding {
	if e, err := htmlindex.Get(name); err == nil && e != encoding.Replacement {
		return e
	}
	if e, err := ianaindex.MIME.Encoding(name); err == nil && e != nil {
		return e
	}
	if e, err := ianaindex.IANA.Encoding(name); err == nil && e != nil {
		return e
	}
	for _, family := range []string{"cp", "ibm", "ebcdic", "x-ebcdic"} {
		if strings.HasPrefix(name, family) {
			return charmap.CodePage037
		}
	}
	return nil
}

// decodeQ decodes the Q encoding (RFC 2047 section 4.2). A "=" without two hexadecimal digits
// after it stays.
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

// decodeAnyB decodes base64 in three ways, as different programs do: they skip a "=" in the
// middle, begin again after it, or stop there.
func decodeAnyB(s string) string {
	all := string(decodeB(s))
	if strings.IndexByte(strings.TrimRight(s, "= "), '=') < 0 {
		return all
	}
	pieces := strings.FieldsFunc(s, func(r rune) bool { return r == '=' })
	if len(pieces) == 0 {
		return all
	}
	var anew strings.Builder
	for _, piece := range pieces {
		anew.Write(decodeB(piece))
	}
	return strings.Join(distinct(all, anew.String(), string(decodeB(pieces[0]))), " ")
}

// decodeB decodes base64, and ignores padding and characters that are not of base64.
func decodeB(s string) []byte {
	clean := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if c := s[i]; esmtp.IsAlnum(c) || c == '+' || c == '/' {
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
		for n < len(rest) && (esmtp.IsAlnum(rest[n]) || rest[n] == '+' || rest[n] == '/') {
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
