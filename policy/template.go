package policy

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
)

// A template is an address with {local} and {domain} in it, which stand for a
// recipient's.
type template struct {
	local, domain []piece
}

// A piece is literal text, or one of the placeholders.
type piece struct {
	text string
	kind pieceKind
}

type pieceKind uint8

const (
	literal pieceKind = iota
	localPart
	domainPart
)

// parseTemplate reads a template; "" is none.
func parseTemplate(s string) *template {
	if s == "" {
		return nil
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return &template{local: parsePieces(s)}
	}
	local := s[:at]
	if len(local) > 2 && local[0] == '"' && local[len(local)-1] == '"' {
		local = local[1 : len(local)-1] // expand quotes what needs it
	}
	return &template{parsePieces(local), parsePieces(s[at+1:])}
}

func parsePieces(s string) []piece {
	var pieces []piece
	for s != "" {
		open := strings.IndexByte(s, '{')
		switch {
		case open > 0:
			pieces = append(pieces, piece{text: s[:open]})
			s = s[open:]
		case strings.HasPrefix(s, "{local}"):
			pieces = append(pieces, piece{kind: localPart})
			s = s[len("{local}"):]
		case strings.HasPrefix(s, "{domain}"):
			pieces = append(pieces, piece{kind: domainPart})
			s = s[len("{domain}"):]
		default:
			return append(pieces, piece{text: s})
		}
	}
	return pieces
}

// expand makes the address for a recipient. ok is false where it would be none: the recipient
// has nothing for a placeholder, or the address would be too long or have a control character.
func (t *template) expand(r *Recipient) (target string, ok bool) {
	folded := r.Mailbox()
	box := splitMailbox(folded)
	if strings.EqualFold(folded, r.Address) {
		box = splitMailbox(r.Address) // no quoting to undo: keep the case
	}
	local, ok := fill(t.local, box)
	domain, ok2 := fill(t.domain, box)
	if !ok || !ok2 {
		return "", false
	}
	target = esmtp.QuoteLocal(local)
	if domain != "" {
		target += "@" + domain
	}
	return target, len(target) <= esmtp.MaxMailbox && !strings.ContainsFunc(target, isControl)
}

func fill(pieces []piece, box mailbox) (string, bool) {
	var b strings.Builder
	for _, p := range pieces {
		text := p.text
		switch p.kind {
		case localPart:
			text = box.local
		case domainPart:
			text = box.domain
		}
		if text == "" {
			return "", false
		}
		b.WriteString(text)
	}
	return b.String(), true
}

// isControl reports whether no address can have r, quoted or not.
func isControl(r rune) bool { return r < ' ' || r == 0x7f }
