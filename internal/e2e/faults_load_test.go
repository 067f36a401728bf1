package e2e

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// A letterKind is a sort of message, and what is to become of it.
type letterKind struct {
	oneOfEach
	// deferred: where it cannot be verified it is answered 451, not delivered.
	deferred bool
	// steady: a fault that is on makes no difference to it.
	steady bool
}

// everyday are the kinds of which most loads are made: one of each result.
func everyday() []letterKind {
	var kinds []letterKind
	for _, each := range everyResult {
		kinds = append(kinds, letterKind{oneOfEach: each})
	}
	return kinds
}

// ofDomain are a message with the right key and one with a wrong one.
func ofDomain(domain string) []letterKind {
	from := "alice@" + domain
	return []letterKind{
		{oneOfEach: oneOfEach{from: from, key: "right", result: "pass", authRes: "x-authkey=pass smtp.mailfrom=" + from}},
		{oneOfEach: oneOfEach{from: from, key: "wrongkey", result: "fail", authRes: `x-authkey=fail reason="invalid-key" smtp.mailfrom=` + from}},
	}
}

// A letter is a message that a load has sent.
type letter struct {
	letterKind
	mail
	key string
	// disturbed: a fault was on at some time between the beginning of its SMTP
	// connection and its end.
	disturbed bool
	out       testmta.Outcome
	err       error // the connection broke
	copies    []testmta.Message
}

// A load is several SMTP clients who send mail at once, and keep the books. Mail is
// sent as much as it is asked for, by send or flow. Between disturb and calm a fault
// is on: then a message may come out unverified, be deferred, or lose its connection,
// but not more than that.
type load struct {
	t    *testing.T
	w    *lab.World
	addr string

	mu      sync.Mutex
	changed sync.Cond
	kinds   []letterKind
	next    int // to be sent
	limit   int // to be sent up to here
	done    int // answered, or lost
	phase   int // odd: a fault is on
	stopped bool
	letters []*letter

	clients sync.WaitGroup
}

// newLoad starts clients of the MTA at addr. The kinds take turns.
func newLoad(t *testing.T, w *lab.World, addr string, clients int, kinds []letterKind) *load {
	l := &load{t: t, w: w, addr: addr, kinds: kinds}
	l.changed.L = &l.mu
	for range clients {
		l.clients.Go(l.client)
	}
	t.Cleanup(l.stop)
	return l
}

// stop waits for what has been begun.
func (l *load) stop() {
	l.mu.Lock()
	l.stopped = true
	l.changed.Broadcast()
	l.mu.Unlock()
	l.clients.Wait()
}

// send has n messages sent, and returns when all of them have been answered.
func (l *load) send(n int) {
	l.t.Helper()
	l.mu.Lock()
	l.limit = l.next + n
	limit := l.limit
	l.changed.Broadcast()
	l.mu.Unlock()
	l.wait("messages to be answered", func() bool { return l.done >= limit })
}

// flow has messages sent without pause until f returns.
func (l *load) flow(f func()) {
	l.t.Helper()
	l.mu.Lock()
	l.limit = math.MaxInt
	l.changed.Broadcast()
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.limit = l.next
		limit := l.limit
		l.mu.Unlock()
		l.wait("the last messages to be answered", func() bool { return l.done >= limit })
	}()
	f()
}

// disturb says that a fault begins, calm that nothing is wrong any more.
func (l *load) disturb() { l.turn(1) }
func (l *load) calm()    { l.turn(0) }

func (l *load) turn(parity int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase%2 == parity {
		l.t.Fatal("the test is wrong: disturb and calm take turns")
	}
	l.phase++
}

// wait waits until cond holds, which is asked with the books open.
func (l *load) wait(what string, cond func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := testdaemon.Poll(ctx, func() (bool, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return cond(), nil
	})
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.t.Fatalf("waited in vain for %s: %d sent, %d answered", what, l.next, l.done)
	}
}

// waitFor waits for so many more letters of which match holds.
func (l *load) waitFor(what string, n int, match func(*letter) bool) {
	l.t.Helper()
	l.mu.Lock()
	seen := len(l.letters)
	l.mu.Unlock()
	l.wait(what, func() bool {
		for ; seen < len(l.letters); seen++ {
			if match(l.letters[seen]) {
				n--
			}
		}
		return n <= 0
	})
}

func refused(m *letter) bool  { return m.err != nil || m.out.Final.Code/100 == 4 }
func accepted(m *letter) bool { return m.out.Accepted }

// take is the next message to send, and in what phase.
func (l *load) take() (kind letterKind, phase int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.next >= l.limit && !l.stopped {
		l.changed.Wait()
	}
	if l.stopped {
		return kind, 0, false
	}
	kind = l.kinds[l.next%len(l.kinds)]
	l.next++
	return kind, l.phase, true
}

// client is one SMTP client. Like a real one it begins a connection anew when it
// was told to come again later; and whenever the phase changes, since Postfix does
// without a filter that it lost until the end of the connection.
func (l *load) client() {
	var c *testmta.Client
	hangUp := func() {
		if c != nil {
			_ = c.Quit() // the other end may be dead
			c = nil
		}
	}
	defer hangUp()
	dialled := 0
	for {
		kind, phase, ok := l.take()
		if !ok {
			return
		}
		if phase != dialled {
			hangUp()
		}
		m, err := l.write(kind)
		if err == nil && c == nil {
			dialled = phase
			c, err = testmta.Dial(l.addr)
		}
		if err == nil {
			m.out, err = c.Send(m.transaction())
		}
		m.err = err
		l.enter(m, dialled)
		if refused(m) {
			hangUp()
		}
	}
}

func (l *load) write(kind letterKind) (*letter, error) {
	m := &letter{letterKind: kind, mail: mail{from: kind.oneOfEach.from, subject: newSubject()}, key: kind.oneOfEach.key}
	if m.key == "right" {
		var err error
		if m.key, err = l.w.Key(m.mail.from); err != nil {
			return m, err
		}
	}
	if m.key != "" {
		m.fields = "X-Auth-Key: " + m.key + "\r\n"
	}
	return m, nil
}

func (l *load) enter(m *letter, dialled int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done++
	m.disturbed = dialled%2 == 1 || dialled != l.phase
	l.letters = append(l.letters, m)
}

// reckon ends the load and calls every message to account. It returns them.
func (l *load) reckon(mta testmta.MTA) []*letter {
	l.t.Helper()
	l.stop()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	must(l.t, mta.WaitIdle(ctx))
	all, err := mta.Deliveries()
	must(l.t, err)
	bySubject := make(map[string][]testmta.Message)
	for _, d := range all {
		bySubject[d.Get("Subject")] = append(bySubject[d.Get("Subject")], d)
	}
	undisturbed, faulty := 0, 0
	for _, m := range l.letters {
		m.copies = bySubject[m.subject]
		if !m.disturbed {
			undisturbed++
		}
		if err := m.account(); err != nil {
			if faulty++; faulty <= 5 {
				l.t.Errorf("%s from %s (disturbed: %v): %v", m.subject, m.mail.from, m.disturbed, err)
			}
		}
	}
	if faulty > 0 {
		l.t.Errorf("%d of %d messages did not end as they had to", faulty, len(l.letters))
	}
	if undisturbed == 0 {
		l.t.Error("no message came through undisturbed")
	}
	return l.letters
}

// account says what is wrong with a message's end: it must have been delivered once
// as the policy says, or been answered 4xx and not been delivered.
func (m *letter) account() error {
	for _, d := range m.copies {
		if err := m.checkCopy(d); err != nil {
			return fmt.Errorf("%w:\n%s", err, d.Raw)
		}
	}
	lenient := m.disturbed && !m.steady
	final := m.out.Final
	switch {
	case m.err != nil, strings.Contains(final.Text, "queue file write error"):
		// Whether it was taken cannot be told: with its connection broken, or when
		// Postfix says so of a cleanup that died. A client would send it again.
		if !lenient || len(m.copies) > 1 {
			return fmt.Errorf("%s, %d copies: %v", final, len(m.copies), m.err)
		}
	case final.Code == 250:
		if len(m.copies) != 1 {
			return fmt.Errorf("%s, and %d copies were delivered", final, len(m.copies))
		}
	case final.Code/100 != 4 || !lenient && !(m.deferred && m.result == "temperror"):
		return fmt.Errorf("the reply is %s", final)
	case len(m.copies) > 0:
		return fmt.Errorf("%s, and %d copies were delivered", final, len(m.copies))
	}
	return nil
}

func (m *letter) checkCopy(d testmta.Message) error {
	if d.Get("X-Auth-Key") != "" || len(d.Values("X-Auth-Key")) > 0 || m.key != "" && strings.Contains(string(d.Raw), m.key) {
		return fmt.Errorf("the key is in it")
	}
	want := strings.Replace(string(m.data()), m.fields, "", 1)
	if got := string(d.Content()); got != want {
		return fmt.Errorf("it is not what was sent")
	}
	got, marked := authRes(d), d.Get("X-Spam-Flag") != ""
	switch {
	case strings.HasPrefix(got, "mx.test; "+m.authRes):
		if marked != (m.result == "fail") {
			return fmt.Errorf("marked: %v", marked)
		}
	case m.disturbed && !m.steady && !m.deferred && strings.HasPrefix(got, "mx.test; x-authkey=temperror"):
		if marked {
			return fmt.Errorf("marked")
		}
	default:
		return fmt.Errorf("its result is %q", got)
	}
	return nil
}

// unverified reports whether a message met a fault: its connection broke, it was
// deferred, or delivered with the result temperror.
func (m *letter) unverified() bool {
	if refused(m) {
		return true
	}
	return len(m.copies) == 1 && strings.Contains(authRes(m.copies[0]), "x-authkey=temperror")
}
