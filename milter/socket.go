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
)

// staleProbe bounds the look whether somebody listens on a socket that is there.
const staleProbe = time.Second

// Listen opens a socket for MTAs: network "unix" with a path, or "tcp", "tcp4" or
// "tcp6" with host and port. A unix socket gets mode and group (a name or a
// number, "" to leave it); one left over from a process that died is replaced,
// one on which somebody listens is not.
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
	// Between its creation and its mode nobody else may connect.
	mask := syscall.Umask(0o177)
	ln, err := net.Listen("unix", address)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := own(address, mode, group); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

func own(path string, mode fs.FileMode, group string) error {
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
