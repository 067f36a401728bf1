package main

import (
	"fmt"

	"github.com/authkey/authkey/internal/attach"
	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
)

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
	a, err := attach.New(opts, old)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	return a, nil
}
