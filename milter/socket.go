package milter

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// staleProbe bounds the attempt to connect to a socket that is there already, which shows
// whether a process listens on it.
const staleProbe = time.Second

// maxListenQueue bounds the connections that wait to be accepted; the kernel cuts it down
// to net.core.somaxconn.
const maxListenQueue = 1 << 15

// Listen opens a socket for MTAs: network "unix" with a path, or "tcp", "tcp4" or
// "tcp6" with host and port. A unix socket gets mode and group (a name or a
// number, "" to leave it) before anybody can connect; closing the listener removes it.
// A socket that a process left behind when it was killed is replaced.
//
// It is an error if a process listens there, if the path is of something that is no
// socket, or if the group is not known or may not be given; other errors are those of
// net.Listen.
func Listen(network, address string, mode fs.FileMode, group string) (net.Listener, error) {
	if network != "unix" {
		ln, err := net.Listen(network, address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		return ln, nil
	}
	if err := removeStale(address); err != nil {
		return nil, err
	}
	return listenUnix(address, mode, group)
}

// listenUnix gives the socket its owner and mode before it listens: from its first
// connection on, those who may connect can, and nobody else.
func listenUnix(path string, mode fs.FileMode, group string) (_ net.Listener, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, os.NewSyscallError("socket", err))
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // the listener has a descriptor of its own
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, os.NewSyscallError("bind", err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if err := setOwner(path, mode, group); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, maxListenQueue); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, os.NewSyscallError("listen", err))
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if ln, ok := ln.(*net.UnixListener); ok {
		ln.SetUnlinkOnClose(true)
	}
	return ln, nil
}

// setOwner gives the socket to the group, and its mode.
func setOwner(path string, mode fs.FileMode, group string) error {
	if group != "" {
		gid, err := groupID(group)
		if err != nil {
			return fmt.Errorf("socket %s: %w", path, err)
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("socket %s: give to group %s: %w", path, group, err)
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	return nil
}

func groupID(group string) (int, error) {
	if gid, err := strconv.Atoi(group); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// removeStale removes a socket on which nobody listens.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: there is something that is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, staleProbe)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("listen on %s: another process listens there", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove stale socket: %w", err)
		}
		return nil
	}
	return fmt.Errorf("listen on %s: is somebody listening there? %w", path, err)
}
