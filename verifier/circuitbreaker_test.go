package verifier

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

func TestBreaker(t *testing.T) {
	now := time.Unix(1000, 0)
	var b breaker
	fail := func(n int) {
		for range n {
			b.failed(now)
		}
	}
	allowed := func(want bool) {
		t.Helper()
		if _, ok := b.allow(now); ok != want {
			t.Fatalf("allowed: %v", ok)
		}
	}
	fail(breakAfter - 1)
	b.answered() // in a row, it is
	fail(breakAfter - 1)
	allowed(true)
	fail(1)
	allowed(false)
	for _, pause := range []time.Duration{30, 60, 120, 240, 300, 300} {
		now = now.Add(pause*time.Second - 1)
		allowed(false)
		fail(3) // of questions that were out: no longer pause
		now = now.Add(1)
		probe, ok := b.allow(now)
		if !probe || !ok {
			t.Fatalf("after %v: no probe", pause*time.Second)
		}
		allowed(false) // one at a time
		fail(1)
		b.probed()
	}
	now = now.Add(maxPause)
	b.allow(now)
	b.probed() // without result, as when the one who asked left
	if probe, ok := b.allow(now); !probe || !ok {
		t.Fatal("no further probe")
	}
	fail(1)
	b.probed()
	if !b.open(now) {
		t.Error("failed again, and not left alone")
	}
	b.answered() // a question that was out before
	if b.open(now) {
		t.Error("it answered, and is left alone")
	}
	allowed(true)
	now = now.Add(maxPause)
	fail(breakAfter)
	now = now.Add(firstPause)
	allowed(true) // it begins anew
}

// TestLeftAlone: a server that fails is left alone for longer and longer, tried by
// single questions, and back in use when it answers.
func TestLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": nil}}
		v := inBubble(t, oneAS(), n, Options{})
		for range breakAfter {
			check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASRefused)
		}
		for _, pause := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute} {
			before := len(n.dialed)
			check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASLeftAlone)
			time.Sleep(pause - time.Millisecond)
			check(t, v, query(t, "u@b.test", "good"), TempError, ReasonASLeftAlone)
			time.Sleep(time.Millisecond)
			check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASRefused)
			check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASLeftAlone)
			if got := len(n.dialed) - before; got != 1 {
				t.Errorf("%d dials, want one probe", got)
			}
		}
		for _, target := range v.pool.targets {
			if got := target.breaker.pause; got != 4*time.Minute {
				t.Errorf("left alone for %v", got)
			}
		}
		n.mu.Lock()
		n.script["8.8.8.8"] = pipeAS
		n.mu.Unlock()
		time.Sleep(4 * time.Minute)
		check(t, v, query(t, "u@a.test", "good"), Pass, "")
		check(t, v, query(t, "v@a.test", "bad"), Fail, ReasonInvalidKey)
	})
}

// TestAnswersAreNoFailures: a server that says TEMPFAIL or ERROR is not left alone.
func TestAnswersAreNoFailures(t *testing.T) {
	for _, line := range []string{"VERIFY_REPLY %d %s TEMPFAIL\r\n", "ERROR %d busy%.0s\r\n", "ERROR %d syntax%.0s\r\n", "ERROR %d notserved%.0s\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{script: map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					text, err := r.ReadString('\n')
					if err != nil {
						return
					}
					req, _ := wire.ParseRequest(strings.TrimSuffix(text, "\r\n"))
					fmt.Fprintf(c, line, req.Seq, req.Address)
				}
			}}}
			v := inBubble(t, oneAS(), n, Options{})
			for range 3 * breakAfter {
				if r := v.Verify(t.Context(), query(t, "u@a.test", "good")); r.Reason == ReasonASLeftAlone {
					t.Fatalf("%q: left alone", line)
				}
			}
		})
	}
}
