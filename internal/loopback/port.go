package loopback

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A RefusingPort refuses connections until Close, and nobody else can listen there
// meanwhile: it is bound, and not listened on.
type RefusingPort struct {
	Port int // on 127.0.0.1
	fd   int
}

// OpenRefusingPort chooses a free port.
func OpenRefusingPort() (*RefusingPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a refusing port: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		var addr unix.Sockaddr
		if addr, err = unix.Getsockname(fd); err == nil {
			return &RefusingPort{addr.(*unix.SockaddrInet4).Port, fd}, nil
		}
	}
	return nil, fmt.Errorf("open a refusing port: %w", errors.Join(err, unix.Close(fd)))
}

// Close frees the port. It is to be called once.
func (p *RefusingPort) Close() error { return unix.Close(p.fd) }
