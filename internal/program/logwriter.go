package program

import (
	"io"
	"sync"
	"time"
)

const (
	// logDelay is how long a line may wait for others, to be written with them: one
	// system call a message costs as much as anything else that we do for it.
	logDelay = 5 * time.Millisecond
	// logBuffer is how much is gathered; with that the waiting is over.
	logBuffer = 32 << 10
	// maxUnread is how much may wait for whoever reads the log: a second's lines, at
	// the least. What comes beyond is dropped, and counted.
	maxUnread = 4 << 20
	// settleTimeout is for how long whoever wants a line written waits for the reader.
	settleTimeout = 100 * time.Millisecond
	// closeTimeout is for how long the end of the program waits for the reader.
	closeTimeout = 2 * time.Second
)

// A logWriter gathers log lines for a moment, and writes them where nobody who logs
// has to wait for it: mail must not stand still because the log does. It is safe for
// concurrent use.
type logWriter struct {
	out  io.Writer
	lost func(lines int) // says so in the log

	mu      sync.Mutex
	idle    sync.Cond // writing has become false
	buf     []byte    // what waits
	spare   []byte    // room for the next
	due     *time.Timer
	writing bool          // somebody is, without mu
	settled chan struct{} // closed when nothing waits any more; nil: nobody asked
	dropped int           // lines, and nobody has been told
	closed  bool          // nobody will flush any more
}

// newLogWriter returns a logWriter that calls lost when it has dropped lines and
// can write again.
func newLogWriter(out io.Writer, lost func(lines int)) *logWriter {
	w := &logWriter{out: out, lost: lost, buf: make([]byte, 0, logBuffer), spare: make([]byte, 0, logBuffer)}
	w.idle.L = &w.mu
	w.due = time.AfterFunc(logDelay, w.flush)
	return w
}

// Write takes a line. It waits for nobody, until close, and its failure shows in no
// return value: there is nobody to tell.
func (w *logWriter) Write(line []byte) (int, error) {
	if w.take(line) {
		w.flush()
	}
	return len(line), nil
}

// take makes a line wait; last reports that nobody else will write it.
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
	case w.writing: // and will look again
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

// settle has what waits written at once, and returns when it is, or when the reader
// takes longer than settleTimeout.
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
