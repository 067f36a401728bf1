package milter

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
)

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
	authID   string       // under which we write Authentication-Results
	sender   string       // MAIL FROM as the MTA gave it
	mailArgs string       // its ESMTP parameters
	address  wire.Address // its canonical form, zero where addrErr says why not
	addrErr  error

	recipients []policy.Recipient
	understood map[string]string // recipients as the MTA reads them, where the client wrote them differently
	rcptArgs   []string          // their ESMTP parameters; shorter where the last ones have none
	overflow   bool              // there were more recipients than limits.recipients
	separate   bool              // recipients are answered at RCPT, preferences looked up there
	profile    policy.Profile    // then, of the first recipient

	counts    [fieldKinds]int
	key       wire.Key // what the X-Auth-Key fields hold
	author    author   // what the From fields say
	authRes   []int    // the Authentication-Results to remove, as indexes among the fields of that name
	kept      []byte   // the header, for DSNs and notices; see keepField
	truncated bool     // there was more header than is kept

	broken    bool // a callback panicked: nothing may be concluded from the rest
	uncounted bool // it began after Shutdown: not waited for, answered 451
}

// A class says whose mail a message is, which decides whether it is checked and
// whether its key stays (docs/design.md, "Whose mail").
type class uint8

const (
	inbound    class = iota // everything else: checked, key removed
	submission              // our own user's, on its way out: not checked, key kept
	exempt                  // from a relay of ours: not checked, key removed
)

// String is also the reason= of a message that is not checked.
func (c class) String() string {
	switch c {
	case submission:
		return string(reasonSubmission)
	case exempt:
		return string(reasonExempt)
	}
	return "inbound"
}

// An origin is what the MTA says about where a message comes from.
type origin struct {
	client netip.Addr // the zero Addr where the MTA gave none that can be read
	local  bool       // injected on the machine itself: no client address at all
	login  string     // {auth_authen}; "" where the client did not log in
	daemon string     // {daemon_name}
}

// classify applies the rules in their order; the first that matches wins.
func (s *Settings) classify(o origin) class {
	switch {
	case s.Submission.Authenticated && o.login != "":
		return submission
	case s.ExemptNetworks.contain(o.client):
		return exempt
	case o.local, s.Submission.Networks.contain(o.client),
		slices.ContainsFunc(s.Submission.Daemons, func(name string) bool { return strings.EqualFold(name, o.daemon) }):
		return submission
	}
	return inbound
}

// Networks is a set of client addresses.
type Networks []netip.Prefix

func (n Networks) contain(addr netip.Addr) bool {
	return addr.IsValid() && slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// newMessage begins a message from sender, for an MTA whose own name is mta.
func newMessage(engine *Engine, o origin, client, mta, sender, mailArgs string) *message {
	now := time.Now()
	m := &message{engine: engine, began: now, arrived: now, origin: o, client: client, mta: mta, sender: sender, mailArgs: mailArgs}
	m.class = engine.Settings.classify(o)
	m.address, m.addrErr = wire.ParseAddress(sender)
	if m.addrErr != nil {
		m.address, m.addrErr = domainOf(sender, m.addrErr)
	}
	m.authID = engine.authIDs[0]
	if engine.Settings.AuthservID == "" && mta != "" {
		m.authID = mta
	}
	return m
}

// domainOf returns the domain alone of a sender which ParseAddress refused with err: such a
// sender can have no key, but its domain may require one.
func domainOf(sender string, err error) (wire.Address, error) {
	switch {
	case errors.Is(err, wire.ErrAddressSize), errors.Is(err, wire.ErrNoLocalPart):
		return wire.DomainAddress(sender)
	case errors.Is(err, wire.ErrDomain): // but people may see another domain in it
		if a, ok := fromfield.SeenDomain(sender); ok {
			return a, nil
		}
	}
	return wire.Address{}, err
}

// addRecipient takes one recipient, up to the limit: the address as the client
// wrote it, by which the MTA knows it, and as the MTA understands it.
func (m *message) addRecipient(rcpt, understood, args string) {
	if len(m.recipients) >= m.engine.Limits.Recipients {
		m.overflow = true
		return
	}
	if plain := esmtp.DropSourceRoute(understood); plain != rcpt {
		if m.understood == nil {
			m.understood = make(map[string]string)
		}
		m.understood[rcpt] = plain
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

// rcptArg is the i-th recipient's ESMTP parameters.
func (m *message) rcptArg(i int) string {
	if i < len(m.rcptArgs) {
		return m.rcptArgs[i]
	}
	return ""
}

// needsOwnTransaction reports whether the policy does something else for the recipient just
// added than for the first one. If so, the recipient is taken off the message again, and is
// to be answered 452 (ownTransaction).
func (m *message) needsOwnTransaction(ctx context.Context) bool {
	if m.class != inbound || m.overflow || len(m.recipients) == 0 {
		return false
	}
	last := m.recipients[len(m.recipients)-1:]
	if m.engine.Preferences != nil {
		// A failure is noted in the recipient, and changes the profile.
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

// Names of the fields we know, in the spelling in which we write them.
const (
	keyField        = "X-Auth-Key"
	newKeyField     = "X-New-Auth-Key"
	quarantineField = "X-Authkey-Quarantine"
	fromField       = "From"
	authResField    = "Authentication-Results"
)

// A fieldKind is one of the names that matter to a session. Fields are counted by kind: a
// milter deletes by index among the fields of one name, so that the count is all that is
// needed to delete every one.
type fieldKind uint8

const (
	otherKind fieldKind = iota
	keyKind
	newKeyKind
	quarantineKind
	fromKind
	authResKind
	markKind
	fieldKinds
)

// kindOf finds out whether a name matters, which few do.
func (e *Engine) kindOf(name []byte) fieldKind {
	if !e.lengths.has(len(name)) {
		return otherKind
	}
	for kind := otherKind + 1; kind < fieldKinds; kind++ {
		if isField(string(name), e.names[kind]) {
			return kind
		}
	}
	return otherKind
}

// lengths is a set of the lengths of names. Nearly all fields that do not matter have a
// length that is not in it, and need not be looked at further.
type lengths uint64

const longest = 63 // longer names count as this long

func (l *lengths) add(n int)     { *l |= 1 << min(n, longest) }
func (l lengths) has(n int) bool { return l>>min(n, longest)&1 != 0 }

// isField reports whether name is the name known, in whatever case (RFC 5322 section 1.2.2).
// MTAs ignore the case of ASCII letters only. To EqualFold a long s is an s and a Kelvin
// sign is a k; such letters take more octets, so that the lengths differ.
func isField(name, known string) bool {
	return len(name) == len(known) && strings.EqualFold(name, known)
}

// addField looks at one header field and keeps what matters of it. For most fields that is
// nothing, and nothing is allocated.
func (m *message) addField(name, value []byte) {
	kind := m.engine.kindOf(name)
	m.counts[kind]++
	removed := false // from inbound mail; DSNs and notices do not show it either
	switch kind {
	case keyKind:
		m.key = m.key.Join(string(value))
		removed = true
	case newKeyKind, quarantineKind:
		removed = true
	case fromKind:
		if m.needsFrom() {
			m.author.fields.Add(string(value))
		}
	case authResKind:
		if removed = len(m.authRes) <= maxDeletions && m.losesResult(string(value)); removed {
			m.authRes = append(m.authRes, m.counts[authResKind])
		}
	}
	if !removed && m.keepsHeader() {
		m.keepField(name, value)
	}
}

// needsFrom reports whether the From field is going to be read.
func (m *message) needsFrom() bool {
	if m.class == submission {
		return m.engine.Attacher != nil
	}
	return m.engine.Settings.From != FromOff
}

// losesResult reports whether an Authentication-Results field is removed, because it claims
// a result of our method. A relay with exempt.keep_results keeps results under our ids; it
// must itself have removed those that others wrote under them.
func (m *message) losesResult(value string) bool {
	if m.class == exempt && m.engine.Settings.KeepResults && (speaksAs(value, m.engine.authIDs) || speaksAs(value, []string{m.authID})) {
		return false
	}
	return claimsAuthKey(value)
}

// staysHere reports whether all recipients are our own, so that a key would be of no use.
func (m *message) staysHere() bool {
	return len(m.recipients) > 0 && !slices.ContainsFunc(m.recipients,
		func(r policy.Recipient) bool { return !m.engine.Settings.isLocal(r.Folded) })
}

// keepsHeader reports whether there may be DSNs or notices about the message.
func (m *message) keepsHeader() bool { return m.engine.Notifier != nil && m.class == inbound }

// maxKeptHeader bounds what is kept of a header for DSNs and notices, in octets.
const maxKeptHeader = 64 << 10

// keepField keeps a field for DSNs and notices: as bytes, one after the other, since
// most messages need none. It must not be one that holds a key.
func (m *message) keepField(name, value []byte) {
	if len(m.kept)+len(name)+len(value)+2 > maxKeptHeader {
		m.truncated = true
		return
	}
	m.kept = append(append(m.kept, name...), 0)
	m.kept = append(append(m.kept, value...), 0)
}

// header returns the fields that were kept. Neither names nor values hold a NUL.
func (m *message) header() []Field {
	var fields []Field
	for rest := string(m.kept); rest != ""; {
		var f Field
		f.Name, rest, _ = strings.Cut(rest, "\x00")
		f.Value, rest, _ = strings.Cut(rest, "\x00")
		fields = append(fields, f)
	}
	return fields
}
