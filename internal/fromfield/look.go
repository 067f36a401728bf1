package fromfield

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mtibben/confusables"
	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/wire"
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
			stands := s != dashed || dashed == alike // a dash between words joins them here
			r.alike = s != same && (s == alike || s == dashed)
			for _, s := range distinct(s, withoutComments(s, closings(s)), withoutComments(s, innermost(s))) {
				for q, s := range distinct(s, withoutQuotes(s)) {
					thin := dropRunes(s, isThin)
					for b, s := range distinct(s, joinDots(s), thin, joinDots(thin), dropRunes(thin, isBlank)) {
						r.whole = q == 0 && b == 0 && stands
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
	if !hasHigh(s) {
		return s
	}
	return norm.NFKC.String(s)
}

// resembled is s with ASCII characters in the place of those that resemble them (UTS
// 39): a Cyrillic "а" becomes a Latin one.
func resembled(s string) string {
	if !hasHigh(s) {
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

// dashes are those that stand between words, too.
var dashes = strings.NewReplacer("–", "-", "—", "-")

// prototypes are the characters of addresses by what UTS 39 makes of everything that
// resembles them.
var prototypes = func() map[string]rune {
	m := make(map[string]rune)
	// What UTS 39 keeps apart, but not everybody's eyes do.
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

func hasHigh(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return true
		}
	}
	return false
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

// withoutComments takes out the comments that end where ends says, if they do not
// stand in a quoted string.
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
		n := strings.IndexFunc(rest, func(r rune) bool { return !isBlank(r) })
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

// scan takes the longest run of characters of a domain after each "@", with what
// stands before it. Without any "@" the older forms count that MTAs rewrite to one:
// user%domain and domain!user.
func (r *reader) scan(s string) {
	if strings.IndexByte(s, '@') < 0 {
		r.scanOlder(s)
		return
	}
	for start := 0; ; {
		n := strings.IndexByte(s[start:], '@')
		if n < 0 {
			return
		}
		at := start + n
		local, domain := s[localStart(s, start, at, endsLocal):at], domainRun(s[at+1:])
		if local == "" {
			local = quotedLocal(s, start, at)
		}
		r.found(local, domain)
		if r.whole {
			// The domain alone without what does not show, and without blanks: the local
			// part stays a whole word.
			for _, tight := range distinct(domain, tightRun(s[at+1:], isThin), tightRun(s[at+1:], isUnseen))[1:] {
				r.found(local, tight)
			}
		}
		if r.excess {
			return
		}
		start = at + 1
	}
}

func (r *reader) scanOlder(s string) {
	for i := 0; i < len(s) && !r.excess; i++ {
		switch s[i] {
		case '%':
			r.found(s[localStart(s, 0, i, endsOlder):i], domainRun(s[i+1:]))
		case '!':
			start := localStart(s, 0, i, endsOlder)
			r.found(localRun(s[i+1:]), domainRun(s[start:i]))
		}
		if s[i] == '%' || s[i] == '!' {
			s = s[i+1:]
			i = -1
		}
	}
}

// found takes an address that stands in the field in one of its forms.
func (r *reader) found(local, domain string) {
	local, domain = withoutThin(strings.TrimLeft(local, "'`")), strings.Trim(domain, ".-_")
	for strings.Contains(domain, "..") {
		domain = strings.ReplaceAll(domain, "..", ".")
	}
	if hasHigh(domain) {
		if word := latinWord(domain); word != domain {
			r.found(local, word)
		}
		if r.alike && strings.ContainsFunc(domain, isOtherScript) {
			return // a mixture that nobody sees
		}
	} else if strings.IndexByte(domain, '.') < 0 {
		return
	}
	text := local + "@" + domain
	if whole, ok := r.seen[text]; ok && (whole || !r.whole) {
		return
	}
	if r.seen == nil {
		r.seen = make(map[string]bool)
	}
	r.seen[text] = r.whole
	a, err := wire.ParseAddress(text)
	if errors.Is(err, wire.ErrDomain) && hasHigh(domain) {
		// Characters beyond ASCII can end the domain, too.
		ascii, _, _ := strings.Cut(strings.Map(onlyASCII, domain), "\x00")
		r.found(local, ascii)
		return
	}
	if err != nil {
		if a, err = wire.DomainAddress(text); err != nil {
			return
		}
	}
	if strings.IndexByte(a.Domain(), '.') >= 0 {
		r.show(a)
	}
}

// latinWord returns what stands in a domain before the first character that is no Latin
// letter, nor ASCII: a person reads the domain up to a sign, a dash or another script.
func latinWord(domain string) string {
	domain = norm.NFC.String(domain)
	i := strings.IndexFunc(domain, isOtherScript)
	if i < 0 {
		return domain
	}
	return strings.TrimRight(domain[:i], ".-_")
}

// onlyASCII maps all other characters to NUL.
func onlyASCII(r rune) rune {
	if r >= utf8.RuneSelf {
		return 0
	}
	return r
}

// domainRun returns the characters of a domain at the beginning of s.
func domainRun(s string) string {
	i := 0
	for i < len(s) && (isAlnum(s[i]) || s[i] == '.' || s[i] == '-' || s[i] == '_' || s[i] >= utf8.RuneSelf) {
		i++
	}
	return s[:i]
}

// tightRun is domainRun over what is dropped.
func tightRun(s string, drop func(rune) bool) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case drop(r):
		case r < utf8.RuneSelf && domainRun(s[i:i+1]) == "":
			return b.String()
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quotedLocal returns what the quoted string right before s[at] holds, if there is one
// at start or after it, and it is the whole local part.
func quotedLocal(s string, start, at int) string {
	start = max(start, at-maxLocalRun)
	if at-1 <= start || s[at-1] != '"' {
		return ""
	}
	open := strings.LastIndexByte(s[start:at-1], '"')
	if open < 0 || open > 0 && !endsLocal(s[start+open-1]) {
		return ""
	}
	return withoutQuotes(s[start+open : at])
}

// maxLocalRun bounds how much before an "@" is taken for its local part. More is too
// long for the protocol anyway.
const maxLocalRun = 2 * wire.MaxAddress

// localStart returns where the local part before s[at] begins, at start or after it.
func localStart(s string, start, at int, ends func(byte) bool) int {
	start = max(start, at-maxLocalRun)
	end := at
	for at > start && !ends(s[at-1]) {
		at--
	}
	if at >= 2 && at < end && s[at-1] == '(' && s[at-2] == 0x1B {
		at++ // the last octet of an escape sequence of ISO-2022
	}
	return at
}

// localRun returns the characters of a local part at the beginning of s.
func localRun(s string) string {
	i := 0
	for i < len(s) && i < maxLocalRun && !endsOlder(s[i]) {
		i++
	}
	return s[:i]
}

// endsLocal reports whether no local part without quotes has c.
func endsLocal(c byte) bool {
	return c <= ' ' || c == 0x7F || strings.IndexByte(`<>()[]:;,"\@`, c) >= 0
}

// endsOlder is endsLocal in the older forms.
func endsOlder(c byte) bool { return endsLocal(c) || c == '!' || c == '%' }

// isClean reports whether a field in which an address of ordinary characters was found
// holds nothing else that could be read as an address: one "@", no encoded word that
// could hide another one, and behind the address only what ends it in every reading. What
// stands before it can change its local part, but is no address of another domain.
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

// mayHide reports whether an encoded word may stand for something with an "@" or for
// another encoded word, alone or together with those beside it.
func mayHide(charset string, enc byte, text string) bool {
	charset, _, _ = strings.Cut(strings.ToLower(charset), "*")
	if !isUTF8(charset) && !strings.HasPrefix(charset, "iso-8859-") && !strings.HasPrefix(charset, "windows-125") {
		return true // some of them write "@" otherwise
	}
	if enc|0x20 != 'q' || hasHigh(text) || strings.IndexByte(text, '@') >= 0 || strings.HasSuffix(text, "=") {
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
