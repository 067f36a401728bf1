package program

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

// TestTextHandler: the lines are those of slog.TextHandler.
func TestTextHandler(t *testing.T) {
	var ours, theirs bytes.Buffer
	level := new(slog.LevelVar)
	loggers := []slog.Handler{&textHandler{out: &ours, level: level}, slog.NewTextHandler(&theirs, &slog.HandlerOptions{Level: level})}
	when := time.Date(2026, 11, 24, 10, 0, 0, 123456789, time.FixedZone("", 3600))
	record := slog.NewRecord(when, slog.LevelWarn, "two words", 0)
	record.AddAttrs(
		slog.String("empty", ""), slog.String("plain", "user+tag@a.test"), slog.String("blank", "a b"),
		slog.String("quote", `a"b`), slog.String("equals", "a=b"), slog.String("backslash", `a\b`),
		slog.String("break", "a\nb\x00"), slog.String("utf8", "\u00e9"), slog.String("not utf8", "\xff"),
		slog.String("space", "a\u00a0b"), slog.String("bidi", "\u202e"), slog.String("cut", "a\u2026"),
		slog.Int("int", -1), slog.Uint64("uint", 1<<63), slog.Bool("bool", true), slog.Float64("ms", 0.123), slog.Float64("big", 1e21),
		slog.Duration("d", 1500*time.Millisecond), slog.Time("when", when), slog.Any("err", errors.New("not good")),
		slog.Any("addr", netip.MustParseAddr("192.0.2.1")), slog.Any("nil", nil), slog.Any("list", []string{"a", "b"}),
		slog.Group("g", slog.Int("a", 1), slog.Group("h", slog.String("b", "c"))), slog.Group("", slog.Int("inline", 2)),
	)
	for _, h := range loggers {
		for _, h := range []slog.Handler{h, h.WithAttrs([]slog.Attr{slog.String("with", "x y")}), h.WithGroup("group").WithAttrs([]slog.Attr{slog.Int("n", 1)})} {
			if err := h.Handle(context.Background(), record); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ours.String() != theirs.String() {
		t.Errorf("ours:\n%stheirs:\n%s", ours.String(), theirs.String())
	}
	level.Set(slog.LevelError)
	for _, h := range loggers {
		if h.Enabled(context.Background(), slog.LevelWarn) || !h.Enabled(context.Background(), slog.LevelError) {
			t.Errorf("%T does not keep to its level", h)
		}
	}
}
