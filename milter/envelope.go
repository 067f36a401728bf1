package milter

import (
	"errors"
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// asMTA returns a path of MAIL or RCPT (RFC 5321 sections 4.1.1.2 and 4.1.1.3) as the MTA
// reads it. What the client wrote may hold comments, blanks, several addresses, or the forms
// of other networks. MTAs take all of that, each in its own way, and hand it over as it was
// written, so that we cannot know by reading it which address they will use. understood is
// the macro in which they say it.
//
// The result is what was written where the two are the same mailbox, where it is only a
// local part (the MTA has added its own name, for which no AS can vouch), and where the macro
// has no domain (Sendmail, for its own users).
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

// senderAsMTA is asMTA for MAIL FROM. sender is the envelope sender by Sendmail's macro f;
// where there is one, it decides. resolved is the address to which mail to the sender would
// go. For that, both MTAs strip their own name and read the local part again, and see
// "ceo@bank.test" in ceo%bank.test@mx.test and in "ceo@bank.test"@mx.test, which is not the
// sender of this message.
func senderAsMTA(written, sender, resolved string) string {
	switch {
	case written == "":
		return ""
	case sender != "":
		return asSendmail(written, sender)
	case hasNoDomain(written):
		return written
	}
	theirs, err := wire.ParseAddress(resolved)
	plain := withDomain(written)
	ours, err2 := wire.ParseAddress(plain)
	if err == nil && err2 == nil && isUnambiguous(plain) && ours.Domain() != theirs.Domain() &&
		strings.Contains(strings.ToLower(ours.Local()), theirs.Domain()) {
		return plain
	}
	return asMTA(written, resolved)
}

// withDomain drops a source route (RFC 5321 appendix C), and writes the domain of a bang path
// (RFC 976) or of the percent hack (RFC 1123 section 5.2.16) after an "@", as Postfix does on
// the envelope.
func withDomain(written string) string {
	s := esmtp.DropSourceRoute(written)
	if strings.ContainsAny(s, `@"`) {
		return s
	}
	if host, rest, found := strings.Cut(s, "!"); found {
		return rest + "@" + host
	}
	if i := strings.LastIndexByte(s, '%'); i > 0 {
		return s[:i] + "@" + s[i+1:]
	}
	return s
}

// asSendmail returns what was written where Sendmail means the same mailbox. Quotes and
// backslashes in a domain, which Sendmail leaves, are dropped: other programs do so.
func asSendmail(written, sender string) string {
	theirs, err := wire.ParseAddress(sender)
	if at := strings.LastIndexByte(sender, '@'); errors.Is(err, wire.ErrDomain) && at >= 0 {
		plain := sender[:at+1] + withoutQuoting.Replace(sender[at+1:])
		if _, err := wire.ParseAddress(plain); err == nil {
			return plain
		}
	}
	ours, err2 := wire.ParseAddress(written)
	switch {
	case err == nil && err2 == nil && sameMailbox(ours, theirs):
		return written
	case errors.Is(err2, wire.ErrDomainLiteral): // where it is its own, Sendmail writes its name; no AS vouches for either
		return written
	}
	return sender
}

var withoutQuoting = strings.NewReplacer(`"`, "", `\`, "")

// hasNoDomain reports whether a path ends in "@". Postfix leaves that on the envelope, and
// looks for an address before it.
func hasNoDomain(written string) bool {
	return strings.HasSuffix(strings.TrimRight(written, " \t"), "@")
}

// isUnambiguous reports whether an MTA could see nothing but one local part, quoted or
// not, and a domain in s.
func isUnambiguous(s string) bool {
	at := strings.LastIndexByte(s, '@')
	local, domain := s[:max(at, 0)], s[at+1:]
	if inner, ok := strings.CutPrefix(local, `"`); ok {
		inner, ok = strings.CutSuffix(inner, `"`)
		return ok && strings.IndexByte(inner, '"') < 0 && strings.IndexByte(inner, '\\') < 0 && isPlainLocal(domain)
	}
	return at > 0 && isPlainLocal(domain) && strings.Trim(local, plainLocal+"%!") == ""
}

// sameMailbox reports whether two addresses are equal but for what MTAs change in their
// macros: Postfix puts local parts into lower case, and both show control characters as
// blanks.
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
	return strings.Trim(s, plainLocal) == ""
}

const plainLocal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+="
