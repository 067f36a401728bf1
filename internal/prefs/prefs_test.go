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
	failed, err := New(src).Fill(t.Context(), rcpts)
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

// TestKnown: what is in memory is known at once, and nothing else.
func TestKnown(t *testing.T) {
	src := &fakeSource{entries: map[string]policy.Preference{"bob@x.test": fails(policy.Reject)}}
	long := strings.Repeat("a", MaxRecipient) + "@x.test"
	d := New(src)
	if d.Known(recipients("bob@x.test", "nobody@x.test", long)) {
		t.Error("known of a source that has to be asked")
	}
	if asked := src.askedSince(); len(asked) > 0 {
		t.Errorf("asked %q", asked)
	}
	file, _ := newFile(t, bobRejects)
	d = New(file)
	rcpts := recipients("bob@x.test", "nobody@x.test", long)
	if d.Known(rcpts) {
		t.Error("known of a file that has not been read")
	}
	if err := file.Reload(); err != nil {
		t.Fatal(err)
	}
	rcpts[1].Preference, rcpts[1].PreferenceFailed = fails(policy.Mark), true // of another time
	if !d.Known(rcpts) || rcpts[0].Preference != fails(policy.Reject) || rcpts[0].PreferenceFailed ||
		rcpts[1].Preference != (policy.Preference{}) || rcpts[1].PreferenceFailed {
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
	if failed, err := New(src).Fill(t.Context(), rcpts); failed != 1 || !errors.Is(err, down) {
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
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		failed, err := New(src).Fill(ctx, rcpts)
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v, want the 2s of all lookups together", took)
		}
		if failed != 3 || !errors.Is(err, context.DeadlineExceeded) {
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

func TestFillConcurrently(t *testing.T) {
	src := &fakeSource{entries: map[string]policy.Preference{"r3@x.test": fails(policy.Mark)}}
	d := New(src)
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
	if failed, err := New(&fakeSource{}).Fill(ctx, rcpts); failed != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d failed, %v", failed, err)
	}
}
