package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// settings makes a session's settings of a configuration.
func settings(c config.Config) (milter.Settings, error) {
	s := milter.Settings{
		AuthservID:     c.AuthservID,
		HostName:       hostName(),
		TrustedIDs:     c.TrustedAuthservIDs,
		ExemptNetworks: c.Exempt.Networks,
		Submission: milter.Submission{
			Authenticated: c.Submission.Authenticated,
			Networks:      c.Submission.Networks,
			Daemons:       c.Submission.Daemons,
		},
		MarkHeader: c.Mark.Header,
		MarkValue:  c.Mark.Value,
	}
	for _, name := range c.LocalDomains {
		domain, err := wire.ParseDomain(name)
		if err != nil {
			return s, fmt.Errorf("local_domains: %s: %w", name, err)
		}
		s.LocalDomains = append(s.LocalDomains, domain)
	}
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

// policyOf makes the policy of a configuration, which has checked the actions' names.
func policyOf(c config.Config) (*policy.Policy, error) {
	var faults []error
	action := func(name string) policy.Action {
		a, err := policy.ParseAction(name)
		faults = append(faults, err)
		return a
	}
	opts := policy.Options{
		Test: c.Mode == "test",
		Defaults: policy.Wishes{
			Pass: action(c.Policy.Pass), Fail: action(c.Policy.Fail), NoKey: action(c.Policy.NoKey),
			None: action(c.Policy.None), TempError: action(c.Policy.TempError), PermError: action(c.Policy.PermError),
		},
		Texts: policy.Texts{
			Fail: c.Reply.Fail, NoKey: c.Reply.NoKey, None: c.Reply.None,
			PermError: c.Reply.PermError, TempError: c.Reply.TempError,
		},
	}
	return policy.New(opts), errors.Join(faults...)
}

// verifierOptions makes a verifier's options of a configuration.
func verifierOptions(c config.Config) (verifier.Options, error) {
	opts := verifier.Options{
		Resolvers:      c.DNS.Servers,
		DNSTimeout:     c.DNS.Timeout,
		Timeout:        c.Verify.Timeout,
		ConnectTimeout: c.Verify.ConnectTimeout,
		ReplyTimeout:   c.Verify.ReplyTimeout,
		AllowNetworks:  c.Verify.AllowNetworks,
		RequireTLS:     c.Verify.RequireTLS,
		DefaultTTL:     c.Cache.DefaultTTL,
		MaxTTL:         c.Cache.MaxTTL,
	}
	for _, port := range c.Verify.AllowPorts {
		opts.AllowPorts = append(opts.AllowPorts, uint16(port))
	}
	if path := c.Verify.CAFile; path != "" {
		pem, err := os.ReadFile(path)
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
