package authserver

import (
	"bytes"
	"errors"

	"github.com/authkey/authkey/internal/wire"
)

// readSize is the size of a connection's read buffer in octets: some fifty
// questions, and two lines of the greatest length.
const readSize = 2 * wire.MaxLine

var errTooLong = errors.New("line is too long")

// A lineReader cuts input into lines of at most wire.MaxLine octets.
type lineReader struct {
	// fill gets more input. It is called only when no whole line is at hand.
	fill func([]byte) (int, error)
	buf  [readSize]byte
	r, w int // buf[r:w] is what has been read and not been returned
}

// next returns a line without its end, CRLF or LF. The line is valid until the next call.
// With errTooLong it returns the beginning of the line; the reader must not be used after an
// error.
func (l *lineReader) next() ([]byte, error) {
	for searched := 0; ; {
		if i := bytes.IndexByte(l.buf[l.r+searched:l.w], '\n'); i >= 0 {
			line := l.buf[l.r : l.r+searched+i]
			l.r += len(line) + 1
			if len(line)+1 > wire.MaxLine {
				return line[:wire.MaxLine], errTooLong
			}
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		if searched = l.w - l.r; searched >= wire.MaxLine {
			return l.buf[l.r : l.r+wire.MaxLine], errTooLong
		}
		if l.r > 0 {
			l.w = copy(l.buf[:], l.buf[l.r:l.w])
			l.r = 0
		}
		n, err := l.fill(l.buf[l.w:])
		l.w += n
		if n == 0 && err != nil {
			return nil, err
		}
	}
}
