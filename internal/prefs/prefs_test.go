package prefs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeSource answers from a map, after a delay, and remembers what it was asked.
type fakeSource struct {
	mu      sync.Mutex
	entries map[string]policy.Preference
	failing map[string]error
	delay   time.Duration
	asked   []string
}

func (s *fakeSource) Lookup(ctx context.Context, recipient string) (policy.Preference, bool, error) {
	s.mu.Lock()
	s.asked = append(s.asked, recipient)
	p, found := s.entries[recipient]
	err := s.failing[recipient]
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return policy.Preference{}, false, ctx.Err()
		}
	}
	return p, found, err
}

func (s *fakeSource) askedSince() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func fails(a policy.Action) policy.Preference {
	return policy.Preference{Actions: policy.Actions{Fail: a}}
}

func recipients(folded ...string) []policy.Recipient {
	var list []policy.Recipient
	for _, f := range folded {
		list = append(list, policy.Recipient{Address: f, Folded: f})
	}
	return list
}

func TestFillTellsNoneFoundAndFailedApart(t *testing.T) {
	down := errors.New("connection refused")
	src := &fakeSource{
		entries: map[string]policy.Preference{"bob@x.test": fails(policy.Reject)},
		failing: map[string]error{"eve@x.test": down},
	}
	rcpts := recipients("bob@x.test", "nobody@x.test", "eve@x.test", strings.Repeat("a", MaxRecipient)+"@x.test")
	rcpts[1].Preference, rcpts[1].PreferenceFailed = fails(policy.Mark), true // of another time
	failed, err := New(src, Options{Timeout: time.Second}).Fill(t.Context(), rcpts)
	if failed != 1 || !errors.Is(err, down) {
		t.Errorf("%d failed, %v", failed, err)
	}
	want := []policy.Recipient{{Preference: fails(policy.Reject)}, {}, {PreferenceFailed: true}, {}}
	for i, r := range rcpts {
		if r.Preference != want[i].Preference || r.PreferenceFailed != want[i].PreferenceFailed {
			t.Errorf("%s: %+v, failed %v", r.Address, r.Preference, r.PreferenceFailed)
		}
	}
	if asked := src.askedSince(); !slices.Equal(asked, []string{"bob@x.test", "nobody@x.test", "eve@x.test"}) {
		t.Errorf("asked %q", asked)
	}
}

// TestKnown: what is in memory is known at once, of the rest what is remembered.
func TestKnown(t *testing.T) {
	src := &fakeSource{entries: map[string]policy.Preference{"bob@x.test": fails(policy.Reject)}}
	long := strings.Repeat("a", MaxRecipient) + "@x.test"
	for _, opts := range []Options{{}, {TTL: time.Hour}} {
		d := New(src, opts)
		rcpts := recipients("bob@x.test", "nobody@x.test", long)
		if d.Known(rcpts) {
			t.Errorf("%+v: known before anybody was asked", opts)
		}
		if failed, err := d.Fill(t.Context(), rcpts); failed > 0 || err != nil {
			t.Fatal(failed, err)
		}
		src.askedSince()
		rcpts = recipients("bob@x.test", "nobody@x.test", long)
		rcpts[1].Preference, rcpts[1].PreferenceFailed = fails(policy.Mark), true // of another time
		if known := d.Known(rcpts); known != (opts.TTL > 0) {
			t.Errorf("%+v: known %v", opts, known)
		} else if known && (rcpts[0].Preference != fails(policy.Reject) || rcpts[1].Preference != (policy.Preference{}) || rcpts[1].PreferenceFailed) {
			t.Errorf("%+v: %+v", opts, rcpts)
		}
		if asked := src.askedSince(); len(asked) > 0 {
			t.Errorf("%+v: asked %q", opts, asked)
		}
	}
	file, _ := newFile(t, bobRejects)
	d := New(file, Options{})
	rcpts := recipients("bob@x.test")
	if d.Known(rcpts) {
		t.Error("known of a file that has not been read")
	}
	if err := file.Reload(); err != nil {
		t.Fatal(err)
	}
	if !d.Known(rcpts) || rcpts[0].Preference != fails(policy.Reject) || rcpts[0].PreferenceFailed {
		t.Errorf("of a file: %+v", rcpts)
	}
}

func TestFillLooksUpSubaddresses(t *testing.T) {
	down := errors.New("down")
	src := &fakeSource{
		entries: map[string]policy.Preference{
			"bob@x.test":      {Actions: policy.Actions{Fail: policy.Reject, NoKey: policy.Mark}, Language: "de"},
			"bob+shop@x.test": fails(policy.Accept),
			"eve+a@x.test":    fails(policy.Accept),
		},
		failing: map[string]error{"eve@x.test": down},
	}
	rcpts := recipients("bob+shop@x.test", "bob+other@x.test", "eve+a@x.test")
	if failed, err := New(src, Options{Timeout: time.Second}).Fill(t.Context(), rcpts); failed != 1 || !errors.Is(err, down) {
		t.Errorf("%d failed, %v", failed, err)
	}
	shop := policy.Preference{Actions: policy.Actions{Fail: policy.Accept, NoKey: policy.Mark}, Language: "de"}
	if got := rcpts[0].Preference; got != shop {
		t.Errorf("bob+shop: %+v, want what it says over what bob says", got)
	}
	if got := rcpts[1].Preference; got != src.entries["bob@x.test"] {
		t.Errorf("bob+other: %+v, want bob's", got)
	}
	if rcpts[2].Preference != (policy.Preference{}) || !rcpts[2].PreferenceFailed {
		t.Errorf("eve+a: %+v, want failed: what eve says cannot be told", rcpts[2])
	}
	want := []string{"bob+shop@x.test", "bob@x.test", "bob+other@x.test", "bob@x.test", "eve+a@x.test", "eve@x.test"}
	if asked := src.askedSince(); !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestOneDeadlineForAllRecipients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{delay: 700 * time.Millisecond, entries: map[string]policy.Preference{"a@x.test": fails(policy.Mark)}}
		rcpts := recipients("a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test")
		start := time.Now()
		failed, err := New(src, Options{Timeout: 2 * time.Second}).Fill(t.Context(), rcpts)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v, want the 2s of all lookups together", took)
		}
		if failed != 3 || err == nil || !strings.Contains(err.Error(), "no answer within 2s") {
			t.Errorf("%d failed, %v", failed, err)
		}
		for i, r := range rcpts {
			if r.PreferenceFailed != (i >= 2) {
				t.Errorf("%s failed: %v", r.Address, r.PreferenceFailed)
			}
		}
		if rcpts[0].Preference != fails(policy.Mark) {
			t.Errorf("what was found in time: %+v", rcpts[0].Preference)
		}
		if asked := src.askedSince(); len(asked) != 3 {
			t.Errorf("asked %q, want nobody asked after the time is over", asked)
		}
	})
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{
			entries: map[string]policy.Preference{"bob@x.test": fails(policy.Reject)},
			failing: map[string]error{"eve@x.test": errors.New("down")},
		}
		d := New(src, Options{Timeout: time.Second, TTL: time.Minute})
		ask := func(want ...string) {
			t.Helper()
			rcpts := recipients("bob@x.test", "nobody@x.test", "eve@x.test")
			_, _ = d.Fill(t.Context(), rcpts) // eve's failure is looked at here
			if !rcpts[2].PreferenceFailed {
				t.Error("a failure was remembered as no preference")
			}
			if asked := src.askedSince(); !slices.Equal(asked, want) {
				t.Errorf("asked %q, want %q", asked, want)
			}
			if rcpts[0].Preference != src.entries["bob@x.test"] || rcpts[1].Preference != (policy.Preference{}) {
				t.Errorf("%+v, %+v", rcpts[0].Preference, rcpts[1].Preference)
			}
		}
		ask("bob@x.test", "nobody@x.test", "eve@x.test")
		time.Sleep(time.Minute - time.Nanosecond) // of the bubble's clock
		ask("eve@x.test")
		time.Sleep(time.Nanosecond)
		src.entries["bob@x.test"] = fails(policy.Mark)
		ask("bob@x.test", "nobody@x.test", "eve@x.test")

		without := New(src, Options{Timeout: time.Second})
		for range 2 {
			_, _ = without.Fill(t.Context(), recipients("bob@x.test")) // cannot fail
		}
		if asked := src.askedSince(); len(asked) != 2 {
			t.Errorf("without a TTL asked %q", asked)
		}
	})
}

func TestCacheIsBoundedAndKeepsWhatIsAskedFor(t *testing.T) {
	const entries = 100
	src := &fakeSource{}
	d := New(src, Options{Timeout: time.Minute, TTL: time.Hour, Entries: entries})
	for i := range 10_000 {
		rcpts := recipients("often@x.test", fmt.Sprintf("r%d@x.test", i))
		if _, err := d.Fill(t.Context(), rcpts); err != nil {
			t.Fatal(err)
		}
		if n := len(d.cache.young) + len(d.cache.old); n > entries {
			t.Fatalf("%d answers remembered, want at most %d", n, entries)
		}
	}
	often := 0
	for _, a := range src.askedSince() {
		if a == "often@x.test" {
			often++
		}
	}
	if often != 1 {
		t.Errorf("a recipient of every message was asked about %d times", often)
	}
	one := New(src, Options{Timeout: time.Minute, TTL: time.Hour, Entries: 1})
	if _, err := one.Fill(t.Context(), recipients("a@x.test", "b@x.test", "a@x.test")); err != nil {
		t.Error(err)
	}
}

func TestFillConcurrently(t *testing.T) {
	src := &fakeSource{entries: map[string]policy.Preference{"r3@x.test": fails(policy.Mark)}}
	d := New(src, Options{Timeout: time.Minute, TTL: time.Hour, Entries: 8})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				rcpts := recipients(fmt.Sprintf("r%d@x.test", i%10))
				if _, err := d.Fill(t.Context(), rcpts); err != nil || (rcpts[0].Preference == fails(policy.Mark)) != (i%10 == 3) {
					t.Errorf("%+v, %v", rcpts[0], err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFillEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rcpts := recipients("bob@x.test")
	if failed, err := New(&fakeSource{}, Options{}).Fill(ctx, rcpts); failed != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d failed, %v", failed, err)
	}
}
