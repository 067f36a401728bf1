package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// What a server may need at its worst, and for how long recipients wait for its answer
// unless they are told otherwise.
const (
	attackedMemory = 200 << 20
	attackedWait   = 5 * time.Second
)

// unlimited is the configuration of a server under attack: the honest client asks more
// than one client may, and nobody is too slow because the machine is.
const unlimited = "limits: {per_client: 1000000/1s, idle_timeout: 10m}\n"

// TestServerUnderAttack: clients that take every connection and send half a line, that
// send lines without end, or that ask and never read cost the server a bounded amount
// of memory, and nobody else an answer. How long the answers take is held against those
// of a server on the same machine that nobody attacks.
func TestServerUnderAttack(t *testing.T) {
	w := newWorld(t)
	s := newServer(t, w, buildServer(t), withAS) // without the race detector's memory
	s.configure(unlimited)
	s.start()
	spared := newServer(t, w, buildServer(t), withAS)
	spared.start()
	honest := &honestClient{s: s, key: mustKey(t, w, "alice@"+withAS)}
	control := &honestClient{s: spared, key: honest.key}
	defer control.close()
	honest.connect(t)
	honest.check(t)
	before := s.settled()

	// Together 10 000, the default of limits.connections.
	crowd := &crowd{s: s}
	t.Cleanup(crowd.close)
	crowd.gather(10_000 - 1)
	if n := crowd.turnedAway(50); n != 50 {
		t.Errorf("of 50 connections more than there may be, %d are refused", n)
	}
	for range 50 {
		honest.connect(t)
		honest.check(t)
	}
	crowd.trickle()
	honest.check(t)
	t.Logf("10000 half lines: %d MB at most", s.peak()>>20)

	// Who is attacked shortens the time.
	s.configure("limits: {per_client: 1000000/1s, idle_timeout: 1s}\n")
	must(t, syscall.Kill(s.process.Pid(), syscall.SIGHUP))
	crowd.ended()
	s.configure(unlimited)
	s.reload()

	honest.took = nil
	control.connect(t)
	s.besieged(honest, control)
	t.Logf("lines without end, replies not read: %d MB at most, answers took %v, and %v elsewhere", s.peak()>>20, honest.usual(), control.usual())
	if honest.usual() > max(attackedWait, 10*control.usual()) {
		t.Error("an attacked server makes the others wait")
	}
	honest.close()
	if after := s.settled(); after > before {
		t.Errorf("%d descriptors at the end, %d at first", after, before)
	}
	if peak := s.peak(); peak > attackedMemory {
		t.Errorf("%d MB at most, want %d", peak>>20, attackedMemory>>20)
	}
	if log := string(s.process.Log()); strings.Contains(log, honest.key) || strings.Contains(log, "panic") || strings.Count(log, "\n") > 100 {
		t.Errorf("a key, a panic or a flood in the log, %d octets", len(log))
	}
	honest.connect(t)
	honest.check(t)
}

// peak is the greatest resident memory of the process so far, in octets.
func (s *server) peak() int64 {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Pid()))
	must(s.t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		s.t.Fatalf("no VmHWM in\n%s", status)
	}
	kB, err := strconv.ParseInt(string(m[1]), 10, 64)
	must(s.t, err)
	return kB << 10
}

// settled waits until the server has no connections but one at most, and returns how
// many descriptors it has then.
func (s *server) settled() (open int) {
	s.t.Helper()
	last, same := 0, 0
	s.eventually("the server's descriptors do not come to rest", func() bool {
		var err error
		open, err = descriptors(s.process.Pid())
		must(s.t, err)
		if open != last {
			last, same = open, 0
		}
		same++
		return same == 50 && open < 100
	})
	return open
}

// An honestClient asks about a key that is right.
type honestClient struct {
	s     *server
	key   string
	conns []*asker
	took  []time.Duration // each answer
}

// usual is how long answers take: half of them no longer.
func (h *honestClient) usual() time.Duration {
	slices.Sort(h.took)
	return h.took[len(h.took)/2]
}

func (h *honestClient) connect(t *testing.T) {
	t.Helper()
	a, err := h.s.dialFrom("127.0.0.1")
	must(t, err)
	h.conns = append(h.conns, a)
}

// check asks once on every connection.
func (h *honestClient) check(t *testing.T) {
	t.Helper()
	for i, a := range h.conns {
		if err := h.ask(a); err != nil {
			t.Fatalf("connection %d of %d: %v", i, len(h.conns), err)
		}
	}
}

func (h *honestClient) ask(a *asker) error {
	began := time.Now()
	_ = a.SetDeadline(began.Add(patience))
	line, err := a.ask("alice@"+withAS, h.key)
	if err == nil && !strings.Contains(line, " VALIDKEY ") {
		err = errors.New(line)
	}
	h.took = append(h.took, time.Since(began))
	return err
}

func (h *honestClient) close() {
	for _, a := range h.conns {
		_ = a.Close()
	}
	h.conns = nil
}

// A crowd is one attacker's connections, each with half a line sent.
type crowd struct {
	s     *server
	conns []net.Conn
}

const crowdAddress = "127.0.0.2"

func (c *crowd) gather(n int) {
	c.s.t.Helper()
	for range n {
		a, err := c.s.dialFrom(crowdAddress)
		if errors.Is(err, syscall.EMFILE) {
			c.s.t.Fatalf("this test needs more descriptors: %v (ulimit -n)", err)
		}
		must(c.s.t, err)
		_, err = io.WriteString(a, "VERIFY 1 alice@pa")
		must(c.s.t, err)
		c.conns = append(c.conns, a.Conn)
	}
	c.s.eventually("the server does not take them all", func() bool {
		open, err := descriptors(c.s.process.Pid())
		must(c.s.t, err)
		return open >= n
	})
}

// turnedAway tries so many more and returns how many hear that they are too many.
func (c *crowd) turnedAway(n int) (refused int) {
	c.s.t.Helper()
	for range n {
		a, err := c.s.dialFrom(crowdAddress)
		must(c.s.t, err)
		line, err := a.in.ReadString('\n')
		if err == nil && line == "ERROR 0 busy too many connections\r\n" {
			refused++
		}
		_ = a.Close()
	}
	return refused
}

// trickle sends an octet on each connection. Some have been ended for others'.
func (c *crowd) trickle() {
	for _, conn := range c.conns {
		_, _ = io.WriteString(conn, "s")
	}
}

// ended waits until the server has closed every connection.
func (c *crowd) ended() {
	c.s.t.Helper()
	for i, conn := range c.conns {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			c.s.t.Fatalf("connection %d: %d, %v", i, n, err)
		}
	}
}

func (c *crowd) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// besieged has several attackers come again and again, until the server has ended a
// connection of every one, and an honest client ask all the while, of another server
// too. Most of the time is what the server gives a client to read its replies.
func (s *server) besieged(honest, control *honestClient) {
	s.t.Helper()
	const attackersCount, questionsCount = 80, 20
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*patience)
	defer cancel()
	flood := []byte(strings.Repeat("A", 64<<10))
	questions := []byte(strings.Repeat("VERIFY 1 alice@"+withAS+" AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n", 1000))
	var attackers sync.WaitGroup
	var ended atomic.Int64 // attackers of whom the server has ended a connection
	for i := range attackersCount {
		ip, what := fmt.Sprintf("127.0.0.%d", 10+i%20), flood
		if i%2 == 0 {
			what = questions
		}
		attackers.Go(func() {
			for first := true; ctx.Err() == nil; {
				a, err := s.dialFrom(ip)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = a.Close() })
				for err == nil { // and nothing is read
					_, err = a.Write(what)
				}
				if stop() && first && !errors.Is(err, os.ErrDeadlineExceeded) {
					ended.Add(1)
					first = false
				}
				_ = a.Close()
			}
		})
	}
	asked := 0
	err := testdaemon.Poll(ctx, func() (bool, error) {
		a, err := s.dialFrom("127.0.0.1")
		if err != nil {
			return false, err
		}
		defer a.Close()
		asked++
		err = errors.Join(honest.ask(a), control.ask(control.conns[0]))
		return asked >= questionsCount && ended.Load() == attackersCount, err
	})
	cancel()
	attackers.Wait()
	if err != nil {
		s.t.Errorf("an honest client among attackers: %v after %d questions, with %d attackers ended", err, asked, ended.Load())
	}
}
