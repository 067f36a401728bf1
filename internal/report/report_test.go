package report

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// attrs are what the milter logs of a message.
func attrs(pairs ...string) []slog.Attr {
	all := []slog.Attr{slog.String("qid", "9DCB0986837"), slog.String("client", "192.0.2.7")}
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, slog.String(pairs[i], pairs[i+1]))
	}
	return append(all, slog.Int("removed", 1), slog.Float64("total_ms", 1.234))
}

// A clock writes log lines, each a given time after the one before.
type clock struct {
	now  time.Time
	step time.Duration
}

// log writes lines with slog's own handlers, as the milter does.
func (c *clock) log(w io.Writer, format string, messages ...[]slog.Attr) {
	var h slog.Handler = slog.NewTextHandler(w, nil)
	if format == "json" {
		h = slog.NewJSONHandler(w, nil)
	}
	for _, m := range messages {
		record := slog.NewRecord(c.now, slog.LevelInfo, "message", 0)
		record.AddAttrs(m...)
		_ = h.Handle(context.Background(), record) // to memory
		c.now = c.now.Add(c.step)
	}
}

func newClock() *clock {
	return &clock{time.Date(2026, 11, 23, 22, 30, 0, 0, time.FixedZone("", 3600)), 20 * time.Minute}
}

func read(t *testing.T, in string) Summary {
	t.Helper()
	r := New(time.Time{})
	if err := r.Read(t.Context(), strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	return r.Summary()
}

// week is some days of mail of every kind.
var week = [][]slog.Attr{
	attrs("from", "alice@a.example", "result", "pass", "cached", "true", "from_result", "pass", "action", "accept", "by", "default", "rcpts", "2"),
	attrs("from", "bob@A.example", "result", "fail", "reason", "invalid-key", "action", "reject", "by", "rule-sender", "rcpts", "1"),
	attrs("from", "x@b.example", "result", "none", "reason", "no-as", "action", "accept", "by", "default", "rcpts", "1"),
	attrs("from", "x@b.example", "result", "nokey", "reason", "", "action", "mark", "actions", `c@d=mark,"e=reject,f"@d=accept`, "by", "pref", "note", "no-dsn,marked-for-all", "rcpts", "2"),
	attrs("from", "", "result", "skipped", "reason", "null-sender", "action", "accept", "by", "default", "rcpts", "1"),
	attrs("from", "root", "result", "none", "reason", "no-domain", "action", "accept", "by", "default", "rcpts", "1"),
	attrs("from", "x@c.example", "action", "aborted", "rcpts", "0"),
	attrs("from", "x\"\\ \x1b[2J@\x1b[31m.example", "result", "temperror", "reason", "dns-timeout", "action", "accept", "would", "tempfail", "by", "default", "rcpts", "3"),
	attrs("from", "x@test.example", "result", "fail", "reason", "required", "action", "accept", "would", "c@d=mark,e@d=reject", "by", "default", "rcpts", "2"),
}

func TestReport(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		for _, header := range []string{"", "Nov 23 22:30:00 mx authkey-milter[77]: ", "2026-11-23T22:30:00.123456+01:00 mx authkey-milter[77]: "} {
			t.Run(format+" "+header, func(t *testing.T) {
				var log bytes.Buffer
				newClock().log(&log, format, week...)
				text := header + strings.ReplaceAll(strings.TrimSpace(log.String()), "\n", "\r\n"+header)
				got := read(t, text) // without a line end at the end
				want := Summary{
					Lines: 9,
					Tally: Tally{9, Counts{"pass": 1, "fail": 2, "none": 2, "nokey": 1, "skipped": 1, "temperror": 1, "aborted": 1},
						Counts{"accept": 6, "reject": 1, "mixed": 1, "aborted": 1}, Counts{"tempfail": 1, "mixed": 1}},
					Cached: 1, FromResults: Counts{"pass": 1},
					Reasons:         Counts{"invalid-key": 1, "no-as": 1, "null-sender": 1, "no-domain": 1, "dns-timeout": 1, "required": 1},
					By:              Counts{"default": 6, "pref": 1, "rule-sender": 1},
					Notes:           Counts{"no-dsn": 1, "marked-for-all": 1},
					Recipients:      Counts{"accept": 11, "reject": 1, "mark": 1},
					WouldRecipients: Counts{"tempfail": 3, "mark": 1, "reject": 1},
					Domains: []DomainTally{
						{"a.example", Tally{2, Counts{"pass": 1, "fail": 1}, Counts{"accept": 1, "reject": 1}, Counts{}}},
						{"b.example", Tally{2, Counts{"none": 1, "nokey": 1}, Counts{"accept": 1, "mixed": 1}, Counts{}}},
						{"\x1b[31m.example", Tally{1, Counts{"temperror": 1}, Counts{"accept": 1}, Counts{"tempfail": 1}}},
						{"(no domain)", Tally{1, Counts{"none": 1}, Counts{"accept": 1}, Counts{}}},
						{"<>", Tally{1, Counts{"skipped": 1}, Counts{"accept": 1}, Counts{}}},
						{"c.example", Tally{1, Counts{"aborted": 1}, Counts{"aborted": 1}, Counts{}}},
						{"test.example", Tally{1, Counts{"fail": 1}, Counts{"accept": 1}, Counts{"mixed": 1}}},
					},
					Step: "hour",
					Series: []Point{
						{"2026-11-23T22", 2, Counts{"pass": 1, "fail": 1}},
						{"2026-11-23T23", 3, Counts{"none": 1, "nokey": 1, "skipped": 1}},
						{"2026-11-24T00", 3, Counts{"none": 1, "aborted": 1, "temperror": 1}},
						{"2026-11-24T01", 1, Counts{"fail": 1}},
					},
				}
				if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Summary{}, "First", "Last")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if first := newClock().now; !got.First.Equal(first) || !got.Last.Equal(first.Add(160*time.Minute)) {
					t.Errorf("from %v to %v", got.First, got.Last)
				}
			})
		}
	}
}

const wantText = `9 messages from 2026-11-23 22:30:00 to 2026-11-24 01:10:00, in 9 lines
results                pass 1 (11.1%), fail 2 (22.2%), nokey 1 (11.1%), none 2 (22.2%), temperror 1 (11.1%), skipped 1 (11.1%), aborted 1 (11.1%)
From field             pass 1
reasons                dns-timeout 1, invalid-key 1, no-as 1, no-domain 1, null-sender 1, required 1
done                   accept 6 (66.7%), reject 1 (11.1%), mixed 1 (11.1%), aborted 1 (11.1%)
would have been done   tempfail 1 (50.0%), mixed 1 (50.0%)
recipients             accept 11, mark 1, reject 1
would, by recipient    mark 1, tempfail 3, reject 1
decided by             default 6, pref 1, rule-sender 1
notes                  marked-for-all 1, no-dsn 1
from the cache         1

SENDER DOMAIN       MESSAGES  PASS  FAIL  NOKEY  NONE  TEMPERROR  SKIPPED  ABORTED  DONE                 WOULD
a.example           2         1     1     0      0     0          0        0        accept 1, reject 1
b.example           2         0     0     1      1     0          0        0        accept 1, mixed 1
"\x1b[31m.example"  1         0     0     0      0     1          0        0        accept 1             tempfail 1
4 more              4         0     1     0      1     0          1        1        accept 3, aborted 1  mixed 1

Messages by hour   = pass   x fail   ! temperror, permerror   . others
2026-11-23 22h  2  =================xxxxxxxxxxxxxxxxx
2026-11-23 23h  3  ..................................................
2026-11-24 00h  3  !!!!!!!!!!!!!!!!!.................................
2026-11-24 01h  1  xxxxxxxxxxxxxxxxx
`

func TestText(t *testing.T) {
	var log, out bytes.Buffer
	newClock().log(&log, "text", week...)
	if err := read(t, log.String()).WriteText(&out, 3); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantText, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	if err := read(t, "nothing\n").WriteText(&out, 0); err != nil || out.String() != "no message in 1 lines\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestDays plots by the day, gaps too, and the last ones only.
func TestDays(t *testing.T) {
	var log, out bytes.Buffer
	c := newClock()
	c.step = 48 * time.Hour
	c.log(&log, "text", week[:3]...)
	if err := read(t, log.String()).WriteText(&out, 0); err != nil {
		t.Fatal(err)
	}
	const want = "Messages by day   = pass   x fail   ! temperror, permerror   . others\n" +
		"2026-11-23  1  ==================================================\n2026-11-24  0\n" +
		"2026-11-25  1  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n2026-11-26  0\n" +
		"2026-11-27  1  ..................................................\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	c.step = 100 * 24 * time.Hour
	c.log(&log, "text", week[:3]...)
	out.Reset()
	if err := read(t, log.String()).WriteText(&out, 0); err != nil {
		t.Fatal(err)
	}
	_, plot, _ := strings.Cut(out.String(), "Messages by day, the last 100 ")
	if lines := strings.Count(plot, "\n"); lines != 101 || !strings.HasSuffix(plot, "2027-06-17  1  ..................................................\n") {
		t.Errorf("%d lines:\n%s", lines, plot)
	}
}

// TestForeignLines passes over what is not ours, whatever it holds.
func TestForeignLines(t *testing.T) {
	const line = "time=2026-11-24T10:00:00.000Z level=INFO msg=message qid=1 from=a@b.example result=pass action=accept rcpts=1"
	const object = `{"time":"2026-11-24T10:00:00.000Z","level":"INFO","msg":"message","from":"a@b.example","result":"pass","action":"accept"}`
	for _, good := range []string{line, object, "x: " + line, " " + "h: " + object} {
		if got := read(t, good); got.Messages != 1 || got.Domains[0].Domain != "b.example" {
			t.Errorf("%q: %+v", good, got)
		}
	}
	long := strings.Repeat("x", maxLine)
	for _, foreign := range []string{
		"", " ", "Nov 24 10:00:00 mx postfix/smtpd[1]: 4A: from=<x " + line + ">",
		"Nov 24 10:00:00 mx postfix/smtpd[1]: warning: " + line,
		"x " + line, " " + line,
		strings.Replace(line, "msg=message", `msg="messages may be lost"`, 1),
		strings.Replace(line, "msg=message", "msg=listening", 1),
		strings.Replace(line, "msg=message ", "", 1),
		strings.Replace(line, "time=2026", "time=x026", 1),
		"time= msg=message", "time=", "time", "=", `time="`, `time="\`, line + ` x="`, line + ` x="\q"`, line + ` x="a"b`, line + " x", line + " =",
		object[:len(object)-1], object + "x", `{`, `{}`, `{"msg"`, `{"msg":`, `{"msg":"message"`, `{"msg":"message",`, `{"time":{"a":1},"msg":"message"}`, `{"time":[],"msg":"message"}`,
		strings.Replace(object, `"INFO"`, `"\q"`, 1),
		line + " x=" + long, object[:len(object)-1] + `,"x":"` + long + `"}`,
	} {
		if got := read(t, foreign+"\n"+line+"\n"); got.Messages != 1 || got.Lines != 2 {
			t.Errorf("%.200q: %d messages in %d lines", foreign, got.Messages, got.Lines)
		}
	}
	if got := read(t, long+long+"\n"+line+"\n"+long+long); got.LinesTooLong != 2 || got.Messages != 1 {
		t.Errorf("%+v", got)
	}
}

// TestBounds keeps no more than it must of what strangers choose.
func TestBounds(t *testing.T) {
	r := New(time.Time{})
	var line bytes.Buffer
	for i := range maxDomains + 10 {
		line.Reset()
		fmt.Fprintf(&line, "time=2026-11-24T10:00:00Z msg=message from=a@%d.example result=r%d reason=x%d action=accept rcpts=99999999999999999999", i, i, i)
		r.addLine(line.Bytes())
	}
	r.addLine([]byte("time=2026-11-24T10:00:00Z msg=message from=a@" + strings.Repeat("x", 300) + " result=pass action=accept rcpts=-1"))
	s := r.Summary()
	if len(s.Domains) != maxDomains+1 || s.Domains[0].Domain != OtherDomains || s.Domains[0].Messages != 11 {
		t.Errorf("%d domains, first %+v", len(s.Domains), s.Domains[0])
	}
	if len(s.Results) != maxKinds+1 || len(s.Reasons) != maxKinds+1 || s.Messages != maxDomains+11 || s.Recipients["accept"] != 0 {
		t.Errorf("%d results, %d reasons, %d messages, %v", len(s.Results), len(s.Reasons), s.Messages, s.Recipients)
	}
	r = New(time.Time{})
	at := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	for range maxHours + 10 {
		r.addLine([]byte("time=" + at.Format(time.RFC3339) + " msg=message from=a@b result=pass action=accept"))
		at = at.Add(time.Hour)
	}
	if len(r.hours) != maxHours || r.Messages() != maxHours+10 {
		t.Errorf("%d hours, %d messages", len(r.hours), r.Messages())
	}
}

func TestSinceAndGzip(t *testing.T) {
	var log, packed bytes.Buffer
	c := newClock()
	since := c.now.Add(3 * c.step)
	c.log(&log, "text", week...)
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(log.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r := New(since)
	for _, in := range []io.Reader{&log, bytes.NewReader(packed.Bytes())} {
		if err := r.Read(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.Summary(); s.Messages != 12 || s.Lines != 18 || !s.First.Equal(since) {
		t.Errorf("%+v", s)
	}
	if err := r.Read(t.Context(), bytes.NewReader(packed.Bytes()[:packed.Len()/2])); err == nil {
		t.Error("half an archive is no error")
	}
	if err := r.Read(t.Context(), strings.NewReader("\x1f\x8bx")); err == nil {
		t.Error("no archive is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Read(ctx, &log); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestJSON(t *testing.T) {
	var log, out bytes.Buffer
	newClock().log(&log, "json", week...)
	s := read(t, log.String())
	if err := s.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var again Summary
	if err := json.Unmarshal(out.Bytes(), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, again, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	if err := read(t, "").WriteJSON(&out); err != nil || !strings.Contains(out.String(), `"domains":[],`) || strings.Contains(out.String(), "first") {
		t.Errorf("%s, %v", out.String(), err)
	}
}

func TestParseAge(t *testing.T) {
	for in, want := range map[string]time.Duration{"7d": 168 * time.Hour, "2w": 336 * time.Hour, "90m": 90 * time.Minute, "0d": 0, "1h30m": 90 * time.Minute} {
		if got, err := ParseAge(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "d", "-1d", "7", "1.5d", "yesterday", "-1h", "99999d"} {
		if got, err := ParseAge(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// TestJournal runs a journalctl that says what it was asked.
func TestJournal(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/bin:/usr/bin")
	var log bytes.Buffer
	c := newClock()
	since := c.now
	c.log(&log, "text", week...)
	journal := filepath.Join(bin, "journal")
	if err := os.WriteFile(journal, log.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	script := func(text string) {
		if err := os.WriteFile(filepath.Join(bin, "journalctl"), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script(fmt.Sprintf("[ \"$*\" = '--unit=authkey-milter.service --output=cat --no-pager --quiet --since=@%d' ] || exit 9\ncat %s\n", since.Unix(), journal))
	r := New(since)
	if err := r.ReadJournal(t.Context()); err != nil || r.Messages() != 9 {
		t.Errorf("%d messages, %v", r.Messages(), err)
	}
	if err := New(time.Time{}).ReadJournal(t.Context()); err == nil {
		t.Error("asked since when, though not told")
	}
	script("echo no permission >&2; exit 1\n")
	if err := r.ReadJournal(t.Context()); err == nil || err.Error() != "journalctl: exit status 1: no permission" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.ReadJournal(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func FuzzLine(f *testing.F) {
	var log bytes.Buffer
	for _, format := range []string{"text", "json"} {
		newClock().log(&log, format, week...)
	}
	for line := range strings.Lines(log.String()) {
		f.Add([]byte(line))
	}
	f.Add([]byte(`Nov 24 10:00:00 mx authkey-milter[1]: time=2026-11-24T10:00:00Z msg=message from="a@\xff" actions="=mark,x=,=" note=,,`))
	f.Add([]byte(`{"time":"2026-11-24T10:00:00Z","msg":"message","from":"\ud800@","rcpts":1e9}`))
	for _, c := range collected {
		f.Add([]byte(fmt.Sprintf(c.format, logfmtLine)))
	}
	f.Add([]byte(pieces))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := New(time.Time{})
		if err := r.Read(t.Context(), bytes.NewReader(in)); err != nil {
			return // no archive
		}
		s := r.Summary()
		if sum(s.Results) != s.Messages || sum(s.Actions) != s.Messages {
			t.Errorf("%+v", s)
		}
		var perDomain, perPoint int64
		for _, d := range s.Domains {
			perDomain += d.Messages
		}
		for _, p := range s.Series {
			perPoint += p.Messages
		}
		if perDomain != s.Messages || perPoint != s.Messages {
			t.Errorf("%d messages, %d by domain, %d in the plot", s.Messages, perDomain, perPoint)
		}
		var out bytes.Buffer
		if err := s.WriteText(&out, 2); err != nil {
			t.Error(err)
		}
		for _, c := range out.Bytes() {
			if c < ' ' && c != '\n' || c == 0x7f {
				t.Errorf("writes %q", out.String())
				break
			}
		}
		if err := s.WriteJSON(io.Discard); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkRead reads lines of thousands of domains.
func BenchmarkRead(b *testing.B) {
	for _, format := range []string{"text", "json"} {
		b.Run(format, func(b *testing.B) {
			var log bytes.Buffer
			c := newClock()
			c.step = time.Second
			const lines = 20_000
			for i := range lines {
				c.log(&log, format, attrs("from", fmt.Sprintf("alice%d@d%d.example", i, i*7919%5000), "result", "pass", "reason", "", "as", "as.a.example:7425",
					"cached", "false", "from_result", "pass", "action", "accept", "would", "accept", "by", "default", "rcpts", "1", "dns_ms", "0.512", "as_ms", "1.204"))
			}
			b.SetBytes(int64(log.Len()))
			for b.Loop() {
				r := New(time.Time{})
				if err := r.Read(b.Context(), bytes.NewReader(log.Bytes())); err != nil || r.Messages() != lines {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(lines*b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// zeros are a line that goes on; the one who wants no more of it is heard.
type zeros struct {
	cancel context.CancelFunc
	reads  int
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.reads++; z.reads == 3 {
		z.cancel()
	}
	if z.reads == 1000 {
		return 0, io.EOF
	}
	clear(p)
	return len(p), nil
}

func TestEndlessLine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := &zeros{cancel: cancel}
	if err := New(time.Time{}).Read(ctx, in); !errors.Is(err, context.Canceled) || in.reads >= 1000 {
		t.Errorf("%v after %d reads", err, in.reads)
	}
}
