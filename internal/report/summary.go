package report

import (
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// The vocabulary, in the order in which it is shown.
var (
	resultNames = names(verifier.Statuses(), Aborted)
	actionNames = names(policy.AllActions(), Mixed, Aborted)
)

func names[T any](words []T, more ...string) []string {
	var all []string
	for _, w := range words {
		switch w := any(w).(type) {
		case verifier.Status:
			all = append(all, string(w))
		case policy.Action:
			all = append(all, w.String())
		}
	}
	return append(all, more...)
}

var knownActions = func() map[string]bool {
	m := map[string]bool{}
	for _, a := range policy.AllActions() {
		m[a.String()] = true
	}
	return m
}()

// known reports whether a word is an action.
func known(word []byte) bool { return knownActions[string(word)] }

// A Summary is a report as programs read it, and what the text is made of.
type Summary struct {
	First *time.Time `json:"first,omitempty"` // of the messages
	Last  *time.Time `json:"last,omitempty"`
	// Lines were read, those of others included; LinesTooLong of them were passed over.
	Lines        int64 `json:"lines"`
	LinesTooLong int64 `json:"lines_too_long"`
	// Probes are lines about what authkey's own programs tried out. They are no mail, and
	// not part of what follows.
	Probes int64 `json:"probes"`

	Tally
	Cached          int64         `json:"cached"`       // answered from the cache
	FromResults     Counts        `json:"from_results"` // of the From field
	Reasons         Counts        `json:"reasons"`
	By              Counts        `json:"by"` // who decided
	Notes           Counts        `json:"notes"`
	Recipients      Counts        `json:"recipients"`       // by what was done
	WouldRecipients Counts        `json:"would_recipients"` // by what would have been
	Domains         []DomainTally `json:"domains"`          // most messages first
	Step            string        `json:"step"`             // of Series: hour or day
	Series          []Point       `json:"series"`           // oldest first, gaps left out
}

// A DomainTally is about a sender domain.
type DomainTally struct {
	Domain string `json:"domain"`
	Tally
}

// A Point is a day or an hour, by the log's own time.
type Point struct {
	Start    string `json:"start"` // 2006-01-02 or 2006-01-02T15
	Messages int64  `json:"messages"`
	Results  Counts `json:"results"`
}

// hourly is up to which length a report is plotted by the hour.
const hourly = 48 * time.Hour

// Summary returns what was read so far.
func (r *Report) Summary() Summary {
	s := Summary{
		Lines: r.lines, LinesTooLong: r.tooLong, Probes: r.probes, Tally: *r.total, Cached: r.cached, FromResults: r.fromResults,
		Reasons: r.reasons, By: r.by, Notes: r.notes, Recipients: r.recipients, WouldRecipients: r.wouldBe,
		Domains: []DomainTally{}, Step: "day", Series: []Point{},
	}
	if r.total.Messages > 0 {
		s.First, s.Last = &r.first, &r.last
	}
	for domain, tally := range r.domains {
		s.Domains = append(s.Domains, DomainTally{domain, *tally})
	}
	slices.SortFunc(s.Domains, func(a, b DomainTally) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Domain, b.Domain))
	})
	length := len("2006-01-02")
	if r.last.Sub(r.first) <= hourly {
		s.Step, length = "hour", len("2006-01-02T15")
	}
	points := map[string]*Point{}
	for _, h := range r.hours {
		start := h.start[:length]
		p := points[start]
		if p == nil {
			p = &Point{Start: start, Results: Counts{}}
			points[start] = p
		}
		p.Messages += h.messages
		p.Results.merge(h.results)
	}
	for _, start := range slices.Sorted(maps.Keys(points)) {
		s.Series = append(s.Series, *points[start])
	}
	return s
}

// WriteJSON writes the summary as one JSON object; docs/operations.md describes it.
func (s Summary) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(s) }
