package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/verifier"
)

const (
	setServers = 3
	// setRate is of messages a second. They come whether or not those before them
	// have been answered.
	setRate = 200
	// setDurations is how long they come, in durations of a run: one of them before
	// two of the servers fail. With the usual 5 s the milter tries both of these
	// again within, after having left them alone for 30 s.
	setDurations = 9
	// setLag is how much later than the milter waits (verify.reply_timeout) the slow
	// server answers; setPatience how much more than that a message may take.
	setLag      = 2 * time.Second
	setPatience = time.Second
)

// runSet sends mail, of another address each time, through a milter which asks a set
// of three servers; one of them is killed and one becomes slow meanwhile.
func runSet(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		s, err := w.startSet(ctx, b)
		if err != nil {
			return err
		}
		healthy, failing, err := s.send(ctx, b.duration)
		if err != nil {
			return err
		}
		t := newTable("set of three", "messages", "p50, ms", "p90, ms", "p99, ms", "longest, ms")
		for _, phase := range []struct {
			name string
			*setPhase
		}{{"all well", healthy}, {"one killed, one slow", failing}} {
			cells := []string{phase.name, fmt.Sprint(len(phase.times))}
			for _, share := range []float64{0.5, 0.9, 0.99, 1} {
				cells = append(cells, fmt.Sprintf("%.1f", milliseconds(quantile(phase.times, share))))
			}
			t.add(cells...)
		}
		t.write(b.out)
		fmt.Fprintln(b.out)
		faults := slices.Concat(healthy.faults, failing.faults)
		b.atMost("messages refused, deferred or delivered without a pass", float64(len(faults)), 0, "")
		for _, fault := range faults[:min(len(faults), maxFaultsShown)] {
			fmt.Fprintf(b.out, "  (%s)\n", fault)
		}
		b.atMost("p99 of the time of a message while two fail", quantile(failing.times, 0.99).Seconds(), (verifier.DefaultReplyTimeout + setPatience).Seconds(), " s")
		return nil
	})
}

const maxFaultsShown = 5

// A serverSet is three servers of one domain, and a milter that asks them.
type serverSet struct {
	domain string
	key    string // of every address of the load
	milter *contender
	killed *contender
	slow   *slowProxy
}

// startSet starts all of it. Each server has the same secret and list; nothing else
// makes them a set but the domain's records.
func (w *world) startSet(ctx context.Context, b *bench) (*serverSet, error) {
	const local = "user"
	v, err := w.addVouched(benchDomain, slices.Values([]string{local}))
	if err != nil {
		return nil, err
	}
	known, err := v.question(local)
	if err != nil {
		return nil, err
	}
	var servers []*contender
	for i := range setServers {
		server, err := w.startServing(ctx, b.server, fmt.Sprintf("%s-%d", serverName, i), v, nil, known)
		if err != nil {
			return nil, err
		}
		servers = append(servers, server)
	}
	s := &serverSet{domain: v.name, key: known.key.Reveal(), killed: servers[1]}
	if s.slow, err = startSlowProxy(servers[2].socket); err != nil {
		return nil, err
	}
	w.OnClose(s.slow.close)
	var records []string
	for _, socket := range []string{servers[0].socket, s.killed.socket, s.slow.ln.Addr().String()} {
		records = append(records, "AS="+socket+"; req=yes") // upon which a temperror defers
	}
	if err := w.Publish(v.name, records...); err != nil {
		return nil, err
	}
	s.milter, err = w.startMilter(ctx, b.binary, milterName, "unix", "")
	return s, err
}

// A setPhase is what became of the messages that began in a part of the time.
type setPhase struct {
	mu     sync.Mutex
	times  []time.Duration
	faults []string
}

func (p *setPhase) add(took time.Duration, fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times = append(p.times, took)
	if fault != "" {
		p.faults = append(p.faults, fault)
	}
}

// send sends the messages: d long while all is well, and then with two servers failing.
func (s *serverSet) send(ctx context.Context, d time.Duration) (healthy, failing *setPhase, err error) {
	healthy, failing = new(setPhase), new(setPhase)
	var open sync.WaitGroup
	defer open.Wait()
	phase, begun := healthy, time.Now()
	pace := time.NewTicker(time.Second / setRate)
	defer pace.Stop()
	for n := 0; time.Since(begun) < setDurations*d; n++ {
		if phase == healthy && time.Since(begun) >= d {
			if err := s.fail(); err != nil {
				return nil, nil, err
			}
			phase = failing
		}
		to := phase
		open.Go(func() {
			sent := time.Now()
			fault := s.message(ctx, n)
			to.add(time.Since(sent), fault)
		})
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	open.Wait()
	if longest := slices.Max(failing.times); longest < verifier.DefaultReplyTimeout {
		return nil, nil, fmt.Errorf("no message took longer than %s: none waited for the slow server", longest)
	}
	return healthy, failing, nil
}

// fail kills one server and makes another slow.
func (s *serverSet) fail() error {
	s.slow.lag.Store(int64(verifier.DefaultReplyTimeout + setLag))
	if err := syscall.Kill(s.killed.pid(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", s.killed.name, err)
	}
	return nil
}

// message sends the n-th message, over an MTA connection of its own, and says what
// is wrong about its outcome; nothing, as a rule.
func (s *serverSet) message(ctx context.Context, n int) (fault string) {
	mta, err := front.Dial(ctx, "unix", s.milter.socket, "mx.test")
	if err != nil {
		return err.Error()
	}
	sender := fmt.Sprintf("user+%d@%s", n, s.domain)
	out, err := mta.Send(front.Message{
		QueueID: fmt.Sprintf("%X", n), Client: netip.MustParseAddr("198.51.100.7"),
		Sender: sender, Recipients: []string{"bob@rcpt.test"},
		Header: []front.Field{{Name: "From", Value: sender}, {Name: "X-Auth-Key", Value: s.key}},
		Body:   "Hello.\r\n",
	})
	if err := errors.Join(err, mta.Close()); err != nil {
		return err.Error()
	}
	if out.Verdict != front.Delivered {
		return fmt.Sprintf("%s %s: %s", sender, out.Verdict, out.Reply)
	}
	for _, field := range out.Header {
		if field.Name == "Authentication-Results" && strings.Contains(field.Value, "x-authkey=pass smtp.mailfrom="+sender) {
			return ""
		}
	}
	return sender + " is delivered without a pass"
}
