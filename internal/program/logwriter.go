package program

import (
	"io"
	"sync"
	"time"
)

const (
	// logDelay is how long a line may wait for others, to be written with them: one
	// system call per message costs as much as anything else that we do for it.
	logDelay = 5 * time.Millisecond
	// logBuffer is how many octets are gathered at most; then they are written at once.
	logBuffer = 32 << 10
	// maxUnread is how many octets may wait for the reader of the log: the lines of at
	// least a second. Further lines are dropped, and counted.
	maxUnread = 4 << 20
	// settleTimeout is for how long settle waits for the reader.
	settleTimeout = 100 * time.Millisecond
	// closeTimeout is for how long the end of the program waits for the reader.
	closeTimeout = 2 * time.Second
)

// A logWriter gathers log lines for a moment, and writes them in a goroutine of its own, so
// that callers do not wait: mail must not stop when the reader of the log does. It is safe
// for concurrent use.
type logWriter struct {
	out  io.Writer
	lost func(lines int) // says so in the log

	mu      sync.Mutex
	idle    sync.Cond // writing has become false
	buf     []byte    // what waits
	spare   []byte    // room for the next
	due     *time.Timer
	writing bool          // a goroutine is writing, without mu
	settled chan struct{} // closed when nothing waits any more; nil: settle was not called
	dropped int           // lines about which lost has not been called
	closed  bool          // there will be no further flush
}

// newLogWriter returns a logWriter that calls lost when it has dropped lines and
// can write again.
func newLogWriter(out io.Writer, lost func(lines int)) *logWriter {
	w := &logWriter{out: out, lost: lost, buf: make([]byte, 0, logBuffer), spare: make([]byte, 0, logBuffer)}
	w.idle.L = &w.mu
	w.due = time.AfterFunc(logDelay, w.flush)
	return w
}

// Write takes a line. Until close it does not wait. It never returns an error: a logger
// could do nothing about it.
func (w *logWriter) Write(line []byte) (int, error) {
	if w.take(line) {
		w.flush()
	}
	return len(line), nil
}

// take makes a line wait; last reports that the caller must flush it.
func (w *logWriter) take(line []byte) (last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf)+len(line) > maxUnread {
		w.dropped++
		return false
	}
	before := len(w.buf)
	w.buf = append(w.buf, line...)
	switch {
	case w.writing: // flush will find the line
	case w.closed:
		return true
	case before <= logBuffer && len(w.buf) > logBuffer:
		w.due.Reset(0)
	case before == 0:
		w.due.Reset(logDelay)
	}
	return false
}

// flush writes what waits, and what comes while it does.
func (w *logWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing {
		return
	}
	w.writing = true
	for len(w.buf) > 0 {
		full := w.buf
		w.buf, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		_, _ = w.out.Write(full)
		w.mu.Lock()
		if cap(full) <= 2*logBuffer {
			w.spare = full
		}
		if n := w.dropped; n > 0 {
			w.dropped = 0
			w.mu.Unlock()
			w.lost(n)
			w.mu.Lock()
		}
	}
	w.writing = false
	w.idle.Broadcast()
	if w.settled != nil {
		close(w.settled)
		w.settled = nil
	}
}

// settle has the waiting lines written at once, and returns when they are, or after
// settleTimeout.
func (w *logWriter) settle() {
	w.mu.Lock()
	if w.closed || len(w.buf) == 0 && !w.writing {
		w.mu.Unlock()
		return
	}
	if w.settled == nil {
		w.settled = make(chan struct{})
	}
	settled := w.settled
	if !w.writing {
		w.due.Reset(0)
	}
	w.mu.Unlock()
	timeout := time.NewTimer(settleTimeout)
	defer timeout.Stop()
	select {
	case <-settled:
	case <-timeout.C:
	}
}

// close writes what waits, unless nobody reads it within closeTimeout. Lines that come
// later are written at once.
func (w *logWriter) close() {
	w.due.Stop()
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the process where the reader is stuck
		defer close(done)
		w.flush()
		w.mu.Lock()
		defer w.mu.Unlock()
		for w.writing {
			w.idle.Wait()
		}
	}()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}
