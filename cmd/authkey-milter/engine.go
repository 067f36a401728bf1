package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// maxCAFile is the greatest size of verify.ca_file in octets. A system's roots take 250 KB.
const maxCAFile = 16 << 20

// settings makes a session's settings of a configuration.
func settings(c config.Config) (milter.Settings, error) {
	s := milter.Settings{
		AuthservID:     c.AuthservID,
		HostName:       hostName(),
		TrustedIDs:     c.TrustedAuthservIDs,
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
	for _, entry := range c.Notify.Trust {
		id, method, _ := strings.Cut(entry, "/")
		s.DSNVouchers = append(s.DSNVouchers, milter.Voucher{ID: id, Method: method})
	}
	for _, name := range c.LocalDomains {
		domain, err := wire.ParseDomain(name)
		if err != nil {
			return s, fmt.Errorf("local_domains: %s: %w", name, err)
		}
		s.LocalDomains = append(s.LocalDomains, domain)
	}
	var senders []string
	for _, t := range c.From.Trusted {
		if t.MailFrom == "" {
			s.FromTrusted.Clients = append(s.FromTrusted.Clients, t.Client)
			continue
		}
		pattern, err := foldPattern(t.MailFrom)
		if err != nil {
			return s, fmt.Errorf("from.trusted: %s: %w", t.MailFrom, err)
		}
		senders = append(senders, pattern)
	}
	s.FromTrusted.Senders = policy.NewMatcher(senders)
	return s, nil
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

func limits(c config.Limits) milter.Limits {
	return milter.Limits{Connections: c.Connections, IdleTimeout: c.IdleTimeout, Recipients: c.Recipients}
}

// foldPattern brings an address, a domain or .domain to the form in which the
// policy compares.
func foldPattern(pattern string) (string, error) {
	if pattern == "" {
		return "", nil
	}
	if strings.Contains(pattern, "@") {
		return policy.Fold(pattern), nil
	}
	domain, subdomains := strings.CutPrefix(pattern, ".")
	domain, err := wire.ParseDomain(domain)
	if err != nil {
		return "", err
	}
	if subdomains {
		domain = "." + domain
	}
	return domain, nil
}

// An actionReader reads actions by name, and keeps what was wrong with them.
type actionReader struct{ faults []error }

func (r *actionReader) action(name string) policy.Action {
	a, err := policy.ParseAction(name)
	r.faults = append(r.faults, err)
	return a
}

func (r *actionReader) wishes(c config.Actions) policy.Actions {
	return policy.Actions{
		Pass: r.action(c.Pass), Fail: r.action(c.Fail), NoKey: r.action(c.NoKey),
		None: r.action(c.None), TempError: r.action(c.TempError), PermError: r.action(c.PermError),
	}
}

// policyOptions makes a policy's options of a configuration, which has checked the
// actions' names.
func policyOptions(c config.Config) (policy.Options, error) {
	var r actionReader
	opts := policy.Options{
		Test:              c.Mode == "test",
		Defaults:          r.wishes(c.Policy.Actions),
		Allowed:           []policy.Action{},
		Floor:             r.wishes(c.Policy.Floor),
		DeferUnknown:      c.Preferences.OnError == "tempfail",
		Separate:          c.Policy.Recipients == "separate",
		UnmarkMixed:       c.Policy.MarkConflict == "accept",
		EnforceFrom:       c.From.Check == "enforce",
		From:              r.wishes(c.From.Actions),
		Readdress:         c.Mark.Readdress,
		QuarantineMailbox: c.Quarantine.Mailbox,
		Texts: policy.Texts{
			Fail: c.Reply.Fail, NoKey: c.Reply.NoKey, None: c.Reply.None,
			PermError: c.Reply.PermError, TempError: c.Reply.TempError,
		},
	}
	for _, name := range c.Policy.Allowed {
		opts.Allowed = append(opts.Allowed, r.action(name))
	}
	for i, rule := range c.Policy.Rules {
		recipient, err := foldPattern(rule.Recipient)
		sender, err2 := foldPattern(rule.Sender)
		if err := errors.Join(err, err2); err != nil {
			r.faults = append(r.faults, fmt.Errorf("policy.rules[%d]: %w", i, err))
		}
		opts.Rules = append(opts.Rules, policy.Rule{Recipient: recipient, Sender: sender, Actions: r.wishes(rule.Actions)})
	}
	return opts, errors.Join(r.faults...)
}

// mayTell reports whether the policy can ask for DSNs or notices: if any recipient
// can be refused or be told. Otherwise no headers need to be kept for them.
func mayTell(opts policy.Options, preferences bool) bool {
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
	return preferences
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
		MaxTTL:         c.Cache.MaxTTL,
	}
	for _, text := range c.DNS.Servers {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			return opts, fmt.Errorf("dns.servers: %w", err)
		}
		opts.Resolvers = append(opts.Resolvers, server)
	}
	for _, port := range c.Verify.AllowPorts {
		opts.AllowPorts = append(opts.AllowPorts, uint16(port))
	}
	if path := c.Verify.CAFile; path != "" {
		pem, _, err := diskfile.Read(path, maxCAFile)
		if err != nil {
			return opts, fmt.Errorf("verify.ca_file: %w", err)
		}
		opts.Roots = x509.NewCertPool()
		if !opts.Roots.AppendCertsFromPEM(pem) {
			return opts, fmt.Errorf("verify.ca_file: %s: no certificate in it", path)
		}
	}
	return opts, nil
}
