package verifier

import (
	"context"
	"log/slog"
	"sync"

	"github.com/authkey/authkey/internal/oplog"
)

// A lifecycle counts what a Verifier has going on, so that Close can let calls finish,
// then end everything else, and return when nothing runs any more.
type lifecycle struct {
	ctx    context.Context // ends when the last call has returned after close
	cancel context.CancelFunc
	log    *slog.Logger

	mu      sync.Mutex
	changed sync.Cond
	calls   int
	tasks   int
	closing bool // no new calls
	ended   bool // no new tasks
}

func newLifecycle(log *slog.Logger) *lifecycle {
	l := &lifecycle{log: log}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.changed.L = &l.mu
	return l
}

// beginCall registers a caller that waits for a result; false once closing.
// Each true needs one endCall.
func (l *lifecycle) beginCall() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.calls++
	return true
}

func (l *lifecycle) endCall() {
	l.mu.Lock()
	l.calls--
	l.changed.Broadcast()
	l.mu.Unlock()
}

// beginTask registers work that ends soon after l.ctx does; false once that ended.
// Each true needs one endTask.
func (l *lifecycle) beginTask() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.tasks++
	return true
}

func (l *lifecycle) endTask() {
	l.mu.Lock()
	l.tasks--
	l.changed.Broadcast()
	l.mu.Unlock()
}

// spawn runs f as a task in a goroutine of its own, unless it is too late. f recovers
// for itself.
func (l *lifecycle) spawn(f func()) bool {
	if !l.beginTask() {
		return false
	}
	go func() {
		defer l.endTask()
		f()
	}()
	return true
}

// recoverAs is deferred by all work that somebody waits for and that runs in a goroutine
// of ours: there a panic would end the process, and every message in it. It becomes
// the error of that work.
func (l *lifecycle) recoverAs(err *error) {
	if p := recover(); p != nil {
		*err = failuref(ReasonBroken, "panic: %s", oplog.Panic(l.log, "panic in a verification, which ends without result", p))
	}
}

// close waits for the calls, calls end, and waits for the tasks. It may be called more
// than once.
func (l *lifecycle) close(end func()) {
	l.mu.Lock()
	l.closing = true
	for l.calls > 0 {
		l.changed.Wait()
	}
	l.ended = true
	l.mu.Unlock()

	l.cancel()
	end()

	l.mu.Lock()
	for l.tasks > 0 {
		l.changed.Wait()
	}
	l.mu.Unlock()
}
