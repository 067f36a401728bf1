package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/authkey/authkey/verifier"
)

const (
	// barWidth is the length of the plot's longest bar.
	barWidth = 50
	// maxPoints bounds the lines of the plot: the latest are shown.
	maxPoints = 100
)

// WriteText writes the summary for people, with the top domains; 0 means all.
func (s Summary) WriteText(w io.Writer, top int) error {
	var b strings.Builder
	s.writeHead(&b)
	s.writeTotals(&b)
	s.writeDomains(&b, top)
	s.writePlot(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Summary) writeHead(b *strings.Builder) {
	defer func() {
		if s.Probes > 0 {
			fmt.Fprintf(b, "%-22s %d, of authkey-milter doctor: no mail, left out\n", "probes", s.Probes)
		}
	}()
	if s.First == nil {
		fmt.Fprintf(b, "no message in %d lines\n", s.Lines)
		return
	}
	fmt.Fprintf(b, "%d messages from %s to %s, in %d lines\n", s.Messages, s.First.Format(time.DateTime), s.Last.Format(time.DateTime), s.Lines)
	if s.LinesTooLong > 0 {
		fmt.Fprintf(b, "%d lines longer than %d octets were passed over\n", s.LinesTooLong, maxLine)
	}
}

func (s Summary) writeTotals(b *strings.Builder) {
	line := func(title, text string) {
		if text != "" {
			fmt.Fprintf(b, "%-22s %s\n", title, text)
		}
	}
	line("results", list(s.Results, resultNames, s.Messages))
	line("From field", list(s.FromResults, resultNames, 0))
	line("reasons", list(s.Reasons, nil, 0))
	line("done", list(s.Actions, actionNames, s.Messages))
	line("would have been done", list(s.Would, actionNames, sum(s.Would)))
	line("recipients", list(s.Recipients, actionNames, 0))
	line("would, by recipient", list(s.WouldRecipients, actionNames, 0))
	line("decided by", list(s.By, nil, 0))
	line("notes", list(s.Notes, nil, 0))
	if s.Cached > 0 {
		line("from the cache", strconv.FormatInt(s.Cached, 10))
	}
}

func sum(c Counts) int64 {
	var n int64
	for _, count := range c {
		n += count
	}
	return n
}

// list writes counts in the order of a vocabulary, the rest and, without one, all by
// their number; with shares of a total unless that is 0.
func list(c Counts, order []string, total int64) string {
	words := slices.Collect(maps.Keys(c))
	rank := func(word string) int {
		if at := slices.Index(order, word); at >= 0 {
			return at
		}
		return len(order)
	}
	slices.SortFunc(words, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(c[b], c[a]), strings.Compare(a, b))
	})
	var parts []string
	for _, word := range words {
		part := fmt.Sprintf("%s %d", printable(word), c[word])
		if total > 0 {
			part += fmt.Sprintf(" (%s)", share(c[word], total))
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// share is a part in percent: never 0% of something, nor 100% of less than all.
func share(n, total int64) string {
	switch percent := float64(n) * 100 / float64(total); {
	case n > 0 && percent < 0.1:
		return "<0.1%"
	case n < total && percent > 99.9:
		return ">99.9%"
	default:
		return fmt.Sprintf("%.1f%%", percent)
	}
}

// printable quotes what could disturb a terminal or a table.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}

// writeDomains writes a table; columns that would be empty are left out.
func (s Summary) writeDomains(b *strings.Builder, top int) {
	if len(s.Domains) == 0 {
		return
	}
	var columns []string
	for _, name := range resultNames {
		if s.Results[name] > 0 {
			columns = append(columns, name)
		}
	}
	b.WriteByte('\n')
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "SENDER DOMAIN\tMESSAGES\t%s\tDONE\tWOULD\n", strings.ToUpper(strings.Join(columns, "\t")))
	shown := s.Domains
	if top > 0 && len(shown) > top {
		shown = shown[:top]
	}
	row := func(name string, t Tally) {
		fmt.Fprintf(table, "%s\t%d\t", name, t.Messages)
		for _, column := range columns {
			fmt.Fprintf(table, "%d\t", t.Results[column])
		}
		fmt.Fprintf(table, "%s\t%s\n", list(t.Actions, actionNames, 0), list(t.Would, actionNames, 0))
	}
	for _, d := range shown {
		row(printable(d.Domain), d.Tally)
	}
	if rest := s.Domains[len(shown):]; len(rest) > 0 {
		all := newTally()
		for _, d := range rest {
			all.merge(d.Tally)
		}
		row(fmt.Sprintf("%d more", len(rest)), *all)
	}
	_ = table.Flush() // to memory
	for line := range strings.Lines(out.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

// merge adds another tally.
func (t *Tally) merge(other Tally) {
	t.Messages += other.Messages
	t.Results.merge(other.Results)
	t.Actions.merge(other.Actions)
	t.Would.merge(other.Would)
}

// The plot's marks, each for some results.
const (
	markPass  = '='
	markFail  = 'x'
	markError = '!'
	markOther = '.'
)

// writePlot draws a bar for each hour or day, also for those without mail.
func (s Summary) writePlot(b *strings.Builder) {
	if len(s.Series) == 0 {
		return
	}
	points := s.filled()
	cut := ""
	if len(points) > maxPoints {
		points, cut = points[len(points)-maxPoints:], fmt.Sprintf(", the last %d", maxPoints)
	}
	most := int64(1)
	for _, p := range points {
		most = max(most, p.Messages)
	}
	width := len(strconv.FormatInt(most, 10))
	fmt.Fprintf(b, "\nMessages by %s%s   %c pass   %c fail   %c temperror, permerror   %c others\n", s.Step, cut, markPass, markFail, markError, markOther)
	for _, p := range points {
		pass, fail := p.Results[string(verifier.Pass)], p.Results[string(verifier.Fail)]
		errors := p.Results[string(verifier.TempError)] + p.Results[string(verifier.PermError)]
		bar := ""
		for _, part := range []struct {
			mark rune
			n    int64
		}{{markPass, pass}, {markFail, fail}, {markError, errors}, {markOther, p.Messages - pass - fail - errors}} {
			length := int((part.n*barWidth + most/2) / most)
			if part.n > 0 {
				length = max(1, length) // what is rare is what one looks for
			}
			bar += strings.Repeat(string(part.mark), length)
		}
		label := p.Start
		if s.Step == "hour" {
			label = strings.Replace(p.Start, "T", " ", 1) + "h"
		}
		line := fmt.Sprintf("%s  %*d  %s", label, width, p.Messages, bar)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// filled is the series with its gaps, unless it cannot be read as times.
func (s Summary) filled() []Point {
	layout, next := time.DateOnly, func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
	if s.Step == "hour" {
		layout, next = "2006-01-02T15", func(t time.Time) time.Time { return t.Add(time.Hour) }
	}
	var points []Point
	for i, p := range s.Series {
		if i > 0 {
			at, err := time.Parse(layout, s.Series[i-1].Start)
			for n := 0; err == nil && n < maxHours; n++ {
				if at = next(at); at.Format(layout) >= p.Start {
					break
				}
				points = append(points, Point{Start: at.Format(layout)})
			}
		}
		points = append(points, p)
	}
	return points
}
