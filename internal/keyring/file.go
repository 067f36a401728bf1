package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openRegular opens a file for reading, which must be a regular one: a FIFO or a
// device in its place would block or never end.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
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

// createFile writes a new file through to the disk. It never overwrites.
func createFile(path string, mode fs.FileMode, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// replaceFile puts what write writes in the place of an existing file, whose
// mode and owner it keeps: readers see the old content or the new, whole. The
// caller holds the lock, so what it finds in the place of the new content is of a
// writer that was killed.
func replaceFile(path string, old fs.FileInfo, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fillFile(temp, old, write)
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		os.Remove(temp.Name())
		return err
	}
	return syncDir(dir)
}

func fillFile(temp *os.File, old fs.FileInfo, write func(io.Writer) error) error {
	if err := write(temp); err != nil {
		return err
	}
	if err := temp.Chmod(old.Mode().Perm()); err != nil {
		return err
	}
	mine, err := temp.Stat()
	if err != nil {
		return err
	}
	was, ok := old.Sys().(*syscall.Stat_t)
	is, ok2 := mine.Sys().(*syscall.Stat_t)
	if ok && ok2 && (was.Uid != is.Uid || was.Gid != is.Gid) {
		// Run by root, the tool must not take the file away from the server's user.
		if err := temp.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return err
		}
	}
	return temp.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockFile takes the lock that writers of path hold, waiting for it until ctx
// ends. The lock file stays: to remove it would let two writers hold two of them.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	const retry = 50 * time.Millisecond
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { lock.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			lock.Close()
			return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		select {
		case <-ctx.Done():
			lock.Close()
			return nil, fmt.Errorf("lock %s, which another process holds: %w", lock.Name(), context.Cause(ctx))
		case <-time.After(retry):
		}
	}
}

// quiet is for how long a file must have been left alone before a change is
// taken up unasked: it may be half written, and a second change in the same tick
// of the file system's clock would go unseen.
const quiet = time.Second

// A watched file remembers what it was when it was read.
type watched struct {
	path string
	read fs.FileInfo // nil: not read yet
	sure bool        // it was at rest then
}

// changed reports whether the file, now at rest, may hold something else than
// what was read.
func (w *watched) changed() (bool, error) {
	now, err := os.Stat(w.path)
	if err != nil {
		w.read = nil
		return false, err
	}
	if w.read == nil {
		return true, nil
	}
	return (!w.sure || !sameFile(w.read, now)) && !justWritten(now), nil
}

// remember is told the file's state as it was when its reading began; nil if
// there was none.
func (w *watched) remember(info fs.FileInfo) {
	w.read = info
	w.sure = info != nil && !justWritten(info)
}

func justWritten(info fs.FileInfo) bool {
	age := time.Since(info.ModTime())
	return age >= 0 && age < quiet // a time in the future is a clock that is wrong
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
