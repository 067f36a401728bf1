package diskfile

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
)

// A RuneError refuses a text for one of its characters.
type RuneError struct {
	Rune rune
	Why  string // such as: is a blank that does not show as one
}

func (e *RuneError) Error() string {
	return fmt.Sprintf("has the character U+%04X, which %s", e.Rune, e.Why)
}

// CheckText returns a *RuneError for a text with a blank other than the space and the TAB,
// or with a character that cannot be seen, such as U+00A0, U+200B, U+FEFF or U+202E. It was
// hardly written on purpose, and nobody who reads the file can see it.
func CheckText(s string) error {
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
		case unicode.IsSpace(r), esmtp.IsBlank(r):
			return &RuneError{r, "is a blank, but not the usual one"}
		case esmtp.IsInvisible(r):
			return &RuneError{r, "does not show"}
		case unicode.Is(unicode.Co, r), unicode.Is(unicode.Noncharacter_Code_Point, r), r == unicode.ReplacementChar:
			return &RuneError{r, "is an invisible character"}
		}
	}
	return nil
}

// CheckName is CheckText for names and addresses that are compared: it also refuses
// characters outside ASCII that become ASCII in lower case or by Unicode normalisation
// (NFC, NFKC), such as U+0130, U+212A, ligatures and letters of full width. Two people must
// not have names that look the same or are compared as the same.
func CheckName(s string) error {
	if esmtp.IsASCII(s) {
		return nil
	}
	if err := CheckText(s); err != nil {
		return err
	}
	// Composition makes one character of several: I and U+0307 are U+0130.
	for _, form := range []string{s, norm.NFC.String(s), norm.NFKC.String(s)} {
		for _, r := range form {
			if r >= utf8.RuneSelf && becomesASCII(r) {
				return &RuneError{r, "becomes ASCII where case and form do not matter"}
			}
		}
	}
	return nil
}

// becomesASCII reports whether a character outside ASCII is, or is made of, ASCII in some
// other form of it.
func becomesASCII(r rune) bool {
	if !utf8.ValidRune(r) {
		return false
	}
	lower := string(unicode.ToLower(r))
	for _, form := range []string{lower, norm.NFC.String(string(r)), norm.NFKC.String(string(r)), norm.NFKC.String(lower)} {
		if strings.ContainsFunc(form, func(r rune) bool { return r < utf8.RuneSelf }) {
			return true
		}
	}
	return false
}

// Quote quotes what somebody wrote for an error text, cut to a bound.
func Quote(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
