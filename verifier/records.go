package verifier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/wire"
)

// How long what DNS says is kept (docs/protocol.md section 1).
const (
	minRecordTTL = time.Minute
	maxRecordTTL = time.Hour
	failureTTL   = 5 * time.Second
	staleFor     = 24 * time.Hour
	// noAddressTTL is how long an AS's name without address is not asked about again; one
	// that DNS failed for, failureTTL.
	noAddressTTL = time.Minute
)

// maxDomains bounds how many domains are remembered. A domain without AS takes
// some 250 octets, one with eight records of greatest length 3 KB.
const maxDomains = 1 << 16

// maxUnreachable bounds how many names of AS that lead to no address are remembered,
// each with less than 500 octets.
const maxUnreachable = 1 << 13

// Records remembers what DNS said about domains. It keeps an answer for a day after it
// expired, for use while DNS fails. Give it to the next Verifier (Options.Records), so that
// a domain's req=yes is not forgotten by a reload during an attack on DNS. It is safe for
// concurrent use.
type Records struct {
	domains *boundedMap[*domainRecords]
	// unreachable are names of AS that lead to no address, with the error that says why.
	// DNS is not asked about them again soon. Otherwise somebody could put names of a third
	// party into his records, and have us ask that party's name servers once a message.
	unreachable *boundedMap[error]
}

// NewRecords makes an empty Records.
func NewRecords() *Records {
	return &Records{domains: newBoundedMap[*domainRecords](maxDomains), unreachable: newBoundedMap[error](maxUnreachable)}
}

// domainRecords are what DNS said of one domain, and when it failed. They are immutable.
type domainRecords struct {
	set       wire.Set // Records: at most wire.MaxServers; Refused left out
	published bool     // there are AS records, usable or not
	ad        bool
	fresh     time.Time // used without asking until then; zero: DNS never answered

	err   error     // why the last lookup failed
	retry time.Time // DNS is not asked again before
}

// knowledge is what a verification knows of the domain: what DNS says, or, if it is stale,
// what DNS said before it failed.
type knowledge struct {
	*domainRecords
	stale bool
}

// at returns what a verification at that time may use of the records, which may be fresh,
// stale, or only an error; ok is false where DNS has to be asked.
func (d *domainRecords) at(now time.Time) (k knowledge, ok bool, err error) {
	switch {
	case now.Before(d.fresh):
		return knowledge{d, false}, true, nil
	case !now.Before(d.retry):
		return knowledge{}, false, nil
	}
	k, err = d.whileFailing(now)
	return k, true, err
}

// whileFailing is what remains when DNS fails: an absence is not kept beyond its TTL,
// records are.
func (d *domainRecords) whileFailing(now time.Time) (knowledge, error) {
	if d.published && now.Before(d.fresh.Add(staleFor)) {
		return knowledge{d, true}, nil
	}
	return knowledge{}, d.err
}

// newDomainRecords makes records of an answer.
func newDomainRecords(a stubdns.Answer, now time.Time) *domainRecords {
	set := wire.ParseSet(a.Texts)
	d := &domainRecords{
		set:       wire.Set{Required: set.Required},
		published: set.Published(),
		ad:        a.AD,
		fresh:     now.Add(min(max(a.TTL, minRecordTTL), maxRecordTTL)),
	}
	// Of more than eight records, Order picks among those of equal pri by chance.
	for _, server := range set.Order(rand.Shuffle) {
		for _, rec := range set.Records {
			if rec.Server == server {
				rec.Host = strings.Clone(rec.Host) // not the whole TXT record with it
				d.set.Records = append(d.set.Records, rec)
				break
			}
		}
	}
	return d
}

// withFailure returns d after a lookup that failed; d may be nil.
func (d *domainRecords) withFailure(err error, now time.Time) *domainRecords {
	next := new(domainRecords)
	if d != nil {
		*next = *d
	}
	next.err, next.retry = err, now.Add(failureTTL)
	return next
}

// remember keeps d for as long as it can be of use.
func (r *Records) remember(domain string, d *domainRecords, now time.Time) {
	ends := d.fresh
	if d.published {
		ends = d.fresh.Add(staleFor)
	}
	if ends.Before(d.retry) {
		ends = d.retry
	}
	r.domains.put(domain, d, now, ends)
}

// usable reports whether a verification would not ask DNS about the domain now.
func (r *Records) usable(domain string) bool {
	d, ok := r.domains.peek(domain)
	if ok {
		_, ok, _ = d.at(time.Now())
	}
	return ok
}

// required reports whether a domain is remembered to say req=yes, for verifications
// that do not get as far as to DNS.
func (r *Records) required(domain string) bool {
	d, _, ok := r.domains.get(domain, time.Now())
	return ok && d.set.Required
}

// knowledgeOf finds out about a domain: from memory, or from DNS, which is asked once
// for all who want to know. The error is one of DNS.
func (v *Verifier) knowledgeOf(ctx context.Context, domain string) (knowledge, error) {
	now := time.Now()
	d, _, ok := v.records.domains.get(domain, now)
	if ok {
		if k, ok, err := d.at(now); ok {
			return k, err
		}
	}
	select {
	case r := <-v.lookups.DoChan(domain, func() (any, error) { return v.refresh(domain) }):
		return r.Val.(knowledge), r.Err
	case <-ctx.Done():
		// For this verification DNS has failed; the lookup goes on for others.
		now := time.Now()
		return d.withFailure(fmt.Errorf("%s: %w: %w", domain, ErrDNSTimeout, ctx.Err()), now).whileFailing(now)
	}
}

// refresh asks DNS about a domain, under the Verifier's own context: if the caller that
// asked first stops waiting, the others still get the answer.
func (v *Verifier) refresh(domain string) (_ knowledge, err error) {
	if !v.life.beginTask() {
		return knowledge{}, fmt.Errorf("%w: %w", ErrDNSFailure, context.Canceled)
	}
	defer v.life.tasks.Done()
	defer v.life.recoverAs(&err)
	answer, err := v.dns.TXT(v.life.ctx, domain)
	now := time.Now()
	if err == nil {
		d := newDomainRecords(answer, now)
		v.records.remember(domain, d, now)
		return knowledge{d, false}, nil
	}
	old, _, _ := v.records.domains.get(domain, now)
	d := old.withFailure(err, now)
	if v.life.ctx.Err() == nil { // else it says nothing about DNS
		v.records.remember(domain, d, now)
	}
	return d.whileFailing(now)
}
