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
	// logBuffer is how much may wait.
	logBuffer = 32 << 10
)

// A logWriter gathers log lines for a moment. It is safe for concurrent use. After
// close it writes at once.
type logWriter struct {
	out io.Writer

	mu     sync.Mutex
	buf    []byte
	due    *time.Timer // fires while lines wait
	closed bool
}

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{out: out, buf: make([]byte, 0, logBuffer)}
	w.due = time.AfterFunc(logDelay, w.flush)
	return w
}

// Write takes a line. A failure to write shows in no return value: there is nobody
// to tell.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buf) > 0 && len(w.buf)+len(line) > logBuffer {
		w.write()
	}
	if len(w.buf) == 0 {
		w.due.Reset(logDelay)
	}
	w.buf = append(w.buf, line...)
	if w.closed {
		w.write()
	}
	return len(line), nil
}

func (w *logWriter) write() {
	if len(w.buf) > 0 {
		_, _ = w.out.Write(w.buf)
	}
	w.buf = w.buf[:0]
	if cap(w.buf) > logBuffer {
		w.buf = make([]byte, 0, logBuffer)
	}
}

func (w *logWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write()
}

// close writes what waits.
func (w *logWriter) close() {
	w.due.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.write()
}
