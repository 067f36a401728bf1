package diskfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times of a file that may be half written.
const (
	// rest is for how long a file that is written in place must not have been written
	// before Refresh reads it.
	rest = time.Second
	// restNew is the same for a file that took the place of another one. It was most likely
	// renamed there, within one tick of the file system's clock.
	restNew = 200 * time.Millisecond
	// patience is how long a change waits for rest at most: somebody may write all the time.
	patience = 3 * time.Second
	// longPatience is the same for a change that has a fault while the file is being written.
	longPatience = 8 * time.Second
)

// A Watched is a file that is read again when it has changed. The zero value with a Path
// is one that has not been read. It is not safe for concurrent use.
//
// A file that was renamed into place is whole, and is read at once; so is a file whose mode
// or owner was set after it was written. Any other change may be half a change. It is read
// when the file has not been written for one second, and after three seconds at most, also
// if the file is written all the time.
type Watched struct {
	Path string

	read  fs.FileInfo // as it was when it was last read; nil: it was not
	sure  bool        // a change since then cannot have gone unnoticed
	since time.Time   // when the change was seen that is not read yet; zero: there is none

	clock func() time.Time // nil: time.Now
}

func (w *Watched) now() time.Time {
	if w.clock != nil {
		return w.clock()
	}
	return time.Now()
}

// Read notes that the file was read on demand. info says what it was when that began;
// nil: it could not be looked at.
func (w *Watched) Read(info fs.FileInfo) {
	w.read = info
	w.sure = info != nil && (whole(info) || w.age(info) >= rest)
	w.since = time.Time{}
}

// Refresh calls read if the file has changed since it was last read, with success or without,
// and seems to be whole. read returns what Stat said when reading began; settled says that
// nobody seems to be writing the file. Refresh reports whether the file was read, and the
// error of read. While the file may be half written, an error is not returned: the file is
// read again until it is settled. If Stat fails, that is an error each time.
func (w *Watched) Refresh(read func(settled bool) (fs.FileInfo, error)) (changed bool, err error) {
	info, err := os.Stat(w.Path)
	if err != nil {
		w.sure = false // the next file is read, also if it is the same as before
		return false, err
	}
	if w.read != nil && w.sure && same(w.read, info) {
		w.since = time.Time{}
		return false, nil
	}
	now := w.now()
	if w.since.IsZero() {
		w.since = now
	}
	waited := now.Sub(w.since)
	settled := whole(info) || w.age(info) >= rest || waited >= longPatience
	fresh := w.read != nil && !os.SameFile(w.read, info) && w.age(info) >= restNew
	if !settled && !fresh && waited < patience {
		return false, nil
	}
	since := w.since
	info, err = read(settled)
	w.Read(info)
	if err != nil && (!settled || errors.Is(err, errChanging) && waited < longPatience) {
		w.sure, w.since = false, since
		return false, nil
	}
	return true, err
}

// whole reports whether the file was renamed, or its mode or owner set, after it was last
// written: then the writer has finished. A write sets both times of a file to the same
// value. If whole is false the file may be whole all the same: the file system's clock may be
// too coarse.
func whole(info fs.FileInfo) bool {
	changed, ok := changeTime(info)
	return ok && changed.After(info.ModTime())
}

// atOnce is how long after a file was made its content may have been written for Put to
// believe that nobody has written to it since: two ticks of the clock of file systems.
const atOnce = 10 * time.Millisecond

// Put reports whether the file at path, which info describes, has not been written since it
// was made elsewhere and put there: it was renamed later than it was written, or was made
// and written at once. It is false for a file that was written in place after it was put there,
// and where the file system does not tell when a file was made.
func Put(path string, info fs.FileInfo) bool {
	if whole(info) {
		return true
	}
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME|unix.STATX_INO, &stat); err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return false
	}
	if own, ok := info.Sys().(*syscall.Stat_t); !ok || own.Ino != stat.Ino {
		return false
	}
	return info.ModTime().Sub(time.Unix(stat.Btime.Sec, int64(stat.Btime.Nsec))) <= atOnce
}

// age is for how long the file has not been written. A time in the future is a clock that
// is wrong.
func (w *Watched) age(info fs.FileInfo) time.Duration {
	if d := w.now().Sub(info.ModTime()); d >= 0 {
		return d
	}
	return rest
}

// same reports whether nothing was done to a file in between.
func same(a, b fs.FileInfo) bool {
	was, _ := changeTime(a)
	is, _ := changeTime(b)
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && was.Equal(is)
}

// changeTime is when the content, the name, the mode or the owner of a file was last
// changed.
func changeTime(info fs.FileInfo) (time.Time, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(stat.Ctim.Unix()), true
}
