package testdaemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"
)

// Ports are taken from below the range from which the kernel takes those of
// outgoing connections: between choosing one and the daemon's bind, nobody
// else gets it by accident.
const (
	firstPort = 10000
	lastPort  = 32000
	portTries = 200
)

// FreePort finds a port on 127.0.0.1 that is free for both TCP and UDP.
func FreePort() (int, error) {
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		p, err := net.ListenPacket("udp", addr)
		l.Close()
		if err != nil {
			continue
		}
		p.Close()
		return port, nil
	}
	return 0, fmt.Errorf("no free port on 127.0.0.1 among %d tries", portTries)
}

// TempDir makes a folder that every user of the machine may search, whatever
// the umask is and wherever TMPDIR points to: daemons change to a user of
// their own.
func TempDir(pattern string) (string, error) {
	dir, err := os.MkdirTemp("/tmp", pattern)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		os.RemoveAll(dir)
		return "", err
	}
	return dir, nil
}

const (
	// pollInterval is how often Poll asks.
	pollInterval = 10 * time.Millisecond
	// pollLimit ends a Poll whose context has no deadline.
	pollLimit = time.Minute
)

// Poll calls done until it returns true or an error, or until ctx ends; a
// context without deadline ends after a minute.
func Poll(ctx context.Context, done func() (bool, error)) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pollLimit)
		defer cancel()
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
