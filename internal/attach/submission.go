package attach

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// A Submission is what has to be known of a message of one of our own users.
type Submission struct {
	Login  string     // that the client authenticated as; empty: it did not
	Client netip.Addr // IPv4 unmapped, no zone; the zero Addr where there is none
	// Sender is MAIL FROM without angle brackets, as the MTA gave it; empty is the
	// null sender.
	Sender string
	// From holds the addresses of all From fields; empty where there are none or one
	// of them cannot be brought to canonical form.
	From       []wire.Address
	Recipients []string // as the MTA gave them
}

// A Reason says why a message is given no key: one token, for the log.
type Reason string

// The reasons. They are documented in docs/sender.md.
const (
	OtherDomain      Reason = "other-domain"         // neither MAIL FROM nor From is of a domain of ours
	BadSender        Reason = "bad-sender"           // MAIL FROM has no canonical form
	BadFrom          Reason = "bad-from"             // no From field, or one that cannot be read
	SeveralFrom      Reason = "several-from"         // the key would be the From address's, and there are several
	NoLogin          Reason = "no-login"             // no login, and the client is not in Networks
	LoginForm        Reason = "login-is-no-address"  // and could only use the address that it is
	LoginSpelling    Reason = "login-not-canonical"  // it only stands for another address, whose key is not its
	LineSpelling     Reason = "line-not-canonical"   // the same of the address in the line of the map
	SenderNotAllowed Reason = "sender-not-allowed"   // the submitter may not use the MAIL FROM address
	FromNotAllowed   Reason = "from-not-allowed"     // nor a From address
	RecipientDomain  Reason = "recipient-not-listed" // a recipient is in none of the domains of To
	NotListed        Reason = "not-listed"           // the address list does not have the address
	NoList           Reason = "no-list"              // the address list could not be read yet
)

// A Verdict says what becomes of a Submission.
type Verdict struct {
	Key      wire.Key // to put into X-Auth-Key; zero: none, for Reason
	Agent    string   // to put into X-Auth-Agent beside it
	Reason   Reason   // empty where there is a key
	TempFail bool     // defer the message: the key can be had later
}

// Attach decides about a submission at the time now.
func (a *Attacher) Attach(s Submission, now time.Time) Verdict {
	key, reason := a.decide(s, now)
	if reason != "" {
		return Verdict{Reason: reason, TempFail: a.tempFail && reason == NoList}
	}
	return Verdict{Key: key, Agent: a.agent}
}

// decide returns the key, or why there is none. What is nobody's fault comes first, and
// what may be deferred last: nothing is deferred that would not be given a key later.
func (a *Attacher) decide(s Submission, now time.Time) (wire.Key, Reason) {
	sender, err := wire.ParseAddress(s.Sender)
	if err != nil && s.Sender != "" {
		return wire.Key{}, BadSender
	}
	owner, reason := a.keyOwner(sender, s.From)
	if reason != "" {
		return wire.Key{}, reason
	}
	d := a.domains[owner.Domain()]
	if reason := a.authorized(s, sender, owner, now); reason != "" {
		return wire.Key{}, reason
	}
	if !d.mayReach(s.Recipients) {
		return wire.Key{}, RecipientDomain
	}
	issued, err := d.keys.KeyAt(owner, now)
	return issued.Key, reasonOf(err)
}

// reasonOf is why KeyAt failed.
func reasonOf(err error) Reason {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, keyring.ErrUnknownAddress):
		return NotListed
	}
	return NoList
}

// keyOwner returns the address whose key the message may be given: MAIL FROM's if that
// is of a domain of ours. Otherwise the receiving side will ask the From address's
// server; it would be shown the same key for each of several addresses.
func (a *Attacher) keyOwner(sender wire.Address, from []wire.Address) (wire.Address, Reason) {
	ours := func(addr wire.Address) bool { return a.domains[addr.Domain()] != nil }
	switch {
	case ours(sender) && len(from) == 0:
		return wire.Address{}, BadFrom
	case ours(sender):
		return sender, ""
	case !slices.ContainsFunc(from, ours):
		return wire.Address{}, OtherDomain
	case slices.ContainsFunc(from, func(addr wire.Address) bool { return addr != from[0] }):
		return wire.Address{}, SeveralFrom
	}
	return from[0], ""
}

// authorized checks that the submitter may use MAIL FROM, which everybody may leave
// null, and every From address, and that he may have the key of owner, which is one of
// them.
func (a *Attacher) authorized(s Submission, sender, owner wire.Address, now time.Time) Reason {
	mayUse, reason := a.rights(s)
	if reason != "" {
		return reason
	}
	check := func(addr wire.Address, denied Reason) Reason {
		switch use, err := mayUse(addr, now); {
		case err != nil:
			return reasonOf(err)
		case use == deny:
			return denied
		case use == spelling && addr == owner:
			return LineSpelling
		}
		return ""
	}
	if !sender.IsZero() {
		if reason := check(sender, SenderNotAllowed); reason != "" {
			return reason
		}
	}
	for _, addr := range s.From {
		if addr == sender {
			continue
		}
		if reason := check(addr, FromNotAllowed); reason != "" {
			return reason
		}
	}
	return ""
}

// mayReach reports whether the domain's keys may go to all of the recipients, who see
// the same header.
func (d *domain) mayReach(recipients []string) bool {
	if d.to == nil {
		return true
	}
	return !slices.ContainsFunc(recipients, func(rcpt string) bool {
		addr, err := wire.ParseAddress(rcpt)
		return err != nil || !d.to[addr.Domain()]
	})
}
