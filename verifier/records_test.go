package verifier

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/wire"
)

// TestRecordsTTL: how long an answer is used, and what remains while DNS fails.
func TestRecordsTTL(t *testing.T) {
	required := stubdns.Answer{Texts: []string{"AS=as.test:7425; req=yes"}}
	with := func(a stubdns.Answer, ttl time.Duration) stubdns.Answer { a.TTL = ttl; return a }
	broken := fmt.Errorf("%w: test", ErrDNSFailure)
	type step struct {
		after  time.Duration
		answer stubdns.Answer
		err    error
		status Status
		asked  int
		stale  bool
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"the TTL counts", []step{
			{0, with(required, 10*time.Minute), nil, Fail, 1, false},
			{10*time.Minute - 1, required, nil, Fail, 1, false},
			{1, required, nil, Fail, 2, false},
		}},
		{"a minute at least", []step{
			{0, with(required, 0), nil, Fail, 1, false},
			{time.Minute - 1, required, nil, Fail, 1, false},
			{1, required, nil, Fail, 2, false},
		}},
		{"an hour at most", []step{
			{0, with(required, maxRecordTTL+time.Hour), nil, Fail, 1, false},
			{time.Hour - 1, required, nil, Fail, 1, false},
			{1, required, nil, Fail, 2, false},
		}},
		{"absence likewise", []step{
			{0, stubdns.Answer{TTL: 5 * time.Minute}, nil, None, 1, false},
			{5*time.Minute - 1, required, nil, None, 1, false},
			{1, with(required, time.Hour), nil, Fail, 2, false},
		}},
		{"a failure for five seconds", []step{
			{0, stubdns.Answer{}, broken, TempError, 1, false},
			{failureTTL - 1, required, nil, TempError, 1, false},
			{1, required, nil, Fail, 2, false},
		}},
		{"stale for a day", []step{
			{0, with(required, time.Hour), nil, Fail, 1, false},
			{time.Hour, stubdns.Answer{}, broken, Fail, 2, true},
			{failureTTL - 1, stubdns.Answer{}, broken, Fail, 2, true},
			{1, stubdns.Answer{}, broken, Fail, 3, true},
			{staleFor - failureTTL - 1, stubdns.Answer{}, broken, Fail, 4, true},
			{failureTTL, stubdns.Answer{}, broken, TempError, 5, false},
		}},
		{"stale until DNS answers", []step{
			{0, with(required, time.Hour), nil, Fail, 1, false},
			{2 * time.Hour, stubdns.Answer{}, broken, Fail, 2, true},
			{failureTTL, stubdns.Answer{TTL: time.Hour}, nil, None, 3, false},
			{time.Hour, stubdns.Answer{}, broken, TempError, 4, false}, // an absence is not served stale
		}},
		{"malformed ones are kept too", []step{
			{0, stubdns.Answer{Texts: []string{"AS=x"}, TTL: time.Hour}, nil, PermError, 1, false},
			{2 * time.Hour, stubdns.Answer{}, broken, PermError, 2, true},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now step
				b := &book{texts: func(string) (stubdns.Answer, error) { return now.answer, now.err }}
				v := inBubble(t, b, &network{}, Options{})
				for i, s := range tt.steps {
					time.Sleep(s.after)
					now = s
					r := v.Verify(t.Context(), query(t, "u@a.test", ""))
					if r.Status != s.status || r.Stale != s.stale || b.asked["a.test"] != s.asked {
						t.Errorf("step %d: %+v, asked %d times", i, r, b.asked["a.test"])
					}
					if r.Status == Fail && !r.Required {
						t.Errorf("step %d: %+v", i, r)
					}
				}
			})
		})
	}
}

// TestStaleOverReload: a successor with the same Records does not forget req=yes,
// and says so also where every AS fails.
func TestStaleOverReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := false
		b := &book{texts: func(string) (stubdns.Answer, error) {
			if broken {
				return stubdns.Answer{}, ErrDNSTimeout
			}
			return stubdns.Answer{Texts: []string{"AS=8.8.8.8:7425; req=yes"}, TTL: time.Minute, AD: true}, nil
		}}
		o := Options{Records: NewRecords()}
		first := inBubble(t, b, &network{}, o)
		check(t, first, query(t, "u@a.test", ""), Fail, ReasonRequired)
		first.Close()
		broken = true
		time.Sleep(time.Hour)
		second := inBubble(t, b, &network{}, o)
		r := check(t, second, query(t, "u@a.test", "good"), TempError, ReasonASTimeout)
		if !r.Required || !r.Stale || !r.AD {
			t.Errorf("%+v", r)
		}
		if n := b.asked["a.test"]; n != 2 {
			t.Errorf("DNS was asked %d times", n)
		}
		time.Sleep(failureTTL)
		d := second.Discover(t.Context(), "a.test")
		if d.Err == nil || !d.Stale || !d.Required || len(d.Used) != 1 {
			t.Errorf("%+v", d)
		}
	})
}

// TestOneLookup: all who want to know about a domain share one lookup, and one who
// leaves does not end it.
func TestOneLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{texts: func(string) (stubdns.Answer, error) {
			time.Sleep(2 * time.Second)
			return stubdns.Answer{TTL: time.Hour}, nil
		}}
		v := inBubble(t, b, &network{}, Options{})
		leaving, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan Result)
		go func() { results <- v.Verify(leaving, query(t, "u@a.test", "")) }()
		go func() { results <- v.Verify(t.Context(), query(t, "u@a.test", "")) }()
		go func() { results <- v.Verify(t.Context(), query(t, "v@a.test", "good")) }()
		v.Prefetch(address(t, "w@a.test"))
		if r := <-results; r.Reason != ReasonCancelled {
			t.Errorf("the one who left: %+v", r)
		}
		for range 2 {
			if r := <-results; r.Status != None || r.DNSTime != 2*time.Second {
				t.Errorf("%+v", r)
			}
		}
		if b.asked["a.test"] != 1 {
			t.Errorf("asked %d times", b.asked["a.test"])
		}
	})
}

// TestManyRecords: what is kept of a domain is bounded, whatever it publishes.
func TestManyRecords(t *testing.T) {
	var a stubdns.Answer
	for i := range 500 {
		a.Texts = append(a.Texts, fmt.Sprintf("AS=as%d.test:7425", i), "AS=malformed")
	}
	a.Texts = append(a.Texts, "AS=first.test:7425; pri=1; req=yes")
	s := newDomainRecords(a, time.Now())
	if len(s.set.Records) != wire.MaxServers || len(s.set.Refused) != 0 || !s.published || !s.set.Required {
		t.Errorf("%+v", s)
	}
	if s.set.Records[0].Host != "first.test" {
		t.Errorf("first is %v", s.set.Records[0])
	}
}

// TestClosedDuringLookup: the end of a Verifier is not remembered as DNS's failure.
func TestClosedDuringLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := NewRecords()
		v := New(Options{Records: records, Cache: NewCache(1), Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
		hang := make(chan struct{})
		v.dns = &book{texts: func(string) (stubdns.Answer, error) {
			close(hang)
			<-v.life.ctx.Done()
			return stubdns.Answer{}, ErrDNSTimeout
		}}
		v.Prefetch(address(t, "u@a.test"))
		<-hang
		v.Close()
		if records.domains.len() != 0 {
			t.Error("remembered")
		}
	})
}

// TestPrefetchOfKnown: DNS is asked ahead about whom it may be needed for, and nobody else.
func TestPrefetchOfKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{texts: func(string) (stubdns.Answer, error) { return stubdns.Answer{TTL: time.Minute}, nil }}
		v := inBubble(t, b, &network{}, Options{})
		known, other := address(t, "u@a.test"), address(t, "v@a.test")
		v.cache.put(known, v.cache.digest(known, wire.JoinKeys("key")), time.Hour)
		for _, step := range []struct {
			address wire.Address
			asked   int
		}{{known, 0}, {wire.Address{}, 0}, {other, 1}, {other, 1}} {
			v.Prefetch(step.address)
			synctest.Wait()
			if b.asked["a.test"] != step.asked {
				t.Errorf("%v: DNS was asked %d times, want %d", step.address, b.asked["a.test"], step.asked)
			}
		}
	})
}
