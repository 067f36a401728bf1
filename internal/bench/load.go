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

// A sample is what one run of one contender showed.
type sample struct {
	rate   float64 // messages a second
	cpu    float64 // of the filter, µs a message
	client float64 // of the client, µs a message
}

// measureRun plays a load to a filter and measures both.
func measureRun(ctx context.Context, c *contender, l load) (sample, outcome, error) {
	l.socket = c.socket
	before, err := cpuTime(c.pid())
	if err != nil {
		return sample{}, outcome{}, err
	}
	ownBefore, err := ownCPUTime()
	if err != nil {
		return sample{}, outcome{}, err
	}
	o, err := l.run(ctx)
	if err != nil {
		return sample{}, o, fmt.Errorf("%s: %w", c.name, err)
	}
	ownAfter, err := ownCPUTime()
	if err != nil {
		return sample{}, o, err
	}
	after, err := cpuTime(c.pid())
	if err != nil {
		return sample{}, o, err
	}
	answered := o.answered()
	if answered == 0 {
		return sample{}, o, fmt.Errorf("%s: no message was answered", c.name)
	}
	n := float64(answered)
	return sample{
		rate:   o.rate(),
		cpu:    microseconds(after-before) / n,
		client: microseconds(ownAfter-ownBefore) / n,
	}, o, c.forgetLog()
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

// interleave measures each of the figures b.runs times, in turns. Before it every
// filter gets a second to warm up in.
func (b *bench) interleave(ctx context.Context, figures []*figure) error {
	for i := -1; i < b.runs; i++ {
		for _, f := range figures {
			l := f.load
			l.duration = b.duration
			if i < 0 {
				l.duration = min(time.Second, b.duration)
			}
			s, o, err := measureRun(ctx, f.contender, l)
			if err != nil {
				return err
			}
			f.load.first += o.begun // no address twice
			if err := f.verify(o); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			if i >= 0 {
				f.samples = append(f.samples, s)
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
	return inWorld(func(w *world) error {
		d, err := w.addDomain(benchDomain)
		if err != nil {
			return err
		}
		l := load{connections: usualConnections, next: same(d.message(), 0)}
		milter, err := w.startMilter(ctx, b.binary, milterName, "unix", "")
		if err != nil {
			return err
		}
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
	return inWorld(func(w *world) error {
		d, err := w.addDomain(benchDomain)
		if err != nil {
			return err
		}
		milter, err := w.startMilter(ctx, b.binary, milterName, "unix", "")
		if err != nil {
			return err
		}
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
