package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/testdns"
)

const (
	stuckMessages = 20
	// stuckTime is for how long the fast domain is looked at meanwhile: less than
	// the milter waits for DNS (dns.timeout, 3 s).
	stuckTime = 2 * time.Second
	// stuckSlower is what a message of the fast domain may take longer.
	stuckSlower = 100 * time.Millisecond
	// fastConnections is how many messages of the fast domain are open at a time.
	fastConnections = 4
)

// runStuck compares the times of messages whose AS answers, asked about each time,
// with and without others beside them that wait for what never answers: half for
// DNS, half for an AS.
func runStuck(ctx context.Context, b *bench) error {
	return b.withMilter(ctx, func(w *world, d *domain, milter *contender) error {
		fast := load{socket: milter.socket, connections: fastConnections, next: same(d.messages(), 0), duration: stuckTime, timed: true}
		p95 := func() (float64, error) {
			o, err := fast.run(ctx)
			fast.first += o.begun
			if err == nil && o.answers['a'] != o.begun {
				err = fmt.Errorf("%d messages, answers %v", o.begun, o.answers)
			}
			if err != nil {
				return 0, err
			}
			return milliseconds(quantile(o.times, 0.95)), nil
		}
		var normal, beside []float64
		for round := range b.runs {
			alone, err := p95()
			if err != nil {
				return err
			}
			s, err := w.stick(milter, round)
			if err != nil {
				return err
			}
			together, err := p95()
			stuck := s.open.Load()
			if err := errors.Join(err, s.wait()); err != nil {
				return err
			}
			if stuck != stuckMessages {
				return fmt.Errorf("only %d messages were stuck to the end", stuck)
			}
			normal, beside = append(normal, alone), append(beside, together)
		}
		t := newTable("fast domain", "p95, ms")
		t.add("alone", fmt.Sprintf("%.2f", median(normal)))
		t.add(fmt.Sprintf("beside %d stuck messages", stuckMessages), fmt.Sprintf("%.2f", median(beside)))
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atMost("p95 beside them, above the normal", median(beside)-median(normal), milliseconds(stuckSlower), " ms")
		return nil
	})
}

// stuck are messages that wait for nothing.
type stuck struct {
	open atomic.Int64
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

// stick begins stuckMessages of them, of domains that are new in each round: a
// server that did not answer in the last one is left alone.
func (w *world) stick(milter *contender, round int) (*stuck, error) {
	silent := fmt.Sprintf("silent%d.test", round)
	if err := w.addSilent(silent); err != nil {
		return nil, err
	}
	s := new(stuck)
	s.open.Store(stuckMessages)
	for i := range stuckMessages {
		sender := fmt.Sprintf("user%d@%s", i, silent)
		if i%2 == 0 {
			lame := fmt.Sprintf("lame%d-%d.test", round, i)
			w.DNS.Behave(lame, testdns.Silent())
			sender = "user@" + lame
		}
		s.wg.Go(func() {
			defer s.open.Add(-1)
			if err := play(milter, &message{sender: sender, key: "AQIDBAUGBwgJ"}); err != nil {
				s.mu.Lock()
				s.errs = append(s.errs, fmt.Errorf("stuck message: %w", err))
				s.mu.Unlock()
			}
		})
	}
	return s, nil
}

// play sends one message on a connection of its own, which has to be accepted.
func play(c *contender, m *message) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := converse(conn, m)
	if err == nil && answer != 'a' {
		err = fmt.Errorf("answered %c", answer)
	}
	return err
}

func (s *stuck) wait() error {
	s.wg.Wait()
	return errors.Join(s.errs...)
}
