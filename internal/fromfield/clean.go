package fromfield

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
)

// isClean reports whether a field in which an address of ordinary characters was found
// holds nothing else that could be read as an address: one "@", no encoded word that could
// hide another one, and directly after the address a character that ends it for every
// program. Text before the address can change its local part, but not its domain.
func isClean(s, address string) bool {
	if strings.Count(s, "@") != 1 {
		return false
	}
	_, after, found := strings.Cut(s, address)
	if !found || !endsAfter(after) {
		return false
	}
	words, hides := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == 0xEF && (strings.HasPrefix(s[i:], "＠") || strings.HasPrefix(s[i:], "﹫")):
			return false
		case c == '=' && strings.HasPrefix(s[i:], "=?"):
			charset, text, end := cutEncoded(s, i)
			if end < 0 {
				return false
			}
			words++
			hides = hides || mayHide(charset, text[0], text[2:])
			i = end - 1
		}
	}
	if !hides {
		return true
	}
	return isSole(DecodeWords(s)) && (words == 1 || isSole(DecodeWords(JoinWords(s))))
}

// isSole reports whether a decoded field has one "@" in any form and no encoded word.
func isSole(s string) bool {
	return strings.Count(s, "@") == 1 && !strings.Contains(s, "＠") && !strings.Contains(s, "﹫") && !strings.Contains(s, "=?")
}

// endsAfter reports whether an address before s ends there in every reading.
func endsAfter(s string) bool {
	if s == "" || s[0] == '>' {
		return true
	}
	s = strings.Trim(s, " \t")
	return s == "" || s[0] == '(' && int(closings(s)[0]) == len(s)
}

// mayHide reports whether an encoded word may decode to a text with an "@" or with another
// encoded word, alone or together with those beside it.
func mayHide(charset string, enc byte, text string) bool {
	charset, _, _ = strings.Cut(strings.ToLower(charset), "*")
	if !isUTF8(charset) && !strings.HasPrefix(charset, "iso-8859-") && !strings.HasPrefix(charset, "windows-125") {
		return true // some of them write "@" otherwise
	}
	if enc|0x20 != 'q' || !esmtp.IsASCII(text) || strings.IndexByte(text, '@') >= 0 || strings.HasSuffix(text, "=") {
		return true
	}
	// "@" is =40, "=?" =3D=3F, and a full-width "@" begins with =EF.
	for _, hex := range []string{"=4", "=3", "=E", "=e"} {
		if strings.Contains(text, hex) {
			return true
		}
	}
	return false
}
