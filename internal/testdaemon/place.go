package testdaemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
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

// marks stand for the ports that FreePort has returned, until this program ends.
var marks struct {
	sync.Mutex
	held []net.Listener
}

// FreePort finds a port on 127.0.0.1 that is free for both TCP and UDP. It returns none
// a second time, nor one that it has returned in another program that still runs: a
// daemon needs seconds from its start to its bind.
func FreePort() (int, error) {
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		// Like the port, a name without a file belongs to the network namespace, and goes
		// with the process.
		mark, err := net.Listen("unix", "@authkey-port-"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		if !isFree(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) {
			mark.Close()
			continue
		}
		marks.Lock()
		defer marks.Unlock()
		marks.held = append(marks.held, mark)
		return port, nil
	}
	return 0, fmt.Errorf("no free port on 127.0.0.1 among %d tries", portTries)
}

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	p, err := net.ListenPacket("udp", addr)
	l.Close()
	if err != nil {
		return false
	}
	p.Close()
	return true
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

// Replace puts a file in the place of another in one step, and so that it can be seen that
// nobody has written to it since, however fast the machine and however coarse the clock of
// its file system.
func Replace(path string, content []byte, mode os.FileMode) error {
	next := path + ".next"
	if err := os.WriteFile(next, content, mode); err != nil {
		return err
	}
	if err := os.Chmod(next, mode); err != nil {
		return err
	}
	if err := os.Chtimes(next, time.Time{}, time.Now().Add(-time.Second)); err != nil {
		return err
	}
	return os.Rename(next, path)
}

const (
	// pollInterval is how often Poll asks.
	pollInterval = 10 * time.Millisecond
	// pollLimit ends a Poll whose context has no deadline.
	pollLimit = 3 * time.Minute
)

// Poll calls done until it returns true or an error, or until ctx ends; a
// context without deadline ends after three minutes.
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

// Listens reports whether somebody accepts connections there.
func Listens(network, address string) bool {
	c, err := net.Dial(network, address)
	return err == nil && c.Close() == nil
}
