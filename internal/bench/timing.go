package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/wire"
)

const (
	timedQuestions = 100_000 // of two kinds, half each
	timedWarmUp    = 1000
	timedAddresses = 10_000 // of each kind
	// timedOthers are listed for each address that is asked about, so that the list
	// is long and no cache of the processor holds it.
	timedOthers = 50
	// timedBias is how far from a half the AUC may be: who guesses by one time each
	// which of two addresses exists is right in this share of cases.
	timedBias = 0.03
)

// A timedKind is a kind of question that is answered INVALIDKEY, and the times that
// the answers took.
type timedKind struct {
	name      string
	questions []question
	times     []time.Duration
}

// runTiming asks one question after another, and looks whether the times of the
// answers tell which addresses exist.
func runTiming(ctx context.Context, b *bench) error {
	return inWorld(func(w *world) error {
		v, kinds, valid, err := w.addTimed(b.of(timedOthers, 0))
		if err != nil {
			return err
		}
		server, err := w.startServing(ctx, b.server, serverName, v, nil, valid)
		if err != nil {
			return err
		}
		n := b.of(timedQuestions, timedQuestions/10) / 2 * len(kinds)
		if err := server.timeAnswers(ctx, kinds, n); err != nil {
			return err
		}
		b.compareTimes(kinds)
		return nil
	})
}

// addTimed makes a domain and questions about it: the addresses that do not exist
// first, and then two kinds that do. All addresses look alike, and all keys are of the
// server's own, of the same day: that of another address, or of a generation that is
// revoked. For each address that exists the list has this many others, about which there are
// no questions. valid is a question that has another answer.
func (w *world) addTimed(others int) (v *vouched, kinds []*timedKind, valid question, err error) {
	random := func() string { return fmt.Sprintf("u%012x", rand.Uint64N(1<<48)) }
	locals := make([]string, 3*timedAddresses)
	for i := range locals {
		locals[i] = random()
	}
	unknown, known, revoked := locals[:timedAddresses], locals[timedAddresses:2*timedAddresses], locals[2*timedAddresses:]
	v, err = w.addVouched(benchDomain, func(yield func(string) bool) {
		for i := range timedAddresses {
			if !yield(known[i]) || !yield(revoked[i]+" gen=1") {
				return
			}
			for range 2 * others {
				if !yield(random()) {
					return
				}
			}
		}
	})
	if err != nil {
		return nil, nil, question{}, err
	}
	own, err := v.questions(slices.Values(known))
	if err != nil {
		return nil, nil, question{}, err
	}
	ended, err := v.questions(slices.Values(revoked))
	if err != nil {
		return nil, nil, question{}, err
	}
	none, wrong := &timedKind{name: "no such address"}, &timedKind{name: "wrong key"}
	for i := range timedAddresses {
		foreign := own[(i+1)%timedAddresses].key
		none.questions = append(none.questions, question{unknown[i] + "@" + v.name, foreign})
		wrong.questions = append(wrong.questions, question{own[i].address, foreign})
	}
	return v, []*timedKind{none, wrong, {name: "revoked key", questions: ended}}, own[0], nil
}

// timeAnswers asks n questions over one connection, one at a time, each of a kind and
// about an address taken at random. The thread does nothing but write and read, and
// waits in the kernel.
func (c *contender) timeAnswers(ctx context.Context, kinds []*timedKind, n int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	family, address, err := resolve(c.socket)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.Connect(fd, address)); err != nil {
		return fmt.Errorf("connect to %s: %w", c.socket, err)
	}
	answer := make([]byte, wire.MaxLine)
	const firstSeq = 1_000_000_000 // all numbers are of the same length
	for i := range timedWarmUp + n {
		if err := ctx.Err(); err != nil {
			return err
		}
		kind := kinds[rand.IntN(len(kinds))]
		q := kind.questions[rand.IntN(len(kind.questions))]
		line := q.line(firstSeq + uint64(i))
		begun := time.Now()
		if _, err := unix.Write(fd, line); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		size, err := readLine(fd, answer)
		took := time.Since(begun)
		if err != nil {
			return fmt.Errorf("question %d: %w", i, err)
		}
		verdict, err := q.verdict(string(answer[:size]))
		if err == nil && verdict != wire.InvalidKey {
			err = fmt.Errorf("%s is answered %s", kind.name, verdict)
		}
		if err != nil {
			return err
		}
		if i >= timedWarmUp {
			kind.times = append(kind.times, took)
		}
	}
	return nil
}

// readLine reads into b until what it has ends a line.
func readLine(fd int, b []byte) (size int, err error) {
	for size == 0 || b[size-1] != '\n' {
		n, err := unix.Read(fd, b[size:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return size, err
		case n == 0:
			return size, errors.New("no whole line")
		}
		size += n
	}
	return size, nil
}

// compareTimes prints the table of runTiming: each kind against the first.
func (b *bench) compareTimes(kinds []*timedKind) {
	t := newTable("INVALIDKEY for", "questions", "p10, µs", "p50, µs", "p90, µs", "AUC", "chance ±")
	for i, k := range kinds {
		cells := []string{k.name, fmt.Sprint(len(k.times))}
		for _, share := range []float64{0.1, 0.5, 0.9} {
			cells = append(cells, fmt.Sprintf("%.1f", microseconds(quantile(k.times, share))))
		}
		if i == 0 {
			t.add(append(cells, "-", "-")...)
			continue
		}
		t.add(append(cells, fmt.Sprintf("%.4f", auc(kinds[0].times, k.times)), fmt.Sprintf("%.4f", aucChance(len(kinds[0].times), len(k.times))))...)
	}
	t.write(b.out)
	fmt.Fprintln(b.out)
	for _, k := range kinds[1:] {
		b.atMost(fmt.Sprintf("%s against %s, AUC's distance from a half", k.name, kinds[0].name),
			math.Abs(auc(kinds[0].times, k.times)-0.5), timedBias, "")
	}
}

// auc is the area under the ROC curve, from the Mann-Whitney statistic: how likely one
// of b is more than one of a, equals counting half. Neither is empty.
func auc[T cmp.Ordered](a, b []T) float64 {
	type ranked struct {
		value T
		ofB   bool
	}
	all := make([]ranked, 0, len(a)+len(b))
	for _, v := range a {
		all = append(all, ranked{v, false})
	}
	for _, v := range b {
		all = append(all, ranked{v, true})
	}
	slices.SortFunc(all, func(x, y ranked) int { return cmp.Compare(x.value, y.value) })
	ranks := 0.0 // of b, summed up; equals share their mean
	for from := 0; from < len(all); {
		to, ofB := from, 0
		for to < len(all) && all[to].value == all[from].value {
			if all[to].ofB {
				ofB++
			}
			to++
		}
		ranks += float64(ofB) * float64(from+1+to) / 2
		from = to
	}
	n, m := float64(len(a)), float64(len(b))
	return (ranks - m*(m+1)/2) / (n * m)
}

// aucChance is how far from a half the AUC of n and m values without any difference
// strays in one case of twenty.
func aucChance(n, m int) float64 {
	return 1.96 * math.Sqrt(float64(n+m+1)/(12*float64(n)*float64(m)))
}
