package fromfield

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mtibben/confusables"
	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
)

// maxDecodings is how often encoded words are decoded: a program may do it again
// after another one did.
const maxDecodings = 2

// look finds the addresses that some program could show, by looking at a field in
// several ways.
func (r *reader) look(value string) {
	ways := []string{value}
	for _, value := range distinct(value, JoinWords(value)) {
		for range maxDecodings {
			decoded := DecodeWords(value)
			if decoded == value {
				break
			}
			ways = append(ways, decoded)
			value = decoded
		}
	}
	for _, s := range distinct(ways[0], ways[1:]...) {
		same := compatible(unicodeLabels(s))
		alike := resembled(same)
		dashed := dashes.Replace(alike)
		for _, s := range distinct(s, same, alike, overridden(same), dashed) {
			asWritten := s != dashed || dashed == alike // a dash between words joins them here
			r.alike = s != same && (s == alike || s == dashed)
			for _, s := range distinct(s, withoutComments(s, closings(s)), withoutComments(s, innermost(s))) {
				for q, s := range distinct(s, withoutQuotes(s)) {
					thin := dropRunes(s, isThin)
					for b, s := range distinct(s, joinDots(s), thin, joinDots(thin), dropRunes(thin, esmtp.IsBlank)) {
						r.whole = q == 0 && b == 0 && asWritten
						r.scan(s)
						if r.excess {
							return
						}
					}
				}
			}
		}
	}
}

// distinct returns the first of its arguments and those that differ from all before.
func distinct(s string, more ...string) []string {
	out := []string{s}
next:
	for _, m := range more {
		for _, o := range out {
			if o == m {
				continue next
			}
		}
		out = append(out, m)
	}
	return out
}

// compatible is s in Unicode's compatibility form, in which a full-width "@" is one.
func compatible(s string) string {
	if esmtp.IsASCII(s) {
		return s
	}
	return norm.NFKC.String(s)
}

// resembled is s with ASCII characters in the place of those that resemble them (UTS
// 39): a Cyrillic "а" becomes a Latin one.
func resembled(s string) string {
	if esmtp.IsASCII(s) {
		return s
	}
	seen := make(map[rune]rune)
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf || r == '–' || r == '—' {
			return r
		}
		to, ok := seen[r]
		if !ok {
			to = r
			if c, ok := prototypes[confusables.Skeleton(string(r))]; ok {
				to = c
			}
			seen[r] = to
		}
		return to
	}, s)
}

// dashes are those that people also write between words.
var dashes = strings.NewReplacer("–", "-", "—", "-")

// prototypes are the characters of addresses by what UTS 39 makes of everything that
// resembles them.
var prototypes = func() map[string]rune {
	m := make(map[string]rune)
	// Characters that differ by UTS 39, but look alike to some people.
	for c, others := range map[rune]string{'.': "·", 'b': "в", 'e': "є", 'h': "нћ", 'k': "кκ", 'm': "м", 'n': "пŋ", 'r': "гґ", 't': "тτŧ", 'u': "ц", 'w': "шω"} {
		for _, o := range others {
			m[confusables.Skeleton(string(o))] = c
		}
	}
	for _, c := range "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ@.-abcdefghijklmnopqrstuvwxyz" {
		m[confusables.Skeleton(string(c))] = c // later ones win: letters in lower case
	}
	return m
}()

// aLabel is a label of an international domain name in ASCII.
var aLabel = regexp.MustCompile(`(?i)\bxn--[a-z0-9-]{1,59}`)

// unicodeLabels is s with such labels as some programs show them.
func unicodeLabels(s string) string {
	if !hasALabel(s) {
		return s
	}
	return aLabel.ReplaceAllStringFunc(s, func(label string) string {
		shown, err := idna.Punycode.ToUnicode(strings.ToLower(label))
		if err != nil {
			return label
		}
		return shown
	})
}

// hasALabel reports whether there may be one in s.
func hasALabel(s string) bool {
	for i := strings.Index(s, "--"); i >= 0; {
		if i >= 2 && s[i-1]|0x20 == 'n' && s[i-2]|0x20 == 'x' {
			return true
		}
		n := strings.Index(s[i+1:], "--")
		if n < 0 {
			return false
		}
		i += 1 + n
	}
	return false
}

// overridden is s as it shows where it overrides the direction of text (UAX 9).
func overridden(s string) string {
	const override, pop = "\u202e", "\u202c"
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, override)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		text, rest, _ := strings.Cut(rest, pop)
		runes := []rune(text)
		slices.Reverse(runes)
		b.WriteString(string(runes))
		s = rest
	}
}

// innermost are those of closings that hold no other comment.
func innermost(s string) []int32 {
	ends := closings(s)
	open := -1 // the last "(" whose comment no other one has followed
	for i := range ends {
		if ends[i] > 0 {
			if open >= 0 && int(ends[open]) > i {
				ends[open] = 0
			}
			open = i
		}
	}
	return ends
}

// withoutComments takes out the comments that end where ends says, if they are not in a
// quoted string.
func withoutComments(s string, ends []int32) string {
	if ends == nil {
		return s
	}
	var b strings.Builder
	unclosed := false
	for i := 0; i < len(s); {
		end := i + 1
		switch {
		case ends[i] > 0:
			i = int(ends[i])
			continue
		case s[i] == '"' && !unclosed:
			if n := quotedEnd(s, i); n > 0 {
				end = n
			} else {
				unclosed = true
			}
		case s[i] == '\\' && end < len(s):
			end++
		}
		b.WriteString(s[i:end])
		i = end
	}
	return b.String()
}

// withoutQuotes takes out quotes and backslashes.
func withoutQuotes(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '"', '\\', '\'', '`', '“', '”', '‘', '’', '«', '»':
			return -1
		}
		return r
	}, s)
}

func dropRunes(s string, drop func(rune) bool) string {
	return strings.Map(func(r rune) rune {
		if drop(r) {
			return -1
		}
		return r
	}, s)
}

// joinDots takes out the blanks beside dots and "@", where RFC 5322 allows them.
func joinDots(s string) string {
	var b strings.Builder
	joined := false // the last character that is no blank joins
	for rest := s; rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return !esmtp.IsBlank(r) })
		if n < 0 {
			break
		}
		blanks := rest[:n]
		rest = rest[n:]
		r, size := utf8.DecodeRuneInString(rest)
		joins := r == '.' || r == '@'
		if !joined && !joins {
			b.WriteString(blanks)
		}
		b.WriteString(rest[:size])
		rest = rest[size:]
		joined = joins
	}
	return b.String()
}
