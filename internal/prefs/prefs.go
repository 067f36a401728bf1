// Package prefs looks up what recipients chose to be done with mail whose sender
// is not authenticated: their preferences.
//
// A Source answers for one recipient; File is a Source that reads a YAML list. A Directory
// asks a Source about all recipients of a message. A lookup that fails is reported as such,
// and not as "no preference". Package policy decides what follows from it, and whether a
// choice is allowed.
package prefs

import (
	"context"
	"fmt"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/policy"
)

// MaxRecipient is the longest address that can have a preference, in octets.
const MaxRecipient = esmtp.MaxMailbox

// A Source has recipients' preferences. It is safe for concurrent use.
type Source interface {
	// Lookup returns the preference of exactly this recipient, a mailbox in lower
	// case and folded form (policy.Fold) of at most MaxRecipient octets, and whether
	// there is one. It returns by the time that ctx ends; an error means that it could
	// not be looked up.
	Lookup(ctx context.Context, recipient string) (p policy.Preference, found bool, err error)
}

// A Directory looks up the preferences of a message's recipients. It is safe for
// concurrent use.
type Directory struct {
	source Source
	memory bool // source answers without waiting
}

// New returns a Directory of source.
func New(source Source) *Directory {
	_, memory := source.(*File)
	return &Directory{source, memory}
}

// Known does what Fill does where that needs no waiting, and reports whether it did.
// Otherwise Fill has to be called.
func (d *Directory) Known(recipients []policy.Recipient) bool {
	if !d.memory {
		return false
	}
	failed, _ := d.Fill(context.Background(), recipients)
	return failed == 0
}

// Fill sets Preference and PreferenceFailed of each recipient, who is looked up
// in folded form: first as received, then without sub-address (user+tag), whose
// preference is used for what the first leaves unset. It returns how many lookups
// failed, and the error of the first of these.
func (d *Directory) Fill(ctx context.Context, recipients []policy.Recipient) (failed int, err error) {
	for i := range recipients {
		r := &recipients[i]
		r.Preference, r.PreferenceFailed = policy.Preference{}, false
		mailbox := r.Mailbox()
		if len(mailbox) > MaxRecipient {
			continue
		}
		found, lookupErr := d.lookup(ctx, mailbox)
		if lookupErr != nil {
			r.PreferenceFailed = true
			if failed++; failed == 1 {
				err = fmt.Errorf("look up preference: %w", lookupErr)
			}
			continue
		}
		r.Preference = found
	}
	return failed, err
}

// lookup asks for one recipient, sub-address or not.
func (d *Directory) lookup(ctx context.Context, recipient string) (policy.Preference, error) {
	p, err := d.ask(ctx, recipient)
	if err != nil {
		return p, err
	}
	local, domain, _ := esmtp.Cut(recipient)
	user, ok := esmtp.CutSubaddress(local)
	if !ok {
		return p, nil
	}
	if domain != "" {
		user += "@" + domain
	}
	below, err := d.ask(ctx, user)
	return p.Over(below), err
}

// ask asks the source once, unless the time is over.
func (d *Directory) ask(ctx context.Context, recipient string) (policy.Preference, error) {
	if ctx.Err() != nil {
		return policy.Preference{}, context.Cause(ctx)
	}
	p, found, err := d.source.Lookup(ctx, recipient)
	switch {
	case err != nil && ctx.Err() != nil:
		return policy.Preference{}, fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case err != nil, !found:
		return policy.Preference{}, err
	}
	return p, nil
}
