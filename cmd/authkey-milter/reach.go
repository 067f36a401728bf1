package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// listenLoopback opens a TCP port on the loopback addresses of both families: of the one
// that the machine has, where it has only one.
func listenLoopback(port string) ([]net.Listener, error) {
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

// reachOf says in words who can connect to a socket of ours: the logins that such a client
// claims are believed. everybody: others than root, the socket's owner and its group can.
func reachOf(addr net.Addr) (who string, everybody bool) {
	switch a := addr.(type) {
	case *net.UnixAddr:
		return reachOfUnix(a.Name)
	case *net.TCPAddr:
		return reachOfTCP(a), true
	}
	return "unknown", true
}

func reachOfUnix(path string) (who string, everybody bool) {
	if path == "" || path[0] == '@' { // Linux's abstract name space, where there are no modes
		return "every user of this machine (abstract socket)", true
	}
	info, err := os.Stat(path)
	if err != nil {
		return "unknown: " + err.Error(), false
	}
	mode := info.Mode().Perm()
	if mode&0o002 != 0 { // to connect takes the right to write
		return fmt.Sprintf("every user of this machine (mode %04o)", mode), true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprintf("mode %04o", mode), false
	}
	list := []string{"root"}
	if mode&0o200 != 0 && stat.Uid != 0 {
		list = append(list, "user "+userName(stat.Uid))
	}
	if mode&0o020 != 0 {
		list = append(list, "group "+groupName(stat.Gid))
	}
	return fmt.Sprintf("%s (mode %04o)", strings.Join(list, ", "), mode), false
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

func reachOfTCP(addr *net.TCPAddr) string {
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
