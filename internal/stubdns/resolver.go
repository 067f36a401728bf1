// Package stubdns is a stub resolver (RFC 1034 section 5.3.1): it asks recursive name
// servers for TXT records and for the addresses of hosts, over UDP and, where an answer
// does not fit, TCP. It asks several servers side by side where one is silent, follows
// CNAMEs, and gives up after a configured time.
//
// The name servers are trusted, and so is their AD bit (RFC 6840 section 5.8), which is
// handed on. An attacker who sends packets in their name has to guess a port and an id.
// There is no cache and no DNSSEC validation.
package stubdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/oplog"
)

// Every error of a Resolver wraps one of these. The first two are temporary.
var (
	// ErrTimeout says that no name server answered in time.
	ErrTimeout = errors.New("no name server answered in time")
	// ErrFailure says that every name server refused, failed, or answered nonsense.
	ErrFailure = errors.New("no name server gave a usable answer")
	// ErrPanic says that the Resolver itself failed. The panic has been logged.
	ErrPanic = errors.New("panic in a DNS lookup")
)

const (
	// maxTryInterval is how long a server may be silent before the next one is
	// asked beside it; less where there are many to ask.
	maxTryInterval = time.Second
	// demotion is for how long a server which was silent while another answered
	// is asked last.
	demotion = 30 * time.Second
	// maxLookups bounds the lookups that are open at a time, each with a socket or two.
	maxLookups = 4096
)

// An Answer is what DNS says about the TXT records of a name. No Texts means that there
// are none.
type Answer struct {
	Texts  []string       // of each record the character strings, joined
	CNAMEs []string       // the names that the name is an alias of, each with its last dot
	TTL    time.Duration  // the lowest of all records on the way; of an absence, RFC 2308's
	AD     bool           // the server validated all of it (DNSSEC)
	Server netip.AddrPort // who answered

	addrs []netip.Addr // of a question about addresses
	// next is a name at which the answer ended without saying whether it has
	// records: it is to be asked about.
	next string
}

// A Resolver asks name servers. It is safe for concurrent use. Nothing of it runs when
// no call does.
type Resolver struct {
	servers func() []netip.AddrPort
	timeout time.Duration
	log     *slog.Logger
	open    chan struct{} // a semaphore of lookups

	mu   sync.Mutex
	slow map[netip.AddrPort]time.Time // asked last until then
}

// New makes a Resolver. servers returns the name servers to ask, the best first; it is
// called for every question. timeout is for one lookup, over all servers and retries. The
// log gets panics.
func New(servers func() []netip.AddrPort, timeout time.Duration, log *slog.Logger) *Resolver {
	return &Resolver{
		servers: servers,
		timeout: timeout,
		log:     log,
		open:    make(chan struct{}, maxLookups),
		slow:    make(map[netip.AddrPort]time.Time),
	}
}

// TXT returns the TXT records of a domain name, which is without its last dot. A name
// without any, or that does not exist, is no error.
func (r *Resolver) TXT(ctx context.Context, name string) (Answer, error) {
	return r.lookup(ctx, name, typeTXT)
}

// Addresses returns the IP addresses of a host name, IPv6 and IPv4 taking turns: the order
// in which to try them. No address and no error: the name does not exist, or has none.
func (r *Resolver) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	var six, four Answer
	var sixErr, fourErr error
	var both sync.WaitGroup
	both.Go(func() { six, sixErr = r.lookup(ctx, host, typeAAAA) })
	both.Go(func() { four, fourErr = r.lookup(ctx, host, typeA) })
	both.Wait()
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
	case fourErr != nil:
		return nil, fourErr
	default:
		return nil, sixErr
	}
}

// lookup returns the records of a type, following CNAMEs.
func (r *Resolver) lookup(ctx context.Context, name string, kind recordType) (_ Answer, err error) {
	defer r.recoverAs(&err)
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	q := question{name: strings.ToLower(name) + ".", kind: kind}
	select {
	case r.open <- struct{}{}:
		defer func() { <-r.open }()
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("%v: %w: %d lookups are open", q, ErrTimeout, maxLookups)
	}
	all, err := r.query(ctx, q)
	for followed := 0; err == nil && all.next != ""; followed++ {
		if len(all.CNAMEs) > maxCNAMEs || followed == maxFollowed {
			return Answer{}, fmt.Errorf("%v: %w: %w", q, ErrFailure, errCNAMEs)
		}
		var a Answer
		a, err = r.query(ctx, question{name: all.next, kind: kind})
		a.CNAMEs = append(all.CNAMEs, a.CNAMEs...)
		a.TTL, a.AD = min(a.TTL, all.TTL), a.AD && all.AD
		all = a
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%v: %w", q, err)
	}
	return all, nil
}

// recoverAs is deferred in every goroutine of ours, where a panic would end the process,
// and makes an error of it.
func (r *Resolver) recoverAs(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %s", ErrPanic, oplog.Panic(r.log, ErrPanic.Error(), p))
	}
}

// A try is one question to one server.
type try struct {
	server   netip.AddrPort
	finished bool
}

// query puts one question to the servers: to the next one whenever one fails, and
// beside those already asked whenever they are silent for an interval. The first
// answer counts; one server that hangs costs an interval once, and is asked last
// for a while.
func (r *Resolver) query(ctx context.Context, q question) (Answer, error) {
	servers := r.order(time.Now())
	if len(servers) == 0 {
		return Answer{}, fmt.Errorf("%w: none is configured", ErrFailure)
	}
	most := max(3, 2*len(servers))
	interval := min(maxTryInterval, r.timeout/time.Duration(most))

	type outcome struct {
		try    int
		answer Answer
		err    error
	}
	outcomes := make(chan outcome, most)
	tries := make([]try, 0, most)
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before Wait
	start := func() {
		n, server := len(tries), servers[len(tries)%len(servers)]
		tries = append(tries, try{server: server})
		running.Go(func() {
			answer, err := r.exchange(ctx, server, q)
			outcomes <- outcome{n, answer, err}
		})
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
			if ctx.Err() != nil || errors.Is(o.err, context.DeadlineExceeded) {
				continue // the end of the lookup's time is no failure of the server
			}
			failed = fmt.Errorf("%w: %v: %w", ErrFailure, tries[o.try].server, o.err)
			if len(tries) < len(servers) {
				start()
				open++
				timer.Reset(interval)
			} else if open == 0 {
				return Answer{}, failed
			}
		case <-timer.C:
			if len(tries) < most {
				start()
				open++
				timer.Reset(interval)
			}
		case <-ctx.Done():
			if failed != nil {
				return Answer{}, failed
			}
			return Answer{}, fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
		}
	}
}

// order returns the servers, with those last that did not answer lately. When demotion has
// passed for a server, one question tries it again first, and no other question does.
func (r *Resolver) order(now time.Time) []netip.AddrPort {
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

// learn takes note of the server that answered, and of those that were asked before it and
// did not answer. The domain cannot be the cause, since the other server did answer.
func (r *Resolver) learn(tries []try, answered int) {
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
