package verifier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// How long what DNS says is kept (docs/protocol.md section 1).
const (
	minRecordTTL = time.Minute
	maxRecordTTL = time.Hour
	failureTTL   = 5 * time.Second
	staleFor     = 24 * time.Hour
	// noHostTTL is how long an AS's name without address is not asked about again; one
	// that DNS failed for, failureTTL.
	noHostTTL = time.Minute
)

// maxDomains bounds how many domains are remembered. A domain without AS takes
// some 250 octets, one with eight records of greatest length 3 KB.
const maxDomains = 1 << 16

// maxDeadHosts bounds how many names of AS that lead to no address are remembered,
// each with less than 500 octets.
const maxDeadHosts = 1 << 13

// Records remembers what DNS said about domains, for a day longer than it may be
// used while DNS answers. Hand it to the next Verifier, so that a reload in the
// midst of an attack on DNS does not make a domain forget its req=yes. It is safe
// for concurrent use.
type Records struct {
	domains *sieve[*domainState]
	// deadHosts are names of AS that lead to no address, with the error that says why.
	// DNS is not asked about them: whoever puts a stranger's names into his records
	// would have us ask that stranger's name servers once a message.
	deadHosts *sieve[error]
}

// NewRecords makes an empty Records.
func NewRecords() *Records {
	return &Records{domains: newSieve[*domainState](maxDomains), deadHosts: newSieve[error](maxDeadHosts)}
}

func (r *Records) len() int { return r.domains.len() }

// A domainState is what is known of one domain. It is immutable.
type domainState struct {
	set       wire.Set // Records: at most wire.MaxServers; Refused left out
	published bool     // there are AS records, usable or not
	ad        bool
	fresh     time.Time // used without asking until then; zero: DNS never answered

	err   error     // why the last question failed
	retry time.Time // DNS is not asked again before
}

// A standing is what a verification has to go by: what DNS says of the domain, or
// said in better times.
type standing struct {
	*domainState
	stale bool
}

// usable decides what a state is good for at a time: it may be fresh, stale, or
// the memory of a failure; ok is false where DNS has to be asked.
func (s *domainState) usable(now time.Time) (st standing, ok bool, err error) {
	switch {
	case now.Before(s.fresh):
		return standing{s, false}, true, nil
	case !now.Before(s.retry):
		return standing{}, false, nil
	}
	st, err = s.failed(now)
	return st, true, err
}

// failed is what remains when DNS fails: an absence is not kept beyond its TTL,
// records are.
func (s *domainState) failed(now time.Time) (standing, error) {
	if s.published && now.Before(s.fresh.Add(staleFor)) {
		return standing{s, true}, nil
	}
	return standing{}, s.err
}

// newDomainState makes a state of an answer.
func newDomainState(a dnsAnswer, now time.Time) *domainState {
	set := wire.ParseSet(a.texts)
	s := &domainState{
		set:       wire.Set{Required: set.Required},
		published: set.Published(),
		ad:        a.ad,
		fresh:     now.Add(min(max(a.ttl, minRecordTTL), maxRecordTTL)),
	}
	// Order says which are the first eight, where equals make that a matter of luck.
	for _, server := range set.Order(rand.Shuffle) {
		for _, rec := range set.Records {
			if rec.Server == server {
				rec.Host = strings.Clone(rec.Host) // not the whole TXT record with it
				s.set.Records = append(s.set.Records, rec)
				break
			}
		}
	}
	return s
}

// withFailure returns s after a question that failed; s may be nil.
func (s *domainState) withFailure(err error, now time.Time) *domainState {
	next := new(domainState)
	if s != nil {
		*next = *s
	}
	next.err, next.retry = err, now.Add(failureTTL)
	return next
}

// remember keeps s for as long as it can be of use.
func (r *Records) remember(domain string, s *domainState, now time.Time) {
	ends := s.fresh
	if s.published {
		ends = s.fresh.Add(staleFor)
	}
	if ends.Before(s.retry) {
		ends = s.retry
	}
	r.domains.put(domain, s, now, ends)
}

// discover finds out about a domain: from memory, or from DNS, which is asked once
// for all who want to know. The error wraps ErrDNSTimeout or ErrDNSFailure.
func (v *Verifier) discover(ctx context.Context, domain string) (standing, error) {
	now := time.Now()
	s, _, ok := v.records.domains.get(domain, now)
	if ok {
		if st, ok, err := s.usable(now); ok {
			v.stats.recordHits.Add(1)
			v.countStale(st)
			return st, err
		}
	}
	select {
	case r := <-v.lookups.DoChan(domain, func() (any, error) { return v.refresh(domain) }):
		st := r.Val.(standing)
		v.countStale(st)
		return st, r.Err
	case <-ctx.Done():
		// DNS fails for this question, whatever it may still say to others.
		now := time.Now()
		st, err := s.withFailure(fmt.Errorf("%s: %w: %w", domain, ErrDNSTimeout, ctx.Err()), now).failed(now)
		v.countStale(st)
		return st, err
	}
}

// requires reports whether a domain is remembered to say req=yes, for questions
// that do not get as far as to DNS.
func (v *Verifier) requires(domain string) bool {
	s, _, ok := v.records.domains.get(domain, time.Now())
	return ok && s.set.Required
}

func (v *Verifier) countStale(st standing) {
	if st.stale {
		v.stats.stale.Add(1)
	}
}

// refresh asks DNS about a domain, under the Verifier's own context: the one who
// asked first may leave without harm to those who joined.
func (v *Verifier) refresh(domain string) (_ standing, err error) {
	if !v.life.task() {
		return standing{}, fmt.Errorf("%w: %w", ErrDNSFailure, context.Canceled)
	}
	defer v.life.done()
	defer v.life.rescue(&err)
	v.stats.lookups.Add(1)
	answer, err := v.dns.lookup(v.life.ctx, domain, typeTXT)
	now := time.Now()
	if err == nil {
		s := newDomainState(answer, now)
		v.records.remember(domain, s, now)
		return standing{s, false}, nil
	}
	v.stats.lookupFailures.Add(1)
	old, _, _ := v.records.domains.get(domain, now)
	s := old.withFailure(err, now)
	if v.life.ctx.Err() == nil { // else it says nothing about DNS
		v.records.remember(domain, s, now)
	}
	return s.failed(now)
}
