package fromfield

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
)

// parsed is what a field names.
type parsed struct {
	addrs []string // addr-specs without comments and blanks
	// shown are those that may also be a part of a display name: without a dot in the
	// domain, and before an address in angle brackets.
	shown []string
	// clean: there is one address, of ordinary characters, and nothing else in the
	// field from which any program could read another one.
	clean bool
	// excess: it has more than MaxTokens.
	excess bool
}

// parse reads the mailbox list of a field.
//
// A display name may hold anything: a comma, a colon or a word with "@" does not end
// it where an address in angle brackets follows. A chunk between commas without such
// an address is a mailbox if there is an "@" in it.
func parse(s string) (p parsed) {
	l := list{toks: tokenize(s)}
	if len(l.toks) > MaxTokens {
		return parsed{excess: true}
	}
	for l.i < len(l.toks) {
		t := l.toks[l.i]
		switch {
		case t.is('<'):
			l.angle()
		case t.is(','), t.is(';'):
			l.flush()
			l.after = false
			l.i++
		case t.is(':') && !l.hasAt: // a group's name, or a part of a display name
			l.chunk = l.i + 1
			l.i++
		default:
			l.hasAt = l.hasAt || t.is('@')
			l.i++
		}
	}
	l.flush()
	p.addrs = l.angles
	switch {
	case len(l.angles) > 0:
		for _, a := range l.bare {
			if _, domain, _ := esmtp.Cut(a); strings.IndexByte(domain, '.') >= 0 {
				p.addrs = append(p.addrs, a)
			} else {
				p.shown = append(p.shown, a)
			}
		}
	case len(l.bare) > 0:
		p.addrs = l.bare
	default:
		p.addrs = l.quoted
	}
	p.clean = len(p.addrs) == 1 && isPlainAddress(p.addrs[0]) && isClean(s, p.addrs[0])
	return p
}

// A list is a mailbox list being read.
type list struct {
	toks  []token
	i     int  // the next token
	chunk int  // where the mailbox being read begins
	hasAt bool // it has an "@" outside angle brackets
	after bool // its address in angle brackets has been read

	// Addresses as they were found: in angle brackets, without, in a quoted string.
	angles, bare, quoted []string
}

// flush ends the mailbox being read.
func (l *list) flush() {
	if !l.after {
		if a, ok := bareAddress(l.toks[l.chunk:l.i]); ok {
			l.bare = append(l.bare, a)
		} else if a, ok := quotedAddress(l.toks[l.chunk:l.i]); ok {
			l.quoted = append(l.quoted, a)
		}
	}
	l.chunk, l.hasAt = l.i+1, false
}

// angle reads an address in angle brackets at the next token. If ">" is missing, the
// address ends before the next comma or "<", or at the end.
func (l *list) angle() {
	start := l.i + 1
	route := start < len(l.toks) && l.toks[start].is('@')
	end := start
	for end < len(l.toks) {
		t := l.toks[end]
		if t.is('>') || t.is('<') || t.is(';') || t.is(',') && !route {
			break
		}
		if t.is(':') {
			route = false
		}
		end++
	}
	a, ok := innerAddress(l.toks[start:end])
	if !ok {
		a, ok = quotedAddress(l.toks[start:end])
	}
	l.i = end
	if end < len(l.toks) && l.toks[end].is('>') {
		l.i++
	}
	if !ok { // "<>", "<alice>": the text before may be the address
		return
	}
	l.angles = append(l.angles, a)
	l.after, l.hasAt = true, false
}

// innerAddress reads the text between angle brackets.
func innerAddress(toks []token) (string, bool) {
	if len(toks) > 1 && strings.EqualFold(toks[0].text, "mailto") && toks[1].is(':') {
		toks = toks[2:]
	}
	if len(toks) > 0 && toks[0].is('@') { // a source route
		for i, t := range toks {
			if t.is(':') {
				toks = toks[i+1:]
				break
			}
		}
	}
	at := lastAt(toks)
	if at < 0 {
		return "", false
	}
	var local strings.Builder
	for i, t := range toks[:at] {
		if t.gap && i > 0 && t.kind != special && toks[i-1].kind != special {
			local.WriteByte(' ')
		}
		local.WriteString(t.text)
	}
	return local.String() + "@" + domainText(toks[at+1:]), true
}

// bareAddress reads an address without angle brackets, among whatever else.
func bareAddress(toks []token) (string, bool) {
	at := lastAt(toks)
	if at < 0 {
		return "", false
	}
	start := at
	for start > 0 {
		t := toks[start-1]
		if t.is('@') || t.is('>') || t.is(':') {
			break
		}
		// Words are joined by dots, or follow each other without a blank.
		if start < at && !t.is('.') && !toks[start].is('.') && toks[start].gap {
			break
		}
		start--
	}
	var local strings.Builder
	for _, t := range toks[start:at] {
		local.WriteString(t.text)
	}
	return local.String() + "@" + domainText(toks[at+1:]), true
}

// quotedAddress reads an address all of which is in quotes: a fault of programs that
// quote every word, and others read it.
func quotedAddress(toks []token) (string, bool) {
	for _, t := range toks {
		if t.kind == quoted && strings.IndexByte(t.text, '@') > 0 {
			if a := strings.TrimSpace(unquote(t.text)); isPlainAddress(a) {
				return a, true
			}
		}
	}
	return "", false
}

// lastAt returns the index of the last "@" that has something after it, or -1.
func lastAt(toks []token) int {
	for i := len(toks) - 2; i >= 0; i-- {
		if toks[i].is('@') && (toks[i+1].kind != special || toks[i+1].is('.')) {
			return i
		}
	}
	return -1
}

// domainText joins the tokens of a domain, up to what cannot be part of one: a blank
// belongs behind an encoded word, too.
func domainText(toks []token) string {
	var b strings.Builder
	for i, t := range toks {
		switch {
		case t.kind == special && !t.is('.'),
			i > 0 && (t.gap || toks[i-1].kind == encoded && t.kind != encoded) && !t.is('.') && !toks[i-1].is('.'):
			return b.String()
		case t.kind == literal && i == 0:
			return t.text
		case t.kind == quoted:
			b.WriteString(unquote(t.text))
		case t.kind == encoded:
			b.WriteString(DecodeWords(t.text))
		default:
			b.WriteString(t.text)
		}
	}
	return b.String()
}

// unquote returns what a quoted string holds.
func unquote(s string) string {
	return withoutBackslashes(s[1 : len(s)-1])
}

// withoutBackslashes undoes quoted pairs.
func withoutBackslashes(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
