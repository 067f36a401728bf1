package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Targets of the main comparison.
const (
	timesOpenDKIMRate = 12.0
	timesOpenDKIMCPU  = 1.0 / 14
	timesReaderCPU    = 2.5
)

// A sample is what one run of one contender showed, by messages or questions.
type sample struct {
	rate   float64 // a second
	cpu    float64 // of the contender, µs each
	client float64 // of the client, µs each
}

// measure measures the contender and its client while play plays, which returns
// how much was answered in how much time.
func (c *contender) measure(play func() (answered int, took time.Duration, err error)) (sample, error) {
	before, err := cpuTime(c.pid())
	if err != nil {
		return sample{}, err
	}
	ownBefore, err := ownCPUTime()
	if err != nil {
		return sample{}, err
	}
	answered, took, err := play()
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", c.name, err)
	}
	ownAfter, err := ownCPUTime()
	if err != nil {
		return sample{}, err
	}
	after, err := cpuTime(c.pid())
	if err != nil {
		return sample{}, err
	}
	if answered == 0 {
		return sample{}, fmt.Errorf("%s: nothing was answered", c.name)
	}
	n := float64(answered)
	return sample{
		rate:   n / took.Seconds(),
		cpu:    microseconds(after-before) / n,
		client: microseconds(ownAfter-ownBefore) / n,
	}, c.forgetLog()
}

// medians are those of each figure by itself.
func medians(samples []sample) sample {
	var rates, cpus, clients []float64
	for _, s := range samples {
		rates, cpus, clients = append(rates, s.rate), append(cpus, s.cpu), append(clients, s.client)
	}
	return sample{median(rates), median(cpus), median(clients)}
}

// A figure is what somebody is measured with, in runs that take turns.
type figure struct {
	*contender
	load    load
	check   func(outcome) error // nil: an acceptance for each message
	samples []sample
}

// interleave measures each of the figures b.runs times, in turns.
func (b *bench) interleave(ctx context.Context, figures []*figure) error {
	return b.turns(len(figures), func(i int, d time.Duration, counts bool) error {
		f := figures[i]
		l := f.load
		l.socket, l.duration = f.socket, d
		var o outcome
		s, err := f.measure(func() (int, time.Duration, error) {
			var err error
			o, err = l.run(ctx)
			return o.answered(), o.elapsed, err
		})
		if err != nil {
			return err
		}
		f.load.first += o.begun // no address twice
		if err := f.verify(o); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if counts {
			f.samples = append(f.samples, s)
		}
		return nil
	})
}

// turns has n contenders take turns, b.runs times. Before that each gets a second to
// warm up in, which does not count.
func (b *bench) turns(n int, run func(i int, d time.Duration, counts bool) error) error {
	for round := -1; round < b.runs; round++ {
		d := b.duration
		if round < 0 {
			d = min(time.Second, d)
		}
		for i := range n {
			if err := run(i, d, round >= 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *figure) verify(o outcome) error {
	if accepted := o.answers['a'] + o.answers['c']; accepted != o.begun {
		return fmt.Errorf("%d messages, %d accepted: %v", o.begun, accepted, o.answers)
	}
	if f.check == nil {
		return nil
	}
	return f.check(o)
}

// changed checks that each message lost a field and got one.
func changed(o outcome) error {
	if o.changes['m'] != o.begun || o.changes['i'] != o.begun || len(o.changes) != 2 {
		return fmt.Errorf("%d messages, changes %v: want one deletion and one insertion each", o.begun, o.changes)
	}
	return nil
}

func runLoad(ctx context.Context, b *bench) error {
	return b.withMilter(ctx, func(w *world, d *domain, milter *contender) error {
		l := load{connections: usualConnections, next: same(d.message(), 0)}
		dkim, err := w.startOpenDKIM(ctx, b.logf)
		if err != nil {
			return err
		}
		libmilter, err := w.startLibmilter(ctx, b.logf)
		if err != nil {
			return err
		}
		reader, err := w.startReader(ctx)
		if err != nil {
			return err
		}
		figures := []*figure{
			{contender: milter, load: l, check: changed},
			{contender: dkim, load: l},
			{contender: libmilter, load: l, check: changed},
			{contender: reader, load: l, check: changed},
		}
		if err := b.interleave(ctx, figures); err != nil {
			return err
		}
		if asked := d.asked(); asked == 0 || asked > usualConnections {
			return fmt.Errorf("the AS was asked %d times about one address: not the cached path", asked)
		}
		b.compare(figures)
		return nil
	})
}

// compare prints the table of runLoad, ours first, then OpenDKIM, the bare reader last.
func (b *bench) compare(figures []*figure) {
	ours, dkim, reader := medians(figures[0].samples), medians(figures[1].samples), medians(figures[len(figures)-1].samples)
	t := newTable("filter", "messages/s", "× OpenDKIM", "CPU µs/message", "OpenDKIM ÷", "× reader", "client µs")
	for _, f := range figures {
		m := medians(f.samples)
		t.add(f.name, fmt.Sprintf("%.0f", m.rate), fmt.Sprintf("%.2f", m.rate/dkim.rate),
			fmt.Sprintf("%.1f", m.cpu), fmt.Sprintf("%.2f", dkim.cpu/m.cpu), fmt.Sprintf("%.2f", m.cpu/reader.cpu),
			fmt.Sprintf("%.1f", m.client))
	}
	t.write(b.out)
	fmt.Fprintln(b.out)
	b.atLeast("messages a second, times OpenDKIM's", ours.rate/dkim.rate, timesOpenDKIMRate, "")
	b.atMost("CPU a message, times OpenDKIM's", ours.cpu/dkim.cpu, timesOpenDKIMCPU, "")
	b.atMost("CPU a message, times the bare reader's", ours.cpu/reader.cpu, timesReaderCPU, "")
	var ratios []float64
	for i, s := range figures[0].samples {
		ratios = append(ratios, s.cpu/figures[len(figures)-1].samples[i].cpu)
	}
	fmt.Fprintf(b.out, "  (run by run %.2f to %.2f)\n", slices.Min(ratios), slices.Max(ratios))
}

// uncachedShare of the cached rate is what asking an AS for every message may leave.
const uncachedShare = 1.0 / 3

func runUncached(ctx context.Context, b *bench) error {
	return b.withMilter(ctx, func(_ *world, d *domain, milter *contender) error {
		figures := []*figure{
			{contender: milter, check: changed, load: load{connections: usualConnections, next: same(d.message(), 0)}},
			{contender: milter, check: changed, load: load{connections: usualConnections, next: same(d.messages(), 0)}},
		}
		if err := b.interleave(ctx, figures); err != nil {
			return err
		}
		if asked, sent := d.asked(), figures[1].load.first; asked < sent {
			return fmt.Errorf("the AS was asked %d times for %d messages: not the uncached path", asked, sent)
		}
		t := newTable("", "messages/s", "CPU µs/message", "client and AS µs")
		for i, name := range []string{"cached", "every message asked"} {
			m := medians(figures[i].samples)
			t.add(name, fmt.Sprintf("%.0f", m.rate), fmt.Sprintf("%.1f", m.cpu), fmt.Sprintf("%.1f", m.client))
		}
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atLeast("rate, share of the cached rate", medians(figures[1].samples).rate/medians(figures[0].samples).rate, uncachedShare, "")
		return nil
	})
}
