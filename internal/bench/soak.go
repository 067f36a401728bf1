package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/authkey/authkey/internal/testdns"
)

const (
	soakMessages    = 1_000_000
	soakFaultShare  = 20 // one message in so many has each of the faults
	soakConnections = 32
	soakSamples     = 50
	soakWarmUp      = 0.3 // of the samples
	// soakGrowth is how much more memory the process may have at the end than
	// after warming up, and soakSpare how many more threads and descriptors.
	soakGrowth = 1.05
	soakSpare  = 8
)

// runSoak plays a million messages, half of them with a fault, and looks whether
// anything of the process grows.
func runSoak(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		faults, valid, err := w.soakMessages()
		if err != nil {
			return err
		}
		// A cache that fills up while warming up, so that it does not count as growth.
		milter, err := w.startMilter(ctx, b.binary, milterName, "unix", "cache: {entries: 10000}\n")
		if err != nil {
			return err
		}
		total := b.of(soakMessages, soakMessages/50)
		share := total / soakSamples
		random := rand.New(rand.NewPCG(1, 2))
		var prints []footprint
		answers := map[byte]int{}
		begun := time.Now()
		for sample := range soakSamples {
			o, err := load{
				socket: milter.socket, connections: soakConnections, first: sample * share,
				next: func(n int) *message {
					if n >= share {
						return nil
					}
					if i := random.IntN(soakFaultShare); i < len(faults) {
						return faults[i].message
					}
					return valid
				},
			}.run(ctx)
			if err != nil {
				return err
			}
			for code, n := range o.answers {
				answers[code] += n
			}
			f, err := footprintOf(milter.pid())
			if err != nil {
				return err
			}
			prints = append(prints, f)
			if err := milter.forgetLog(); err != nil {
				return err
			}
		}
		b.soakReport(faults, prints, total, time.Since(begun), answers)
		return nil
	})
}

// soakReport prints what the process occupied over time, and compares the end with
// the time after warming up.
func (b *bench) soakReport(faults []fault, prints []footprint, total int, took time.Duration, answers map[byte]int) {
	fmt.Fprintf(b.out, "%d messages in %.0f s, answers:", total, took.Seconds())
	for _, code := range []byte("acrty") {
		if answers[code] > 0 {
			fmt.Fprintf(b.out, " %c %d", code, answers[code])
		}
	}
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	fmt.Fprintf(b.out, ".\n%d %% each: %s.\n\n", 100/soakFaultShare, strings.Join(names, ", "))
	t := newTable("after", "resident, MiB", "threads", "descriptors")
	for i := soakSamples / 10; i <= soakSamples; i += soakSamples / 10 {
		f := prints[i-1]
		t.add(fmt.Sprintf("%d messages", total/soakSamples*i), mebibytes(f.resident), fmt.Sprint(f.threads), fmt.Sprint(f.files))
	}
	t.write(b.out)
	fmt.Fprintln(b.out)

	tenth := soakSamples / 10
	warm := int(soakWarmUp * soakSamples)
	of := func(part []footprint, what func(footprint) int64) float64 {
		var list []int64
		for _, f := range part {
			list = append(list, what(f))
		}
		return float64(median(list))
	}
	early, late := prints[warm:warm+2*tenth], prints[len(prints)-2*tenth:]
	resident := func(f footprint) int64 { return f.resident }
	threads := func(f footprint) int64 { return f.threads }
	files := func(f footprint) int64 { return int64(f.files) }
	b.atMost("memory at the end, of that after warming up", of(late, resident)/of(early, resident), soakGrowth, "")
	b.atMost("threads more", of(late, threads)-of(early, threads), soakSpare, "")
	b.atMost("descriptors more", of(late, files)-of(early, files), soakSpare, "")
}

// A fault is something that goes wrong with a message.
type fault struct {
	name    string
	message *message
}

// soakMessages makes the domains that the soak needs, and its messages: those that
// go wrong, and those that do not.
func (w *world) soakMessages() (faults []fault, valid *message, err error) {
	d, err := w.addDomain(benchDomain)
	if err != nil {
		return nil, nil, err
	}
	if err := w.addSilent("silent.test"); err != nil {
		return nil, nil, err
	}
	if err := w.addRefusing("refusing.test"); err != nil {
		return nil, nil, err
	}
	if err := w.Publish("malformed.test", "AS=somewhere; tls=perhaps"); err != nil {
		return nil, nil, err
	}
	w.DNS.Behave("lame.test", testdns.Rcode(dns.RcodeServerFailure))
	valid = d.messages()
	of := func(name string) *message {
		return &message{sender: "user+" + numberMark + "@" + name, key: d.key}
	}
	broken := func(e ending) *message {
		m := d.messages()
		m.ending = e
		return m
	}
	return []fault{
		{"wrong key", &message{sender: valid.sender, key: "WRONG" + numberMark}},
		{"no key", &message{sender: valid.sender}},
		{"domain without AS", of("none.test")},
		{"malformed record", of("malformed.test")},
		{"DNS fails", of("lame.test")},
		{"AS refuses connections", of("refusing.test")},
		{"AS never answers", of("silent.test")},
		{"MTA gives the message up", broken(aborted)},
		{"MTA drops the connection", broken(dropped)},
		{"malformed frame", broken(malformed)},
	}, valid, nil
}
