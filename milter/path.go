package milter

import (
	"errors"
	"strings"

	"github.com/authkey/authkey/internal/wire"
)

// asMTA returns a path of MAIL or RCPT as the MTA reads it. What the client wrote
// may hold comments, blanks, several addresses, the forms of other networks: MTAs
// take all of that, each in its own way, and hand it over as written, so that no
// reading of ours could be trusted to come to the address which they will use.
// understood is the macro in which they say it.
//
// What was written stays where the two are the same mailbox, where it is no more
// than a local part (the MTA has put its own name behind it, for which nobody can
// vouch), and where the macro has no domain (Sendmail, for its own users).
func asMTA(written, understood string) string {
	if written == "" || understood == "" || written == understood {
		return written
	}
	theirs, err := wire.ParseAddress(understood)
	if err != nil {
		return written
	}
	ours, err := wire.ParseAddress(written)
	switch {
	case err == nil && sameMailbox(ours, theirs):
		return written
	case errors.Is(err, wire.ErrNoDomain) && isPlainLocal(written):
		return written
	}
	return understood
}

// sameMailbox is equality but for what MTAs change in their macros: Postfix folds
// the case of local parts too, and of control characters they show blanks.
func sameMailbox(a, b wire.Address) bool {
	return a == b || a.Domain() == b.Domain() && strings.EqualFold(blankControls(a.Local()), blankControls(b.Local()))
}

func blankControls(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return ' '
		}
		return r
	}, s)
}

// isPlainLocal reports whether an MTA could see nothing but a local part in s: no
// percent hack, no bang path, no comment.
func isPlainLocal(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+=") == ""
}
