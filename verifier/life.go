package verifier

import (
	"context"
	"log/slog"
	"sync"

	"github.com/authkey/authkey/internal/oplog"
)

// A life counts what a Verifier has going on, so that Close can let questions
// finish, then end everything else, and return when nothing runs any more.
type life struct {
	ctx    context.Context // ends when the last question has been answered after close
	cancel context.CancelFunc
	log    *slog.Logger

	mu        sync.Mutex
	changed   sync.Cond
	questions int
	tasks     int
	closing   bool // no new questions
	dead      bool // no new tasks
}

func newLife(log *slog.Logger) *life {
	l := &life{log: log}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.changed.L = &l.mu
	return l
}

// question registers a caller that waits for an answer; false once closing.
// Each true needs one answered.
func (l *life) question() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.questions++
	return true
}

func (l *life) answered() {
	l.mu.Lock()
	l.questions--
	l.changed.Broadcast()
	l.mu.Unlock()
}

// task registers work that ends soon after l.ctx does; false once that ended.
// Each true needs one done.
func (l *life) task() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return false
	}
	l.tasks++
	return true
}

func (l *life) done() {
	l.mu.Lock()
	l.tasks--
	l.changed.Broadcast()
	l.mu.Unlock()
}

// rescue is deferred by all work that is done for somebody who waits, in goroutines
// of ours: there a panic would end the process, and every message in it. It becomes
// the error of that work.
func (l *life) rescue(err *error) {
	p := recover()
	if p == nil {
		return
	}
	*err = failuref(ReasonBroken, "panic: %s", oplog.Panic(l.log, "panic in a question, it has no answer", p))
}

// spawn runs f as a task in a goroutine of its own, unless it is too late. f rescues
// itself.
func (l *life) spawn(f func()) bool {
	if !l.task() {
		return false
	}
	go func() {
		defer l.done()
		f()
	}()
	return true
}

// close waits for the questions, calls end, and waits for the tasks. It may be
// called more than once.
func (l *life) close(end func()) {
	l.mu.Lock()
	l.closing = true
	for l.questions > 0 {
		l.changed.Wait()
	}
	l.dead = true
	l.mu.Unlock()

	l.cancel()
	end()

	l.mu.Lock()
	for l.tasks > 0 {
		l.changed.Wait()
	}
	l.mu.Unlock()
}
