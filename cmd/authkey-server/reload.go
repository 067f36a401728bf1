package main

import (
	"context"
	"fmt"
	"os"
	"reflect"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

// reload is what SIGHUP does: it reads everything again. A configuration with a fault, or
// with a new file that has one, changes nothing.
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
