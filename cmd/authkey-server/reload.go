package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"sync"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

// reload is what SIGHUP does: it reads everything again. A configuration that is bad, or
// names a new file that is, changes nothing.
func (s *service) reload(ctx context.Context) {
	loaded, err := config.LoadServer(s.loaded.Path, os.Environ())
	if err == nil && loaded.CutOff(s.loaded.Content) {
		err = fmt.Errorf("%s: %w", loaded.Path, config.ErrCutOff)
	}
	if err == nil {
		err = s.replace(ctx, loaded)
	}
	if err != nil {
		s.log.Error("configuration not reloaded, keeping the previous one", "error", program.OneLine(err))
	}
}

// replace puts another configuration in force and reads again the files that it
// leaves as they were.
func (s *service) replace(ctx context.Context, loaded *config.LoadedServer) error {
	domains, cert, err := s.prepare(loaded, readLists)
	if err != nil {
		return err
	}
	old, now := s.loaded.Config, loaded.Config
	kept, keptCert := s.domains, s.cert.Load()
	s.enforce(ctx, loaded, domains, cert)
	if !reflect.DeepEqual(old.Listen, now.Listen) || old.Log.Format != now.Log.Format {
		s.log.Warn("listen and log.format take effect at the next start")
	}
	for i, d := range domains {
		var err error
		if kept[keyringConfig(now, now.Domains[i])] != nil {
			err = d.Reload()
		}
		s.announce(d, err)
	}
	if cert != nil {
		var err error
		if cert == keptCert {
			err = cert.reload()
		}
		s.announceCertificate(err)
	}
	return nil
}

// prepare opens what a configuration names, without putting it in force. A domain
// about which nothing changed is the one that is served now; others are opened by
// open. The error may be of type config.Faults.
func (s *service) prepare(loaded *config.LoadedServer, open func(keyring.Config) (*keyring.Domain, error)) ([]*keyring.Domain, *certificate, error) {
	domains, faults := openDomains(loaded, func(c keyring.Config) (*keyring.Domain, error) {
		if d := s.domains[c]; d != nil {
			return d, nil
		}
		return open(c)
	})
	cert := s.cert.Load()
	switch files := loaded.Config.TLS; {
	case files.Cert == "":
		cert = nil
	case cert == nil || cert.files != files:
		var err error
		if cert, err = loadCertificate(files); err != nil {
			faults = append(faults, loaded.FaultOf("tls.cert", err))
		}
	}
	if len(faults) > 0 {
		return nil, nil, faults
	}
	return domains, cert, nil
}

// enforce puts a configuration in force.
func (s *service) enforce(ctx context.Context, loaded *config.LoadedServer, domains []*keyring.Domain, cert *certificate) {
	s.level.Set(loaded.Config.Log.Level)
	if s.stopWatch != nil {
		s.stopWatch()
	}
	s.loaded, s.fingerprint = loaded, fingerprint(loaded.Path)
	s.domains = make(map[keyring.Config]*keyring.Domain, len(domains))
	for i, d := range domains {
		s.domains[keyringConfig(loaded.Config, loaded.Config.Domains[i])] = d
	}
	if cert != nil { // the sockets of one that is gone go on with it until the next start
		s.cert.Store(cert)
	}
	s.server.SetLimits(s.affordable(limits(loaded.Config.Limits)))
	s.server.SetDomains(domains)
	s.log.Info("configuration in force", "version", version, "file", loaded.Path, "domains", len(domains))
	program.LogRemarks(s.log, loaded.Settings)
	s.watch(ctx, domains, cert)
}

// watch begins to watch the files of a configuration.
func (s *service) watch(ctx context.Context, domains []*keyring.Domain, cert *certificate) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { keyring.Watch(ctx, diskfile.Every, domains, s.announce) })
	if cert != nil {
		watching.Go(func() { cert.watch(ctx, diskfile.Every, s.announceCertificate) })
	}
	s.stopWatch = func() {
		cancel()
		watching.Wait()
	}
}

// announce says that a domain's files were read, or why what was stays.
func (s *service) announce(d *keyring.Domain, err error) {
	switch {
	case err != nil:
		s.log.Error("secret or address list not reloaded, keeping the previous one", "domain", d.Name(), "error", program.OneLine(err))
	case d.Any():
		s.log.Info("domain is served: every local part is an address", "domain", d.Name(), "addresses", "any")
	default:
		s.log.Info("domain is served", "domain", d.Name(), "addresses", d.Len())
	}
	if err == nil && d.Unexplained() {
		s.log.Warn("the address list has no address; if that is meant, give it the line \"# empty\"", "domain", d.Name())
	}
}

func (s *service) announceCertificate(err error) {
	if err != nil {
		s.log.Error("certificate not reloaded, keeping the previous one", "error", err)
		return
	}
	cert := s.cert.Load()
	s.log.Info("certificate is read", "ends", cert.get().Leaf.NotAfter)
	s.warnOfCertificate(cert)
}

// warnOfCertificate says why clients may refuse it.
func (s *service) warnOfCertificate(cert *certificate) {
	host, err := hostName("", s.loaded.Config)
	if err != nil { // it is not known
		host = ""
	}
	for _, warning := range cert.warnings(host, true) {
		s.log.Warn("clients may refuse the certificate", "warning", warning)
	}
}
