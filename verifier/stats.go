package verifier

import "sync/atomic"

// counters are what a Verifier counts, to be read as Stats.
type counters struct {
	cacheHits, flights, joined                     atomic.Uint64
	lookups, lookupFailures, recordHits, stale     atomic.Uint64
	dnsQuestions, deadHostHits                     atomic.Uint64
	dials, dialFailures, budgetRefusals            atomic.Uint64
	questions, answers, timeouts, violations, late atomic.Uint64
	retries, leftAlone, breakerOpenings, overloads atomic.Uint64
	connections                                    atomic.Int64
}

// Stats counts what a Verifier did since it was made. Its fields only grow, but
// for Connections, CacheEntries and Domains, which say how it is now.
type Stats struct {
	CacheHits uint64 // passes from the key cache
	Flights   uint64 // verifications that left it
	Joined    uint64 // verifications that waited for another's answer

	RecordHits     uint64 // domains answered from the records cache
	Lookups        uint64 // TXT lookups
	LookupFailures uint64
	Stale          uint64 // times that records older than their TTL were used, because DNS failed
	DNSQuestions   uint64 // packets sent to name servers, addresses of AS included
	DeadHostHits   uint64 // names of AS not asked about, because they led to no address just now

	Dials          uint64 // connections attempted, each address counted
	DialFailures   uint64
	BudgetRefusals uint64 // dials not made, for their number

	Questions       uint64 // VERIFY lines sent
	Answers         uint64 // VERIFY_REPLY and ERROR lines that answered one
	Timeouts        uint64 // questions without answer
	Violations      uint64 // connections closed because the AS broke the protocol
	Late            uint64 // replies to questions no longer outstanding
	Retries         uint64 // questions asked again because a pooled connection had ended
	LeftAlone       uint64 // questions not asked because the AS is left alone
	BreakerOpenings uint64 // times that an AS began to be left alone
	Overloads       uint64 // verifications refused for their number

	Connections  int // open now
	CacheEntries int // addresses in the key cache
	Domains      int // domains in the records cache
}

// Stats returns the counts so far.
func (v *Verifier) Stats() Stats {
	c := v.stats
	return Stats{
		CacheHits:       c.cacheHits.Load(),
		Flights:         c.flights.Load(),
		Joined:          c.joined.Load(),
		RecordHits:      c.recordHits.Load(),
		Lookups:         c.lookups.Load(),
		LookupFailures:  c.lookupFailures.Load(),
		Stale:           c.stale.Load(),
		DNSQuestions:    c.dnsQuestions.Load(),
		DeadHostHits:    c.deadHostHits.Load(),
		Dials:           c.dials.Load(),
		DialFailures:    c.dialFailures.Load(),
		BudgetRefusals:  c.budgetRefusals.Load(),
		Questions:       c.questions.Load(),
		Answers:         c.answers.Load(),
		Timeouts:        c.timeouts.Load(),
		Violations:      c.violations.Load(),
		Late:            c.late.Load(),
		Retries:         c.retries.Load(),
		LeftAlone:       c.leftAlone.Load(),
		BreakerOpenings: c.breakerOpenings.Load(),
		Overloads:       c.overloads.Load(),
		Connections:     int(c.connections.Load()),
		CacheEntries:    v.cache.Len(),
		Domains:         v.records.len(),
	}
}
