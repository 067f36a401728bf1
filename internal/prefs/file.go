package prefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/policy"
)

// errNotRead is why a File cannot answer before its first Reload.
var errNotRead = errors.New("file of preferences has not been read")

// A File is a Source in memory, read from a YAML list:
//
//   - {recipient: "bob@example.com", fail: reject, nokey: mark, language: de}
//
// with an action for each of pass, none, nokey, fail, permerror and temperror about which
// the recipient chose. A file without preferences is accepted at the start; later only if
// the line "# empty" says that this is meant. Lookups never wait for a Reload.
type File struct {
	path string

	table atomic.Pointer[table] // nil: never read with success
	why   atomic.Pointer[error] // why not

	mu   sync.Mutex // one reader of the file; guards what follows
	file diskfile.Watched
}

// ErrCutOff says that nothing is left of the preferences in force, or that the last line of
// their file lost its end: somebody is writing it, or the disk was full.
var ErrCutOff = errors.New(`looks cut off: it holds no preference or its last line has no end; if none is meant, give it the line "# empty"`)

// NewFile returns a File without reading it: until the first Reload that
// succeeds every Lookup fails.
func NewFile(path string) *File {
	return &File{path: path, file: diskfile.Watched{Path: path}}
}

// Follow makes f begin with the preferences that old, which may be nil, has in force, if it is
// of the same file. A file that looks cut off compared with these is then refused.
func (f *File) Follow(old *File) {
	if old != nil && old.path == f.path {
		f.table.Store(old.table.Load())
	}
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

// Unexplained reports whether there are no preferences in force, and the file does not say
// that this is meant: it may have been cut off before the process began.
func (f *File) Unexplained() bool {
	t := f.table.Load()
	return t != nil && t.summary().Unexplained()
}

// Reload reads the file. One that cannot be read, has a fault, or looks cut off
// (ErrCutOff) leaves in force what was; the error lists the faults with their lines,
// each a *LineError.
func (f *File) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := f.reload(true)
	f.file.Read(info)
	return err
}

// reload reads the file, and returns what it was when that began. settled says that
// nobody seems to be writing it.
func (f *File) reload(settled bool) (fs.FileInfo, error) {
	t, info, err := load(f.path)
	if old := f.table.Load(); err == nil && old != nil && t.summary().CutOff(old.summary(), settled) {
		err = fmt.Errorf("%s: %w", f.path, ErrCutOff)
	}
	if err != nil {
		err = fmt.Errorf("preferences: %w", err)
		f.why.Store(&err)
		return info, err
	}
	f.table.Store(t)
	return info, nil
}

// Refresh is a Reload if the file has changed since it was last read, with success or
// without, and seems to be whole (see diskfile.Watched); it reports whether it was read.
func (f *File) Refresh() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err = f.file.Refresh(f.reload)
	if err != nil && !changed {
		err = fmt.Errorf("preferences: %w", err)
	}
	return changed, err
}

// load reads the file, and says what it was when the reading began.
func load(path string) (*table, fs.FileInfo, error) {
	data, info, err := diskfile.Read(path, maxFile)
	if err != nil {
		return nil, info, err
	}
	t, err := parse(path, data)
	if err != nil {
		return nil, info, diskfile.Excuse(err, data, info)
	}
	if n := len(data); n > 0 {
		t.last = data[n-1]
	}
	if len(t.entries) == 0 {
		for line := range bytes.Lines(data) {
			t.saysEmpty = t.saysEmpty || diskfile.SaysEmpty(string(diskfile.TrimBOM(line)))
		}
	}
	return t, info, nil
}

// summary is what the next reading of the file is compared with.
func (t *table) summary() diskfile.List {
	return diskfile.List{Entries: len(t.entries), Text: t.text, Last: t.last, SaysEmpty: t.saysEmpty}
}
