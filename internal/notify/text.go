package notify

import (
	"strings"
	"unicode/utf8"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
)

const (
	// maxName bounds the name of a field that is quoted.
	maxName = 76
	// maxLine is the longest line that we write, in octets; RFC 5322 section 2.1.1 allows 998.
	maxLine = 990
	// maxQuoted bounds what a DSN quotes of the original's header.
	maxQuoted = 32 << 10
)

// Fields of AuthKeys. They are never quoted.
const (
	keyField    = "X-Auth-Key"
	newKeyField = "X-New-Auth-Key"
)

// printable puts "?" in place of every octet that is no printable ASCII.
func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7E {
			b[i] = '?'
		}
	}
	return string(b)
}

// cutOctets bounds s without splitting a UTF-8 sequence.
func cutOctets(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for back := 0; back < utf8.UTFMax && back < most; back++ {
		if utf8.RuneStart(s[most-back]) {
			return s[:most-back]
		}
	}
	return s[:most] // not UTF-8
}

// oneLine makes a text from outside fit for one line of ours: valid UTF-8, blanks
// of any kind made one space, at most most characters.
func oneLine(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if esmtp.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// quoteFields writes header fields as they came, but for those with AuthKeys and for what a
// message cannot have (RFC 5322 section 2.2): no value can end its field or the header. In a
// wide text octets above ASCII are valid UTF-8.
func quoteFields(fields []milter.Field, wide bool) []byte {
	var out []byte
	for _, f := range fields {
		name := strings.TrimSpace(f.Name)
		if !isFieldName(name) || isField(f, keyField) || isField(f, newKeyField) {
			continue
		}
		field := quoteField(name, f.Value, wide)
		if len(out)+len(field) > maxQuoted {
			break
		}
		out = append(out, field...)
	}
	return out
}

func isFieldName(name string) bool {
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= 0x20 || c >= 0x7F || c == ':' {
			return false
		}
	}
	// A line that begins with hyphens could be taken for the end of a MIME part.
	return name != "" && len(name) < maxName && name[0] != '-'
}

func quoteField(name, value string, wide bool) string {
	if wide {
		value = strings.ToValidUTF8(value, "?")
	}
	var b strings.Builder
	line, first := name+":", true
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' }) {
		part = strings.TrimRight(replaceControls(part), " \t")
		if part == "" {
			continue
		}
		if !first {
			b.WriteString(line + "\r\n")
			line = ""
		}
		first = false
		if part[0] != ' ' && part[0] != '\t' {
			line += " "
		}
		line += part
		for len(line) > maxLine {
			head := cutOctets(line, maxLine)
			b.WriteString(head + "\r\n")
			line = " " + line[len(head):]
		}
	}
	b.WriteString(line + "\r\n")
	return b.String()
}

// replaceControls puts "?" in place of controls but TAB, octet by octet, since
// the value need not be UTF-8.
func replaceControls(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7F {
			b[i] = '?'
		}
	}
	return string(b)
}
