package verifier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// maxNearMisses bounds what is said about the TXT records of one domain.
const maxNearMisses = 16

// Why a well-formed record is not used, beside the reasons of internal/wire and
// of the dial rules.
var errTooMany = fmt.Errorf("only the first %d servers are used", wire.MaxServers)

// A Discovery is everything that DNS says about the AS of one domain, for people
// (docs/protocol.md section 1). If the domain publishes no AS, Err is nil and Published
// false.
type Discovery struct {
	Domain string // in lower-case A-labels; as given, if it is no domain name
	// Err says why there is no answer: it wraps ErrDNSTimeout or ErrDNSFailure, which are
	// temporary, or says why Domain is no domain name.
	Err error

	Texts  []string // the text of every TXT record, in the order received; any octets
	CNAMEs []string // the names that the domain is an alias of, in order, with a last dot
	// Used are the AS records that a verification uses, at most eight, lowest Pri first.
	Used []Record
	// Refused are the other AS records, each with the reason: malformed, clear text beside
	// TLS, a port or address that we do not dial, or more than eight.
	Refused []Refusal
	// NearMisses are texts that were probably meant to be AS records and do not even begin as
	// one. For the malformed ones of Refused, see Misses.
	NearMisses []NearMiss
	// Required: the domain says req=yes.
	Required bool
	// Published: there are AS records, used or not.
	Published bool

	// Resolver is the name server that answered, as IP:PORT; empty if none did.
	Resolver string
	AD       bool          // it says that DNSSEC validated the answer
	TTL      time.Duration // as received; a verification keeps it for a minute to an hour
	Took     time.Duration // spent on the lookup, also if it failed
	// Stale: DNS failed (Err says how), and Used, Refused, Required, Published and AD are
	// from an earlier answer, as a verification would use it. It is kept for up to a day.
	Stale bool
}

// Discover asks DNS about a domain, also where its records are remembered, and explains the
// answer. It takes no longer than Options.DNSTimeout, and ends with ctx. It makes no
// connection to an AS, nor looks up its name: CheckServer does.
func (v *Verifier) Discover(ctx context.Context, domain string) Discovery {
	d := Discovery{Domain: domain}
	name, err := wire.ParseDomain(domain)
	if err != nil {
		d.Err = err
		return d
	}
	d.Domain = name
	if !v.life.beginCall() {
		d.Err = fmt.Errorf("%w: %w", ErrDNSFailure, context.Canceled)
		return d
	}
	defer v.life.calls.Done()
	began := time.Now()
	answer, err := v.dns.TXT(ctx, name)
	d.Took = time.Since(began)
	if err != nil {
		d.Err = err
		v.fillFromMemory(&d)
		return d
	}
	d.Texts, d.CNAMEs, d.TTL, d.AD = answer.Texts, answer.CNAMEs, answer.TTL, answer.AD
	d.Resolver = answer.Server.String()
	d.fill(wire.ParseSet(answer.Texts), v.pool.dialer.rules)
	d.NearMisses = nearMisses(answer.Texts)
	return d
}

func nearMisses(texts []string) (misses []NearMiss) {
	for _, text := range texts {
		if _, err := wire.ParseRecord(text); !errors.Is(err, wire.ErrNotRecord) || len(misses) == maxNearMisses {
			continue
		}
		if miss, ok := wire.LooksLikeRecord(text); ok {
			misses = append(misses, miss)
		}
	}
	return misses
}

// fillFromMemory fills in what a verification would use while DNS fails.
func (v *Verifier) fillFromMemory(d *Discovery) {
	known, ok := v.records.domains.peek(d.Domain)
	if !ok {
		return
	}
	now := time.Now()
	if k, err := known.withFailure(d.Err, now).whileFailing(now); err == nil {
		d.Stale, d.AD = true, k.ad
		d.fill(k.set, v.pool.dialer.rules)
		d.Published = true
	}
}

// Misses returns the NearMisses, and one for each malformed record of Refused for which it
// can be guessed what was meant.
func (d *Discovery) Misses() []NearMiss {
	misses := slices.Clone(d.NearMisses)
	for _, refused := range d.Refused {
		if !errors.Is(refused.Why, wire.ErrMalformed) {
			continue
		}
		if miss, ok := wire.LooksLikeRecord(refused.Text); ok {
			misses = append(misses, miss)
		}
	}
	return misses
}

// fill says which records are used, and why the others are not.
func (d *Discovery) fill(set wire.Set, rules dialRules) {
	d.Required, d.Published, d.Refused = set.Required, set.Published(), set.Refused
	for _, rec := range set.Records {
		err := rules.server(rec.Server)
		if err == nil && len(d.Used) == wire.MaxServers {
			err = errTooMany
		}
		if err == nil {
			d.Used = append(d.Used, rec)
			continue
		}
		d.Refused = append(d.Refused, Refusal{Text: rec.String(), Why: withoutReason(err)})
	}
}
