package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

const (
	listedAddresses = 1_000_000
	listedPrefix    = "given.family" // of each, so that they are as long as people's
	listedSample    = 1000           // addresses that are asked about
	listedTime      = 3 * time.Second
	listedMemory    = 200 << 20 // octets
)

// runAddresses starts servers with a long list, and waits until they answer.
func runAddresses(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		n := b.of(listedAddresses, listedAddresses/20)
		v, err := w.addVouched(benchDomain, names(listedPrefix, n))
		if err != nil {
			return err
		}
		// The last of the list, so that all of it must have been read.
		last, err := v.question(fmt.Sprintf("%s%07d", listedPrefix, n-1))
		if err != nil {
			return err
		}
		var times []time.Duration
		var resident, peak []int64
		for i := range b.runs {
			begun := time.Now()
			server, err := w.startServing(ctx, b.server, fmt.Sprintf("%s-%d", serverName, i), v, nil, last)
			if err != nil {
				return err
			}
			times = append(times, time.Since(begun))
			if err := server.spotCheck(v, n); err != nil {
				return err
			}
			f, err := footprintOf(server.pid())
			if err != nil {
				return err
			}
			resident, peak = append(resident, f.resident), append(peak, f.peak)
			if err := server.process.Stop(); err != nil {
				return err
			}
		}
		t := newTable("addresses", "start to answer, s", "of all runs", "resident, MiB", "at most, MiB")
		t.add(fmt.Sprint(n), fmt.Sprintf("%.2f", median(times).Seconds()),
			fmt.Sprintf("%.2f to %.2f", slices.Min(times).Seconds(), slices.Max(times).Seconds()),
			mebibytes(median(resident)), mebibytes(slices.Max(peak)))
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atMost("time from the start to an answer", median(times).Seconds(), listedTime.Seconds(), " s")
		b.atMost("resident memory at its worst", float64(slices.Max(peak))/(1<<20), listedMemory>>20, " MiB")
		return nil
	})
}

// spotCheck asks about some of the n addresses of runAddresses, and about as many
// that are none.
func (c *contender) spotCheck(v *vouched, n int) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	for range listedSample {
		i := rand.IntN(n)
		for local, want := range map[string]wire.Verdict{
			fmt.Sprintf("%s%07d", listedPrefix, i):   wire.ValidKey,
			fmt.Sprintf("%s%07d", listedPrefix, i+n): wire.InvalidKey,
		} {
			q, err := v.question(local)
			if err != nil {
				return err
			}
			if verdict, err := q.ask(conn); err != nil || verdict != want {
				return fmt.Errorf("%s: %s, %v; want %s", local, verdict, err, want)
			}
		}
	}
	return nil
}

const (
	openConnections  = 5000
	settleQuestions  = 20_000
	openClearLimit   = 40 << 10 // octets a connection
	openTLSLimit     = 90 << 10
	otherDescriptors = 200 // of either process
)

// runConnections opens connections on each of which one question has been asked, as
// recipients keep them, and looks what they cost.
func runConnections(ctx context.Context, b *bench) error {
	connections := b.of(openConnections, openConnections/5)
	if err := allowFiles(uint64(connections + otherDescriptors)); err != nil {
		return err
	}
	return inWorld(func(w *world) error {
		v, questions, err := w.addAsked()
		if err != nil {
			return err
		}
		cert, err := w.makeCertificate()
		if err != nil {
			return err
		}
		kinds := []struct {
			name  string
			cert  *certificate
			limit int64
			each  []int64
		}{{name: "clear text", limit: openClearLimit}, {name: "TLS", cert: cert, limit: openTLSLimit}}
		t := newTable(fmt.Sprintf("%d connections", connections), "resident before, MiB", "with them, MiB", "KiB/connection", "of all runs")
		for i := range kinds {
			k := &kinds[i]
			var before, after []int64
			for run := range b.runs {
				name := fmt.Sprintf("%s-%d-%d", serverName, i, run)
				server, err := w.startServing(ctx, b.server, name, v, k.cert, questions[0])
				if err != nil {
					return err
				}
				from, to, err := server.idleQuestions(ctx, k.cert, questions, connections)
				if err != nil {
					return err
				}
				if err := server.process.Stop(); err != nil {
					return err
				}
				before, after, k.each = append(before, from), append(after, to), append(k.each, (to-from)/int64(connections))
			}
			t.add(k.name, mebibytes(median(before)), mebibytes(median(after)), kibibytes(median(k.each)),
				kibibytes(slices.Min(k.each))+" to "+kibibytes(slices.Max(k.each)))
		}
		t.write(b.out)
		fmt.Fprintln(b.out)
		for _, k := range kinds {
			b.atMost("memory of an idle connection, "+k.name, float64(median(k.each))/1024, float64(k.limit)/1024, " KiB")
		}
		return nil
	})
}

// idleQuestions is idle for a server and connections that have had one question each.
func (c *contender) idleQuestions(ctx context.Context, cert *certificate, questions []question, connections int) (before, after int64, err error) {
	dial := func() (net.Conn, error) { return c.dialServer(cert) }
	script := validExchanges(questions)
	return c.idle(connections, func() error {
		_, _, err := pipeline(ctx, dial, script, 0, settleQuestions)
		return err
	}, func() (net.Conn, error) {
		conn, err := dial()
		if err != nil {
			return nil, err
		}
		verdict, err := questions[0].ask(conn)
		if err == nil && verdict != wire.ValidKey {
			err = fmt.Errorf("a valid key is answered %s", verdict)
		}
		return conn, err
	})
}

// allowFiles makes sure that this process may have n descriptors, and those that it
// starts.
func allowFiles(n uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		return fmt.Errorf("limit of descriptors: %w", err)
	}
	if now.Cur >= n {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(n, now.Max)}); err != nil {
		return fmt.Errorf("%d descriptors are needed, %d allowed: %w", n, now.Max, err)
	}
	return nil
}
