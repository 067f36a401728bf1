package wire

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A NearMiss is a TXT record that was probably meant to be an AS record and that no
// recipient takes for one, or cannot use.
type NearMiss struct {
	Text  string // the record, cut to a bound, not quoted
	Why   string // what is wrong, as the end of "looks like an AS record, but …"
	Right string // what was probably meant, in the spelling of docs/protocol.md
}

const (
	// maxNearMiss is how much of a TXT record is looked at.
	maxNearMiss = 1024
	// placeholder is written in place of what cannot be guessed.
	placeholder = "AS=HOST:PORT"
)

var (
	zoneLine     = regexp.MustCompile(`(?i)^(?:[a-z0-9@*._-]+ +)?(?:[0-9]+ +)?(?:IN +)?TXT +`)
	versionFirst = regexp.MustCompile(`(?i)^(?:v *= *[a-z0-9.]+ *[;,]? *)+`)
	asVersion    = regexp.MustCompile(`(?i)^v *= *as[0-9]* *(?:[;, ]|$)`)
	recordStart  = regexp.MustCompile(`(?i)^AS( *)([=:])( *)`)
	noEquals     = regexp.MustCompile(`(?i)^AS +[a-z0-9\[][^ ]*:[0-9]`)
	insideRecord = regexp.MustCompile(`(?i)[ ;,|]AS *= *([^ ;,]+:[0-9]+[^ ,]*.*)$`)
	scheme       = regexp.MustCompile(`(?i)^[a-z]+://`)
	portApart    = regexp.MustCompile(`^([^ :;]+)(?: +| *: *| *; *port *= *)([0-9]{1,5})(?:$|[ ;])`)
	fieldJoint   = regexp.MustCompile(` *[,;] *| +([a-z]+ *=)`)
	blankEquals  = regexp.MustCompile(` *= *`)
)

// LooksLikeRecord reports whether the text of a TXT record, its character strings
// joined, was probably meant to be an AS record although ParseRecord refuses it, and
// what is wrong with it. It is for people who look at their own domain: recipients must
// not guess.
func LooksLikeRecord(txt string) (NearMiss, bool) {
	_, parseErr := ParseRecord(txt)
	if parseErr == nil {
		return NearMiss{}, false
	}
	text := txt[:min(len(txt), maxNearMiss)]
	var why reasons
	s := why.plain(text)
	if t := zoneLine.ReplaceAllString(s, ""); t != s && recordStart.MatchString(t) {
		s = t
		why.add("it is a whole line of a zone file")
	}
	bare := versionFirst.ReplaceAllString(s, "")
	ours := asVersion.MatchString(s)
	if bare != s && (ours || recordStart.MatchString(bare)) {
		s = bare
		why.add("AS= does not come first")
	}
	start := recordStart.FindStringSubmatch(s)
	switch {
	case start != nil:
		s = s[len(start[0]):]
		if start[2] == ":" {
			why.add("AS is followed by a colon where = belongs")
		}
		if start[1] != "" || start[3] != "" {
			why.add("there is a blank beside the = of AS=")
		}
	case noEquals.MatchString(s):
		s = strings.TrimLeft(s[2:], " ")
		why.add("there is no = after AS")
	case ours:
	default:
		inside := insideRecord.FindStringSubmatch(s)
		if inside == nil {
			return NearMiss{}, false
		}
		s = inside[1]
		why.add("it stands within another record, and needs one of its own")
	}
	right, ok := why.repair(s, errors.Is(parseErr, ErrMalformed))
	if start != nil && start[2] == ":" && !ok && !strings.Contains(s, ".") {
		return NearMiss{}, false // "as: we said", say
	}
	if len(why) == 0 {
		why.add(strings.TrimPrefix(parseErr.Error(), ErrMalformed.Error()+": "))
	}
	return NearMiss{Text: text[:min(len(text), maxRefusal)], Why: strings.Join(why, "; "), Right: right}, true
}

// maxReasons bounds what is said about one text.
const maxReasons = 4

// reasons are what is wrong with a text, each once.
type reasons []string

func (r *reasons) add(why string) {
	if len(*r) < maxReasons && !slices.Contains(*r, why) {
		*r = append(*r, why)
	}
}

// quotes are the characters that people and their editors put around a text.
const quotes = "\"'`\\\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u2039\u203a"

// lookalikes are letters of other scripts that look like those of "AS".
var lookalikes = strings.NewReplacer("\u0410", "A", "\u0391", "A", "\u0430", "a", "\u0405", "S", "\u0455", "s")

// plain takes out of a text what does not belong into a record, and leaves ASCII blanks.
func (r *reasons) plain(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRuneInString(text[i:])
		octet := text[i]
		i += size
		switch {
		case c == utf8.RuneError && size == 1 && (0x91 <= octet && octet <= 0x94 || octet == 0x84): // Windows-1252
			r.add("there are quotation marks in it (octet " + fmt.Sprintf("0x%02X", octet) + ")")
		case strings.ContainsRune(quotes, c) && c < utf8.RuneSelf:
			r.add("there are quotation marks or backslashes in it")
		case strings.ContainsRune(quotes, c):
			r.add(fmt.Sprintf("there are quotation marks in it (U+%04X)", c))
		case c == '\t' || c == ' ':
			b.WriteByte(' ')
		case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
			r.add(fmt.Sprintf("there is an invisible character in it (U+%04X)", c))
		case c >= utf8.RuneSelf && unicode.IsSpace(c):
			r.add(fmt.Sprintf("there is a blank that is not the ASCII one in it (U+%04X)", c))
			b.WriteByte(' ')
		default:
			before := string(c)
			after := lookalikes.Replace(norm.NFKC.String(before))
			if c >= utf8.RuneSelf && after != before && after[0] < utf8.RuneSelf {
				r.add(fmt.Sprintf("there is a character that only looks like %q in it (U+%04X)", after, c))
				before = after
			}
			b.WriteString(before)
		}
	}
	s := b.String()
	trimmed := strings.TrimLeft(s, " ")
	if trimmed != s && len(*r) == 0 {
		r.add("it begins with a blank")
	}
	return strings.TrimRight(trimmed, " ")
}

// repair makes a record of the text after AS=, and says what else was wrong with it; ok is
// false, and the record a placeholder, where that fails.
func (r *reasons) repair(s string, malformed bool) (right string, ok bool) {
	if rec, err := ParseRecord("AS=" + s); err == nil {
		return rec.String(), true
	}
	if t := scheme.ReplaceAllString(s, ""); t != s {
		r.add("a host and port is wanted, no URL")
		s = t
	}
	if m := portApart.FindStringSubmatch(s); m != nil && !strings.HasPrefix(s, m[1]+":"+m[2]) {
		r.add("the port follows the host with a colon and nothing else")
		s = m[1] + ":" + m[2] + s[len(strings.TrimRight(m[0], "; ")):]
	}
	target, fields, _ := strings.Cut(fieldJoint.ReplaceAllString(s, ";$1"), ";")
	target = strings.TrimRight(target, "/ ")
	target, _, _ = strings.Cut(target, "/")
	record := "AS=" + target
	portless := target != "" && !strings.Contains(strings.TrimSuffix(target, ":"), ":")
	if portless {
		r.add("there is no port")
		record = "AS=" + strings.TrimSuffix(target, ":") + ":7425" // to be replaced below
	}
	for field := range strings.SplitSeq(fields, ";") {
		field = strings.ToLower(blankEquals.ReplaceAllString(strings.TrimSpace(field), "="))
		name, value, _ := strings.Cut(field, "=")
		switch {
		case field == "" || name == "v":
		case (name == "tls" || name == "req") && (value == "1" || value == "true" || value == "on" || value == ""):
			record += "; " + name + "=yes"
		case (name == "tls" || name == "req") && (value == "0" || value == "false" || value == "off"):
			record += "; " + name + "=no"
		default:
			record += "; " + field
		}
	}
	rec, err := ParseRecord(record)
	if len(*r) == 0 && !malformed {
		r.add("its version is not 1") // an ErrNotRecord that begins with AS=
	}
	if err != nil {
		return placeholder, false
	}
	right = rec.String()
	if portless {
		right = strings.Replace(right, ":7425", ":PORT", 1)
	}
	return right, true
}
