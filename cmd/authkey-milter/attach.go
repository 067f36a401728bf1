package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/attach"
	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/milter"
)

// An attacher is attach.Attacher in the words of package milter.
type attacher struct{ *attach.Attacher }

func (a attacher) Attach(m milter.OwnMail) milter.Attachment {
	s := attach.Submission{Login: m.Login, Client: m.Client, Sender: m.Sender, Recipients: m.Recipients}
	if m.FromKnown {
		s.From = m.From
	}
	v := a.Attacher.Attach(s, time.Now())
	return milter.Attachment{Key: v.Key, Agent: v.Agent, Note: string(v.Reason), Defer: v.TempFail}
}

// newAttacher makes the attacher of a configuration, nil where it has none. What old
// knows of domains that did not change is taken over; old may be nil.
func newAttacher(c config.Attach, old *attach.Attacher) (*attach.Attacher, error) {
	if len(c.Domains) == 0 {
		return nil, nil
	}
	opts := attach.Options{Authorize: c.Authorize, Networks: c.Networks, TempFail: c.OnError == "tempfail", Brand: "authkey/" + version}
	for _, d := range c.Domains {
		opts.Domains = append(opts.Domains, attach.Domain{
			Config: keyring.Config{
				Form:       keyring.Form{Domain: d.Domain, CaseSensitive: d.CaseSensitive, Subaddress: d.Subaddress},
				SecretFile: keyring.Credential(strings.TrimPrefix(d.Source, "secret:")), Addresses: d.Addresses, AVT: d.AVT,
			},
			To: d.To,
		})
	}
	a, err := attach.New(opts, old)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	return a, nil
}
