package doctor

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

// How far a fault is looked for.
const (
	maxPeriods     = 7 // of an AVT, before and after now
	maxGenerations = 8 // below and above the list's
)

// A keyCheck asks one Authentication Server about keys made here.
type keyCheck struct {
	v      *verifier.Verifier
	server wire.Server
	keyDomain
	now time.Time
}

// accepts asks about one key.
func (e keyCheck) accepts(ctx context.Context, a wire.Address, k keyring.Issued) (bool, verifier.Result) {
	r := e.v.Ask(ctx, e.server, verifier.Query{Address: a, Key: k.Key})
	return r.Status == verifier.Pass, r
}

// examine asks about the keys that would be attached now, as a recipient would.
func (e keyCheck) examine(ctx context.Context) Finding {
	refused, err := e.refused(ctx)
	switch {
	case err != nil:
		return Inapplicablef(CheckKey, "%s: are its keys right? %v", e.Name(), err)
	case len(refused) > 0:
		return e.explain(ctx, refused[0], len(refused))
	}
	first := e.sample[0]
	if ahead, err := e.KeyOf(first.address, first.generation, e.now.Add(2*keyring.ClockSkew+e.avt)); err == nil {
		if valid, _ := e.accepts(ctx, first.address, ahead); valid {
			return e.clockDiffers("behind that of")
		}
	}
	return Okf(CheckKey, "%s: %s accepts the keys that are made here (asked about %d)", e.Name(), e.server, len(e.sample))
}

// refused are those of the sample whose keys the server calls invalid. The error says
// that it answers otherwise.
func (e keyCheck) refused(ctx context.Context) ([]listEntry, error) {
	invalid := make([]bool, len(e.sample))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, m := range e.sample {
		group.Go(func() error {
			k, err := e.KeyOf(m.address, m.generation, e.now)
			if err != nil {
				return err
			}
			valid, r := e.accepts(ctx, m.address, k)
			if invalid[i] = !valid; !valid && r.Reason != verifier.ReasonInvalidKey {
				return fmt.Errorf("%s does not say: %s", e.server, reason(r))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var refused []listEntry
	for i, m := range e.sample {
		if invalid[i] {
			refused = append(refused, m)
		}
	}
	return refused, nil
}

func (e keyCheck) clockDiffers(how string) Finding {
	return Finding{CheckKey, Fault, fmt.Sprintf("%s: the clock here is %s %s", e.Name(), how, e.server),
		"keys are refused, now or when a period begins: mail with them fails", "timedatectl set-ntp true   # here, and on the Authentication Server"}
}

// explain finds out why a key was refused, by asking about those that it would be if
// one thing were different. bad is how many of the sample were.
func (e keyCheck) explain(ctx context.Context, m listEntry, bad int) Finding {
	fault := func(what, mend string) Finding {
		if bad > 1 {
			what += fmt.Sprintf("; of %d addresses asked about it refuses %d", len(e.sample), bad)
		}
		return Finding{CheckKey, Fault, fmt.Sprintf("%s: %s %s", e.Name(), e.server, what),
			"mail with such a key fails at recipients that ask", mend}
	}
	tried := func(k keyring.Issued, err error) bool {
		if err != nil {
			return false
		}
		valid, _ := e.accepts(ctx, m.address, k)
		return valid
	}
	if id := e.otherSecret(ctx, m); id != "" {
		return fault(fmt.Sprintf("does not have the secret that makes keys here, only %s of the same file", id),
			"put the new secret file on the Authentication Server first, or move "+id+" to the top here")
	}
	for n := range maxPeriods {
		shift := time.Duration(n+1) * e.avt
		if tried(e.KeyOf(m.address, m.generation, e.now.Add(-shift))) {
			return e.clockDiffers("ahead of that of")
		}
		if tried(e.KeyOf(m.address, m.generation, e.now.Add(shift))) {
			return e.clockDiffers("behind that of")
		}
	}
	const copyList = "copy the address list of the Authentication Server to this machine"
	for n := range maxGenerations {
		step := uint32(n + 1)
		if tried(e.KeyOf(m.address, m.generation+step, e.now)) {
			return fault(fmt.Sprintf("has revoked keys of %s that the list here still makes: it has gen=%d, here it is gen=%d", m.address, m.generation+step, m.generation), copyList)
		}
		if m.generation >= step && tried(e.KeyOf(m.address, m.generation-step, e.now)) {
			return fault(fmt.Sprintf("has an older address list: %s is gen=%d there, here it is gen=%d", m.address, m.generation-step, m.generation),
				"copy the address list of this machine to the Authentication Server")
		}
	}
	if bad < len(e.sample) {
		return fault(fmt.Sprintf("refuses the key of %s, and accepts those of others: its address list does not have it", m.address),
			copyList+"\non the Authentication Server: authkey-server address list "+e.Name())
	}
	because := ""
	if e.all == 0 {
		because = "every local part is an address here, and perhaps not there; or "
	}
	return fault(fmt.Sprintf("refuses the key of %s: %sthe secret here is another one, or avt, case_sensitive or subaddress are", m.address, because),
		"on the Authentication Server: authkey-server init "+e.Name()+"   # prints the attach section that fits\n"+
			"copy the secret file and the address list of the Authentication Server to this machine\n"+restart)
}

// otherSecret is the id of a secret of our file, other than the first, whose key the
// server accepts.
func (e keyCheck) otherSecret(ctx context.Context, m listEntry) string {
	current, err := e.KeyOf(m.address, m.generation, e.now)
	if err != nil || e.Reload() != nil {
		return ""
	}
	keys, err := e.KeysAt(m.address, e.now)
	if err != nil {
		return ""
	}
	for _, k := range keys {
		if k.Secret == current.Secret {
			continue
		}
		if valid, _ := e.accepts(ctx, m.address, k); valid {
			return k.Secret
		}
	}
	return ""
}
