package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/wire"
)

const (
	// echoShare of the echo's rate is what verifying may leave.
	echoShare = 1.0 / 15
	// rateAim is what a server should answer, in questions a second.
	rateAim = 300_000

	pipelines     = 8
	askedAbout    = 10_000 // addresses, all of them in the list
	halfPipeline  = 128    // questions written at once; twice as many are outstanding
	pipelineReads = 16 << 10
)

// runServer has a server verify keys, and an echo return the same lines.
func runServer(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		v, questions, err := w.addAsked()
		if err != nil {
			return err
		}
		server, err := w.startServing(ctx, b.server, serverName, v, nil, questions[0])
		if err != nil {
			return err
		}
		port, err := testdaemon.FreePort()
		if err != nil {
			return err
		}
		echo, err := w.startHelper(ctx, "bare echo (Go)", echoName, loopbackAt(port))
		if err != nil {
			return err
		}
		contenders := []*contender{server, echo}
		scripts := [][]exchange{validExchanges(questions), echoExchanges(questions)}
		samples := make([][]sample, len(contenders))
		err = b.turns(len(contenders), func(i int, d time.Duration, counts bool) error {
			s, err := contenders[i].measure(func() (int, time.Duration, error) {
				return pipeline(ctx, contenders[i].dial, scripts[i], d, 0)
			})
			if counts {
				samples[i] = append(samples[i], s)
			}
			return err
		})
		if err != nil {
			return err
		}
		b.compareEcho(contenders, samples)
		return nil
	})
}

// addAsked makes a domain, and questions about all of its addresses.
func (w *world) addAsked() (*vouched, []question, error) {
	v, err := w.addVouched(benchDomain, names("user", askedAbout))
	if err != nil {
		return nil, nil, err
	}
	questions, err := v.questions(names("user", askedAbout))
	return v, questions, err
}

// compareEcho prints the table of runServer, the server first, then the echo.
func (b *bench) compareEcho(contenders []*contender, samples [][]sample) {
	server, echo := medians(samples[0]), medians(samples[1])
	t := newTable("server", "questions/s", "of the echo's", "CPU µs/question", "× echo", "client µs")
	for i, c := range contenders {
		m := medians(samples[i])
		t.add(c.name, fmt.Sprintf("%.0f", m.rate), fmt.Sprintf("%.3f", m.rate/echo.rate),
			fmt.Sprintf("%.2f", m.cpu), fmt.Sprintf("%.1f", m.cpu/echo.cpu), fmt.Sprintf("%.2f", m.client))
	}
	t.write(b.out)
	fmt.Fprintln(b.out)
	b.atLeast("questions a second, share of the echo's lines", server.rate/echo.rate, echoShare, "")
	var ratios []float64
	for i, s := range samples[0] {
		ratios = append(ratios, s.rate/samples[1][i].rate)
	}
	fmt.Fprintf(b.out, "  (run by run %.3f to %.3f; the aim for the rate by itself is %d)\n", slices.Min(ratios), slices.Max(ratios), rateAim)
}

// An exchange is a question and how its answer begins, both with a sequence number
// between head and tail.
type exchange struct{ ask, want pattern }

type pattern struct{ head, tail []byte }

func (p pattern) append(dst []byte, seq uint64) []byte {
	dst = append(dst, p.head...)
	dst = strconv.AppendUint(dst, seq, 10)
	return append(dst, p.tail...)
}

// validExchanges are with a server that finds every key valid.
func validExchanges(questions []question) []exchange {
	var list []exchange
	for _, q := range questions {
		list = append(list, exchange{q.pattern(), pattern{[]byte("VERIFY_REPLY "), []byte(" " + q.address + " " + string(wire.ValidKey) + " ")}})
	}
	return list
}

// echoExchanges are with one that says every line again.
func echoExchanges(questions []question) []exchange {
	var list []exchange
	for _, q := range questions {
		list = append(list, exchange{q.pattern(), q.pattern()})
	}
	return list
}

// pattern is the question's line.
func (q question) pattern() pattern {
	const seq = 1
	head := []byte("VERIFY ")
	line := q.line(seq)
	return pattern{head, line[len(head)+1:]}
}

// pipeline asks over several connections at a time, on each of which up to two times
// halfPipeline questions are outstanding, and checks every answer. It ends after d,
// or, unless that is 0, after most questions.
func pipeline(ctx context.Context, dial func() (net.Conn, error), script []exchange, d time.Duration, most int) (answered int, took time.Duration, err error) {
	group, ctx := errgroup.WithContext(ctx)
	counts := make([]int, pipelines)
	begun := time.Now()
	for i := range counts {
		group.Go(func() error {
			conn, err := dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := conn.SetDeadline(begun.Add(d + patience)); err != nil {
				return err
			}
			// Each begins elsewhere in the script, at a number of its own.
			a := &asker{conn: conn, in: bufio.NewReaderSize(conn, pipelineReads), script: script, first: i * len(script) / pipelines, base: rand.Uint64N(1<<40) + 1<<40}
			counts[i], err = a.run(func(asked int) bool {
				return d > 0 && time.Since(begun) >= d || most > 0 && asked*pipelines >= most
			})
			return errors.Join(context.Cause(ctx), err)
		})
	}
	err = group.Wait()
	took = time.Since(begun)
	for _, n := range counts {
		answered += n
	}
	return answered, took, err
}

// An asker asks over one connection. A server may answer in any order; ours, and an
// echo, answer in that of the questions, and the asker insists on it.
type asker struct {
	conn   net.Conn
	in     *bufio.Reader
	script []exchange
	first  int    // in script
	base   uint64 // the first sequence number

	asked, answered int
	out, want       []byte
}

func (a *asker) at(n int) (exchange, uint64) {
	return a.script[(a.first+n)%len(a.script)], a.base + uint64(n)
}

// run asks until over says so, and returns when all is answered.
func (a *asker) run(over func(asked int) bool) (answered int, err error) {
	if err := a.write(); err != nil {
		return 0, err
	}
	for !over(a.asked) {
		if err := a.write(); err != nil {
			return 0, err
		}
		if err := a.read(); err != nil {
			return 0, err
		}
	}
	if err := a.read(); err != nil {
		return 0, err
	}
	return a.answered, nil
}

func (a *asker) write() error {
	a.out = a.out[:0]
	for range halfPipeline {
		x, seq := a.at(a.asked)
		a.out = x.ask.append(a.out, seq)
		a.asked++
	}
	_, err := a.conn.Write(a.out)
	return err
}

func (a *asker) read() error {
	for range halfPipeline {
		line, err := a.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("answer %d: %w", a.answered+1, err)
		}
		x, seq := a.at(a.answered)
		a.want = x.want.append(a.want[:0], seq)
		if !bytes.HasPrefix(line, a.want) {
			return fmt.Errorf("answer %d is not %s…", a.answered+1, x.want.head)
		}
		a.answered++
	}
	return nil
}
