package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testmta"
)

// recorded are the observations of a storm that went well, or of some messages of each
// sort: milter, server and MTA were killed and DNS failed.
func recorded(t *testing.T) *observations {
	t.Helper()
	text, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	b := new(observations)
	if err := json.Unmarshal(text, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// about are the observations about one message, to be changed.
func (b *observations) about(h *history) *observations {
	copied := *h
	copied.Attempts = slices.Clone(h.Attempts)
	one := &observations{Letters: []*history{&copied}, Disturbances: slices.Clone(b.Disturbances), Repeats: b.Repeats}
	for _, d := range b.Deliveries {
		if d.ID == h.ID {
			one.Deliveries = append(one.Deliveries, d)
		}
	}
	for _, r := range b.Told {
		if r.ID == h.ID {
			one.Told = append(one.Told, r)
		}
	}
	for _, l := range b.Log {
		if l.From == h.From {
			one.Log = append(one.Log, l)
		}
	}
	return one
}

func TestRecordedStorm(t *testing.T) {
	b := recorded(t)
	faults, f := b.audit()
	for _, fault := range faults {
		t.Errorf("%s", fault)
	}
	if f.Letters < 100 || f.Verified < 50 || f.Unverified < 20 || f.Lost < 5 || f.Deferred < 50 {
		t.Errorf("the recording has too little in it: %+v", f)
	}
}

// An accident is something that goes wrong with a message, and in what the observations then
// say of it. It reports whether it can happen to this one.
type accident struct {
	name   string
	happen func(b *observations, h *history) bool
	what   string // in the fault
}

var accidents = []accident{
	{"accepted and lost", func(b *observations, h *history) bool {
		had := len(b.Deliveries)
		b.Deliveries = nil
		return h.last() == accepted && had > 0 && len(h.Want.Boxes)+len(h.Want.Held) > 0
	}, "is missing"},
	{"one recipient's copy lost", func(b *observations, h *history) bool {
		if len(h.Want.Boxes) < 2 || h.count(lost) > 0 || len(b.Deliveries) < 2 {
			return false
		}
		b.Deliveries = b.Deliveries[1:]
		return true
	}, "is missing"},
	{"refused and delivered", func(b *observations, h *history) bool {
		b.Deliveries = append(b.Deliveries, delivery{ID: h.ID, Rcpt: h.Rcpts[0], Results: []string{h.Want.Result}, Froms: []string{h.Want.From}})
		return h.last() == refused
	}, "where the policy wants none"},
	{"refused and delivered unverified", func(b *observations, h *history) bool {
		b.Deliveries = append(b.Deliveries, delivery{ID: h.ID, Rcpt: h.Rcpts[0], Results: []string{"temperror"}, Froms: []string{"temperror"}})
		return h.last() == refused && h.count(lost) == 0
	}, "attempts that can have brought one"},
	{"deferred and delivered", func(b *observations, h *history) bool {
		b.Deliveries = append(b.Deliveries, b.Deliveries...)
		return len(b.Deliveries) > 0 && h.count(deferred) > 0 && h.count(lost) == 0
	}, "attempts that can have brought one"},
	{"a key is left", func(b *observations, h *history) bool {
		return h.Want.Attached == "" && b.change(func(d *delivery) { d.Keys = []string{"key"} })
	}, "has a key"},
	{"another's key is attached", func(b *observations, h *history) bool {
		return h.Want.Attached != "" && b.change(func(d *delivery) { d.Keys = []string{"another"} })
	}, "not its sender's"},
	{"no key is attached", func(b *observations, h *history) bool {
		return h.Want.Attached != "" && b.change(func(d *delivery) { d.Keys = nil })
	}, "not its sender's"},
	{"pass for a wrong key", func(b *observations, h *history) bool {
		return h.Want.Result == "fail" && b.change(func(d *delivery) { d.Results = []string{"pass"} })
	}, "says pass"},
	{"pass for a wrong key that was to be refused", func(b *observations, h *history) bool {
		h.Attempts[len(h.Attempts)-1].Heard = accepted
		b.Deliveries = []delivery{{ID: h.ID, Rcpt: h.Rcpts[0], Results: []string{"pass"}, Froms: []string{"pass"}}}
		return h.Want.Refused
	}, "says pass"},
	{"fail for a right key", func(b *observations, h *history) bool {
		return h.Want.Result == "pass" && b.change(func(d *delivery) { d.Results = []string{"fail"} })
	}, "says fail"},
	{"a forged pass beside ours", func(b *observations, h *history) bool {
		return !h.Want.Submission && b.change(func(d *delivery) { d.Results = append(slices.Clone(d.Results), "pass") })
	}, "has the results"},
	{"round the milter", func(b *observations, h *history) bool {
		return !h.Want.Submission && b.change(func(d *delivery) { d.Results, d.Froms = nil, nil })
	}, "has the results"},
	{"an honest letter refused", func(b *observations, h *history) bool {
		h.Attempts[len(h.Attempts)-1].Heard, b.Deliveries = refused, nil
		return !h.Want.Refused
	}, "it was refused"},
	{"a forged letter let through", func(b *observations, h *history) bool {
		h.Attempts[len(h.Attempts)-1].Heard = accepted
		b.Deliveries = []delivery{{ID: h.ID, Rcpt: h.Rcpts[0], Results: []string{h.Want.Result}, Froms: []string{h.Want.From}}}
		return h.Want.Refused
	}, "where the policy wants none"},
	{"a forged letter discarded", func(b *observations, h *history) bool {
		h.Attempts[len(h.Attempts)-1].Heard, b.Deliveries = accepted, nil
		return h.Want.Refused
	}, "is missing"},
	{"a stranger's copy", func(b *observations, h *history) bool {
		return b.change(func(d *delivery) { d.Rcpt = "eve@rcpt.test" })
	}, "eve@rcpt.test"},
	{"held and delivered", func(b *observations, h *history) bool {
		return len(h.Want.Held) > 0 && b.change(func(d *delivery) {
			if d.Results[0] == "fail" {
				d.Held = false
			} else {
				d.Held = true
			}
		})
	}, "quarantine@rcpt.test"},
	{"delivered twice", func(b *observations, h *history) bool {
		b.Deliveries = append(b.Deliveries, b.Deliveries...)
		return len(b.Deliveries) > 0 && h.count(lost) == 0
	}, "attempts that can have brought one"},
	{"a notice or DSN missing", func(b *observations, h *history) bool {
		had := len(b.Told)
		b.Told = nil
		return had > 0 && b.verified(h)
	}, "is missing"},
	{"one of many missing", func(b *observations, h *history) bool {
		if len(h.Want.Notices) < few || h.count(deferred)+h.count(lost) > 0 || len(b.Told) == 0 {
			return false
		}
		b.Told = b.Told[1:]
		return b.verified(h)
	}, "is missing"},
	{"notices repeated without a kill", func(b *observations, h *history) bool {
		b.Told = append(b.Told, b.Told...)
		b.Disturbances = nil
		return len(b.Told) > 0
	}, "were sent again"},
	{"more notices repeated than kills explain", func(b *observations, h *history) bool {
		for range 4 {
			b.Told = append(b.Told, b.Told...)
		}
		return len(b.Told) > 100
	}, "were sent again"},
	{"a notice to somebody else", func(b *observations, h *history) bool {
		b.Told = append(b.Told, notification{Kind: "notice", ID: h.ID, To: "eve@rcpt.test"})
		return true
	}, "which the policy does not want"},
	{"a DSN to somebody else", func(b *observations, h *history) bool {
		for i := range b.Told {
			b.Told[i].To = "eve@rcpt.test"
		}
		return len(h.Want.DSN) > 0 && len(b.Told) > 0
	}, "eve@rcpt.test"},
	{"no log line", func(b *observations, h *history) bool {
		b.Log, b.Disturbances = nil, nil
		return true
	}, "no line about it"},
	{"only another attempt's log line", func(b *observations, h *history) bool {
		b.Disturbances = nil
		for i := range b.Log {
			b.Log[i].QueueID = "another"
		}
		return h.last() == accepted
	}, "no line about it"},
	{"no log line, where there has to be one", func(b *observations, h *history) bool {
		last := h.Attempts[len(h.Attempts)-1].Ended
		b.Log, b.SureLines = nil, true
		b.Disturbances = append(b.Disturbances, disturbance{milterKilled, last, last})
		return h.last() == refused
	}, "no line about it"},
	{"never answered", func(b *observations, h *history) bool {
		h.Attempts[len(h.Attempts)-1].Heard = deferred
		return true
	}, "never answered"},
	{"a key that was revoked long ago passes", func(b *observations, h *history) bool {
		h.Before, h.Overdue = &want{Result: "pass", From: "pass", Boxes: h.Rcpts}, true
		h.Attempts[len(h.Attempts)-1].Heard = accepted
		b.Deliveries = []delivery{{ID: h.ID, Rcpt: h.Rcpts[0], Results: []string{"pass"}, Froms: []string{"pass"}}}
		return h.Kind == "wrong key"
	}, "says pass"},
}

// change changes the copies, if there are any.
func (b *observations) change(f func(*delivery)) bool {
	for i := range b.Deliveries {
		f(&b.Deliveries[i])
	}
	return len(b.Deliveries) > 0
}

// verified reports whether none of the copies came unverified.
func (b *observations) verified(h *history) bool {
	return h.count(lost) == 0 && !slices.ContainsFunc(b.Deliveries, func(d delivery) bool { return slices.Contains(d.Results, "temperror") })
}

// TestAccidents lets each accident happen to each message of a real storm to which it
// can: the accountant must notice, and must have had nothing to say before.
func TestAccidents(t *testing.T) {
	b := recorded(t)
	for _, a := range accidents {
		t.Run(a.name, func(t *testing.T) {
			happened := 0
			for _, h := range b.Letters {
				one := b.about(h)
				if !a.happen(one, one.Letters[0]) {
					continue
				}
				happened++
				faults, _ := one.audit()
				if !slices.ContainsFunc(faults, func(f fault) bool { return f.History != nil && strings.Contains(f.What, a.what) }) {
					t.Errorf("not noticed (%q):\n%s\n%v\n%v", faults, fault{History: one.Letters[0]}, one.Deliveries, one.Told)
				}
			}
			if happened == 0 {
				t.Error("no letter to which it can happen")
			}
		})
	}
}

// TestAllowed are things that may happen in a storm.
func TestAllowed(t *testing.T) {
	b := recorded(t)
	for _, a := range []accident{
		{name: "delivered twice after a lost reply", happen: func(b *observations, h *history) bool {
			first := h.Attempts[0]
			first.Heard = lost
			h.Attempts = slices.Insert(h.Attempts, 0, first)
			b.Deliveries = append(b.Deliveries, b.Deliveries...)
			return len(b.Deliveries) > 0
		}},
		{name: "no log line after a kill", happen: func(b *observations, h *history) bool {
			last := h.Attempts[len(h.Attempts)-1].Ended
			b.Log = nil
			b.Disturbances = append(b.Disturbances, disturbance{milterKilled, last.Add(time.Millisecond), last.Add(time.Second)})
			return true
		}},
		{name: "the notice in flight repeated", happen: func(b *observations, h *history) bool {
			if len(b.Told) == 0 || b.Told[0].Kind != "notice" {
				return false
			}
			b.Told = append(b.Told, b.Told[0])
			b.Disturbances = append(b.Disturbances, disturbance{milterKilled, h.Attempts[0].Begun, h.Attempts[0].Ended})
			return true
		}},
		{name: "notices repeated while the ledger could not be written", happen: func(b *observations, h *history) bool {
			b.Told = append(b.Told, b.Told...)
			b.Disturbances = append(b.Disturbances, disturbance{ledgerFull, h.Attempts[0].Begun, h.Attempts[0].Ended})
			return len(b.Told) > 0
		}},
		{name: "a key that was revoked just now passes", happen: func(b *observations, h *history) bool {
			h.Before = &want{Result: "pass", From: "pass", Boxes: h.Rcpts}
			h.Attempts[len(h.Attempts)-1].Heard, h.Attempts[len(h.Attempts)-1].QueueID = accepted, ""
			b.Deliveries = []delivery{{ID: h.ID, Rcpt: h.Rcpts[0], Results: []string{"pass"}, Froms: []string{"pass"}}}
			return h.Kind == "wrong key"
		}},
	} {
		t.Run(a.name, func(t *testing.T) {
			happened := 0
			for _, h := range b.Letters {
				one := b.about(h)
				if !a.happen(one, one.Letters[0]) {
					continue
				}
				happened++
				faults, _ := one.audit()
				for _, f := range faults {
					t.Errorf("%s", f)
				}
			}
			if happened == 0 {
				t.Error("no letter to which it can happen")
			}
		})
	}
}

func TestStrayCopies(t *testing.T) {
	b := recorded(t)
	b.Deliveries = append(b.Deliveries, delivery{ID: "nobody's", Rcpt: "bob@rcpt.test"})
	b.Told = append(b.Told, notification{Kind: "notice", ID: "nobody's", To: "bob@rcpt.test"})
	if faults, _ := b.audit(); len(faults) != 2 {
		t.Errorf("%d faults, want 2: %v", len(faults), faults)
	}
}

func TestResults(t *testing.T) {
	for _, tt := range []struct{ value, results, froms string }{
		{"mx.test; x-authkey=pass smtp.mailfrom=a@a.test; x-authkey=fail reason=\"invalid-key\" header.from=b@a.test", "pass", "fail"},
		{`mx.test; x-authkey=none reason="no AuthKey" smtp.mailfrom=a@a.test`, "none", ""},
		{"mx.test; spf=pass smtp.mailfrom=a.test", "", ""},
		{"mx.test;x-authkey=temperror smtp.mailfrom=a@a.test", "temperror", ""},
	} {
		results, froms := results(tt.value)
		if strings.Join(results, " ") != tt.results || strings.Join(froms, " ") != tt.froms {
			t.Errorf("%s: %v, %v", tt.value, results, froms)
		}
	}
}

func TestParseLog(t *testing.T) {
	got := parseLog([]byte(`time=2026-11-30T17:48:26.270Z level=INFO msg=listening listen=/x
time=2026-11-30T17:48:26.270Z level=INFO msg=message qid=4195A client=127.0.0.1 from=alice+m42@edit.test result=pass reason="" as=127.0.0.1:2 cached=false from_result=nokey action=accept actions="a@b=accept" by=default rcpts=1
time=2026-11-30T17:48:26.270Z level=INFO msg=message qid="" client=127.0.0.1 from=alice+m43@edit.test action=aborted rcpts=1 total_ms=0.2
`))
	want := []logLine{{"4195A", "alice+m42@edit.test", "accept"}, {`""`, "alice+m43@edit.test", "aborted"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestKeySearch(t *testing.T) {
	s := newKeySearch([]string{"abcdefghijklmnop", "short"})
	for content, want := range map[string]bool{
		"":                       false,
		"abcdefg hijklmn":        false,
		"x abcdefgh y":           true,
		"x ijklmnop":             true,
		"short":                  false, // no key of ours is
		"X-Auth-Key: abcdefghij": true,
	} {
		if _, found := s.in([]byte(content)); found != want {
			t.Errorf("%q: %v", content, found)
		}
	}
}

// TestListen is about what a client makes of what it hears.
func TestListen(t *testing.T) {
	exchanges := func(last testmta.Reply) []testmta.Exchange {
		return []testmta.Exchange{{Command: "MAIL FROM:<a@a.test>", Reply: testmta.Reply{Code: 250}}, {Command: "DATA", Reply: last}}
	}
	ready := exchanges(testmta.Reply{Code: 354})
	for _, tt := range []struct {
		name string
		out  testmta.Outcome
		err  error
		want heard
	}{
		{"accepted", testmta.Outcome{Exchanges: ready, Accepted: true, Final: testmta.Reply{Code: 250}}, nil, accepted},
		{"refused", testmta.Outcome{Exchanges: ready, Final: testmta.Reply{Code: 550}}, nil, refused},
		{"deferred", testmta.Outcome{Exchanges: ready, Final: testmta.Reply{Code: 451, Text: "4.7.1 later"}}, nil, deferred},
		{"deferred before DATA", testmta.Outcome{Final: testmta.Reply{Code: 451}}, nil, deferred},
		{"broke before DATA", testmta.Outcome{Exchanges: exchanges(testmta.Reply{Code: 451})}, os.ErrClosed, deferred},
		{"broke after DATA", testmta.Outcome{Exchanges: ready}, os.ErrClosed, lost},
		{"the MTA's cleanup died", testmta.Outcome{Exchanges: ready, Final: testmta.Reply{Code: 451, Text: "4.3.0 Error: queue file write error"}}, nil, lost},
	} {
		if got, _, _ := listen(tt.out, tt.err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
