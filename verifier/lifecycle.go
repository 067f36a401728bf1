package verifier

import (
	"context"
	"log/slog"
	"sync"

	"github.com/authkey/authkey/internal/oplog"
)

// A lifecycle counts the calls and tasks of a Verifier, so that Close can let calls finish,
// then end everything else, and return when nothing runs any more.
type lifecycle struct {
	ctx    context.Context // ends when the last call has returned after close
	cancel context.CancelFunc
	log    *slog.Logger

	mu      sync.Mutex
	closing bool           // no new calls
	ended   bool           // no new tasks
	calls   sync.WaitGroup // of callers that wait for a result
	tasks   sync.WaitGroup // of work that ends soon after ctx does
}

func newLifecycle(log *slog.Logger) *lifecycle {
	l := &lifecycle{log: log}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// beginCall registers a caller; false once closing. Each true needs one calls.Done.
func (l *lifecycle) beginCall() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.calls.Add(1)
	}
	return !l.closing
}

// beginTask registers work; false once ctx ended. Each true needs one tasks.Done.
func (l *lifecycle) beginTask() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.tasks.Add(1)
	}
	return !l.ended
}

// spawn runs f as a task in a goroutine of its own, unless it is too late. f recovers
// for itself.
func (l *lifecycle) spawn(f func()) bool {
	if !l.beginTask() {
		return false
	}
	go func() {
		defer l.tasks.Done()
		f()
	}()
	return true
}

// recoverAs is deferred by all work that a caller waits for and that runs in a goroutine of
// ours. There a panic would end the process and all of its messages. Instead the panic
// becomes the error of that work.
func (l *lifecycle) recoverAs(err *error) {
	if p := recover(); p != nil {
		*err = failuref(ReasonBroken, "panic: %s", oplog.Panic(l.log, "panic in a verification, which ends without result", p))
	}
}

// close waits until all callers have their result, calls end, and waits for the tasks. It
// may be called more than once.
func (l *lifecycle) close(end func()) {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.calls.Wait()

	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.cancel()
	end()
	l.tasks.Wait()
}
