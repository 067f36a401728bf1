package fromfield

import "strings"

// A kind is what a token is.
type kind uint8

const (
	atom    kind = iota // a run of other characters, also beyond ASCII
	quoted              // a quoted string, with its quotes
	literal             // a domain literal, with its brackets
	encoded             // an encoded word (RFC 2047)
	special             // one of <>@,;:.
)

// A token is a piece of a field between comments and blanks.
type token struct {
	kind kind
	text string
	gap  bool // there is a comment or a blank before it
}

func (t token) is(c byte) bool { return t.kind == special && t.text[0] == c }

// tokenize splits a field. A quote, a parenthesis or a bracket that is never closed is an
// ordinary character: in a name it must not hide the address after it.
// It stops after more than MaxTokens.
func tokenize(s string) []token {
	var (
		toks     = make([]token, 0, 16)
		comments = closings(s)
		gap      bool
		unclosed bool // there is no further quoted string
	)
	for i := 0; i < len(s) && len(toks) <= MaxTokens; {
		end, k := i+1, special
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			gap = true
			i++
			continue
		case c == '(' && comments[i] > 0:
			gap = true
			i = int(comments[i])
			continue
		case c == '"':
			end, k = -1, quoted
			if !unclosed {
				end = quotedEnd(s, i)
			}
			if end < 0 {
				unclosed = true
				end, k = atomEnd(s, i), atom
			}
		case c == '[':
			k = literal
			if n := strings.IndexAny(s[i+1:], "]@<>,"); n >= 0 && s[i+1+n] == ']' && len(toks) > 0 && toks[len(toks)-1].is('@') {
				end = i + 1 + n + 1
			} else {
				end, k = atomEnd(s, i), atom
			}
		case strings.IndexByte("<>@,;:.", c) >= 0:
		default:
			if n := encodedEnd(s, i); n > 0 {
				end, k = n, encoded
			} else {
				end, k = atomEnd(s, i), atom
			}
		}
		toks = append(toks, token{k, s[i:end], gap})
		gap = false
		i = end
	}
	return toks
}

// atomEnd returns the index after the atom that begins at s[i], whatever character
// that is.
func atomEnd(s string, i int) int {
	for {
		switch c := s[i]; {
		case c == 0x1B:
			i = shiftEnd(s, i)
		default:
			i++
		}
		if i >= len(s) {
			return len(s)
		}
		if c := s[i]; c == ' ' || c == '\t' || c == '\r' || c == '\n' || strings.IndexByte(`<>@,;:.("`, c) >= 0 || c == '=' && strings.HasPrefix(s[i:], "=?") {
			return i
		}
	}
}

// shiftEnd returns the index after the text in a double-byte set of ISO-2022 (RFC
// 1468) that the escape at s[i] begins, or after the escape alone. The octets of such
// text look like specials.
func shiftEnd(s string, i int) int {
	if !strings.HasPrefix(s[i:], "\x1b$") {
		return i + 1
	}
	for j := i + 2; j < len(s); j++ {
		if c := s[j]; c == 0x1B {
			if strings.HasPrefix(s[j:], "\x1b(") && j+2 < len(s) {
				return j + 3
			}
			return i + 1
		} else if c < 0x21 || c > 0x7E {
			return i + 1
		}
	}
	return i + 1
}

// quotedEnd returns the index after the quoted string that begins at s[i], or -1.
func quotedEnd(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// maxEncoded bounds an encoded word that is one token. RFC 2047 allows 75 octets.
const maxEncoded = 1 << 10

// encodedEnd returns the index after the encoded word that begins at s[i], or -1.
// Blanks in it are allowed: programs write and read them.
func encodedEnd(s string, i int) int {
	if !strings.HasPrefix(s[i:], "=?") {
		return -1
	}
	_, text, end := cutEncoded(s[:min(len(s), i+maxEncoded)], i)
	if strings.IndexByte(text, '<') >= 0 && strings.IndexByte(text, '@') >= 0 {
		return -1 // most programs see an address
	}
	return end
}

// cutEncoded splits the encoded word that begins at s[i] with "=?"; text is
// the letter of its encoding, "?", and what is encoded. The charset may be empty, and
// there may be "?" in the text: programs read both. end is -1 where there is none.
func cutEncoded(s string, i int) (charset, text string, end int) {
	i += len("=?")
	n := strings.IndexByte(s[i:], '?')
	if n < 0 || i+n+2 >= len(s) || s[i+n+2] != '?' || strings.IndexByte("bBqQ", s[i+n+1]) < 0 {
		return "", "", -1
	}
	charset = s[i : i+n]
	i += n + 1
	const encoding = len("q?")
	n = strings.Index(s[i+encoding:], "?=")
	if n < 0 {
		return "", "", -1
	}
	n += encoding
	return charset, s[i : i+n], i + n + len("?=")
}

// closings returns for every "(" of s that has a ")" the index after that one, and 0
// for other positions; nil where there is no "(". Comments nest, and a backslash in
// one takes the meaning from the next character.
func closings(s string) []int32 {
	if strings.IndexByte(s, '(') < 0 {
		return nil
	}
	var (
		ends = make([]int32, len(s))
		open []int
	)
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			open = append(open, i)
		case ')':
			if n := len(open); n > 0 {
				ends[open[n-1]] = int32(i + 1)
				open = open[:n-1]
			}
		}
	}
	return ends
}
