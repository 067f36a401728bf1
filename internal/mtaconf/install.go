package mtaconf

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of a configuration file, or of what setup remembers.
const maxFile = 16 << 20

// maxLinks bounds how many symbolic links a path may lead through, as the kernel does.
const maxLinks = 40

// aclAttribute holds a file's access control list. It is set last: the kernel keeps the
// mode and the list in step.
const aclAttribute = "system.posix_acl_access"

// How long another program's lock is waited for: postconf(1) holds it for milliseconds.
const (
	lockTimeout = 5 * time.Second
	lockPoll    = 20 * time.Millisecond
)

// errChanged says that somebody else has written a file that was to be replaced.
var errChanged = errors.New("was changed by somebody else meanwhile; run this again")

// A file is a regular file, with what belongs to it beside its content. It is held by
// its folder and its name, so that nobody can put another one under the path between
// a look at it and its replacement.
type file struct {
	path    string // as it was asked for
	dir     int    // the folder in which it is: a descriptor
	name    string // in that folder; a link on the way was followed
	content []byte
	exists  bool

	stat  unix.Stat_t
	attrs map[string][]byte // extended attributes, access control list included
}

func (f *file) close() { _ = unix.Close(f.dir) }

func (f *file) sum() string { return digest(f.content) }

func digest(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }

// openFile reads a file. A missing one is no error. With follow, the file itself may be
// a symbolic link; links in which another user than root or ourselves has a hand are
// never followed: they could lead root to any file of the machine.
func openFile(path string, follow bool) (*file, error) {
	f, err := locate(path, follow)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := f.read(); err != nil {
		f.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// locate walks to the folder of a path, component by component.
func locate(path string, follow bool) (*file, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	rest := steps(filepath.Clean(absolute))
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		target, err := link(dir, name)
		next := -1
		switch {
		case err != nil:
		case target != "" && (len(rest) > 0 || follow):
			if links++; links > maxLinks {
				err = unix.ELOOP
				break
			}
			rest = append(steps(target), rest...)
			if !filepath.IsAbs(target) {
				continue
			}
			next, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		case len(rest) == 0:
			return &file{path: path, dir: dir, name: name}, nil
		default:
			next, err = unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		_ = unix.Close(dir)
		if err != nil {
			return nil, err
		}
		dir = next
	}
	_ = unix.Close(dir)
	return nil, errors.New("is a folder")
}

// steps are the components of a path.
func steps(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}

// link reads a symbolic link; "" where the name is none. It is an error where the link
// may not be followed.
func link(dir int, name string) (string, error) {
	if name == ".." || name == "." {
		return "", nil
	}
	var folder, stat unix.Stat_t
	err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	if err == nil {
		err = unix.Fstat(dir, &folder)
	}
	if err != nil {
		return "", err
	}
	trusted := func(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }
	shared := folder.Mode&0o022 != 0 && folder.Mode&unix.S_ISVTX == 0
	if !trusted(stat.Uid) || !trusted(folder.Uid) || shared {
		return "", fmt.Errorf("%s is a symbolic link which users other than root may have made: it is not followed", name)
	}
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buffer)
	return string(buffer[:max(n, 0)]), err
}

func (f *file) read() error {
	// Not to wait for the other end of a FIFO.
	fd, err := unix.Openat(f.dir, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), f.name)
	defer in.Close()
	if err := unix.Fstat(fd, &f.stat); err != nil {
		return err
	}
	if f.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("is no regular file")
	}
	if f.content, err = io.ReadAll(io.LimitReader(in, maxFile+1)); err != nil {
		return err
	}
	if len(f.content) > maxFile {
		return fmt.Errorf("is larger than %d octets", maxFile)
	}
	f.exists = true
	f.attrs = attributes(fd)
	return nil
}

// attributes are the extended attributes of a file, those that we may read.
func attributes(fd int) map[string][]byte {
	attrs := map[string][]byte{}
	size, err := unix.Flistxattr(fd, nil)
	if err != nil || size == 0 {
		return attrs
	}
	names := make([]byte, size)
	if size, err = unix.Flistxattr(fd, names); err != nil {
		return attrs
	}
	for name := range bytes.SplitSeq(names[:size], []byte{0}) {
		if len(name) == 0 {
			continue
		}
		size, err := unix.Fgetxattr(fd, string(name), nil)
		if err != nil {
			continue
		}
		value := make([]byte, size)
		if size, err = unix.Fgetxattr(fd, string(name), value); err == nil {
			attrs[string(name)] = value[:size]
		}
	}
	return attrs
}

// A replacement is a new content of a file, complete on disk under another name, and
// locked as postconf(1) locks its own, so that neither overwrites the other's work.
type replacement struct {
	file *file
	temp *os.File
	name string // of temp in the folder
}

// prepare writes a new content beside the file, with its owner, mode, access control
// list and other attributes. A file that is missing gets mode. Nothing has changed
// until commit; the caller must commit or abort.
func (f *file) prepare(content []byte, mode uint32) (r *replacement, err error) {
	// postconf's name and way, see edit_file(3) of Postfix: open, lock, and see that it
	// is still the same file.
	r = &replacement{file: f, name: f.name + ".tmp"}
	fd, err := unix.Openat(f.dir, r.name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	r.temp = os.NewFile(uintptr(fd), r.name)
	defer func() {
		if err != nil {
			r.abort()
			r, err = nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}()
	if err := lock(fd); err != nil {
		r.name = "" // it is somebody else's
		return r, fmt.Errorf("somebody else edits it: %s.tmp is locked", f.name)
	}
	var opened, named unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &opened), unix.Fstatat(f.dir, r.name, &named, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return r, err
	}
	// A second name of it, or another owner, would let somebody have a file of ours
	// written, or have us write one of his.
	if opened.Ino != named.Ino || opened.Dev != named.Dev || opened.Nlink != 1 || opened.Mode&unix.S_IFMT != unix.S_IFREG || opened.Uid != uint32(os.Geteuid()) {
		r.name = ""
		return r, fmt.Errorf("%s.tmp is in the way", f.name)
	}
	if err := errors.Join(unix.Fchmod(fd, 0o600), r.temp.Truncate(0)); err != nil {
		return r, err
	}
	if _, err := r.temp.Write(content); err != nil {
		return r, err
	}
	if err := f.copyAttributes(fd, mode); err != nil {
		return r, err
	}
	return r, r.temp.Sync()
}

// lock waits for the lock for at most lockTimeout.
func lock(fd int) error {
	for end := time.Now().Add(lockTimeout); ; time.Sleep(lockPoll) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}

// copyAttributes gives the new file what the old one had.
func (f *file) copyAttributes(fd int, mode uint32) error {
	if !f.exists {
		return unix.Fchmod(fd, mode)
	}
	if err := unix.Fchown(fd, int(f.stat.Uid), int(f.stat.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, f.stat.Mode&0o7777); err != nil {
		return err
	}
	for name, value := range f.attrs {
		// Errors about other attributes are ignored: a label, for example, comes from the folder too.
		if name != aclAttribute {
			_ = unix.Fsetxattr(fd, name, value, 0)
		}
	}
	if acl, ok := f.attrs[aclAttribute]; ok {
		if err := unix.Fsetxattr(fd, aclAttribute, acl, 0); err != nil {
			return fmt.Errorf("access control list: %w", err)
		}
	}
	return nil
}

// commit puts the new content in the file's place, unless the file is not what it was.
func (r *replacement) commit() error {
	f := r.file
	now := file{path: f.path, dir: f.dir, name: f.name}
	err := now.read()
	if err == nil && (now.exists != f.exists || !bytes.Equal(now.content, f.content)) {
		err = errChanged
	}
	if err == nil {
		err = unix.Renameat(f.dir, r.name, f.dir, f.name)
	}
	if err != nil {
		r.abort()
		return fmt.Errorf("%s: %w", f.path, err)
	}
	r.name = ""
	r.abort()
	// A folder can be synchronised only by a descriptor that may read it.
	if fd, err := unix.Openat(f.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Fsync(fd)
		_ = unix.Close(fd)
	}
	return nil
}

// abort ends the lock, and removes what is not in place.
func (r *replacement) abort() {
	if r.name != "" {
		_ = unix.Unlinkat(r.file.dir, r.name, 0)
		r.name = ""
	}
	_ = r.temp.Close()
}

// replaceAll gives files new contents: all are written before the first is put in
// place, so that a full disk leaves all of them as they were.
func replaceAll(files []*file, contents [][]byte) error {
	var ready []*replacement
	for i, f := range files {
		r, err := f.prepare(contents[i], 0o644)
		if err != nil {
			for _, r := range ready {
				r.abort()
			}
			return err
		}
		ready = append(ready, r)
	}
	for i, r := range ready {
		if err := r.commit(); err != nil {
			for _, r := range ready[i+1:] {
				r.abort()
			}
			return err
		}
	}
	return nil
}
