package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"

	"github.com/authkey/authkey/internal/attach"
	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/internal/prefs"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// This file turns a configuration into what the milter is made of. Whatever the command,
// it is done here, so that check refuses what serve would, and explain decides as serve does.

// parts are what is made of a configuration before anything runs.
type parts struct {
	settings milter.Settings
	limits   milter.Limits
	policy   policy.Options
	verifier verifier.Options
	prefs    *prefs.File      // nil: there are no preferences
	attacher *attach.Attacher // nil: our own mail gets no keys
}

// assemble makes the parts and reads the files that the configuration names. old are the
// parts in force, and may be empty; what they know of the same files is taken over.
func assemble(loaded *config.Loaded, old parts) (parts, config.Faults) {
	c := loaded.Config
	p := parts{settings: settings(c), limits: milter.Limits(c.Limits), policy: policyOptions(c)}
	var faults config.Faults
	note := func(key string, err error) {
		if err != nil {
			faults = append(faults, loaded.FaultsOf(key, err)...)
		}
	}
	var err error
	p.verifier, err = verifierOptions(c)
	note("verify.ca_file", err)
	p.prefs, err = readPreferences(c.Preferences, old.prefs)
	note("preferences.source", err)
	p.attacher, err = newAttacher(c.Attach, old.attacher)
	note("attach", err)
	return p, faults
}

// engine makes an engine that still needs a verifier and, for DSNs and notices, a notifier.
func (p parts) engine() *milter.Engine {
	e := &milter.Engine{Settings: p.settings, Limits: p.limits, Policy: policy.New(p.policy)}
	if p.prefs != nil {
		e.Preferences = prefs.New(p.prefs)
	}
	if p.attacher != nil {
		e.Attacher = p.attacher
	}
	return e
}

// newAttacher makes the attacher of a configuration, nil where it has none. What old
// knows of domains that did not change is taken over; old may be nil.
func newAttacher(c config.Attach, old *attach.Attacher) (*attach.Attacher, error) {
	if len(c.Domains) == 0 {
		return nil, nil
	}
	opts := attach.Configured(c, "authkey/"+version)
	for i := range opts.Domains {
		opts.Domains[i].SecretFile = keyring.Credential(opts.Domains[i].SecretFile)
	}
	return attach.New(opts, old)
}

// notifier makes the notifier of a configuration.
func notifier(loaded *config.Loaded, ledger *notify.Ledger, log *slog.Logger) (milter.Notifier, config.Faults) {
	c := loaded.Config.Notify
	n, err := notify.New(notify.Options{
		SMTP: c.SMTP, DSN: notify.Mode(c.DSN), FromName: c.FromName, TemplateDir: c.TemplateDir,
		Hostname: hostName(),
		Rates: notify.Rates{
			PerSender: notify.Rate(c.Rate.PerSender), PerRecipient: notify.Rate(c.Rate.PerRecipient),
			Global: notify.Rate(c.Rate.Global),
		},
	}, ledger, log)
	if err != nil {
		return nil, loaded.FaultsOf("notify", err)
	}
	return n, nil
}

// notifierInMemory makes a notifier that logs nothing and writes no file, so that there is
// nothing to close.
func notifierInMemory(loaded *config.Loaded) (milter.Notifier, config.Faults) {
	log := slog.New(slog.DiscardHandler)
	ledger, err := notify.OpenLedger("", log)
	if err != nil {
		return nil, config.Faults{loaded.FaultOf("notify", err)}
	}
	return notifier(loaded, ledger, log)
}

// maxCAFile is the greatest size of verify.ca_file in octets. A system's roots take 250 KB.
const maxCAFile = 16 << 20

// settings makes a session's settings of a configuration.
func settings(c config.Config) milter.Settings {
	s := milter.Settings{
		AuthservID:     c.AuthservID,
		HostName:       hostName(),
		TrustedIDs:     c.TrustedAuthservIDs,
		LocalDomains:   c.LocalDomains,
		ExemptNetworks: c.Exempt.Networks,
		KeepResults:    c.Exempt.KeepResults,
		Submission: milter.Submission{
			Authenticated: c.Submission.Authenticated,
			Networks:      c.Submission.Networks,
			Daemons:       c.Submission.Daemons,
		},
		MarkHeader:  c.Mark.Header,
		MarkValue:   c.Mark.Value,
		From:        map[string]milter.FromCheck{"off": milter.FromOff, "report": milter.FromReport, "enforce": milter.FromEnforce}[c.From.Check],
		FromTimeout: c.Verify.Timeout,
	}
	for _, v := range c.Notify.Trust {
		s.DSNVouchers = append(s.DSNVouchers, milter.Voucher(v))
	}
	var senders []string
	for _, t := range c.From.Trusted {
		if t.MailFrom == "" {
			s.FromTrusted.Clients = append(s.FromTrusted.Clients, t.Client)
		} else {
			senders = append(senders, t.MailFrom)
		}
	}
	s.FromTrusted.Senders = policy.NewMatcher(senders)
	return s
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// policyOptions makes a policy's options of a configuration.
func policyOptions(c config.Config) policy.Options {
	opts := policy.Options{
		Test:              c.Mode == "test",
		Defaults:          c.Policy.Actions,
		Allowed:           c.Policy.Allowed,
		Floor:             c.Policy.Floor,
		DeferUnknown:      c.Preferences.OnError == "tempfail",
		Separate:          c.Policy.Recipients == "separate",
		UnmarkMixed:       c.Policy.MarkConflict == "accept",
		EnforceFrom:       c.From.Check == "enforce",
		From:              c.From.Actions,
		Readdress:         c.Mark.Readdress,
		QuarantineMailbox: c.Quarantine.Mailbox,
		Texts:             c.Reply,
	}
	for _, r := range c.Policy.Rules {
		opts.Rules = append(opts.Rules, policy.Rule{Recipient: r.Recipient, Sender: r.Sender, Actions: r.Actions})
	}
	return opts
}

// mayTell reports whether the policy can ask for DSNs or notices. Otherwise no headers need to
// be kept for them.
func (p parts) mayTell() bool {
	opts := p.policy
	if opts.Test {
		return false
	}
	tells := func(w policy.Actions) bool {
		for _, a := range []policy.Action{w.Pass, w.Fail, w.NoKey, w.None, w.TempError, w.PermError} {
			if a == policy.Reject || a.Notifies() {
				return true
			}
		}
		return false
	}
	if tells(opts.Defaults) || tells(opts.Floor) || opts.EnforceFrom && tells(opts.From) {
		return true
	}
	for _, rule := range opts.Rules {
		if tells(rule.Actions) {
			return true
		}
	}
	return p.prefs != nil
}

// verifierOptions makes a verifier's options of a configuration.
func verifierOptions(c config.Config) (verifier.Options, error) {
	opts := verifier.Options{
		DNSTimeout:     c.DNS.Timeout,
		Timeout:        c.Verify.Timeout,
		ConnectTimeout: c.Verify.ConnectTimeout,
		ReplyTimeout:   c.Verify.ReplyTimeout,
		AllowNetworks:  c.Verify.AllowNetworks,
		RequireTLS:     c.Verify.RequireTLS,
		DefaultTTL:     c.Cache.DefaultTTL,
		Resolvers:      c.DNS.Servers,
		MaxTTL:         c.Cache.MaxTTL,
	}
	for _, port := range c.Verify.AllowPorts {
		opts.AllowPorts = append(opts.AllowPorts, uint16(port))
	}
	if path := c.Verify.CAFile; path != "" {
		pem, _, err := diskfile.Read(path, maxCAFile)
		if err != nil {
			return opts, err
		}
		opts.Roots = x509.NewCertPool()
		if !opts.Roots.AppendCertsFromPEM(pem) {
			return opts, fmt.Errorf("%s: no certificate in it", path)
		}
	}
	return opts, nil
}

// readPreferences reads the file of preferences, if there is one. old, which may be nil, is
// the one in force.
func readPreferences(c config.Preferences, old *prefs.File) (*prefs.File, error) {
	path, ok := c.Source.File()
	if !ok {
		return nil, nil
	}
	file := prefs.NewFile(path)
	file.Follow(old)
	return file, file.Reload()
}
