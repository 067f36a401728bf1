package milter

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// staleProbe bounds the look whether somebody listens on a socket that is there.
const staleProbe = time.Second

// maxListenQueue bounds the connections that wait to be accepted; the kernel cuts it down
// to net.core.somaxconn.
const maxListenQueue = 1 << 15

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
	if err := own(path, mode, group); err != nil {
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

// ListenLoopback opens a TCP port on the loopback addresses of both families: of the one
// that the machine has, where it has only one.
func ListenLoopback(port string) ([]net.Listener, error) {
	var all []net.Listener
	var errs []error
	for network, host := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"} {
		ln, err := net.Listen(network, net.JoinHostPort(host, port))
		switch {
		case err == nil:
			all = append(all, ln)
		case !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT):
			errs = append(errs, fmt.Errorf("listen on %s: %w", net.JoinHostPort(host, port), err))
		}
	}
	if len(all) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("listen on port %s: the machine has no loopback address", port))
	}
	if len(errs) == 0 {
		return all, nil
	}
	for _, ln := range all {
		errs = append(errs, ln.Close())
	}
	return nil, errors.Join(errs...)
}

// Open reports whether others than root, the socket's owner and its group can connect to
// it: it is an inet socket, or everybody may write to it.
func Open(addr net.Addr) bool {
	a, ok := addr.(*net.UnixAddr)
	if !ok {
		return true
	}
	if isAbstract(a.Name) {
		return true
	}
	info, err := os.Stat(a.Name)
	return err == nil && info.Mode().Perm()&0o002 != 0
}

// Reach says in words who can connect to a socket of ours: whoever can is believed which
// logins he claims.
func Reach(addr net.Addr) string {
	switch a := addr.(type) {
	case *net.UnixAddr:
		return reachUnix(a.Name)
	case *net.TCPAddr:
		return reachTCP(a)
	}
	return "unknown"
}

// isAbstract reports whether a unix socket is in Linux's abstract name space, where there
// are no modes.
func isAbstract(name string) bool { return name == "" || name[0] == '@' }

func reachUnix(path string) string {
	if isAbstract(path) {
		return "every user of this machine (abstract socket)"
	}
	info, err := os.Stat(path)
	if err != nil {
		return "unknown: " + err.Error()
	}
	mode := info.Mode().Perm()
	if mode&0o002 != 0 { // to connect takes the right to write
		return fmt.Sprintf("every user of this machine (mode %04o)", mode)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprintf("mode %04o", mode)
	}
	who := []string{"root"}
	if mode&0o200 != 0 && stat.Uid != 0 {
		who = append(who, "user "+userName(stat.Uid))
	}
	if mode&0o020 != 0 {
		who = append(who, "group "+groupName(stat.Gid))
	}
	return fmt.Sprintf("%s (mode %04o)", strings.Join(who, ", "), mode)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func groupName(gid uint32) string {
	id := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

func reachTCP(addr *net.TCPAddr) string {
	if addr.IP.IsLoopback() {
		return "every user of this machine (loopback)"
	}
	var at []string
	interfaces, err := net.Interfaces()
	if err != nil {
		return "unknown: " + err.Error()
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		if addr.IP.IsUnspecified() {
			at = append(at, i.Name)
			continue
		}
		for _, a := range addrs {
			if network, ok := a.(*net.IPNet); ok && network.IP.Equal(addr.IP) {
				at = append(at, i.Name)
				break
			}
		}
	}
	return "every host that reaches the port, through interface " + strings.Join(at, ", ")
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
