// Package oplog is for log lines about a service's operation: it logs a panic without
// repeating anything of a message, and limits what a stranger can cause at will: the number of
// log lines and their length.
package oplog

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Panic logs the value p of a panic, with message and attrs, and returns it as text. Of a
// value that is not the runtime's own the text is its type only: the value may hold what a
// client sent.
func Panic(log *slog.Logger, message string, p any, attrs ...any) string {
	text := fmt.Sprintf("%T", p)
	if err, ok := p.(runtime.Error); ok {
		text = err.Error()
	}
	log.Error(message, append(attrs[:len(attrs):len(attrs)], "panic", text, "stack", string(debug.Stack()))...)
	return text
}

// Cut bounds what came from outside to so many octets, without splitting a character of UTF-8.
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// limitEvery is the time between two lines that a Limit allows.
const limitEvery = time.Minute

// A Limit allows one log line a minute and counts the others. The zero value is ready for
// use, by several goroutines.
type Limit struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int
}

// Allow reports whether to log now, and how many lines were left out since the last one.
func (l *Limit) Allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) < limitEvery {
		l.suppressed++
		return 0, false
	}
	suppressed = l.suppressed
	l.last, l.suppressed = now, 0
	return suppressed, true
}
