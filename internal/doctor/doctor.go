// Package doctor looks for what keeps the milter from doing its work. Can the MTA reach
// its socket, and is it configured to ask the milter, in the right order and with the right
// default action? Do DNS, the clock, the SMTP server that takes notices, and the
// Authentication Servers of our own domains work? Do these servers accept the keys that are
// attached?
//
// Nothing is changed, so that it can be run on a mail system that is in use: the SMTP server
// for notices gets an envelope without a message, an Authentication Server a VERIFY about a
// text that is nobody's key. Only where keys are attached, the domain's own server, found
// as recipients find it, is asked about real ones. Every wait is bounded.
package doctor

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/verifier"
)

// The checks, by the names that people and programs see.
const (
	CheckMTA       = "mta"            // there is a mail system, and its configuration can be read
	CheckListening = "listening"      // the milter answers on its sockets
	CheckConfig    = "config"         // the milter may read it, and has it in force
	CheckListed    = "listed"         // smtpd_milters, InputMailFilters
	CheckPath      = "socket-path"    // as the MTA sees it, which may be chrooted
	CheckAccess    = "socket-access"  // folders, group and mode
	CheckDefault   = "default-action" // against our mode
	CheckOrder     = "order"          // among milters
	CheckTimeout   = "timeout"        // of the MTA, for our answer
	CheckChanges   = "changes"        // by others, of what we read and write
	CheckOwnMail   = "own-mail"       // what makes strangers' mail look like our users'
	CheckDNS       = "dns"            // every name server
	CheckClock     = "clock"
	CheckNotify    = "notify"    // notify.smtp
	CheckSecret    = "secret"    // of each of attach.domains
	CheckAddresses = "addresses" // likewise
	CheckAuthorize = "authorize" // attach.authorize
	CheckAS        = "own-as"    // the AS of each of local_domains and attach.domains
	CheckKey       = "own-key"   // accepted by the AS of each of attach.domains
	CheckSigner    = "signer"    // leaves X-Auth-Key out
)

// Options say what to look at.
type Options struct {
	Config     config.Config
	ConfigFile string           // where to change Config
	Verifier   verifier.Options // of Config
	Ours       mtaconf.Ours
	Service    Service
	Version    string // of this program; empty: that of the milter does not matter

	// At most one of these is set.
	Postfix  *mtaconf.Postfix
	Sendmail *mtaconf.Sendmail
	// MTAErr says why neither is.
	MTAErr error
	// OpenDKIMConf is where OpenDKIM is configured.
	OpenDKIMConf string

	// Gateways are this machine's; see Gateways.
	Gateways []netip.Addr

	Hostname string // for EHLO
	Now      func() time.Time
	// Synchronized tells whether the clock is kept right; see Synchronized.
	Synchronized func() (bool, error)

	// Container is what kind of container this is, whose clock is its host's; empty:
	// it is none. See Container.
	Container string
}

// examineTimeout bounds everything.
const examineTimeout = time.Minute

// checks are those of one examination.
type checks struct {
	Options
	losses []mtaconf.Loss // of Postfix
}

// Examine makes all checks, side by side.
func Examine(ctx context.Context, o Options) []Finding {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	c := &checks{Options: o}
	c.Service.User = c.serviceUser()
	if c.Postfix != nil {
		c.losses = c.Postfix.Losses(ctx, c.Milter())
	}
	return SideBySide(ctx, c.mta, c.running, c.listed, c.path, c.access, c.defaultAction,
		c.order, c.timeout, c.changes, c.ownMail, c.dns, c.clock, c.notify, c.domains)
}

func (c *checks) clock(context.Context) []Finding {
	return ExamineClock(c.ConfigFile, c.Now(), c.Synchronized, c.Container)
}

// SideBySide makes checks at the same time, and returns what they find in their order.
func SideBySide(ctx context.Context, checks ...func(context.Context) []Finding) []Finding {
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, check := range checks {
		all.Go(func() { found[i] = check(ctx) })
	}
	all.Wait()
	return slices.Concat(found...)
}
