package report

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Bounds of what is read and kept.
const (
	// maxLine is above every line of ours; longer ones are passed over.
	maxLine = 64 << 10
	// maxDomains bounds the sender domains; further ones are added up as OtherDomains.
	maxDomains = 100_000
	// maxKinds bounds the words of one kind, such as reasons; further ones are Other.
	maxKinds = 100
	// maxHours bounds the hours of the plot; what is later is only added up.
	maxHours = 24 * 366 * 3
	// maxDomain is the length of a domain name.
	maxDomain = 255
)

// Words that stand for what has none.
const (
	Aborted      = "aborted"     // the result of a message that did not reach its end
	Mixed        = "mixed"       // the action where recipients differ
	Other        = "other"       // what is one kind too many
	NullSender   = "<>"          // the domain of the null sender
	NoDomain     = "(no domain)" // that of an address without one
	OtherDomains = "(others)"
)

// Counts are numbers of messages by a word.
type Counts map[string]int64

func (c Counts) add(word []byte) {
	c.addN(word, 1)
}

func (c Counts) addN(word []byte, n int64) {
	if _, ok := c[string(word)]; ok || len(c) < maxKinds {
		c[string(word)] += n
		return
	}
	c[Other] += n
}

// merge adds others.
func (c Counts) merge(others Counts) {
	for word, n := range others {
		c.addN([]byte(word), n)
	}
}

// Tally is what there is to say about some messages.
type Tally struct {
	Messages int64  `json:"messages"`
	Results  Counts `json:"results"`         // aborted included
	Actions  Counts `json:"actions"`         // what was done
	Would    Counts `json:"would,omitempty"` // in test mode, what would have been
}

func newTally() *Tally {
	return &Tally{Results: Counts{}, Actions: Counts{}, Would: Counts{}}
}

// Report adds lines up. It is for one goroutine.
type Report struct {
	since  time.Time
	parser parser

	first, last time.Time
	lines       int64 // read, of whatever kind
	tooLong     int64
	probes      int64  // lines about what our own programs tried out
	pending     []byte // the beginning of a line that a container's log has in pieces
	total       *Tally
	cached      int64
	fromResults Counts
	reasons     Counts
	by          Counts
	notes       Counts
	recipients  Counts // by action
	wouldBe     Counts
	domains     map[string]*Tally
	hours       map[string]*hour

	lastDomain string // of the line before: often the same again
	lastTally  *Tally
	lastHour   *hour
}

// An hour is the messages of one, by the log's own time.
type hour struct {
	start    string // 2006-01-02T15
	messages int64
	results  Counts
}

// New makes a report on messages from since on; the zero Time is the beginning.
func New(since time.Time) *Report {
	return &Report{
		since: since, total: newTally(), domains: map[string]*Tally{}, hours: map[string]*hour{},
		fromResults: Counts{}, reasons: Counts{}, by: Counts{}, notes: Counts{}, recipients: Counts{}, wouldBe: Counts{},
	}
}

// Messages is the number of messages reported on so far.
func (r *Report) Messages() int64 { return r.total.Messages }

// Empty reports whether not one line was read.
func (r *Report) Empty() bool { return r.lines == 0 }

// Read adds the lines of a log, which may be compressed by gzip. It ends with ctx.
func (r *Report) Read(ctx context.Context, in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxLine)
	if magic, err := lines.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unpacked, err := gzip.NewReader(lines)
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		lines = bufio.NewReaderSize(unpacked, maxLine)
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			r.lines++
			r.tooLong++
			err = skipLine(ctx, lines)
		} else if len(line) > 0 {
			r.lines++
			r.addLine(bytes.TrimRight(line, "\r\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// skipLine reads to the end of a line, or until ctx ends: a packed file of zeros is one.
func skipLine(ctx context.Context, lines *bufio.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := lines.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// addLine adds one line, if it is one of ours.
func (r *Report) addLine(line []byte) {
	if text, partial, ok := contained(line); ok {
		line = text
		if partial || len(r.pending) > 0 {
			if len(r.pending)+len(text) > maxLine {
				r.tooLong++
				r.pending = r.pending[:0]
				return
			}
			r.pending = append(r.pending, text...)
			if partial {
				return
			}
			line = r.pending
			defer func() { r.pending = r.pending[:0] }()
		}
	}
	p := &r.parser
	if !p.parse(line) {
		return
	}
	var at time.Time
	if at.UnmarshalText(p.time) != nil || at.Before(r.since) {
		return
	}
	if p.probe {
		r.probes++
		return
	}
	if r.first.IsZero() || at.Before(r.first) {
		r.first = at
	}
	if at.After(r.last) {
		r.last = at
	}
	result := p.result
	if len(result) == 0 {
		result = []byte(Aborted)
	}
	action, would := p.action, p.would
	if p.withActions {
		action = []byte(Mixed)
	}
	if bytes.IndexByte(would, '=') >= 0 {
		would = []byte(Mixed)
	}
	for _, tally := range [...]*Tally{r.total, r.tally(p.from)} {
		tally.Messages++
		tally.Results.add(result)
		tally.Actions.add(action)
		if len(would) > 0 {
			tally.Would.add(would)
		}
	}
	if hour := r.hour(p.time[:len("2006-01-02T15")]); hour != nil {
		hour.messages++
		hour.results.add(result)
	}
	r.addDetails(p)
}

func (r *Report) addDetails(p *parser) {
	if p.cached {
		r.cached++
	}
	for _, detail := range [...]struct {
		counts Counts
		word   []byte
	}{{r.fromResults, p.fromResult}, {r.reasons, p.reason}, {r.by, p.by}} {
		if len(detail.word) > 0 {
			detail.counts.add(detail.word)
		}
	}
	for rest := p.note; len(rest) > 0; {
		var note []byte
		note, rest, _ = bytes.Cut(rest, []byte(","))
		r.notes.add(note)
	}
	rcpts, err := strconv.ParseInt(string(p.rcpts), 10, 32)
	if err != nil || rcpts < 0 {
		rcpts = 0
	}
	if string(p.action) != Aborted {
		addRecipients(r.recipients, p.action, p.actions, rcpts)
	}
	if len(p.would) > 0 {
		addRecipients(r.wouldBe, p.would, p.would, rcpts)
	}
}

// addRecipients counts recipients by action: those of a list address=action,…, or
// all under one action.
func addRecipients(counts Counts, action, list []byte, rcpts int64) {
	if bytes.IndexByte(list, '=') < 0 {
		counts.addN(action, rcpts)
		return
	}
	for len(list) > 0 {
		local := 0 // the end of a quoted local part, which holds what it likes
		if list[0] == '"' {
			end, _ := closingQuote(list)
			local = max(0, end)
		}
		end := bytes.IndexByte(list[local:], ',') + local
		if end < local {
			end = len(list)
		}
		item := list[:end]
		list = list[min(end+1, len(list)):]
		if at := bytes.LastIndexByte(item, '='); at >= 0 && known(item[at+1:]) {
			counts.add(item[at+1:])
		}
	}
}

// tally finds the tally of an envelope sender's domain.
func (r *Report) tally(sender []byte) *Tally {
	domain := sender[bytes.LastIndexByte(sender, '@')+1:]
	if r.lastTally != nil && len(domain) < len(sender) && string(domain) == r.lastDomain {
		return r.lastTally
	}
	name := string(bytes.ToLower(domain))
	switch {
	case len(sender) == 0:
		name = NullSender
	case len(domain) == len(sender) || name == "":
		name = NoDomain
	case len(name) > maxDomain:
		name = OtherDomains
	}
	tally := r.domains[name]
	if tally == nil {
		if len(r.domains) >= maxDomains {
			name = OtherDomains
		}
		if tally = r.domains[name]; tally == nil {
			tally = newTally()
			r.domains[name] = tally
		}
	}
	if len(domain) < len(sender) {
		r.lastDomain, r.lastTally = string(domain), tally
	}
	return tally
}

// hour finds the hour that a time begins with; nil where there are too many.
func (r *Report) hour(start []byte) *hour {
	if r.lastHour != nil && r.lastHour.start == string(start) {
		return r.lastHour
	}
	h := r.hours[string(start)]
	if h == nil {
		if len(r.hours) >= maxHours {
			return nil
		}
		h = &hour{start: string(start), results: Counts{}}
		r.hours[h.start] = h
	}
	r.lastHour = h
	return h
}
