package diskfile

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

// lockRetry is the time between attempts to take a lock.
const lockRetry = 50 * time.Millisecond

// Create writes a new file through to the disk, in one step: a reader finds all of it or
// nothing. It never overwrites: an existing file is an error that wraps fs.ErrExist.
func Create(path string, mode fs.FileMode, text string) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	temp, err := newFile(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(text)
	if err == nil {
		err = temp.Chmod(mode)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil { // where Rename would overwrite
		if errors.Is(err, fs.ErrExist) {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		return err
	}
	return syncDir(filepath.Dir(path))
}

// newFile makes a file beside the one of that name, under a new name.
func newFile(dir, name string) (*os.File, error) { return os.CreateTemp(dir, "."+name+".*.new") }

// Replace puts what write writes in the place of an existing file, whose mode and owner
// it keeps: readers see the old content or the new, whole. The caller holds the lock
// (see Lock), so that what it finds under the name path.new is of a writer that was killed.
func Replace(path string, old fs.FileInfo, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	name := path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(temp, old, write)
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

func fill(temp *os.File, old fs.FileInfo, write func(io.Writer) error) error {
	if err := write(temp); err != nil {
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
	if err := temp.Chmod(old.Mode().Perm()); err != nil {
		return err
	}
	return temp.Sync()
}

// Resolve returns the file to which path leads, following symbolic links: to replace a link
// would leave the file as it is. If the last part of path is a link that belongs to another
// user than root, it is refused: it may lead anywhere.
func Resolve(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if info.Mode().Type() == fs.ModeSymlink && (!ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid()) {
		return "", fmt.Errorf("%s: is a symbolic link of another user's: put the file there, or name it itself", path)
	}
	return filepath.EvalSymlinks(path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock takes the lock that writers of path hold, path.lock, waiting for it until ctx
// ends. The lock file stays: to remove it would let two writers hold two of them. A
// symbolic link in its place is refused: the folder may be another user's, and root
// would make or open whatever he likes. A lock that root makes belongs to the owner of the
// folder, who will need it too.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	name := path + ".lock"
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("lock %s: is a symbolic link, where only a file of ours belongs: remove it", name)
	}
	if err != nil {
		return nil, err
	}
	if info, err := lock.Stat(); err != nil || !info.Mode().IsRegular() {
		lock.Close()
		return nil, errors.Join(err, fmt.Errorf("lock %s: not a regular file", name))
	}
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			err = Adopt(name)
		}
		if err == nil {
			return func() { lock.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			lock.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			lock.Close()
			return nil, fmt.Errorf("lock %s, which another process holds: %w", name, context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
}
