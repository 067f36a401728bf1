package program

import (
	"context"
	"encoding"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// A settler is a handler whose lines wait for others, to be written together, until Settle
// is called.
type settler struct {
	slog.Handler
	out *logWriter
}

// Settle has the lines so far written before it returns, if the log is being read.
func (h settler) Settle() { h.out.settle() }

func (h settler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return settler{h.Handler.WithAttrs(attrs), h.out}
}

func (h settler) WithGroup(name string) slog.Handler {
	return settler{h.Handler.WithGroup(name), h.out}
}

// A textHandler writes the same lines as slog.TextHandler, for the values that our
// log lines have, at half the cost. It is the log line of each message that counts.
type textHandler struct {
	out    io.Writer
	level  slog.Leveler
	prefix []byte // attributes of the logger, each with a blank before it
	group  string // before the keys, with its dot
}

// A second is the text of all times within one: their beginning, and what follows the
// milliseconds. Formatting a time in full is a good part of a line's cost.
type second struct {
	unix       int64
	zone       *time.Location
	head, tail string
}

// lastSecond is the one of the last line.
var lastSecond atomic.Pointer[second]

// appendTime appends t as RFC 3339 has it, to the millisecond.
func appendTime(b []byte, t time.Time) []byte {
	s := lastSecond.Load()
	if s == nil || s.unix != t.Unix() || s.zone != t.Location() {
		s = &second{t.Unix(), t.Location(), t.Format("2006-01-02T15:04:05."), t.Format("Z07:00")}
		lastSecond.Store(s)
	}
	ms := t.Nanosecond() / int(time.Millisecond)
	b = append(b, s.head...)
	b = append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	return append(b, s.tail...)
}

// lines are buffers of lines that have been written.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.prefix = append([]byte(nil), h.prefix...)
	for _, a := range attrs {
		with.prefix = appendAttr(with.prefix, h.group, a)
	}
	return &with
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	with := *h
	if name != "" {
		with.group += name + "."
	}
	return &with
}

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	line := lines.Get().(*[]byte)
	b := append((*line)[:0], "time="...)
	b = appendTime(b, r.Time)
	b = append(b, " level="...)
	b = append(b, r.Level.String()...)
	b = append(b, " msg="...)
	b = appendText(b, r.Message)
	b = append(b, h.prefix...)
	r.Attrs(func(a slog.Attr) bool {
		b = appendAttr(b, h.group, a)
		return true
	})
	b = append(b, '\n')
	_, err := h.out.Write(b)
	*line = b
	lines.Put(line)
	return err
}

func appendAttr(b []byte, group string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, member := range v.Group() {
			b = appendAttr(b, group, member)
		}
		return b
	}
	if a.Equal(slog.Attr{}) {
		return b
	}
	b = append(b, ' ')
	if group == "" {
		b = appendText(b, a.Key)
	} else {
		b = appendText(b, group+a.Key)
	}
	b = append(b, '=')
	switch v.Kind() {
	case slog.KindString:
		return appendText(b, v.String())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindFloat64:
		return strconv.AppendFloat(b, v.Float64(), 'g', -1, 64)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindTime:
		return appendTime(b, v.Time())
	case slog.KindAny:
		if m, ok := v.Any().(encoding.TextMarshaler); ok {
			if text, err := m.MarshalText(); err == nil {
				return appendText(b, string(text))
			}
		}
	}
	return appendText(b, v.String())
}

// appendText quotes what a reader of logfmt could misread.
func appendText(b []byte, s string) []byte {
	if s == "" || needsQuotes(s) {
		return strconv.AppendQuote(b, s)
	}
	return append(b, s...)
}

func needsQuotes(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return strings.ContainsFunc(s[i:], func(r rune) bool { return isMisread(r) || r == utf8.RuneError || !unicode.IsPrint(r) })
		case isMisread(rune(c)):
			return true
		}
	}
	return false
}

// isMisread reports whether a character makes quotes necessary whatever stands
// around it; beyond ASCII more do.
func isMisread(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7F }
