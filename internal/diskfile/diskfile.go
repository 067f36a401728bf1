// Package diskfile reads and writes the files that people and programs change while
// ours run: secrets, address lists, maps of logins, preferences, certificates.
//
// A reader must not take half a file for a whole one, and must not miss a change:
// [Watched] says when a file is to be read again. A writer must not let a reader see
// half of what it writes: [Create] and [Replace] do it in one step. What people write is
// checked for characters that nobody can see or tell apart: [CheckText].
//
// The package knows nothing of what is in the files.
package diskfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// A LineError says which line of a file cannot be used and why.
type LineError struct {
	Path string
	Line int // the first is 1; 0: not known
	Err  error
}

func (e *LineError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s: line %d: %v", e.Path, e.Line, e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// Open opens a file for reading. It must be a regular file: a FIFO would block, and a device
// may never end.
func Open(path string) (*os.File, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// Read reads a whole file of at most limit octets, and returns what Stat said when reading
// began. A file that changes meanwhile is an error: half a file must not be taken for the
// whole.
func Read(path string, limit int64) ([]byte, fs.FileInfo, error) {
	file, info, err := Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if info.Size() > limit {
		return nil, info, fmt.Errorf("%s: longer than %d octets", path, limit)
	}
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, info, err
	}
	if int64(len(data)) > limit {
		return nil, info, fmt.Errorf("%s: longer than %d octets", path, limit)
	}
	return data, info, Unchanged(file, info)
}

// errChanging says that somebody wrote to a file while it was read.
var errChanging = errors.New("changed while it was read")

// Unchanged returns an error if an open file is not what info says it was.
func Unchanged(file *os.File, info fs.FileInfo) error {
	after, err := file.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(info, after) && info.Size() == after.Size() && info.ModTime().Equal(after.ModTime()) {
		return nil
	}
	return fmt.Errorf("%s: %w", file.Name(), errChanging)
}

// ErrBeingWritten says that a file with a fault was changed just now and looks cut off: it
// may be right a moment later.
var ErrBeingWritten = errors.New("the file was changed just now: somebody may be writing it")

// justNow is for how long after its last change a file with a fault may be half written.
const justNow = time.Minute

// Excuse returns err, the fault of a file that holds data, together with ErrBeingWritten where
// the file was changed just now and ends within a line. info is what Stat said. Without data,
// the file looks cut off for another reason, and only its time counts.
func Excuse(err error, data []byte, info fs.FileInfo) error {
	whole := len(data) > 0 && data[len(data)-1] == '\n'
	if age := time.Since(info.ModTime()); !whole && age >= 0 && age < justNow {
		return fmt.Errorf("%w; %w", err, ErrBeingWritten)
	}
	return err
}

// bom is the byte order mark with which some editors begin a file in UTF-8.
const bom = "\uFEFF"

// TrimBOM returns data without a byte order mark at its beginning.
func TrimBOM(data []byte) []byte { return bytes.TrimPrefix(data, []byte(bom)) }
