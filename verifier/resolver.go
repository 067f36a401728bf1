package verifier

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Both are temporary, and all that is to be known of DNS's failures.
var (
	// ErrDNSTimeout says that no name server answered in time.
	ErrDNSTimeout = errors.New("no name server answered in time")
	// ErrDNSFailure says that every name server refused, failed, or answered nonsense.
	ErrDNSFailure = errors.New("no name server gave a usable answer")
)

const (
	// maxTryInterval is how long a server may be silent before the next one is
	// asked beside it; less where there are many to ask.
	maxTryInterval = time.Second
	// demotion is for how long a server which was silent while another answered
	// is asked last.
	demotion = 30 * time.Second
	// maxQuestions bounds the questions to DNS that are open at a time, each with
	// a socket or two.
	maxQuestions = 4096
)

// A resolver asks name servers. It trusts them, and their AD bit, and nobody who
// merely sends packets in their name.
type resolver struct {
	servers func() []netip.AddrPort // in order of preference
	timeout time.Duration           // of one lookup, whatever it takes
	stats   *counters
	life    *life
	open    chan struct{} // a semaphore

	mu   sync.Mutex
	slow map[netip.AddrPort]time.Time // asked last until then
}

func newResolver(servers func() []netip.AddrPort, timeout time.Duration, stats *counters, life *life) *resolver {
	return &resolver{
		servers: servers,
		timeout: timeout,
		stats:   stats,
		life:    life,
		open:    make(chan struct{}, maxQuestions),
		slow:    make(map[netip.AddrPort]time.Time),
	}
}

// lookup returns the records of a domain name (without its last dot), following
// CNAMEs. The error wraps ErrDNSTimeout or ErrDNSFailure.
func (r *resolver) lookup(ctx context.Context, name string, kind recordType) (_ dnsAnswer, err error) {
	defer r.life.rescue(&err)
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	q := dnsQuestion{name: strings.ToLower(name) + ".", kind: kind}
	select {
	case r.open <- struct{}{}:
		defer func() { <-r.open }()
	case <-ctx.Done():
		return dnsAnswer{}, fmt.Errorf("%v: %w: %d questions are open", q, ErrDNSTimeout, maxQuestions)
	}
	all, err := r.ask(ctx, q)
	for pieces := 0; err == nil && all.next != ""; pieces++ {
		if len(all.chain) > maxChain || pieces == maxPieces {
			return dnsAnswer{}, fmt.Errorf("%v: %w: %w", q, ErrDNSFailure, errChain)
		}
		var a dnsAnswer
		a, err = r.ask(ctx, dnsQuestion{name: all.next, kind: kind})
		a.chain = append(all.chain, a.chain...)
		a.ttl, a.ad = min(a.ttl, all.ttl), a.ad && all.ad
		all = a
	}
	if err != nil {
		return dnsAnswer{}, fmt.Errorf("%v: %w", q, err)
	}
	return all, nil
}

// A try is one question to one server.
type try struct {
	server   netip.AddrPort
	finished bool
}

// ask puts one question to the servers: to the next one whenever one fails, and
// beside those already asked whenever they are silent for an interval. The first
// answer counts; one server that hangs costs an interval once, and is asked last
// for a while.
func (r *resolver) ask(ctx context.Context, q dnsQuestion) (dnsAnswer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	servers := r.order(time.Now())
	if len(servers) == 0 {
		return dnsAnswer{}, fmt.Errorf("%w: none is configured", ErrDNSFailure)
	}
	most := max(3, 2*len(servers))
	interval := min(maxTryInterval, r.timeout/time.Duration(most))

	type outcome struct {
		try    int
		answer dnsAnswer
		err    error
	}
	outcomes := make(chan outcome, most)
	tries := make([]try, 0, most)
	start := func() {
		n, server := len(tries), servers[len(tries)%len(servers)]
		started := r.life.spawn(func() {
			answer, err := r.exchange(ctx, server, q)
			answer.server = server
			outcomes <- outcome{n, answer, err}
		})
		if !started {
			outcomes <- outcome{n, dnsAnswer{}, context.Canceled}
		}
		tries = append(tries, try{server: server})
	}
	var failed error
	timer := time.NewTimer(interval)
	defer timer.Stop()
	start()
	for open := 1; ; {
		select {
		case o := <-outcomes:
			open--
			tries[o.try].finished = true
			if o.err == nil {
				r.learn(tries, o.try)
				return o.answer, nil
			}
			failed = fmt.Errorf("%w: %v: %w", ErrDNSFailure, tries[o.try].server, o.err)
			if len(tries) < len(servers) {
				start()
				open++
				timer.Reset(interval)
			} else if open == 0 {
				return dnsAnswer{}, failed
			}
		case <-timer.C:
			if len(tries) < most {
				start()
				open++
				timer.Reset(interval)
			}
		case <-ctx.Done():
			if failed != nil {
				return dnsAnswer{}, failed
			}
			return dnsAnswer{}, fmt.Errorf("%w: %w", ErrDNSTimeout, ctx.Err())
		}
	}
}

// order returns the servers, those last that were silent lately. The first question
// after such a time tries the server again, and only that one.
func (r *resolver) order(now time.Time) []netip.AddrPort {
	servers := r.servers()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.slow) == 0 {
		return servers
	}
	var good, slow []netip.AddrPort
	for _, s := range servers {
		until, demoted := r.slow[s]
		switch {
		case demoted && now.Before(until):
			slow = append(slow, s)
		case demoted:
			r.slow[s] = now.Add(demotion)
			good = append(good, s)
		default:
			good = append(good, s)
		}
	}
	for s := range r.slow { // no longer configured
		if !slices.Contains(servers, s) {
			delete(r.slow, s)
		}
	}
	return append(good, slow...)
}

// learn takes note of who answered, and of who was asked before and did not: not
// because of the domain, since another server knew.
func (r *resolver) learn(tries []try, answered int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	winner := tries[answered].server
	for _, t := range tries[:answered] {
		if !t.finished && t.server != winner {
			r.slow[t.server] = time.Now().Add(demotion)
		}
	}
	delete(r.slow, winner)
}

// addresses returns the IP addresses of a host name, IPv6 and IPv4 taking turns.
// No address and no error: the name does not exist, or has none.
func (r *resolver) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	type outcome struct {
		dnsAnswer
		err error
	}
	var six, four outcome
	var wg sync.WaitGroup
	wg.Go(func() { six.dnsAnswer, six.err = r.lookup(ctx, host, typeAAAA) })
	wg.Go(func() { four.dnsAnswer, four.err = r.lookup(ctx, host, typeA) })
	wg.Wait()
	var addrs []netip.Addr
	for i := range max(len(six.addrs), len(four.addrs)) {
		if i < len(six.addrs) {
			addrs = append(addrs, six.addrs[i])
		}
		if i < len(four.addrs) {
			addrs = append(addrs, four.addrs[i])
		}
	}
	switch {
	case len(addrs) > 0:
		return addrs, nil
	case four.err != nil:
		return nil, four.err
	default:
		return nil, six.err
	}
}
