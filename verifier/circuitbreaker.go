package verifier

import (
	"sync"
	"time"
)

// When an AS is left alone (docs/protocol.md section 4).
const (
	breakAfter = 5 // failures in a row
	firstPause = 30 * time.Second
	maxPause   = 5 * time.Minute
)

// A breaker decides whether an AS is asked at all, or left alone because it failed too
// often (the circuit breaker pattern). The zero breaker says yes.
type breaker struct {
	mu       sync.Mutex
	failures int           // in a row
	pause    time.Duration // the last one
	until    time.Time     // left alone before that
	probing  bool          // one question is asked to see whether it recovered
}

// allow reports whether a question may go to the AS, and whether it is the only
// one that may: then the caller calls probed when it has ended.
func (b *breaker) allow(now time.Time) (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return false, true
	}
	if b.probing || now.Before(b.until) {
		return false, false
	}
	b.probing = true
	return true, true
}

// open reports whether the AS is being left alone.
func (b *breaker) open(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures >= breakAfter && now.Before(b.until)
}

// probed says that the probe has ended, with an answer or without.
func (b *breaker) probed() {
	b.mu.Lock()
	b.probing = false
	b.mu.Unlock()
}

// answered says that the AS gave an answer.
func (b *breaker) answered() {
	b.mu.Lock()
	b.failures, b.pause = 0, 0
	b.mu.Unlock()
}

// failed says that the AS failed. While the AS is left alone, questions that were asked
// before may still fail; they do not prolong the pause.
func (b *breaker) failed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	if b.failures < breakAfter || now.Before(b.until) {
		return
	}
	b.pause = min(max(2*b.pause, firstPause), maxPause)
	b.until = now.Add(b.pause)
}
