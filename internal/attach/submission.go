package attach

import (
	"errors"
	"slices"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
)

// A Reason says why a message is given no key: one token, for the log.
type Reason string

// The reasons. They are documented in docs/sender.md.
const (
	OtherDomain      Reason = "other-domain"         // neither MAIL FROM nor From is of a domain of ours
	BadSender        Reason = "bad-sender"           // MAIL FROM has no canonical form
	BadFrom          Reason = "bad-from"             // no From field, or one that cannot be read
	SeveralFrom      Reason = "several-from"         // the key would be the From address's, and there are several
	NoLogin          Reason = "no-login"             // no login, and the client is not in Networks
	LoginForm        Reason = "login-is-no-address"  // without a map, a login may use only the address that it is
	LoginSpelling    Reason = "login-not-canonical"  // it is only another spelling of an address, and gets no key
	LineSpelling     Reason = "line-not-canonical"   // the same of the address in the line of the map
	SenderNotAllowed Reason = "sender-not-allowed"   // the submitter may not use the MAIL FROM address
	FromNotAllowed   Reason = "from-not-allowed"     // the submitter may not use a From address
	RecipientDomain  Reason = "recipient-not-listed" // a recipient is in none of the domains of To
	NotListed        Reason = "not-listed"           // the address list does not have the address
	NoList           Reason = "no-list"              // the address list could not be read yet
)

// Attach implements milter.Attacher: the key that a message is given now, or in Note the
// Reason why it is given none.
func (a *Attacher) Attach(m milter.OwnMail) milter.Attachment { return a.attachAt(m, time.Now()) }

func (a *Attacher) attachAt(m milter.OwnMail, now time.Time) milter.Attachment {
	if !m.FromKnown { // what could be read of the From field must not count
		m.From, m.FromShown = nil, nil
	}
	key, reason := a.decide(m, now)
	switch reason {
	case "":
		return milter.Attachment{Key: key, Agent: a.agent}
	case OtherDomain: // a key that it has is not of our domains, and stays
		return milter.Attachment{Note: string(reason)}
	}
	return milter.Attachment{Note: string(reason), Strip: true, Defer: a.tempFail && reason == NoList}
}

// decide returns the key, or why there is none. Reasons for which no message can be deferred
// come first: nothing is deferred that would get no key later either.
func (a *Attacher) decide(m milter.OwnMail, now time.Time) (wire.Key, Reason) {
	sender, err := wire.ParseAddress(m.Sender)
	if err != nil && m.Sender != "" {
		return wire.Key{}, BadSender
	}
	owner, reason := a.keyOwner(sender, m.From)
	if reason != "" {
		return wire.Key{}, reason
	}
	d := a.domains[owner.Domain()]
	if reason := a.authorized(m, sender, owner, now); reason != "" {
		return wire.Key{}, reason
	}
	if !d.mayReach(m.Recipients) {
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
// null, and every From address, also those of ours that are only shown, and that he may
// have the key of owner, which is one of them.
func (a *Attacher) authorized(m milter.OwnMail, sender, owner wire.Address, now time.Time) Reason {
	mayUse, reason := a.rights(m)
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
	for _, addr := range m.From {
		if addr == sender {
			continue
		}
		if reason := check(addr, FromNotAllowed); reason != "" {
			return reason
		}
	}
	for _, addr := range m.FromShown {
		if a.domains[addr.Domain()] == nil || addr.IsDomain() {
			continue // a domain alone is no address
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
