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

// A Discovery is everything that DNS says about the AS of one domain, for people.
type Discovery struct {
	Domain string // in A-labels
	// Err says why there are no records: it wraps ErrDNSTimeout or ErrDNSFailure
	// (temporary), or an error of wire.ParseDomain. A domain without any has none.
	Err error

	Texts   []string      // every TXT record seen, in the order received, whole
	CNAMEs  []string      // the names that the domain is an alias of
	Used    []wire.Record // by pri
	Refused []wire.Refusal
	// NearMisses are texts that were probably meant to be AS records and are none, with
	// what would be right. A malformed record is one, and Refused.
	NearMisses []wire.NearMiss
	// Required: the domain says req=yes.
	Required bool
	// Published: there are AS records, used or not.
	Published bool

	Resolver string        // who answered
	AD       bool          // and says that DNSSEC validated it
	TTL      time.Duration // as received; it is kept for a minute to an hour
	Took     time.Duration
	// Stale: DNS failed, and Used is remembered from before.
	Stale bool
}

// Discover asks DNS about a domain, whatever is remembered, and explains the
// answer. It connects to nobody: what an AS's name resolves to is for Route to say.
func (v *Verifier) Discover(ctx context.Context, domain string) Discovery {
	d := Discovery{Domain: domain}
	name, err := wire.ParseDomain(domain)
	if err != nil {
		d.Err = err
		return d
	}
	d.Domain = name
	if !v.life.question() {
		d.Err = fmt.Errorf("%w: %w", ErrDNSFailure, context.Canceled)
		return d
	}
	defer v.life.answered()
	began := time.Now()
	answer, err := v.dns.lookup(ctx, name, typeTXT)
	d.Took = time.Since(began)
	if err != nil {
		d.Err = err
		v.remembered(&d)
		return d
	}
	d.Texts, d.CNAMEs, d.TTL, d.AD = answer.texts, answer.chain, answer.ttl, answer.ad
	d.Resolver = answer.server.String()
	d.judge(wire.ParseSet(answer.texts), v.pool.dialer.rules)
	for _, text := range answer.texts {
		if _, err := wire.ParseRecord(text); !errors.Is(err, wire.ErrNotRecord) || len(d.NearMisses) == maxNearMisses {
			continue
		}
		if miss, ok := wire.LooksLikeRecord(text); ok {
			d.NearMisses = append(d.NearMisses, miss)
		}
	}
	return d
}

// remembered fills in what a verification would use while DNS fails.
func (v *Verifier) remembered(d *Discovery) {
	n := v.records.domains.find(d.Domain)
	if n == nil {
		return
	}
	st, err := n.value.withFailure(d.Err, time.Now()).failed(time.Now())
	if err == nil && st.stale {
		d.Stale, d.AD = true, st.ad
		d.judge(st.set, v.pool.dialer.rules)
		d.Published = true
	}
}

// Misses are the NearMisses, and what would be right in place of malformed records.
func (d *Discovery) Misses() []wire.NearMiss {
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

// judge says which records are used, and why the others are not.
func (d *Discovery) judge(set wire.Set, rules rules) {
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
		d.Refused = append(d.Refused, wire.Refusal{Text: rec.String(), Why: plain(err)})
	}
}
