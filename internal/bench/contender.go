package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A contender is a filter that runs as a process of its own.
type contender struct {
	name    string
	socket  string // a path, or host:port
	process *testdaemon.Process
	log     string // path of what it writes
}

// milterName is ours among the contenders.
const milterName = "authkey-milter"

// startTime is how long a filter may take to listen.
const startTime = 10 * time.Second

// start runs a filter which listens on socket. It ends with the world.
func (w *world) start(ctx context.Context, name, socket string, program string, args ...string) (*contender, error) {
	c := &contender{name: name, socket: socket, log: socket + ".log"}
	if !strings.HasPrefix(socket, "/") {
		c.log = filepath.Join(w.Dir, name+".log")
	}
	var err error
	if c.process, err = testdaemon.Start(exec.Command(program, args...), c.log, ""); err != nil {
		return nil, err
	}
	w.OnClose(c.process.Stop)
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err = c.process.Ready(ctx, func() bool {
		conn, err := c.dial()
		return err == nil && conn.Close() == nil
	})
	return c, err
}

func (c *contender) dial() (net.Conn, error) {
	if strings.HasPrefix(c.socket, "/") {
		return net.Dial("unix", c.socket)
	}
	return net.Dial("tcp", c.socket)
}

// pid is the process's.
func (c *contender) pid() int { return c.process.Pid() }

// forgetLog empties what the filter wrote: a run writes some 50 MB.
func (c *contender) forgetLog() error { return os.Truncate(c.log, 0) }

// startMilter runs authkey-milter as a postmaster does, logging to a file, with
// more YAML behind the world's configuration. name tells several in one world apart.
func (w *world) startMilter(ctx context.Context, binary, name, network, more string) (*contender, error) {
	socket := filepath.Join(w.Dir, name+".sock")
	listen := "unix:" + socket
	if network == "tcp" {
		port, err := testdaemon.FreePort()
		if err != nil {
			return nil, err
		}
		socket = loopbackAt(port)
		listen = fmt.Sprintf("inet:%d@127.0.0.1", port)
	}
	config := filepath.Join(w.Dir, name+".yaml")
	if err := os.WriteFile(config, []byte(w.milterConfig(listen)+more), 0o644); err != nil {
		return nil, err
	}
	return w.start(ctx, name, socket, binary, "serve", "--config", config)
}

func loopbackAt(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// startReader runs the bare reader.
func (w *world) startReader(ctx context.Context) (*contender, error) {
	return w.startHelper(ctx, "bare reader (Go)", readerName, filepath.Join(w.Dir, "reader.sock"))
}

// startHelper runs one of the helpers.
func (w *world) startHelper(ctx context.Context, name, helper, socket string) (*contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return w.start(ctx, name, socket, self, helper, socket)
}

//go:embed testdata/filter.c
var filterSource []byte

// startLibmilter compiles the C filter and runs it.
func (w *world) startLibmilter(ctx context.Context, logf testdaemon.Logf) (*contender, error) {
	if err := ensure(ctx, logf, "gcc", "gcc", "libc6-dev"); err != nil {
		return nil, err
	}
	if _, err := os.Stat("/usr/include/libmilter/mfapi.h"); err != nil {
		if err := testdaemon.Install(ctx, logf, testdaemon.Installation{Packages: []string{"libmilter-dev"}}); err != nil {
			return nil, err
		}
	}
	source, program := filepath.Join(w.Dir, "filter.c"), filepath.Join(w.Dir, "filter")
	if err := os.WriteFile(source, filterSource, 0o644); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, "-lmilter", "-lpthread").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("compile the C filter: %w: %s", err, out)
	}
	socket := filepath.Join(w.Dir, "libmilter.sock")
	return w.start(ctx, "libmilter (C)", socket, program, "unix:"+socket)
}

// startOpenDKIM runs Debian's OpenDKIM as a verifier (-b v), with the settings of
// Debian's opendkim.conf but for user and places.
func (w *world) startOpenDKIM(ctx context.Context, logf testdaemon.Logf) (*contender, error) {
	if err := ensure(ctx, logf, "opendkim", "opendkim"); err != nil {
		return nil, err
	}
	socket := filepath.Join(w.Dir, "opendkim.sock")
	config := filepath.Join(w.Dir, "opendkim.conf")
	settings := fmt.Sprintf(`Syslog yes
SyslogSuccess yes
Canonicalization relaxed/simple
OversignHeaders From
UMask 000
Socket local:%s
PidFile %s.pid
`, socket, socket)
	if err := os.WriteFile(config, []byte(settings), 0o644); err != nil {
		return nil, err
	}
	program, err := lookPath("opendkim")
	if err != nil {
		return nil, err
	}
	return w.start(ctx, "OpenDKIM", socket, program, "-f", "-b", "v", "-x", config)
}

// ensure installs Debian packages where a program is missing.
func ensure(ctx context.Context, logf testdaemon.Logf, program string, packages ...string) error {
	if _, err := lookPath(program); err == nil {
		return nil
	}
	if err := testdaemon.Install(ctx, logf, testdaemon.Installation{Packages: packages}); err != nil {
		return err
	}
	_, err := lookPath(program)
	return err
}

// lookPath finds a program, also where PATH lacks /usr/sbin.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		return exec.LookPath(filepath.Join("/usr/sbin", program))
	}
	return path, err
}
