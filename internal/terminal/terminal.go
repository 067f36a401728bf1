// Package terminal says how wide output may be, wraps it, and reads input that must not be
// shown.
package terminal

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	// DefaultWidth is how wide text is made that does not go to a terminal, in columns.
	DefaultWidth = 100
	// minWidth is the narrowest terminal for which text is wrapped.
	minWidth = 60
)

// Width is how many columns text for w may have: as many as its method Columns says, else
// any number.
func Width(w io.Writer) int {
	if c, ok := w.(interface{ Columns() int }); ok {
		return c.Columns()
	}
	return math.MaxInt
}

// Columns is the width of a terminal, or DefaultWidth for whatever else a program's
// output goes to.
func Columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return max(width, minWidth)
		}
	}
	return DefaultWidth
}

// Is reports whether a reader or writer is a terminal.
func Is(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ReadSecret reads a line from a terminal, without its end, and shows nothing of it. If
// ctx ends first, the terminal shows again what is typed, and the error is ctx's; the
// read itself goes on until there is a line.
func ReadSecret(ctx context.Context, f *os.File) ([]byte, error) {
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		line []byte
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		done <- outcome{line, err}
	}()
	select {
	case o := <-done:
		return o.line, o.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}

// Interruptible is a reader that ends with ctx, also while r has nothing to read and
// nobody can end that: a terminal, or a pipe whose other end is silent. A read of r that
// has begun goes on.
func Interruptible(ctx context.Context, r io.Reader) io.Reader { return &interruptible{ctx, r} }

// Open opens a file for reading, as Interruptible does it where the file is none that has
// an end: to open a FIFO waits for somebody who writes, and a device may be endless. An
// open that has begun goes on.
func Open(ctx context.Context, path string) (io.ReadCloser, error) {
	type outcome struct {
		file *os.File
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		file, err := os.Open(path)
		done <- outcome{file, err}
	}()
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if o.err != nil {
		return nil, o.err
	}
	if info, err := o.file.Stat(); err == nil && (info.Mode().IsRegular() || info.IsDir()) {
		return o.file, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{Interruptible(ctx, o.file), o.file}, nil
}

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil { // however fast r is
		return 0, err
	}
	type outcome struct {
		n   int
		err error
	}
	done := make(chan outcome, 1)
	buf := make([]byte, len(p))
	go func() {
		n, err := i.r.Read(buf)
		done <- outcome{n, err}
	}()
	select {
	case o := <-done:
		copy(p, buf[:o.n])
		return o.n, o.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

// Wrap breaks text at blanks into lines, the first of at most width characters, the others
// of rest, since they may be indented. A word that is longer is broken behind a comma, or
// where the line ends.
func Wrap(text string, width, rest int) []string {
	var lines []string
	line := ""
	room := width
	flush := func() {
		lines = append(lines, line)
		line, room = "", rest
	}
	for word := range strings.SplitSeq(text, " ") {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += word
		for n := utf8.RuneCountInString(line); n > room && room > 0; n = utf8.RuneCountInString(line) {
			runes := []rune(line)
			cut := breakAt(runes, room)
			line = string(runes[:cut])
			tail := string(runes[cut:])
			flush()
			line = tail
		}
	}
	return append(lines, line)
}

// breakAt finds where a word that is too long may be broken: behind a comma, else
// anywhere.
func breakAt(runes []rune, most int) int {
	for i := most; i > most/2; i-- {
		if runes[i-1] == ',' {
			return i
		}
	}
	return most
}
