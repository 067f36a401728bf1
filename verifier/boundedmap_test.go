package verifier

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestBoundedMapOrder: what was asked for since the hand last passed stays, and what is
// new goes before what is old and loved (the example of the paper).
func TestBoundedMapOrder(t *testing.T) {
	now := time.Now()
	later := now.Add(time.Hour)
	s := newBoundedMap[int](4)
	put := func(keys string) {
		for i := range keys {
			s.put(keys[i:i+1], i, now, later)
		}
	}
	has := func() string {
		found := ""
		for _, k := range "abcdefgh" {
			if s.find(string(k)) != nil {
				found += string(k)
			}
		}
		return found
	}
	steps := []struct{ get, put, want string }{
		{"", "abcd", "abcd"},
		{"a", "e", "acde"}, // the hand clears a, evicts b
		{"", "f", "adef"},  // goes on: c
		{"d", "g", "adfg"}, // spares d, evicts e
		{"", "h", "adgh"},  // f: neither the hand's way back to a nor d is due
	}
	for i, step := range steps {
		for _, k := range step.get {
			s.get(string(k), now)
		}
		put(step.put)
		if got := has(); got != step.want || s.len() != len(step.want) {
			t.Fatalf("step %d: %q (%d), want %q", i, got, s.len(), step.want)
		}
	}
}

// TestBoundedMapDeadline: a calendar that is set back gives no more time, nor does a machine
// that slept.
func TestBoundedMapDeadline(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct{ calendar, running, want time.Duration }{
		{time.Minute, time.Minute, time.Minute},
		{24 * time.Hour, time.Minute, time.Minute}, // set back by a day, nearly
		{24 * time.Hour, -1, -1},
		{-time.Hour, time.Minute, -time.Hour}, // slept, or set forward
	} {
		d := deadline{now.Add(tt.calendar).UnixNano(), now.Add(tt.running).Sub(started)}
		if got := d.left(now); got != tt.want {
			t.Errorf("calendar %v, running %v: %v left, want %v", tt.calendar, tt.running, got, tt.want)
		}
	}
}

// TestBoundedMapReplacedIsStillAskedFor: a new value takes nothing from what is asked for.
func TestBoundedMapReplacedIsStillAskedFor(t *testing.T) {
	now := time.Now()
	s := newBoundedMap[int](2)
	for _, key := range []string{"a", "b"} {
		s.put(key, 1, now, now.Add(time.Hour))
	}
	s.get("a", now)
	s.put("a", 2, now, now.Add(time.Hour))
	s.put("c", 3, now, now.Add(time.Hour))
	if s.find("a") == nil || s.find("b") != nil {
		t.Error("not the one that nobody asked for went")
	}
}

func TestBoundedMapReplaceRemoveExpire(t *testing.T) {
	now := time.Now()
	s := newBoundedMap[int](3)
	for i, k := range []string{"a", "b", "c"} {
		s.put(k, i, now, now.Add(time.Hour))
	}
	s.put("b", 9, now, now.Add(time.Minute))
	if v, left, ok := s.get("b", now); !ok || v != 9 || left != time.Minute || s.len() != 3 {
		t.Errorf("replaced: %v %v %v, %d entries", v, left, ok, s.len())
	}
	if _, _, ok := s.get("b", now.Add(time.Minute)); ok {
		t.Error("found after its end")
	}
	// An expired entry goes before any other, whether it was asked for or not.
	s.get("a", now)
	s.put("d", 3, now.Add(2*time.Minute), now.Add(time.Hour))
	if s.find("b") != nil || s.find("a") == nil {
		t.Error("the expired one stayed")
	}
	for _, k := range []string{"a", "c", "d"} {
		if !s.remove(k) || s.remove(k) {
			t.Errorf("remove %s", k)
		}
	}
	if s.len() != 0 || s.head != nil || s.tail != nil || s.hand != nil || s.store.ItemCount() != 0 {
		t.Error("not empty")
	}
	none := newBoundedMap[int](0)
	none.put("a", 1, now, now.Add(time.Hour))
	if none.len() != 0 {
		t.Error("a map of none holds one")
	}
}

// TestBoundedMapModel: any sequence of calls leaves list and map the same, within bounds.
func TestBoundedMapModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	s := newBoundedMap[int](50)
	for range 20_000 {
		now = now.Add(time.Millisecond)
		key := fmt.Sprint(rng.IntN(120))
		switch rng.IntN(10) {
		case 0:
			s.remove(key)
		case 1, 2, 3, 4:
			s.put(key, 0, now, now.Add(time.Duration(rng.IntN(200))*time.Millisecond))
		default:
			s.get(key, now)
		}
		n, handOnList := 0, s.hand == nil
		for x, before := s.head, (*node[int])(nil); x != nil; before, x = x, x.older {
			if x.newer != before || s.find(x.key) != x {
				t.Fatal("list and map disagree")
			}
			handOnList = handOnList || x == s.hand
			n++
		}
		if n != s.n || n > s.max || n != s.store.ItemCount() || !handOnList {
			t.Fatalf("%d on the list, %d counted, %d in the map, hand on it %v", n, s.n, s.store.ItemCount(), handOnList)
		}
	}
}

// TestBoundedMapScan: a domain with a great many valid addresses does not push out those
// that others ask for.
func TestBoundedMapScan(t *testing.T) {
	const entries, others, flood = 4_000, 2_000, 200_000
	now := time.Now()
	later := now.Add(time.Hour)
	s := newBoundedMap[int](entries)
	for i := range others {
		s.put(fmt.Sprintf("u%d@others.test", i), i, now, later)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	asked, hits := 0, 0
	for i := range flood {
		s.put(fmt.Sprintf("u%d@flood.test", i), i, now, later)
		key := fmt.Sprintf("u%d@others.test", rng.IntN(others))
		asked++
		if _, _, ok := s.get(key, now); ok {
			hits++
		} else {
			s.put(key, 0, now, later) // as a verification would
		}
	}
	if float64(hits) < 0.9*float64(asked) {
		t.Errorf("%d hits of %d", hits, asked)
	}
	if s.len() > entries {
		t.Errorf("%d entries", s.len())
	}
}
