package milter

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
)

// Names of the fields we know, in the spelling in which we write them.
const (
	keyField        = "X-Auth-Key"
	newKeyField     = "X-New-Auth-Key"
	quarantineField = "X-Authkey-Quarantine"
	fromField       = "From"
)

// maxDeletions bounds the header deletions of one message. Some 12 000 make
// Postfix's cleanup abort, and honest mail has one or two.
const maxDeletions = 256

// A message is what a session collects of one message between MAIL FROM and its
// end: bounded, whatever the client sends.
type message struct {
	engine  *Engine // the configuration it began under and ends under
	began   time.Time
	arrived time.Time // began by the wall clock, for people
	origin  origin
	class   class

	queueID  string
	client   string       // address of the SMTP client for people
	mta      string       // the MTA's own name, "" where it did not say
	sender   string       // MAIL FROM as the MTA gave it
	mailArgs string       // its ESMTP parameters
	address  wire.Address // its canonical form, zero where addrErr says why not
	addrErr  error

	authID  string   // under which we write Authentication-Results
	authIDs []string // under which an exempt client's results may stay

	recipients []policy.Recipient
	plain      map[string]string // the plain form of recipients written in another one
	rcptArgs   []string          // their ESMTP parameters; shorter where the last ones have none
	overflow   bool              // more recipients than limits.recipients
	separate   bool              // recipients are answered at RCPT, preferences looked up there
	profile    policy.Profile

	key       wire.Key
	author    author // what the From fields say
	authRes   []int  // indexes, among the fields of that name, of those which claim our method
	counts    fieldCounts
	kept      []byte // the header, for DSNs and notices; see keepField
	truncated bool   // there was more header than is kept

	stripped  bool // our own user's: the keys that it came with go, for one of ours or for none
	broken    bool // a callback panicked: nothing may be concluded from the rest
	uncounted bool // it began after Shutdown: not waited for, answered 451
}

// newMessage begins a message from sender, for an MTA whose own name is mta.
func newMessage(engine *Engine, o origin, client, mta, sender, mailArgs string) *message {
	now := time.Now()
	m := &message{engine: engine, began: now, arrived: now, origin: o, client: client, mta: mta, sender: sender, mailArgs: mailArgs}
	m.class = engine.Settings.classify(o)
	m.address, m.addrErr = wire.ParseAddress(sender)
	if errors.Is(m.addrErr, wire.ErrAddressSize) || errors.Is(m.addrErr, wire.ErrNoLocalPart) {
		// It can have no key, but its domain may require one.
		m.address, m.addrErr = wire.DomainAddress(sender)
	} else if errors.Is(m.addrErr, wire.ErrDomain) {
		// Nor can one whose domain is none, but people may see another domain in it.
		if a, ok := fromfield.SeenDomain(sender); ok {
			m.address, m.addrErr = a, nil
		}
	}
	m.authIDs = engine.authIDs
	m.authID = m.authIDs[0]
	if engine.Settings.AuthservID == "" && mta != "" {
		m.authID = mta
		m.authIDs = append([]string{mta}, m.authIDs...)
	}
	return m
}

// fieldCounts counts the fields of each name that may have to be deleted. A
// milter deletes by index among the fields of one name, so that the count is all
// that is needed to delete every one.
type fieldCounts struct {
	key, newKey, quarantine, mark, authRes int
}

// addRecipient takes one recipient, up to the limit: the address as the client
// wrote it, by which the MTA knows it, and as the MTA understands it.
func (m *message) addRecipient(rcpt, understood, args string) {
	if len(m.recipients) >= m.engine.Limits.Recipients {
		m.overflow = true
		return
	}
	if plain := esmtp.DropSourceRoute(understood); plain != rcpt {
		if m.plain == nil {
			m.plain = make(map[string]string)
		}
		m.plain[rcpt] = plain
	}
	if args != "" {
		for len(m.rcptArgs) < len(m.recipients) {
			m.rcptArgs = append(m.rcptArgs, "")
		}
		m.rcptArgs = append(m.rcptArgs, args)
	}
	m.recipients = append(m.recipients, policy.Recipient{
		Address: rcpt, Folded: policy.Fold(understood), NoDSN: esmtp.DeclinesDSN(args)})
}

// needsOwnTransaction reports whether the recipient just added has other wishes
// than the first one; if so, it is taken off again.
func (m *message) needsOwnTransaction(ctx context.Context) bool {
	if !m.separate || m.class != inbound || m.overflow || len(m.recipients) == 0 {
		return false
	}
	last := m.recipients[len(m.recipients)-1:]
	if m.engine.Preferences != nil {
		// A failure shows in the recipient, and in the profile.
		_, _ = m.engine.Preferences.Fill(ctx, last)
	}
	profile := m.engine.Policy.Profile(policy.Fold(m.sender), last[0])
	if len(m.recipients) == 1 {
		m.profile = profile
		return false
	}
	if profile == m.profile {
		return false
	}
	m.recipients = m.recipients[:len(m.recipients)-1]
	m.rcptArgs = m.rcptArgs[:min(len(m.rcptArgs), len(m.recipients))]
	return true
}

// addField looks at one header field and keeps what matters of it.
func (m *message) addField(name, value string) {
	switch {
	case isField(name, keyField):
		m.counts.key++
		m.key = m.key.Join(value)
	case isField(name, newKeyField):
		m.counts.newKey++
	case isField(name, quarantineField):
		m.counts.quarantine++
	case isField(name, fromField):
		if m.needsFrom() {
			m.author.fields.Add(value)
		}
	case isField(name, authResField):
		m.counts.authRes++
		if len(m.authRes) <= maxDeletions && m.losesResult(value) {
			m.authRes = append(m.authRes, m.counts.authRes)
		}
	case isField(name, m.engine.Settings.MarkHeader):
		m.counts.mark++
	}
}

// takeField takes one header field. Most are of no use to anybody, and not worth an
// allocation.
func (m *message) takeField(name, value []byte) {
	known := m.engine.lengths.has(len(name))
	forged := len(m.authRes)
	if known && m.needsField(name) {
		m.addField(string(name), string(value))
	}
	if m.keepsHeader() && len(m.authRes) == forged && !(known && isRemoved(name)) {
		m.keepField(name, value)
	}
}

// needsFrom reports whether anybody looks at the From field.
func (m *message) needsFrom() bool {
	if m.class == submission {
		return m.engine.Attacher != nil
	}
	return m.engine.Settings.From != FromOff
}

// needsField reports whether addField has any use for a field of that name.
func (m *message) needsField(name []byte) bool {
	for _, known := range m.engine.Settings.fields() {
		if isField(string(name), known) {
			return true
		}
	}
	return false
}

// fields are the names of the fields that matter to a session.
func (s *Settings) fields() [6]string {
	return [...]string{keyField, newKeyField, quarantineField, fromField, authResField, s.MarkHeader}
}

// isRemoved reports whether fields of that name are removed from inbound mail, because
// they hold an AuthKey or are ours to write. DSNs and notices do not show them either.
func isRemoved(name []byte) bool {
	return isField(string(name), keyField) || isField(string(name), newKeyField) || isField(string(name), quarantineField)
}

// lengths is a set of the lengths of names, by which nearly all fields that matter
// to nobody are told from those that do.
type lengths uint64

const longest = 63 // and all beyond

func (l *lengths) add(n int)     { *l |= 1 << min(n, longest) }
func (l lengths) has(n int) bool { return l>>min(n, longest)&1 != 0 }

// isField reports whether name is the name of a field that we know. MTAs fold
// ASCII alone: a name with a long s or a Kelvin sign is another one to them, and
// would be counted in vain. Such letters take more octets than those they fold to.
func isField(name, known string) bool {
	return len(name) == len(known) && strings.EqualFold(name, known)
}

// losesResult reports whether an Authentication-Results field is removed: whoever sent
// it, if it claims a result of our method. What a client of ours may keep stands under
// one of our ids; what others claimed it was to remove itself.
func (m *message) losesResult(value string) bool {
	if m.class == exempt && m.engine.Settings.KeepResults && speaksAs(value, m.authIDs) {
		return false
	}
	return claimsAuthKey(value)
}

// losesKeys reports whether the keys that it came with are removed.
func (m *message) losesKeys() bool { return m.stripped || !m.keepsKey() }

// keepsKey reports whether the message goes out with its key: our own user's
// mail, unless it stays at home.
func (m *message) keepsKey() bool {
	if m.class != submission {
		return false
	}
	for _, rcpt := range m.recipients {
		if !m.engine.Settings.localRecipient(rcpt.Folded) {
			return true
		}
	}
	return len(m.recipients) == 0
}
