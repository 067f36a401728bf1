package notify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// openLedger opens a Ledger in dir and returns what it logs, too.
func openLedger(t *testing.T, dir string) (*Ledger, *testLog) {
	t.Helper()
	log, out := newLog()
	l, err := OpenLedger(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, out
}

func keyOf(i int) digest { return digestOf(fmt.Sprint(i)) }

// TestRestart: what was sent before a restart is not sent after it, for a day.
func TestRestart(t *testing.T) {
	m := startMTA(t)
	dir := t.TempDir()
	deliver := func(l *Ledger) (logged string) {
		t.Helper()
		n := newNotifier(t, m.addr, l)
		log := watch(n)
		if err := n.deliver(t.Context(), honest(), failures("bob@rcpt.example"), notices("dave@rcpt.example")); err != nil {
			t.Fatal(err)
		}
		return log.String()
	}
	first, _ := openLedger(t, dir)
	deliver(first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, _ := openLedger(t, dir)
	logged := deliver(second)
	if got := len(m.taken()); got != 2 {
		t.Errorf("%d mails, want the first two", got)
	}
	if want := "dsns=0 notices=0 repeats=2\n"; !strings.HasSuffix(logged, want) {
		t.Errorf("logged after the restart %s, want %s", logged, want)
	}
	// The file tells nobody who wrote to whom.
	data, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "example") {
		t.Error("addresses in the file")
	}
	info, err := os.Stat(filepath.Join(dir, journalName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestForgetsAfterADay(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, _ := openLedger(t, dir)
		l.commit([]digest{keyOf(1)})
		time.Sleep(rememberFor / 2)
		l.commit([]digest{keyOf(2)})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rememberFor/2 - time.Second)
		l, _ = openLedger(t, dir)
		if !l.knows(keyOf(1)) || !l.knows(keyOf(2)) {
			t.Error("forgotten within a day")
		}
		time.Sleep(time.Second)
		if l.knows(keyOf(1)) || !l.knows(keyOf(2)) {
			t.Error("remembered for another time than a day")
		}
		if l.claim(keyOf(1)) != unsent || l.claim(keyOf(1)) != busy || l.claim(keyOf(2)) != sent {
			t.Error("claims are not as what is remembered")
		}
		l.commit([]digest{keyOf(1)})
		time.Sleep(rememberFor)
		if l.claim(keyOf(1)) != unsent {
			t.Error("what was committed and forgotten is claimed for ever")
		}
	})
}

// TestTimesOfTheFuture: a clock that was wrong keeps nothing for longer than a day.
func TestTimesOfTheFuture(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		data := appendRecord([]byte(journalMagic), record{keyOf(1), time.Now().Add(365 * 24 * time.Hour)})
		if err := os.WriteFile(filepath.Join(dir, journalName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, _ := openLedger(t, dir)
		if !l.knows(keyOf(1)) {
			t.Error("forgotten")
		}
		time.Sleep(rememberFor)
		if l.knows(keyOf(1)) {
			t.Error("remembered for more than a day")
		}
	})
}

// TestDigestTellsPartsApart: whoever chooses one part must not make the digest of others.
func TestDigestTellsPartsApart(t *testing.T) {
	if digestOf("a", "bc") == digestOf("ab", "c") || digestOf("a", "") == digestOf("a") {
		t.Error("different parts have the same digest")
	}
}

// TestCrash leaves in the file what a process or a disk could.
func TestCrash(t *testing.T) {
	whole := func() []byte {
		data := []byte(journalMagic)
		for i := range 3 {
			data = appendRecord(data, record{keyOf(i), time.Now()})
		}
		return data
	}()
	flipped := append([]byte(nil), whole...)
	flipped[len(journalMagic)+recordSize+3] ^= 1
	tests := []struct {
		name  string
		data  []byte
		knows []bool
	}{
		{"nothing", nil, []bool{false, false, false}},
		{"half a magic", []byte(journalMagic)[:3], []bool{false, false, false}},
		{"whole", whole, []bool{true, true, true}},
		{"half a record", whole[:len(whole)-7], []bool{true, true, false}},
		{"one octet of a record", whole[:len(whole)-recordSize+1], []bool{true, true, false}},
		{"a bit turned", flipped, []bool{true, false, true}},
		{"zeros at the end", append(whole[:len(whole):len(whole)], make([]byte, 2*recordSize+5)...), []bool{true, true, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, journalName), tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			l, _ := openLedger(t, dir)
			for i, want := range tt.knows {
				if got := l.knows(keyOf(i)); got != want {
					t.Errorf("record %d is known: %v", i, got)
				}
			}
			// And it goes on from there.
			l.commit([]digest{keyOf(100)})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, _ = openLedger(t, dir)
			if !l.knows(keyOf(100)) || l.knows(keyOf(0)) != tt.knows[0] {
				t.Error("what was written after it cannot be read")
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	log, _ := newLog()
	dir := t.TempDir()
	l, _ := openLedger(t, dir)
	if _, err := OpenLedger(dir, log); !errors.Is(err, ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err := OpenLedger(dir, log); err != nil {
		t.Errorf("after the first has ended: %v", err)
	} else if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenLedger(filepath.Join(dir, "missing"), log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, journalName), []byte("somebody's diary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLedger(foreign, log); err == nil {
		t.Error("a foreign file is taken and would be overwritten")
	}
}

// TestLedgerFollowsNoLink: whoever can write to the folder cannot have us make or change a
// file elsewhere.
func TestLedgerFollowsNoLink(t *testing.T) {
	log, _ := newLog()
	for _, name := range []string{journalName, journalName + ".lock", journalName + ".new"} {
		dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLedger(dir, log)
		if err == nil { // the file for a rewrite is not needed yet
			err = errors.Join(l.journal.rewrite(nil), l.Close())
		}
		if !errors.Is(err, syscall.ELOOP) {
			t.Errorf("%s is a link: %v", name, err)
		}
		if _, err := os.Lstat(victim); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: where the link leads there is a file now: %v", name, err)
		}
	}
}

// TestUnwritable: a disk that takes nothing does not stop mail, nor make it come
// twice; once it does again, the file is whole.
func TestUnwritable(t *testing.T) {
	m := startMTA(t)
	dir := t.TempDir()
	l, logged := openLedger(t, dir)
	n := newNotifier(t, m.addr, l)
	good := l.journal.file
	broken, err := os.Open(good.Name()) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	l.journal.file = broken
	l.journal.dir = filepath.Join(dir, "missing")
	for i := range 4 {
		if err := n.deliver(t.Context(), with("X", "y"), failures("bob@rcpt.example"), notices(fmt.Sprintf("dave%d@rcpt.example", i/2))); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(m.taken()); got != 3 {
		t.Errorf("%d mails, want one DSN and two notices", got)
	}
	if got := strings.Count(logged.String(), "level=ERROR"); got != 1 {
		t.Errorf("%d complaints:\n%s", got, logged)
	}
	_ = good.Close()
	l.journal.dir = dir
	if err := n.deliver(t.Context(), honest(), nil, notices("erin@rcpt.example")); err != nil {
		t.Fatal(err)
	}
	remembered := len(l.sent)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := openLedger(t, dir)
	if got := len(again.sent); got != remembered || got != 5 {
		t.Errorf("%d remembered after a restart, %d before it", got, remembered)
	}
}

// TestCompaction: the file does not grow with what is forgotten.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, _ := openLedger(t, dir)
		const days, daily = 5, 2000
		for day := range days {
			for i := range daily {
				l.claim(keyOf(day*daily + i))
				l.commit([]digest{keyOf(day*daily + i)})
			}
			time.Sleep(rememberFor)
		}
		if got := l.journal.records; got > 2*daily+journalSlack {
			t.Errorf("%d records in the file for %d a day", got, daily)
		}
		if l.journal.records >= days*daily {
			t.Error("the file was never written anew")
		}
		l.claim(keyOf(-1))
		l.commit([]digest{keyOf(-1)})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = openLedger(t, dir)
		if got := len(l.sent); got != 1 {
			t.Errorf("%d remembered, want the last alone", got)
		}
	})
}

func TestBounded(t *testing.T) {
	l := memoryLedger(t)
	var key digest
	for i := range maxRemembered + 10 {
		key[0], key[1], key[2] = byte(i), byte(i>>8), byte(i>>16)
		l.remember(record{key, time.Now()})
	}
	if len(l.sent) != maxRemembered || len(l.queue) != maxRemembered {
		t.Errorf("%d remembered, %d queued", len(l.sent), len(l.queue))
	}
	if l.knows(digest{}) || !l.knows(key) {
		t.Error("not the oldest was forgotten")
	}
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLedger(t)
		alice, bob, all := digestOf("alice"), digestOf("bob"), digestOf("all")
		perSender, global := Rate{2, time.Hour}, Rate{5, time.Minute}
		tokens := func(who digest) []token {
			return []token{{who, perSender, SenderRate}, {all, global, GlobalRate}}
		}
		expect := func(who digest, want Suppression) {
			t.Helper()
			if got := l.exhausted(tokens(who)); got != want {
				t.Errorf("exhausted: %q, want %q", got, want)
			}
			if got := l.take(tokens(who)); got != want {
				t.Errorf("take: %q, want %q", got, want)
			}
		}
		expect(alice, Allowed)
		expect(alice, Allowed)
		expect(alice, SenderRate) // takes nothing from the global rate
		l.release(nil, tokens(alice))
		expect(alice, Allowed)
		expect(alice, SenderRate)
		expect(bob, Allowed)
		expect(bob, Allowed)
		expect(digestOf("carol"), Allowed)
		expect(digestOf("dave"), GlobalRate)
		time.Sleep(global.Per/5 - time.Nanosecond)
		expect(digestOf("dave"), GlobalRate)
		time.Sleep(time.Nanosecond)
		expect(digestOf("dave"), Allowed)
		expect(digestOf("dave"), GlobalRate)
		time.Sleep(29 * time.Minute)
		expect(alice, SenderRate)
		time.Sleep(time.Minute)
		expect(alice, Allowed)
		expect(alice, SenderRate)
		time.Sleep(24 * time.Hour) // no more than a full bucket gathers
		expect(alice, Allowed)
		expect(alice, Allowed)
		expect(alice, SenderRate)
	})
}

// TestRatesBounded: however many senders there are, memory ends, and nobody's
// rate is forgotten for it.
func TestRatesBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLedger(t)
		one := func(i int) Suppression { return l.take([]token{{keyOf(i), Rate{1, time.Hour}, SenderRate}}) }
		for i := range maxRated {
			if why := one(i); why != Allowed {
				t.Fatalf("sender %d: %s", i, why)
			}
		}
		if one(maxRated) != SenderRate || one(0) != SenderRate {
			t.Error("more senders are remembered than there is room for, or one is forgotten")
		}
		if got := len(l.rates.buckets); got != maxRated {
			t.Errorf("%d remembered", got)
		}
		// What can be forgotten is looked for once in sweepEvery.
		time.Sleep(time.Hour - time.Millisecond)
		for _, wait := range []time.Duration{0, time.Millisecond, sweepEvery - 2*time.Millisecond} {
			time.Sleep(wait)
			if one(maxRated) != SenderRate {
				t.Errorf("after %v all are searched again", wait)
			}
		}
		time.Sleep(time.Millisecond)
		if one(maxRated) != Allowed || len(l.rates.buckets) != 1 {
			t.Errorf("after their time %d are remembered", len(l.rates.buckets))
		}
	})
}

// TestRatesOutliveConfigurations: a reload gives nobody another DSN.
func TestRatesOutliveConfigurations(t *testing.T) {
	m := startMTA(t)
	l := memoryLedger(t)
	strict := func(o *Options) { o.Rates.PerSender = Rate{1, time.Hour} }
	if err := newNotifier(t, m.addr, l, strict).deliver(t.Context(), honest(), failures("bob@rcpt.example"), nil); err != nil {
		t.Fatal(err)
	}
	another := honest()
	another.Header[3].Value = "<2@sender.example>"
	n := newNotifier(t, m.addr, l, strict)
	if why := n.suppressDSN(another); why != SenderRate {
		t.Errorf("another DSN: %q", why)
	}
	// Where another transaction was quicker than AllowDSN could know, nothing is lost.
	deliverErr(t, n.deliver(t.Context(), another, failures("bob@rcpt.example"), nil), string(SenderRate))
	// The message that used up the rate still gets its answer on a retry.
	if why := n.suppressDSN(honest()); why != Allowed {
		t.Errorf("the retry's DSN: %q", why)
	}
}

// TestRetriesAndRates: the rates count messages, and what they keep back stays unclaimed.
func TestRetriesAndRates(t *testing.T) {
	m := startMTA(t)
	n := newNotifier(t, m.addr, memoryLedger(t), func(o *Options) {
		o.Rates.PerSender, o.Rates.PerRecipient = Rate{1, time.Hour}, Rate{1, time.Hour}
	})
	logged := watch(n)
	for _, rcpts := range [][]string{{"bob@rcpt.example"}, {"bob@rcpt.example", "carol@rcpt.example"}} {
		if err := n.deliver(t.Context(), honest(), failures(rcpts...), nil); err != nil {
			t.Errorf("a DSN about %v: %v", rcpts, err)
		}
	}
	if got := len(m.taken()); got != 2 {
		t.Errorf("%d mails, want a DSN and one about who refused later", got)
	}
	if err := n.deliver(t.Context(), honest(), nil, notices("dave@rcpt.example")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.deliver(t.Context(), with("X", "y"), nil, notices("dave@rcpt.example")); err != nil {
			t.Errorf("a notice over the rate: %v", err)
		}
	}
	if got := strings.Count(logged.String(), `suppressed="rate-recipient=1"`); got != 2 {
		t.Errorf("%d notices kept back, want 2", got)
	}
}

// TestRatesChange: a reload that changes a rate neither forgets what was sent nor keeps
// to the old rate; and what was not sent is given back whenever that turns out.
func TestRatesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memoryLedger(t)
		at := func(r Rate) []token { return []token{{keyOf(1), r, SenderRate}} }
		strict, generous := Rate{1, time.Hour}, Rate{60, time.Hour}
		if l.take(at(strict)) != Allowed || l.exhausted(at(generous)) != SenderRate {
			t.Error("another rate forgets what was taken")
		}
		time.Sleep(time.Minute)
		if l.take(at(generous)) != Allowed || l.take(at(generous)) != SenderRate {
			t.Error("not at the new rate")
		}
		time.Sleep(30 * time.Second)
		l.release(nil, at(generous))
		if l.take(at(generous)) != Allowed || l.take(at(generous)) != SenderRate {
			t.Error("given back: not one")
		}
		l.release(nil, at(generous))
		l.release(nil, at(generous)) // more than was taken
		time.Sleep(2 * time.Hour)
		if l.exhausted(at(strict)) != Allowed || l.take(at(strict)) != Allowed || l.take(at(strict)) != SenderRate {
			t.Error("back at the strict rate: not one")
		}
	})
}

// TestSyncOfReplacedFile: between a look at the file and its synchronisation another one may
// have taken its place, which is on the disk. That is no failure.
func TestSyncOfReplacedFile(t *testing.T) {
	l, logged := openLedger(t, t.TempDir())
	file := l.journal.file
	l.commit([]digest{keyOf(1)})
	if err := l.journal.rewrite(l.queue); err != nil {
		t.Fatal(err)
	}
	now := l.journal.file
	l.journal.file = file
	l.sync()
	l.journal.file = now
	if logged.String() != "" {
		t.Errorf("complaints:\n%s", logged)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
