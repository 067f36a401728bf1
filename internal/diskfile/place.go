package diskfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Place makes a file that is not there yet, in one step: create writes it under
// another name in the same folder, and only then it appears at path, with its mode and,
// where root makes it, the owner of its folder. A file that is there already stays, and is
// an error that wraps fs.ErrExist. The caller holds a lock that keeps others from making the
// same file.
func Place(path string, mode fs.FileMode, create func(path string) error) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	made := path + ".new"
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := create(made)
	if err == nil {
		err = dress(made, mode)
	}
	if err == nil {
		err = os.Link(made, path) // which replaces no file
	}
	if removeErr := os.Remove(made); err == nil {
		err = removeErr
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// dress sets mode and owner of a new file. The folder may be another user's, so that no
// link is followed.
func dress(path string, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Chmod(mode); err != nil { // whatever the umask is
		return err
	}
	uid, gid, ok, err := folderOwner(path)
	if err != nil || !ok {
		return err
	}
	return file.Chown(uid, gid)
}

// Adopt makes the owner of the folder the owner of a file that root made in it. For other
// users than root it does nothing.
func Adopt(path string) error {
	uid, gid, ok, err := folderOwner(path)
	if err != nil || !ok {
		return err
	}
	return os.Lchown(path, uid, gid)
}

// folderOwner returns the owner that new files beside path must have; ok is false where only
// root could set it.
func folderOwner(path string) (uid, gid int, ok bool, err error) {
	if os.Geteuid() != 0 {
		return 0, 0, false, nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return 0, 0, false, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false, nil
	}
	return int(owner.Uid), int(owner.Gid), true, nil
}

// ReplaceData puts data in the place of an existing file in one step. Mode and owner stay;
// of a link, the file that it leads to is replaced. The caller holds the lock.
func ReplaceData(path string, data []byte) error {
	path, err := Resolve(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	return Replace(path, info, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
