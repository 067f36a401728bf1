package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

const (
	idleConnections = 1000
	// settleMessages bring a filter's memory to where it stays: the garbage of a
	// collector is part of what a connection costs.
	settleMessages = 20_000
	idleLimit      = 24 << 10 // octets a connection

	cachedAddresses = 1_000_000
	memoryLimit     = 400e6 // octets
)

// runIdle opens connections on each of which one message has passed, as an MTA
// keeps them, and looks what they cost.
func runIdle(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		d, err := w.addDomain(benchDomain)
		if err != nil {
			return err
		}
		// Where the collector happens to be makes some KiB of difference: each run
		// is a process of its own.
		var before, after, each []int64
		for i := range b.runs {
			milter, err := w.startMilter(ctx, b.binary, fmt.Sprintf("%s-%d", milterName, i), "unix", "")
			if err != nil {
				return err
			}
			from, to, err := milter.idleMessages(ctx, d.message(), idleConnections)
			if err != nil {
				return err
			}
			before, after, each = append(before, from), append(after, to), append(each, (to-from)/idleConnections)
		}
		libmilter, err := w.startLibmilter(ctx, b.logf)
		if err != nil {
			return err
		}
		from, to, err := libmilter.idleMessages(ctx, d.message(), idleConnections)
		if err != nil {
			return err
		}
		t := newTable("filter", "resident before, MiB", "with them, MiB", "KiB/connection", "of all runs")
		t.add(milterName, mebibytes(median(before)), mebibytes(median(after)), kibibytes(median(each)),
			kibibytes(slices.Min(each))+" to "+kibibytes(slices.Max(each)))
		t.add(libmilter.name, mebibytes(from), mebibytes(to), kibibytes((to-from)/idleConnections), "one run")
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atMost("memory of an idle connection", float64(median(each))/1024, idleLimit/1024, " KiB")
		return nil
	})
}

func kibibytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1024) }

func mebibytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }

// idleMessages is idle for a filter and connections that have had one message each.
func (c *contender) idleMessages(ctx context.Context, m *message, connections int) (before, after int64, err error) {
	return c.idle(connections, func() error {
		_, err := load{socket: c.socket, connections: usualConnections, next: same(m, settleMessages)}.run(ctx)
		return err
	}, func() (net.Conn, error) {
		conn, err := c.dial()
		if err != nil {
			return nil, err
		}
		_, err = converse(conn, m)
		return conn, err
	})
}

// idle measures the resident memory of a contender before and while so many
// connections are open, each made and used once by open, which may return one with
// an error; both times after settle, traffic on others.
func (c *contender) idle(connections int, settle func() error, open func() (net.Conn, error)) (before, after int64, err error) {
	settled := func() (footprint, error) {
		if err := settle(); err != nil {
			return footprint{}, err
		}
		return footprintOf(c.pid())
	}
	from, err := settled()
	if err != nil {
		return 0, 0, err
	}
	var idle []net.Conn
	defer func() {
		for _, conn := range idle {
			conn.Close()
		}
	}()
	for range connections {
		conn, err := open()
		if conn != nil {
			idle = append(idle, conn)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	to, err := settled()
	if err == nil && to.files < connections {
		err = fmt.Errorf("%s has %d descriptors: not all of %d connections are open", c.name, to.files, connections)
	}
	return from.resident, to.resident, err
}

// converse negotiates on a new connection, plays one message, and returns the answer.
func converse(conn net.Conn, m *message) (answer byte, err error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(offer()); err != nil {
		return 0, err
	}
	code, data, err := readFrame(conn)
	if err != nil {
		return 0, err
	}
	if code != 'O' {
		return 0, fmt.Errorf("the filter replies %c to the negotiation", code)
	}
	t, err := parseTerms(data)
	if err != nil {
		return 0, err
	}
	for _, s := range t.compile(m, true) {
		if _, err := conn.Write(s.send); err != nil {
			return 0, err
		}
		for s.wait {
			code, _, err := readFrame(conn)
			switch {
			case err != nil:
				return 0, err
			case s.end && isAnswer(code):
				return code, nil
			case !s.end && code != 'p':
				s.wait = false
			}
		}
	}
	return 0, errors.New("the message has no end")
}

// readFrame reads one frame of a filter.
func readFrame(r io.Reader) (code byte, data []byte, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size, code, err := parseHead(head[:], readSize)
	if err != nil {
		return 0, nil, err
	}
	data = make([]byte, size-len(head))
	_, err = io.ReadFull(r, data)
	return code, data, err
}

// runMemory has the milter remember as many addresses as it is made for.
func runMemory(ctx context.Context, b *bench) error {
	return b.withMilter(ctx, func(_ *world, d *domain, milter *contender) error {
		n := b.of(cachedAddresses, cachedAddresses/20)
		begun := time.Now()
		o, err := load{socket: milter.socket, connections: usualConnections, next: same(d.messages(), n)}.run(ctx)
		if err != nil {
			return err
		}
		if o.answers['a'] != n {
			return fmt.Errorf("%d messages, answers %v", n, o.answers)
		}
		took := time.Since(begun)
		f, err := footprintOf(milter.pid())
		if err != nil {
			return err
		}
		asked := d.asked()
		// They are remembered: a sample of them is not asked about again.
		again := n / 100
		if _, err := (load{socket: milter.socket, connections: usualConnections, next: same(d.messages(), again)}).run(ctx); err != nil {
			return err
		}
		if more := d.asked() - asked; more > 0 {
			return fmt.Errorf("of %d addresses %d were not remembered", again, more)
		}
		t := newTable("addresses", "resident, MB", "at most, MB", "filled in, s")
		t.add(fmt.Sprint(n), fmt.Sprintf("%.0f", float64(f.resident)/1e6), fmt.Sprintf("%.0f", float64(f.peak)/1e6), fmt.Sprintf("%.0f", took.Seconds()))
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atMost("resident memory at its worst", float64(f.peak)/1e6, memoryLimit/1e6, " MB")
		return nil
	})
}

// The flood: a cache with room for others, all of them known and asked for, and a
// domain that sends ten times as many valid keys as there is room for.
const (
	floodEntries = 20_000
	floodOthers  = 10_000
	floodShare   = 9 // messages of the flood for one of the others
	floodKept    = 0.9
)

func runFlood(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		others, err := w.addDomain("others.test")
		if err != nil {
			return err
		}
		flood, err := w.addDomain("flood.test")
		if err != nil {
			return err
		}
		milter, err := w.startMilter(ctx, b.binary, milterName, "unix", fmt.Sprintf("cache: {entries: %d}\n", floodEntries))
		if err != nil {
			return err
		}
		// hits plays a load in which so many messages are from the others, and
		// returns the share of them that were not asked about.
		hits := func(l load, of int) (float64, error) {
			l.socket, l.connections = milter.socket, usualConnections
			before := others.asked()
			_, err := l.run(ctx)
			return 1 - float64(others.asked()-before)/float64(of), err
		}
		one, other := others.messages(), flood.messages()
		if _, err := hits(load{next: same(one, floodOthers)}, floodOthers); err != nil {
			return err
		}
		before, err := hits(load{next: same(one, floodOthers)}, floodOthers)
		if err != nil {
			return err
		}
		// Every tenth message is from one of the others, in turns.
		total := floodOthers * (floodShare + 1) * b.of(2, 1)
		mixed := load{next: func(n int) *message {
			switch {
			case n >= total:
				return nil
			case n%(floodShare+1) == 0:
				return one
			}
			return other
		}, numbered: func(n int) int {
			if n%(floodShare+1) == 0 {
				return n / (floodShare + 1) % floodOthers
			}
			return n
		}}
		during, err := hits(mixed, total/(floodShare+1))
		if err != nil {
			return err
		}
		after, err := hits(load{next: same(one, floodOthers)}, floodOthers)
		if err != nil {
			return err
		}
		t := newTable("others' hits", "before", "during the flood", "after")
		t.add(fmt.Sprintf("%d addresses, %d of the flood, room for %d", floodOthers, flood.asked(), floodEntries),
			percent(before), percent(during), percent(after))
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atLeast("the others' hits during and after the flood, of those before it", min(during, after)/before, floodKept, "")
		return nil
	})
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
