package milter

import (
	"net/netip"
	"slices"
	"strings"
)

// A class says whose mail a message is, which decides whether it is checked and
// whether its key stays (docs/design.md, "Whose mail").
type class uint8

const (
	inbound    class = iota // everything else: checked, key removed
	submission              // our own user's, on its way out: not checked, key kept
	exempt                  // from a relay of ours: not checked, key removed
)

// String is the reason= of a message that was not checked.
func (c class) String() string {
	switch c {
	case submission:
		return "submission"
	case exempt:
		return "exempt"
	}
	return "inbound"
}

// Submission says which messages are our own users'.
type Submission struct {
	Authenticated bool     // those whose client logged in
	Networks      Networks // those from these networks
	Daemons       []string // those that came through an MTA daemon of one of these names
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

// localRecipient reports whether rcpt is in one of our own domains.
func (s *Settings) localRecipient(rcpt string) bool {
	domain := strings.TrimSuffix(rcpt[strings.LastIndexByte(rcpt, '@')+1:], ".")
	return slices.ContainsFunc(s.LocalDomains, func(d string) bool { return strings.EqualFold(d, domain) })
}
