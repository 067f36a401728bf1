package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
)

// keyringConfig is ringConfig of a domain of a configuration, with what holds for all its
// domains.
func keyringConfig(c config.Server, d config.ServerDomain) keyring.Config {
	ring := ringConfig(d)
	ring.OpenSecret = c.AllowOpenSecrets
	return ring
}

// ringConfig says of a domain what package keyring wants to know.
func ringConfig(d config.ServerDomain) keyring.Config {
	return keyring.Config{
		Form:       keyring.Form{Domain: d.Name, CaseSensitive: d.CaseSensitive, Subaddress: d.Subaddress},
		SecretFile: keyring.Credential(d.SecretFile),
		Addresses:  d.Addresses,
		AVT:        d.AVT,
		Grace:      d.Grace,
		TTL:        d.TTL,
	}
}

// Ways to open a domain.

// leaveLists opens a domain without its address list, which may be long.
func leaveLists(c keyring.Config) (*keyring.Domain, error) { return keyring.Open(c) }

// readLists opens a domain and refuses it where its list cannot be read.
func readLists(c keyring.Config) (*keyring.Domain, error) {
	d, err := keyring.Open(c)
	if err != nil {
		return nil, err
	}
	return d, d.Reload()
}

// openDomains opens every domain of a configuration. The faults name those that
// cannot be.
func openDomains(loaded *config.LoadedServer, open func(keyring.Config) (*keyring.Domain, error)) ([]*keyring.Domain, config.Faults) {
	var domains []*keyring.Domain
	var faults config.Faults
	first := map[string]int{}
	for i, d := range loaded.Config.Domains {
		domain, err := open(keyringConfig(loaded.Config, d))
		if err != nil {
			faults = append(faults, domainFault(loaded, i, err))
			continue
		}
		if other, twice := first[domain.Name()]; twice {
			faults = append(faults, loaded.Fault(fmt.Sprintf("domains[%d].name", i),
				fmt.Sprintf("%s is the domain of domains[%d] too", domain.Name(), other), "each domain once"))
			continue
		}
		first[domain.Name()] = i
		domains = append(domains, domain)
	}
	return domains, faults
}

// domainFault says which key of domains[i] is to be looked at for an error of
// package keyring.
func domainFault(loaded *config.LoadedServer, i int, err error) config.Fault {
	key := fmt.Sprintf("domains[%d]", i)
	file := keyring.Credential(loaded.Config.Domains[i].SecretFile)
	var mode *keyring.ModeError
	var line *keyring.LineError
	var path *fs.PathError
	switch secret := key + ".secret_file"; {
	case errors.As(err, &mode):
		key = secret
	case errors.As(err, &line) && line.Path != file, errors.As(err, &path) && path.Path != file:
		key += ".addresses"
	case errors.As(err, &line), errors.As(err, &path):
		key = secret
	}
	return loaded.FaultOf(key, err)
}

// domainOf finds the domain of an address in the configuration.
func domainOf(loaded *config.LoadedServer, name string) (config.ServerDomain, bool) {
	for _, d := range loaded.Config.Domains {
		if canonical, err := wire.ParseDomain(d.Name); err == nil && canonical == name {
			return d, true
		}
	}
	return config.ServerDomain{}, false
}

// openFor opens the domain of one mailbox, its list included. The error ends the
// program.
func openFor(cmd *cobra.Command, mailbox string) (*keyring.Domain, wire.Address, error) {
	address, err := wire.ParseAddress(mailbox)
	if err != nil {
		return nil, address, program.Exit(program.Usage, fmt.Errorf("%q: %w", mailbox, err))
	}
	loaded, err := loadConfig(cmd, true)
	if err != nil {
		return nil, address, err
	}
	d, ok := domainOf(loaded, address.Domain())
	if !ok {
		return nil, address, notServed(loaded, address.Domain())
	}
	domain, err := readLists(keyringConfig(loaded.Config, d))
	if err != nil {
		return nil, address, program.Exit(program.Config, err)
	}
	return domain, address, nil
}

func notServed(loaded *config.LoadedServer, domain string) error {
	return program.Exit(program.Negative, fmt.Errorf("%s is not among the domains of %s", domain, loaded.Path))
}

// listFile is the address list of a domain. The error ends the program: there is
// none.
func listFile(d config.ServerDomain) (keyring.ListFile, error) {
	path, ok := strings.CutPrefix(d.Addresses, "file:")
	if !ok {
		return keyring.ListFile{}, program.Exit(program.Config, fmt.Errorf("%s has no list: addresses is %s", d.Name, d.Addresses))
	}
	return keyring.ListFile{Path: path, Form: ringConfig(d).Form}, nil
}
