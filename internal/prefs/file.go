package prefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/authkey/authkey/policy"
)

// errNotRead is why a File cannot answer before its first Reload.
var errNotRead = errors.New("file of preferences has not been read")

// A File is a Source in memory, read from a YAML list:
//
//   - {recipient: "bob@example.com", fail: reject, nokey: mark, language: de}
//
// with an action for each of pass, none, nokey, fail, permerror and temperror
// that the recipient chose about. An empty file is one without preferences.
// Lookups never wait for a Reload.
type File struct {
	path string
	fold func(string) string

	table atomic.Pointer[table] // nil: never read with success
	why   atomic.Pointer[error] // why not

	mu   sync.Mutex  // one reader of the file; guards what follows
	read fs.FileInfo // the file as it was when it was last read; nil: not read
	sure bool        // it was at rest then
}

// NewFile returns a File without reading it: until the first Reload that
// succeeds every Lookup fails. The recipients in it are brought to the form in
// which Lookup asks by fold (wire.Fold).
func NewFile(path string, fold func(string) string) *File {
	return &File{path: path, fold: fold}
}

// Lookup returns the preference of a recipient. It fails as long as the file has
// never been read with success.
func (f *File) Lookup(_ context.Context, recipient string) (policy.Preference, bool, error) {
	t := f.table.Load()
	if t == nil {
		err := errNotRead
		if why := f.why.Load(); why != nil {
			err = *why
		}
		return policy.Preference{}, false, err
	}
	p, found := t.lookup(recipient)
	return p, found, nil
}

// Len returns how many recipients the preferences in force are of.
func (f *File) Len() int {
	if t := f.table.Load(); t != nil {
		return len(t.entries)
	}
	return 0
}

// Reload reads the file. One that cannot be read or has a fault leaves in force
// what was; the error lists the faults with their lines, each a *LineError.
func (f *File) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reload()
}

func (f *File) reload() error {
	t, info, err := load(f.path, f.fold)
	f.read, f.sure = info, info != nil && !justWritten(info)
	if err != nil {
		err = fmt.Errorf("preferences: %w", err)
		f.why.Store(&err)
		return err
	}
	f.table.Store(t)
	return nil
}

// Refresh is a Reload if the file has changed since it was last read, well or
// badly, and has been left alone for a second since; it reports whether it was
// read.
func (f *File) Refresh() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := os.Stat(f.path)
	if err != nil {
		f.read = nil
		return false, fmt.Errorf("preferences: %w", err)
	}
	if f.read != nil && (justWritten(now) || f.sure && sameFile(f.read, now)) {
		return false, nil
	}
	return true, f.reload()
}

// Watch refreshes the file every so often until ctx ends. It calls report after
// each refresh that found a change, with nil where that is now in force, and when
// it begins to fail; the same failure is reported once.
func (f *File) Watch(ctx context.Context, every time.Duration, report func(error)) {
	failing := ""
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch changed, err := f.Refresh(); {
		case err != nil && err.Error() != failing:
			failing = err.Error()
			report(err)
		case err == nil && changed:
			failing = ""
			report(nil)
		}
	}
}

// quiet is for how long a file must have been left alone before a change is taken
// up unasked: it may be half written, and a second change in the same tick of the
// file system's clock would go unseen.
const quiet = time.Second

func justWritten(info fs.FileInfo) bool {
	age := time.Since(info.ModTime())
	return age >= 0 && age < quiet // a time in the future is a clock that is wrong
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// load reads the file, and says what it was when the reading began.
func load(path string, fold func(string) string) (*table, fs.FileInfo, error) {
	// A FIFO in its place would block.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, info, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > maxFile {
		return nil, info, fmt.Errorf("%s: longer than %d octets", path, maxFile)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, info, err
	}
	after, err := file.Stat()
	if err != nil {
		return nil, info, err
	}
	if !sameFile(info, after) { // written in place: half a list must not be taken for a short one
		return nil, nil, fmt.Errorf("%s: changed while it was read", path)
	}
	t, err := parse(path, data, fold)
	return t, info, err
}
