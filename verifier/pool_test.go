package verifier

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/internal/stubdns"
	"github.com/authkey/authkey/internal/wire"
)

// pipeAS answers on a pipe as honest does.
func pipeAS(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		req, err := wire.ParseRequest(strings.TrimSuffix(line, "\r\n"))
		if err != nil {
			return
		}
		verdict := wire.InvalidKey
		if strings.HasPrefix(req.Key.Reveal(), "good") {
			verdict = wire.ValidKey
		}
		if _, err := c.Write(wire.Reply{Seq: req.Seq, Address: req.Address, Verdict: verdict}.Append(nil)); err != nil {
			return
		}
	}
}

// mute reads and never answers.
func mute(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

var testPeer = netip.MustParseAddrPort("8.8.8.8:7425")

// oneAS is a book in which every domain names the AS as.test at 8.8.8.8.
func oneAS() *book {
	return &book{
		hosts: map[string][]string{"as.test": {"8.8.8.8"}},
		texts: func(string) (stubdns.Answer, error) {
			return stubdns.Answer{Texts: []string{"AS=as.test:7425"}, TTL: time.Hour}, nil
		},
	}
}

// TestStuckServer: a thousand questions to a server that accepts and says nothing
// share one dial and end together.
func TestStuckServer(t *testing.T) {
	for name, script := range map[string]func(net.Conn){"mute": mute, "unreachable": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{script: map[string]func(net.Conn){}}
				if script != nil {
					n.script["8.8.8.8"] = script
				}
				v := inBubble(t, oneAS(), n, Options{})
				began := time.Now()
				var wg sync.WaitGroup
				for i := range 1000 {
					q := query(t, fmt.Sprintf("u%d@a.test", i), "good")
					wg.Go(func() { check(t, v, q, TempError, ReasonASTimeout) })
				}
				wg.Wait()
				if took := time.Since(began); took > DefaultReplyTimeout {
					t.Errorf("took %v", took)
				}
				if len(n.dialed) != 1 {
					t.Errorf("%d dials", len(n.dialed))
				}
				if name == "mute" {
					check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASLeftAlone)
				}
			})
		})
	}
}

// TestMoreThanCapacity: more questions than a server that never answered may have wait for
// capacity, and get their answers.
func TestMoreThanCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
			ours, theirs := net.Pipe()
			done := make(chan struct{})
			go func() { defer close(done); pipeAS(theirs) }()
			<-release
			go func() { // what the AS says goes back
				buf := make([]byte, 4096)
				for {
					k, err := ours.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:k])
				}
			}()
			buf := make([]byte, 4096)
			for {
				k, err := c.Read(buf)
				if err != nil {
					break
				}
				ours.Write(buf[:k])
			}
			ours.Close()
			theirs.Close()
			<-done
		}}}
		v := inBubble(t, oneAS(), n, Options{})
		const questions = 2*maxOutstanding + 500
		var wg sync.WaitGroup
		for i := range questions {
			q := query(t, fmt.Sprintf("u%d@a.test", i), "good")
			wg.Go(func() { check(t, v, q, Pass, "") })
		}
		synctest.Wait()
		if asked := asked(v); asked != maxOutstanding {
			t.Errorf("%d questions wait on the only connection", asked)
		}
		close(release)
		wg.Wait()
		if asked := asked(v); asked != questions || len(n.dialed) > maxConns {
			t.Errorf("%d questions over %d dials", asked, len(n.dialed))
		}
	})
}

// TestNoCapacity: who waits for capacity at a server that is stuck waits no longer than for
// a reply, and nobody dials a server that is left alone meanwhile.
func TestNoCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": mute}}
		v := inBubble(t, oneAS(), n, Options{Timeout: 7 * time.Second})
		began := time.Now()
		var wg sync.WaitGroup
		ask := func(count int, domain string) {
			for i := range count {
				q := query(t, fmt.Sprintf("u%d@%s", i, domain), "good")
				wg.Go(func() {
					r := v.Verify(t.Context(), q)
					if r.Status != TempError || r.Reason != ReasonASTimeout && r.Reason != ReasonASLeftAlone {
						t.Errorf("%+v", r)
					}
				})
			}
		}
		ask(maxOutstanding, "a.test")
		synctest.Wait()
		ask(200, "b.test")
		time.Sleep(time.Second)
		ask(200, "c.test")
		wg.Wait()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("took %v", took)
		}
		if len(n.dialed) != 1 {
			t.Errorf("%d dials", len(n.dialed))
		}
		for _, target := range v.pool.targets {
			if target.waiters.Len() != 0 || target.users != 0 {
				t.Errorf("%d still wait, %d still ask", target.waiters.Len(), target.users)
			}
		}
	})
}

// TestTimeEndsWhileWaitingForCapacity: whoever has no time left stops waiting, and keeps no
// place in the queue.
func TestTimeEndsWhileWaitingForCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := inBubble(t, oneAS(), &network{script: map[string]func(net.Conn){"8.8.8.8": mute}}, Options{})
		var wg sync.WaitGroup
		for i := range maxOutstanding {
			q := query(t, fmt.Sprintf("u%d@a.test", i), "good")
			wg.Go(func() { check(t, v, q, TempError, ReasonASTimeout) })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		as := wire.Server{Host: "as.test", Port: 7425}
		_, err := v.pool.verify(ctx, as, address(t, "late@a.test"), wire.JoinKeys("good"))
		if reasonOf(err) != ReasonASTimeout || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if n := v.pool.targets[as].waiters.Len(); n != 0 {
			t.Errorf("%d still wait", n)
		}
		wg.Wait()
	})
}

// TestServerThatDoesNotRead: a connection that takes no questions ends after the time for a
// reply, and all who wait on it are told then.
func TestServerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) { time.Sleep(time.Minute) }}}
		v := inBubble(t, oneAS(), n, Options{})
		var wg sync.WaitGroup
		wg.Go(func() { check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASTimeout) })
		time.Sleep(DefaultReplyTimeout - time.Second)
		began := time.Now()
		check(t, v, query(t, "v@a.test", "good"), TempError, ReasonASTimeout)
		if took := time.Since(began); took != time.Second {
			t.Errorf("the second question took %v", took)
		}
		wg.Wait()
		synctest.Wait()
		if open := len(connections(v)); open != 0 || len(n.dialed) != 1 {
			t.Errorf("%d connections are open after %d dials", open, len(n.dialed))
		}
	})
}

// TestDeadlineWhileDialling: a verification that ends before its dial does not
// blame the server.
func TestDeadlineWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := inBubble(t, oneAS(), &network{}, Options{Timeout: time.Second})
		check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASTimeout)
		for _, target := range v.pool.targets {
			if target.breaker.failures != 0 {
				t.Errorf("%d failures", target.breaker.failures)
			}
		}
	})
}

// TestIdle: a connection is used again, and closed a minute after its last reply.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": pipeAS}}
		v := inBubble(t, oneAS(), n, Options{})
		ask := func(dials int) {
			t.Helper()
			check(t, v, query(t, "u@a.test", "bad"), Fail, ReasonInvalidKey)
			if len(n.dialed) != dials {
				t.Fatalf("%d dials, want %d", len(n.dialed), dials)
			}
		}
		ask(1)
		for range 3 {
			time.Sleep(idleTimeout - time.Second)
			ask(1)
		}
		time.Sleep(idleTimeout)
		synctest.Wait()
		if open := len(connections(v)); open != 0 {
			t.Errorf("%d connections are open", open)
		}
		ask(2)
		for range int((maxAge - ageSpread) / time.Minute) {
			time.Sleep(59 * time.Second)
			ask(2)
		}
		for range int(ageSpread/time.Minute) + 3 { // busy all the time, and yet a new one
			time.Sleep(59 * time.Second)
			v.Verify(t.Context(), query(t, "u@a.test", "bad"))
		}
		ask(3)
		synctest.Wait()
		if open := len(connections(v)); open != 1 {
			t.Errorf("%d connections are open", open)
		}
	})
}

// TestDeadConnection: a connection on which a whole reply time passes in silence
// gets no more questions.
func TestDeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns atomic.Int64
		n := &network{}
		n.script = map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
			if conns.Add(1) == 1 {
				mute(c)
				return
			}
			pipeAS(c)
		}}
		v := inBubble(t, oneAS(), n, Options{})
		check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASTimeout)
		check(t, v, query(t, "u@a.test", "good"), Pass, "")
		synctest.Wait()
		if open := len(connections(v)); open != 1 || len(n.dialed) != 2 {
			t.Errorf("%d connections are open after %d dials", open, len(n.dialed))
		}
	})
}

// TestSeqWraps: numbers count up across 2^64 without ever being 0.
func TestSeqWraps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := inBubble(t, oneAS(), &network{}, Options{})
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		c := newConn(link{ours, ours, testPeer}, &target{pool: v.pool}, 1<<64-2)
		defer c.end(errEnded)
		var seqs []uint64
		for range 4 {
			seqs = append(seqs, c.enqueue(address(t, "u@a.test"), wire.JoinKeys("k"), false).seq)
		}
		if got := fmt.Sprint(seqs); got != "[18446744073709551614 18446744073709551615 1 2]" {
			t.Error(got)
		}
		for _, seq := range []uint64{1, 1<<64 - 1, 2, 1<<64 - 2, 1} {
			if err := c.handleReply(fmt.Sprintf("VERIFY_REPLY %d u@a.test VALIDKEY", seq)); err != nil {
				t.Errorf("%d: %v", seq, err)
			}
		}
		for _, seq := range []uint64{3, 1<<64 - 3} {
			if err := c.handleReply(fmt.Sprintf("VERIFY_REPLY %d u@a.test VALIDKEY", seq)); reasonOf(err) != ReasonASViolation {
				t.Errorf("%d was never sent: %v", seq, err)
			}
		}
	})
}

// TestDuplicatesEnd: a server that repeats itself for ever is broken.
func TestDuplicatesEnd(t *testing.T) {
	v := New(Options{Cache: NewCache(1)})
	defer v.Close()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newConn(link{ours, ours, testPeer}, &target{pool: v.pool}, 7)
	defer c.end(errEnded)
	c.enqueue(address(t, "u@a.test"), wire.JoinKeys("k"), false)
	n := 0
	for c.handleReply("VERIFY_REPLY 7 u@a.test VALIDKEY") == nil {
		if n++; n > 2*maxLate {
			t.Fatal("it goes on for ever")
		}
	}
	if n < maxLate {
		t.Errorf("ended after %d", n)
	}
}

// TestTargetsBounded: servers that strangers name are forgotten again.
func TestTargetsBounded(t *testing.T) {
	p := &pool{dialer: new(dialer), targets: make(map[wire.Server]*target)}
	server := func(i int) wire.Server { return wire.Server{Host: fmt.Sprintf("as%d.test", i), Port: 7425} }
	for i := range maxTargets {
		if p.target(server(i)) == nil {
			t.Fatalf("no place for number %d", i)
		}
	}
	if p.target(server(maxTargets)) != nil {
		t.Error("a place while all are in use")
	}
	if _, err := p.verify(t.Context(), server(maxTargets), address(t, "u@a.test"), wire.JoinKeys("k")); reasonOf(err) != ReasonDialBudget {
		t.Errorf("asked while all are in use: %v", err)
	}
	used := p.targets[server(17)]
	p.release(used)
	if p.target(server(maxTargets)) == nil || p.targets[server(17)] != nil {
		t.Error("the unused one kept its place")
	}
	if len(p.targets) != maxTargets {
		t.Errorf("%d targets", len(p.targets))
	}
}

// TestConnectedTargetsGiveWay: whoever names as many servers as there is place for, and has
// them keep their connections, must not keep us from the next one.
func TestConnectedTargetsGiveWay(t *testing.T) {
	v := New(Options{Cache: NewCache(1)})
	defer v.Close()
	p := v.pool
	server := func(i int) wire.Server { return wire.Server{Host: fmt.Sprintf("as%d.test", i), Port: 7425} }
	var conns []*conn
	began := time.Now()
	for i := range maxTargets {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		target := p.target(server(i))
		c := newConn(link{ours, ours, testPeer}, target, 1)
		target.conns = append(target.conns, c)
		conns = append(conns, c)
		p.release(target)
		target.used = began.Add(time.Duration(i) * time.Second)
	}
	p.targets[server(0)].users++ // the least recent ones, but one of them is asked just now
	p.targets[server(1)].dialing = new(dialing)
	if p.target(server(maxTargets)) == nil {
		t.Fatal("no place, although nobody asks those that are connected")
	}
	for i, c := range conns[:5] {
		c.mu.Lock()
		ended := c.err != nil
		c.mu.Unlock()
		if forgotten := p.targets[server(i)] == nil; forgotten != (i == 2) || ended != forgotten {
			t.Errorf("number %d: forgotten %v, connection ended %v", i, forgotten, ended)
		}
	}
	if n := len(connections(v)); n != maxTargets-1 || len(p.targets) != maxTargets {
		t.Errorf("%d connections, %d targets", n, len(p.targets))
	}
	p.targets[server(1)].dialing = nil
}

// FuzzReplies: whatever an AS sends, each question gets exactly one outcome, and a
// reply only if it is word for word one to it.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("VERIFY_REPLY 7 u@a.test VALIDKEY ttl=60\r\nVERIFY_REPLY 8 v@a.test INVALIDKEY\n"))
	f.Add([]byte("ERROR 8 busy\r\nVERIFY_REPLY 7 u@a.test TEMPFAIL\r\nVERIFY_REPLY 7 u@a.test VALIDKEY\r\n"))
	f.Add([]byte("VERIFY_REPLY 7 v@a.test VALIDKEY\r\n"))
	f.Add([]byte("VERIFY_REPLY 9 u@a.test VALIDKEY\r\nERROR 0 syntax what\r\n"))
	f.Add([]byte(strings.Repeat("VERIFY_REPLY 7 u@a.test VALIDKEY mac=", 80)))
	v := New(Options{Cache: NewCache(1)})
	f.Cleanup(v.Close)
	f.Fuzz(func(t *testing.T, stream []byte) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := newConn(link{ours, ours, testPeer}, &target{pool: v.pool}, 7)
		questions := []*question{
			c.enqueue(address(t, "u@a.test"), wire.JoinKeys("k"), false),
			c.enqueue(address(t, "v@a.test"), wire.JoinKeys("k"), false),
		}
		c.readLoop(strings.NewReader(string(stream)))
		if c.err == nil || c.pending != nil {
			t.Fatal("the stream ended and the connection did not")
		}
		for _, q := range questions {
			h := <-q.done
			if len(q.done) != 0 {
				t.Fatal("two outcomes")
			}
			if h.err != nil {
				if !errors.Is(h.err, errEnded) && reasonOf(h.err) != ReasonASViolation {
					t.Errorf("%v", h.err)
				}
				continue
			}
			want := fmt.Sprintf("VERIFY_REPLY %d %s %s", q.seq, q.address, h.reply.Verdict)
			if h.reply.Verdict == wire.Error {
				want = fmt.Sprintf("ERROR %d %s", q.seq, h.reply.Code)
			}
			if !strings.Contains(string(stream), want) {
				t.Errorf("%+v out of %q", h.reply, stream)
			}
		}
		if c.enqueue(address(t, "u@a.test"), wire.JoinKeys("k"), false) != nil {
			t.Error("it takes questions after its end")
		}
	})
}

// TestCancelledWhileDialling: whoever leaves during a dial does not end it.
func TestCancelledWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		v := inBubble(t, oneAS(), n, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := v.Verify(ctx, query(t, "u@a.test", "good"))
		if r.Status != TempError || r.Reason != ReasonCancelled {
			t.Errorf("%+v", r)
		}
		check(t, v, query(t, "v@a.test", "good"), TempError, ReasonASTimeout)
		if len(n.dialed) != 1 {
			t.Errorf("%d dials", len(n.dialed))
		}
	})
}

// firstConn runs first on the first connection, and rest on all others.
func firstConn(first, rest func(net.Conn)) map[string]func(net.Conn) {
	var conns atomic.Int32
	return map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
		if conns.Add(1) == 1 {
			first(c)
			return
		}
		rest(c)
	}}
}

// answerNext answers one question and reports whether there was one.
func answerNext(r *bufio.Reader, c net.Conn) bool {
	line, err := r.ReadString('\n')
	if err != nil {
		return false
	}
	req, err := wire.ParseRequest(strings.TrimSuffix(line, "\r\n"))
	if err != nil {
		return false
	}
	_, err = c.Write(wire.Reply{Seq: req.Seq, Address: req.Address, Verdict: wire.ValidKey}.Append(nil))
	return err == nil
}

// TestRetryAfterAnAnswer: who closes a fresh connection after one of two answers is asked
// again about the other.
func TestRetryAfterAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{script: firstConn(func(c net.Conn) {
			r := bufio.NewReader(c)
			time.Sleep(time.Millisecond) // until both have asked
			answerNext(r, c)
			r.ReadString('\n')
		}, pipeAS)}
		v := inBubble(t, oneAS(), n, Options{})
		v.pool.dialer.connect = func(ctx context.Context, peer netip.AddrPort) (net.Conn, error) {
			time.Sleep(time.Millisecond) // so that both wait for it
			return n.connect(ctx, peer)
		}
		var wg sync.WaitGroup
		for _, who := range []string{"u@a.test", "v@a.test"} {
			q := query(t, who, "good")
			wg.Go(func() { check(t, v, q, Pass, "") })
		}
		wg.Wait()
		if got := asked(v); got != 1 || len(n.dialed) != 2 {
			t.Errorf("%d questions on the second of %d connections, want 1", got, len(n.dialed))
		}
	})
}

// TestRetryIsOne: a server that ends each connection after one answer is not asked for ever.
func TestRetryIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
			r := bufio.NewReader(c)
			time.Sleep(time.Millisecond) // until all have asked
			answerNext(r, c)
		}}}
		v := inBubble(t, oneAS(), n, Options{})
		results := make(chan Result)
		for _, who := range []string{"u@a.test", "v@a.test", "w@a.test"} {
			q := query(t, who, "good")
			go func() { results <- v.Verify(t.Context(), q) }()
		}
		reasons := make(map[Reason]int)
		for range 3 {
			reasons[(<-results).Reason]++
		}
		if reasons[""] != 2 || reasons[ReasonASRefused] != 1 {
			t.Errorf("%v, want two answers and one that gave up", reasons)
		}
	})
}

// TestRetryUsesNoOldConnection: a server that has restarted has ended all of them.
func TestRetryUsesNoOldConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns atomic.Int32
		all := make(chan struct{}) // closed when all have asked
		n := &network{script: map[string]func(net.Conn){"8.8.8.8": func(c net.Conn) {
			old := conns.Add(1) <= maxConns
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				if err != nil || old && strings.Contains(line, "late") {
					return
				}
				req, err := wire.ParseRequest(strings.TrimSuffix(line, "\r\n"))
				if err != nil {
					return
				}
				if req.Address != "first@a.test" {
					<-all
				}
				if _, err := c.Write(wire.Reply{Seq: req.Seq, Address: req.Address, Verdict: wire.ValidKey}.Append(nil)); err != nil {
					return
				}
			}
		}}}
		v := inBubble(t, oneAS(), n, Options{})
		check(t, v, query(t, "first@a.test", "good"), Pass, "")
		var wg sync.WaitGroup
		for i := range 2 * spreadAt {
			q := query(t, fmt.Sprintf("u%d@a.test", i), "good")
			wg.Go(func() { check(t, v, q, Pass, "") })
		}
		synctest.Wait()
		close(all)
		wg.Wait()
		if len(n.dialed) != maxConns {
			t.Fatalf("%d connections, want %d", len(n.dialed), maxConns)
		}
		time.Sleep(time.Second)
		check(t, v, query(t, "late@a.test", "good"), Pass, "")
		if len(n.dialed) != maxConns+1 {
			t.Errorf("%d connections in all, want a new one", len(n.dialed))
		}
	})
}

// TestWhatALostConnectionCountsFor: a server that ends a connection between two questions
// has not failed.
func TestWhatALostConnectionCountsFor(t *testing.T) {
	for _, tt := range []struct {
		why             error
		asked, answered bool
		failures        int
	}{
		{errEnded, false, false, 0}, {errEnded, true, false, 1}, {errEnded, true, true, 0}, {errEnded, false, true, 0},
		{failuref(ReasonASViolation, "test"), false, false, 1}, {failuref(ReasonASViolation, "test"), true, true, 1},
		{failuref(ReasonASTLS, "test"), true, true, 1}, {failuref(ReasonASTLS, "test"), false, false, 0},
	} {
		lost, kept := new(conn), new(conn)
		target := &target{pool: new(pool), conns: []*conn{kept, lost}}
		target.removeConn(lost, tt.why, tt.asked, tt.answered)
		if target.breaker.failures != tt.failures || len(target.conns) != 1 || target.conns[0] != kept {
			t.Errorf("%v, asked %v, answered %v: %d failures, %d connections", tt.why, tt.asked, tt.answered, target.breaker.failures, len(target.conns))
		}
	}
}

// TestRetryHasTheTimeThatIsLeft of the time in which a server has to answer.
func TestRetryHasTheTimeThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 3 * time.Second
		n := &network{script: firstConn(func(c net.Conn) {
			r := bufio.NewReader(c)
			answerNext(r, c)
			r.ReadString('\n')
			time.Sleep(wait)
		}, mute)}
		v := inBubble(t, oneAS(), n, Options{})
		check(t, v, query(t, "u@a.test", "good"), Pass, "")
		r := check(t, v, query(t, "v@a.test", "good"), TempError, ReasonASTimeout)
		if r.ASTime != DefaultReplyTimeout || len(n.dialed) != 2 {
			t.Errorf("took %v over %d dials, want %v", r.ASTime, len(n.dialed), DefaultReplyTimeout)
		}
	})
}

// TestHalfOfTheTimeIsEnoughToBlame a server that says nothing; less is not.
func TestHalfOfTheTimeIsEnoughToBlame(t *testing.T) {
	for timeout, blamed := range map[time.Duration]int{DefaultReplyTimeout/2 - 1: 0, DefaultReplyTimeout/2 + 1: 1} {
		synctest.Test(t, func(t *testing.T) {
			v := inBubble(t, oneAS(), &network{script: map[string]func(net.Conn){"8.8.8.8": mute}}, Options{Timeout: timeout})
			check(t, v, query(t, "u@a.test", "good"), TempError, ReasonASTimeout)
			if got := failures(v); got != blamed {
				t.Errorf("after %v it is blamed %d times, want %d", timeout, got, blamed)
			}
		})
	}
}
