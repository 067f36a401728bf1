package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// lateLine is how long after its answer a message's log line may still wait to be
// written when the milter is killed: it is some milliseconds, and this leaves room for
// a machine that has much else to do.
const lateLine = 10 * time.Second

// figures are what a storm came to.
type figures struct {
	Letters, Attempts         int
	Accepted, Refused         int // messages, by what was heard last
	Deferred, Lost            int // attempts
	Delivered, Held           int // copies
	Verified, Unverified      int // messages: as the policy says, and let through with temperror
	Repeated                  int // copies beyond the first of a recipient, after a lost reply
	DSNs, Notices             int
	RepeatedNotices           int // and DSNs
	MissingLines, MissingSure int // of accepted messages; of refused, discarded and told ones
	ByKind                    map[string]int
	VerifiedByKind            map[string]int
}

// verdict is how one message ended.
type verdict uint8

const (
	unclear    verdict = iota
	verified           // as the policy says of its result
	unverified         // let through with the result temperror
)

// audit checks what became of every message.
func (b *observations) audit() ([]fault, figures) {
	a := &audit{
		observations: b, copies: make(map[string][]delivery), reports: make(map[string][]notification),
		lines: make(map[string][]logLine), figures: figures{ByKind: make(map[string]int), VerifiedByKind: make(map[string]int)},
	}
	known := make(map[string]bool)
	for _, h := range b.Letters {
		if known[h.ID] {
			a.faults = append(a.faults, fault{What: "the storm is wrong: two letters " + h.ID})
		}
		known[h.ID] = true
	}
	for _, d := range b.Deliveries {
		a.copies[d.ID] = append(a.copies[d.ID], d)
		if !known[d.ID] {
			a.faults = append(a.faults, fault{What: fmt.Sprintf("a copy to %s of a message that nobody sent: %q", d.Rcpt, d.ID)})
		}
	}
	for _, r := range b.Told {
		a.reports[r.ID] = append(a.reports[r.ID], r)
		if !known[r.ID] {
			a.faults = append(a.faults, fault{What: fmt.Sprintf("a %s to %s about a message that nobody sent: %q", r.Kind, r.To, r.ID)})
		}
	}
	for _, l := range b.Log {
		a.lines[l.From] = append(a.lines[l.From], l)
	}
	for _, h := range b.Letters {
		a.message(h)
	}
	return a.faults, a.figures
}

type audit struct {
	*observations
	copies  map[string][]delivery // by message
	reports map[string][]notification
	lines   map[string][]logLine // by envelope sender
	faults  []fault
	figures figures
}

func (a *audit) fault(h *history, format string, args ...any) {
	a.faults = append(a.faults, fault{What: fmt.Sprintf(format, args...), History: h})
}

// message checks one message.
func (a *audit) message(h *history) {
	f := &a.figures
	f.Letters++
	f.ByKind[h.Kind]++
	f.Attempts += len(h.Attempts)
	f.Deferred += h.count(deferred)
	f.Lost += h.count(lost)
	for _, d := range a.copies[h.ID] {
		if d.Held {
			f.Held++
		} else {
			f.Delivered++
		}
	}
	switch h.last() {
	case accepted:
		f.Accepted++
	case refused:
		f.Refused++
	default:
		a.fault(h, "it was never answered for good")
		return
	}
	w := &h.Want
	how, why := a.outcome(h, w)
	if how == unclear && h.Before != nil && !h.Overdue {
		if before, _ := a.outcome(h, h.Before); before != unclear {
			w, how, why = h.Before, before, nil
		}
	}
	for _, what := range why {
		a.fault(h, "%s", what)
	}
	a.number(h)
	a.notifications(h, w, how)
	a.logged(h, w, how)
	switch how {
	case verified:
		f.Verified++
		f.VerifiedByKind[h.Kind]++
	case unverified:
		f.Unverified++
	}
}

// outcome compares the copies and the answer with what a want says. Where they do not
// agree it is unclear, and the reasons are faults.
func (a *audit) outcome(h *history, w *want) (how verdict, why []string) {
	sure, open := make(map[string]int), make(map[string]int) // copies by place: with the result, with temperror
	for _, d := range a.copies[h.ID] {
		verdict, wrong := judge(d, w)
		switch {
		case wrong != "":
			why = append(why, fmt.Sprintf("the copy %s %s", place(d.Rcpt, d.Held), wrong))
		case verdict == unverified:
			open[place(d.Rcpt, d.Held)]++
		default:
			sure[place(d.Rcpt, d.Held)]++
		}
	}
	var boxes, all []string
	for _, r := range w.Boxes {
		boxes = append(boxes, place(r, false))
	}
	for _, r := range w.Held {
		boxes = append(boxes, place(r, true))
	}
	for _, r := range h.Rcpts {
		all = append(all, place(r, false))
	}
	for where := range sure {
		if !slices.Contains(boxes, where) {
			why = append(why, fmt.Sprintf("a verified copy is %s, where the policy wants none", where))
		}
	}
	for where := range open {
		if !slices.Contains(all, where) {
			why = append(why, fmt.Sprintf("a copy is %s, who is no recipient", where))
		}
	}
	has := func(copies map[string]int, places []string) bool {
		return !slices.ContainsFunc(places, func(p string) bool { return copies[p] == 0 })
	}
	switch h.last() {
	case refused:
		if !w.Refused {
			why = append(why, "it was refused")
		}
		how = verified
	case accepted:
		switch {
		case len(boxes) > 0 && has(sure, boxes):
			how = verified
		case !w.Submission && has(open, all):
			how = unverified
		case !w.Refused && len(boxes) == 0: // discarded
			how = verified
		default:
			why = append(why, fmt.Sprintf("it was accepted and is missing: copies verified %v, not verified %v", sure, open))
		}
	}
	if len(why) > 0 {
		how = unclear
	}
	return how, why
}

func place(rcpt string, held bool) string {
	if held {
		return "held for " + rcpt
	}
	return "at " + rcpt
}

// judge looks at one copy: its keys and its results.
func judge(d delivery, w *want) (how verdict, wrong string) {
	switch {
	case w.Attached == "" && len(d.Keys) > 0:
		return unclear, "has a key"
	case w.Attached != "" && (len(d.Keys) != 1 || d.Keys[0] != w.Attached):
		return unclear, fmt.Sprintf("has %d keys, or not its sender's", len(d.Keys))
	case w.Submission && len(d.Results)+len(d.Froms) > 0:
		return unclear, fmt.Sprintf("is a submission's and has the results %v %v", d.Results, d.Froms)
	case w.Submission:
		return verified, ""
	case len(d.Results) != 1 || len(d.Froms) > 1:
		return unclear, fmt.Sprintf("has the results %v and %v of From", d.Results, d.Froms)
	}
	const temperror = "temperror"
	result, from := d.Results[0], w.From
	if len(d.Froms) == 1 {
		from = d.Froms[0]
	}
	// Where the policy acts on a failure, the other result need not be known.
	byFrom, byResult := w.From == "fail", w.Result == "fail"
	switch {
	case result == w.Result && from == w.From,
		result == w.Result && from == temperror && (byResult || !byFrom):
		return verified, ""
	case (result == w.Result || result == temperror) && from == temperror,
		result == temperror && from == w.From && !byFrom:
		return unverified, ""
	}
	return unclear, fmt.Sprintf("says %s, of From %s; right is %s, of From %s", result, from, w.Result, w.From)
}

// number counts the copies: no more than there were attempts that may have brought one.
func (a *audit) number(h *history) {
	most := h.count(accepted) + h.count(lost)
	if a.LaterCopies {
		from, to := h.span()
		most += len(a.within(mtaKilled, from, to.Add(time.Minute)))
	}
	count := make(map[string]int)
	for _, d := range a.copies[h.ID] {
		count[place(d.Rcpt, d.Held)]++
	}
	for _, where := range slices.Sorted(maps.Keys(count)) {
		if n := count[where]; n > most {
			a.fault(h, "%d copies are %s, after %d attempts that can have brought one", n, where, most)
		}
		a.figures.Repeated += max(0, count[where]-1)
	}
}

// notifications checks DSNs and notices.
func (a *audit) notifications(h *history, w *want, how verdict) {
	count := make(map[string]int)
	for _, r := range a.reports[h.ID] {
		switch r.Kind {
		case "dsn":
			a.figures.DSNs++
			if r.To != h.From {
				a.fault(h, "a DSN went to %s", r.To)
			}
			for _, about := range r.About {
				count["a DSN about "+about]++
			}
		default:
			a.figures.Notices++
			count["a notice to "+r.To]++
		}
	}
	var wanted []string
	for _, r := range w.DSN {
		wanted = append(wanted, "a DSN about "+r)
	}
	for _, r := range w.Notices {
		wanted = append(wanted, "a notice to "+r)
	}
	if how == verified {
		for _, what := range wanted {
			if count[what] == 0 {
				a.fault(h, "%s is missing", what)
			}
		}
	}
	repeated, dsns := 0, 0 // one DSN is about all recipients who refused
	for _, what := range slices.Sorted(maps.Keys(count)) {
		if !slices.Contains(wanted, what) {
			a.fault(h, "%s, which the policy does not want", what)
		}
		if strings.HasPrefix(what, "a DSN ") {
			dsns = max(dsns, count[what]-1)
		} else {
			repeated += max(0, count[what]-1)
		}
	}
	repeated += dsns
	a.figures.RepeatedNotices += repeated
	from, to := h.span()
	if len(a.within(ledgerFull, from, to)) > 0 {
		return // remembered in memory only, docs/design.md says
	}
	kills := len(a.within(milterKilled, from, to))
	if most := kills * a.Repeats; repeated > most {
		a.fault(h, "%d notices or DSNs were sent again; %d kills of the milter may repeat %d", repeated, kills, most)
	}
}

// logged looks for the line about a message's end.
func (a *audit) logged(h *history, w *want, how verdict) {
	last := h.Attempts[len(h.Attempts)-1]
	for _, l := range a.lines[h.From] {
		if l.Action == "aborted" || l.Action == "tempfail" {
			continue
		}
		if last.QueueID == "" || l.QueueID == last.QueueID {
			return
		}
	}
	a.figures.MissingLines++
	sure := how == verified && (w.Refused || len(w.Boxes)+len(w.Held) == 0 || len(w.DSN)+len(w.Notices) > 0)
	if sure {
		a.figures.MissingSure++
	}
	if sure && a.SureLines || len(a.within(milterKilled, last.Ended.Add(-lateLine), last.Ended.Add(lateLine))) == 0 {
		a.fault(h, "the milter's log has no line about it, and no kill explains that")
	}
}

// within are the disturbances of a kind that were on at some time of a span.
func (b *observations) within(what string, from, to time.Time) (some []disturbance) {
	for _, d := range b.Disturbances {
		if d.What == what && !d.To.Before(from) && !d.From.After(to) {
			some = append(some, d)
		}
	}
	return some
}

// results reads the x-authkey results of an Authentication-Results field's value.
func results(value string) (results, froms []string) {
	for part := range strings.SplitSeq(value, ";") {
		word, ok := strings.CutPrefix(strings.TrimSpace(part), "x-authkey=")
		if !ok {
			continue
		}
		word, rest, _ := strings.Cut(word, " ")
		if strings.Contains(rest, "header.from=") {
			froms = append(froms, word)
		} else {
			results = append(results, word)
		}
	}
	return results, froms
}
