package oplog

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPanic(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cause func()
		want  string
	}{
		{"the runtime's own words", func() { var s []int; _ = s[len(s)+1] }, "runtime error: index out of range [1] with length 0"},
		{"a text, which may be a client's", func() { panic("secret") }, "string"},
		{"an error, which may hold a client's text", func() { panic(errors.New("secret")) }, "*errors.errorString"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			func() {
				defer func() {
					if got := Panic(slog.New(slog.NewTextHandler(&out, nil)), "it failed", recover(), "client", "192.0.2.1"); got != tt.want {
						t.Errorf("text %q, want %q", got, tt.want)
					}
				}()
				tt.cause()
			}()
			line := out.String()
			if strings.Contains(line, "secret") {
				t.Errorf("the log repeats the value: %s", line)
			}
			for _, want := range []string{"level=ERROR", `msg="it failed"`, "client=192.0.2.1", "stack=", "oplog_test.go"} {
				if !strings.Contains(line, want) {
					t.Errorf("the log lacks %s: %s", want, line)
				}
			}
		})
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		if n, ok := l.Allow(); !ok || n != 0 {
			t.Errorf("first: %d, %v", n, ok)
		}
		for range 5 {
			if _, ok := l.Allow(); ok {
				t.Error("a second line within the minute")
			}
		}
		time.Sleep(limitEvery)
		if n, ok := l.Allow(); !ok || n != 5 {
			t.Errorf("after a minute: %d suppressed, %v; want 5, true", n, ok)
		}
	})
}

func TestCut(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""}, {"four", "four"}, {"fives", "five…"}, {"thrü", "thr…"}, {"fourü", "four…"},
	} {
		if got := Cut(tt.in, 4); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}
