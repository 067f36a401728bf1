package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/testmta"
)

const (
	postfixMessages = 2000
	postfixSessions = 10
	// tcpTimes the unix socket's time is what TCP may take.
	tcpTimes = 1.3
)

// A relay is a listener of the Postfix under load.
type relay struct {
	about  string
	filter *contender // nil: none
	milter string     // value of smtpd_milters
	times  []float64  // seconds for postfixMessages
	cpu    []float64  // of the filter, µs a message
}

// runPostfix sends mail through a Postfix that discards it, and measures how much time the
// filters add.
func runPostfix(ctx context.Context, b *bench) error {
	if err := testmta.EnsurePostfix(ctx, b.logf); err != nil {
		return err
	}
	source, err := lookPath("smtp-source")
	if err != nil {
		return err
	}
	return inWorld(func(w *world) error {
		d, err := w.addDomain(benchDomain)
		if err != nil {
			return err
		}
		relays, err := w.startRelays(ctx, b)
		if err != nil {
			return err
		}
		var listeners []testmta.Listener
		for i, r := range relays {
			listeners = append(listeners, testmta.Listener{Name: relayName(i), Options: []string{"smtpd_milters=" + r.milter}})
		}
		postfix, err := testmta.StartPostfix(ctx, testmta.PostfixOptions{Discard: true, Listeners: listeners})
		if err != nil {
			return err
		}
		w.OnClose(postfix.Stop)
		mail := filepath.Join(w.Dir, "mail")
		if err := os.WriteFile(mail, []byte(d.message().text()), 0o644); err != nil {
			return err
		}
		messages := b.of(postfixMessages, postfixMessages/10)
		for i := -1; i < b.runs; i++ {
			for j, r := range relays {
				err := r.send(ctx, i >= 0, messages, source, "-s", strconv.Itoa(postfixSessions), "-m", strconv.Itoa(messages),
					"-f", d.message().sender, "-t", "bob@rcpt.test", "-F", mail, postfix.Listener(relayName(j)))
				if err != nil {
					return err
				}
			}
		}
		t := newTable("filter", fmt.Sprintf("%d messages, s", messages), "its CPU µs/message")
		for _, r := range relays {
			cpu := "-"
			if r.filter != nil {
				cpu = fmt.Sprintf("%.0f", median(r.cpu))
			}
			t.add(r.about, fmt.Sprintf("%.2f", median(r.times)), cpu)
		}
		t.write(b.out)
		fmt.Fprintln(b.out)
		b.atMost("time over TCP, times that over the unix socket", median(relays[2].times)/median(relays[1].times), tcpTimes, "")
		return nil
	})
}

func relayName(i int) string { return fmt.Sprintf("relay%d", i) }

// startRelays starts the filters: none, ours over both kinds of socket, OpenDKIM.
func (w *world) startRelays(ctx context.Context, b *bench) ([]*relay, error) {
	local, err := w.startMilter(ctx, b.binary, "local", "unix", "")
	if err != nil {
		return nil, err
	}
	remote, err := w.startMilter(ctx, b.binary, "remote", "tcp", "")
	if err != nil {
		return nil, err
	}
	dkim, err := w.startOpenDKIM(ctx, b.logf)
	if err != nil {
		return nil, err
	}
	return []*relay{
		{about: "none"},
		{about: milterName + ", unix", filter: local, milter: "unix:" + local.socket},
		{about: milterName + ", TCP", filter: remote, milter: "inet:" + remote.socket},
		{about: "OpenDKIM, unix", filter: dkim, milter: "unix:" + dkim.socket},
	}, nil
}

// send runs smtp-source(1), and keeps the figures unless this is for warming up.
func (r *relay) send(ctx context.Context, keep bool, messages int, source string, args ...string) error {
	var before, after time.Duration
	var err error
	if r.filter != nil {
		if before, err = cpuTime(r.filter.pid()); err != nil {
			return err
		}
	}
	begun := time.Now()
	if out, err := exec.CommandContext(ctx, source, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: smtp-source: %w: %s", r.about, err, out)
	}
	took := time.Since(begun)
	if r.filter != nil {
		if after, err = cpuTime(r.filter.pid()); err != nil {
			return err
		}
		if after == before && keep {
			return fmt.Errorf("%s: the filter had nothing to do", r.about)
		}
	}
	if keep {
		r.times = append(r.times, took.Seconds())
		r.cpu = append(r.cpu, microseconds(after-before)/float64(messages))
	}
	return nil
}

// text is a message as SMTP carries it, with LF.
func (m *message) text() string {
	var b strings.Builder
	for _, c := range m.commands() {
		switch c.code {
		case 'L':
			b.WriteString(c.name + ": " + c.value + "\n")
		case 'B':
			b.WriteString("\n" + strings.ReplaceAll(c.data, "\r\n", "\n") + "\n")
		}
	}
	return b.String()
}
