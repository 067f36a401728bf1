package milter

import (
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/policy"
)

// An Engine is one configuration in force. A message ends under the Engine under
// which it began, also where another has been put in force meanwhile.
//
// Verifier and Policy must be set, and of the Settings HostName and MarkHeader. Limits
// must be positive: the zero Limits admit no connection. Many sessions use an Engine at the
// same time, so that its parts must be safe for concurrent use. Do not change it once it is
// in force.
type Engine struct {
	Settings Settings
	Limits   Limits
	Verifier Verifier
	Policy   *policy.Policy

	Preferences Preferences // nil: recipients have none
	Notifier    Notifier    // nil: there are no DSNs and no notices
	Attacher    Attacher    // nil: our own users' mail gets no keys

	// Release, unless nil, is called once: when another Engine is in force and the
	// last message that began under this one has ended. It must not block.
	Release func()

	authIDs  []string           // under which an exempt client's results may stay; the first is ours where the MTA says no {j}
	names    [fieldKinds]string // names of the fields that matter
	lengths  lengths            // of these names
	messages int                // begun and not ended; under Server.mu
	retired  bool               // another one is in force; likewise
}

// Limits bounds the resources that MTAs can use. Connections and IdleTimeout apply to the
// connections that are opened while the Engine is in force.
type Limits struct {
	Connections int           // open at a time; any more are accepted and closed. 0 admits none
	IdleTimeout time.Duration // for one frame of an MTA, the wait for it included
	Recipients  int           // of one message; one with more is answered 451
}

// Settings is the administrator's part of a session. The names of docs/config.md are in
// parentheses.
type Settings struct {
	// AuthservID is the authserv-id of our Authentication-Results (authserv_id). "" is
	// the MTA's own name (its macro {j}), or HostName where it does not say.
	AuthservID string
	HostName   string // of this machine

	// LocalDomains are those whose mail stays here (local_domains), as lower-case A-labels.
	LocalDomains []string

	// ExemptNetworks are those of relays of ours (exempt.networks): their mail is not
	// checked. With KeepResults (exempt.keep_results) they remove forged results by
	// themselves, and may keep results under our ids and TrustedIDs
	// (trusted_authserv_ids).
	ExemptNetworks Networks
	KeepResults    bool
	TrustedIDs     []string

	Submission Submission

	// MarkHeader and MarkValue are the field that marks a message (mark.header,
	// mark.value).
	MarkHeader, MarkValue string

	From        FromCheck
	FromTrusted Trusted
	// FromTimeout is the time for all addresses of the From field together. It must be
	// positive unless From is FromOff.
	FromTimeout time.Duration

	// DSNVouchers are filters that run before this milter. DSNs may be sent to senders whom
	// they authenticate (notify.trust).
	DSNVouchers []Voucher
}

// FromCheck says whether the From field, which is what people read, is checked.
type FromCheck uint8

// The values of from.check.
const (
	FromOff     FromCheck = iota // not looked at
	FromReport                   // checked; written to Authentication-Results and log
	FromEnforce                  // the same; set policy.Options.EnforceFrom to have the policy act on it
)

// Trusted says for whose mail the From field is not checked (from.trusted): mailing
// lists and forwarders that the administrator knows. They are not known by List-Id, which
// anybody can write.
type Trusted struct {
	Senders *policy.Matcher // of MAIL FROM, which must have passed itself; nil: nobody
	Clients Networks
}

// A Voucher is a filter that runs before this milter, and one of the methods by which it
// authenticates senders. It must delete the Authentication-Results of others that claim to
// be its own (RFC 8601 section 5).
type Voucher struct {
	ID     string // its authserv-id
	Method string // "spf" or "dkim"
}

// Submission says which messages are our own users' (submission.*).
type Submission struct {
	Authenticated bool     // those whose client logged in
	Networks      Networks // those from these networks
	Daemons       []string // those that came through an MTA daemon of one of these names
}

// isLocal reports whether a recipient is in one of our own domains.
func (s *Settings) isLocal(rcpt string) bool {
	domain := strings.TrimSuffix(rcpt[strings.LastIndexByte(rcpt, '@')+1:], ".")
	return slices.ContainsFunc(s.LocalDomains, func(d string) bool { return strings.EqualFold(d, domain) })
}

// prepare computes what messages under the Engine share.
func (e *Engine) prepare() {
	own := e.Settings.AuthservID
	if own == "" {
		own = e.Settings.HostName
	}
	e.authIDs = append([]string{own}, e.Settings.TrustedIDs...)
	e.names = [fieldKinds]string{keyKind: keyField, newKeyKind: newKeyField, quarantineKind: quarantineField,
		fromKind: fromField, authResKind: authResField, markKind: e.Settings.MarkHeader}
	e.lengths = 0
	for _, name := range e.names[otherKind+1:] {
		e.lengths.add(len(name))
	}
}
