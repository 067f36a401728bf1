package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A plan says how much of a storm there is to be.
type plan struct {
	programs
	seed    uint64
	kills   int    // at least so many; the last round is finished
	repeats int    // see observations.Repeats
	record  string // file for the observations; "" for none
	keep    bool   // what the milter logged is printed
	round   []task
	say     func(format string, args ...any)
}

// A task is a disturbance, and how often a round has it.
type task struct {
	name  string
	count int
	do    func(s *storm, ctx context.Context) error
}

// A storm is one run: a world under load, what is done to it, and what was observed.
type storm struct {
	plan
	w       *world
	load    *load
	random  *rand.Rand
	list    *editor // of the list of the domain edited
	prefs   *editor // of the preferences
	extra   []string
	probes  client
	revoked int
	byHand  atomic.Bool  // files are written in place
	numbers atomic.Int64 // of addresses added
	added   []string     // addresses that have to be in the list of twoServers in the end

	mu           sync.Mutex // guards what follows
	disturbances []disturbance
	faults       []fault
	kills        map[string]int
	counts       map[string]int
}

// A result is what a storm came to.
type result struct {
	figures
	Faults        []fault
	Kills, Counts map[string]int
	Took          time.Duration
}

// killed is how many kills there were in all.
func (r result) killed() (n int) {
	for _, k := range r.Kills {
		n += k
	}
	return n
}

// run goes through a storm. An error is one that there could not be; what went wrong in
// it is in the result.
func (p plan) run(ctx context.Context) (r result, err error) {
	began := time.Now()
	w, err := newWorld(ctx, p.programs)
	if err != nil {
		return r, err
	}
	defer func() {
		if p.keep {
			p.say("%s", w.milter.LogSince(0))
		}
		err = errors.Join(err, w.close())
	}()
	s := &storm{
		plan: p, w: w, load: newLoad(w, p.seed), random: rand.New(rand.NewPCG(p.seed, 0)), probes: client{w: w},
		kills: make(map[string]int), counts: make(map[string]int),
	}
	s.list = startEditor(s.editList)
	s.prefs = startEditor(s.writePreferences)
	s.load.start()
	for _, part := range []func(context.Context) error{s.calm, s.runRounds, s.calm} {
		if err = part(ctx); err != nil {
			s.load.giveUp()
			break
		}
	}
	s.load.stop()
	s.probes.hangUp()
	err = errors.Join(err, s.list.stop(), s.prefs.stop())
	if err == nil {
		err = s.end(ctx)
	}
	if err != nil {
		return r, fmt.Errorf("%w\n%s", err, s.w.milter.LogSince(max(0, s.w.milter.LogSize()-4096)))
	}
	b := &observations{Letters: s.load.messages, Disturbances: s.disturbances, LaterCopies: p.sendmail != "", Repeats: p.repeats, SureLines: true}
	found, err := w.observe(b, usedKeys(b.Letters, w.keys))
	if err != nil {
		return r, err
	}
	if p.record != "" {
		if err := b.write(p.record); err != nil {
			return r, err
		}
	}
	faults, f := b.audit()
	r = result{figures: f, Faults: append(append(s.faults, found...), faults...), Kills: s.kills, Counts: s.counts, Took: time.Since(began)}
	s.explain(r.Faults)
	return r, nil
}

// runRounds runs the tasks of a round in random order, again and again, until there were
// enough kills.
func (s *storm) runRounds(ctx context.Context) error {
	for {
		var round []task
		for _, c := range s.round {
			for range c.count {
				round = append(round, c)
			}
		}
		s.random.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for _, c := range round {
			if err := ctx.Err(); err != nil {
				return err
			}
			began, faults := time.Now(), len(s.faults)
			if err := c.do(s, ctx); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			s.strays()
			s.count(c.name)
			s.say("%s  %-32s %6.1f s  %d kills, %d messages answered", clock(began), c.name, time.Since(began).Seconds(), s.total(), s.load.answered.Load())
			for _, f := range s.faults[faults:] {
				s.say("  FAULT: %s", f.What)
			}
		}
		if s.total() >= s.plan.kills {
			return nil
		}
	}
}

func (s *storm) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kills {
		n += k
	}
	return n
}

func (s *storm) kill(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kills[what]++
}

func (s *storm) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

func (s *storm) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fault{What: fmt.Sprintf(format, args...)})
}

// note records a disturbance.
func (s *storm) note(what string, from time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disturbances = append(s.disturbances, disturbance{what, from, time.Now()})
}

// strays reports ends of processes that nobody wanted.
func (s *storm) strays() {
	for _, u := range []*unit{s.w.milter, s.w.first, s.w.second} {
		u.mu.Lock()
		stray := u.stray
		u.stray = nil
		u.mu.Unlock()
		for _, what := range stray {
			s.fault("%s", what)
		}
	}
}

// moment waits for a moment that nobody has chosen, with mail in flight.
func (s *storm) moment(ctx context.Context) error {
	n, wait := 1+s.random.IntN(4), time.Duration(s.random.IntN(8000))*time.Microsecond
	err := s.load.flow(ctx, n)
	time.Sleep(wait)
	return err
}

// calm sends a message of each kind until it was verified: the system must come to
// itself when nothing is wrong any more.
func (s *storm) calm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for _, k := range kinds {
		for verified := false; !verified; {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("nothing is wrong any more, and no letter (%s) is verified: %w", k.name, err)
			}
			since := s.w.milter.LogSize()
			h := s.load.send(&s.probes, k)
			if h.last() != accepted && h.last() != refused {
				return fmt.Errorf("%w: %s", errGivenUp, fault{History: h})
			}
			line, err := s.line(ctx, since, h.From)
			if err != nil {
				return err
			}
			if verified = !strings.Contains(line, "result=temperror"); !verified {
				time.Sleep(200 * time.Millisecond)
			}
		}
	}
	return nil
}

// line waits for the milter's last line about a sender's message that was not deferred.
func (s *storm) line(ctx context.Context, since int64, sender string) (line string, err error) {
	err = testdaemon.Poll(ctx, func() (bool, error) {
		for l := range strings.Lines(string(s.w.milter.LogSince(since))) {
			if strings.Contains(l, " from="+sender+" ") && strings.HasSuffix(l, "\n") && !strings.Contains(l, "action=tempfail") && !strings.Contains(l, "action=aborted") {
				line = l
			}
		}
		return line != "", nil
	})
	if err != nil {
		return "", fmt.Errorf("the milter's log has no line about the mail from %s: %w", sender, err)
	}
	return line, nil
}

// end ends the programs, once the MTA has delivered everything, and looks at what they
// leave.
func (s *storm) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := s.w.mta.WaitIdle(ctx); err != nil {
		entries, _ := s.w.mta.Queue() // without them the error says less
		return fmt.Errorf("%w\nqueued: %+v", err, entries)
	}
	for _, u := range []*unit{s.w.milter, s.w.first, s.w.second} {
		code, err := u.end(syscall.SIGTERM)
		if err != nil {
			return err
		}
		if code != 0 {
			s.fault("%s ended with code %d on SIGTERM", u.Name, code)
		}
	}
	s.strays()
	return s.checkList(twoServers, s.added)
}

// explain adds to some faults of each sort what the milter logged about their messages.
func (s *storm) explain(faults []fault) {
	log := s.w.milter.LogSince(0)
	seen := make(map[string]int)
	for i, f := range faults {
		if seen[f.sort()]++; f.History == nil || seen[f.sort()] > examples {
			continue
		}
		for line := range bytes.Lines(log) {
			if bytes.Contains(line, []byte(" from="+f.History.From+" ")) || f.mentions(line) {
				faults[i].Log = append(faults[i].Log, strings.TrimSpace(string(line)))
			}
		}
	}
}

// mentions reports whether a line is about one of its attempts.
func (f fault) mentions(line []byte) bool {
	for _, a := range f.History.Attempts {
		if a.QueueID != "" && bytes.Contains(line, []byte("qid="+a.QueueID+" ")) {
			return true
		}
	}
	return false
}
