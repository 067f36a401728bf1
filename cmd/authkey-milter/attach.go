package main

import (
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
		s.From, s.Shown = m.From, m.FromShown
	}
	v := a.Attacher.Attach(s, time.Now())
	return milter.Attachment{Key: v.Key, Agent: v.Agent, Note: string(v.Reason), Defer: v.TempFail,
		Strip: v.Reason != "" && v.Reason != attach.OtherDomain}
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
