package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Readable tries to read files and folders as another user, which takes root: a check
// typed by root must not approve what the service cannot read. The error names each one
// that the user may not read, with the commands that open it. One that is missing is
// not looked at.
func Readable(username string, paths ...string) error {
	u, err := user.Lookup(username)
	if err != nil {
		return err
	}
	var refused error
	err = as(u, func() {
		for _, path := range paths {
			refused = errors.Join(refused, readable(u, path))
		}
	})
	return errors.Join(err, refused)
}

// readable looks at one file, with the rights of u.
func readable(u *user.User, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrPermission) {
		return nil
	}
	at, right := obstacle(path)
	group := u.Gid
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		group = g.Name
	}
	return fmt.Errorf("%s: cannot be read by %s, as whom the service runs; to mend it: chgrp %s %s && chmod g+%s %s", path, u.Username, group, at, right, at)
}

// obstacle is the first folder above a file that may not be searched, or the file, and
// the right that is missing.
func obstacle(path string) (at, right string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return path, "r"
	}
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if info, err := os.Stat(path[:i]); err == nil && info.IsDir() {
			if unix.Access(path[:i], unix.X_OK) != nil {
				return path[:i], "x"
			}
		}
	}
	return path, "r"
}

// as calls do with the rights of a user.
func as(u *user.User, do func()) error {
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	ids, idsErr := u.GroupIds()
	if err := errors.Join(uidErr, gidErr, idsErr); err != nil {
		return err
	}
	groups := []uint32{uint32(gid)}
	for _, id := range ids {
		n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
		if err != nil {
			return err
		}
		groups = append(groups, uint32(n))
	}
	done := make(chan error, 1)
	go func() {
		// Rights are a thread's. This one is not unlocked, so it ends with the goroutine
		// and nothing else ever runs on it.
		runtime.LockOSThread()
		err := become(uint32(uid), uint32(gid), groups)
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("become user %s: %w", u.Username, err)
	}
	return nil
}

// become changes the rights of the calling thread only, unlike the functions of packages
// syscall and unix, which change those of the process.
func become(uid, gid uint32, groups []uint32) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return e
	}
	return nil
}
