package testdaemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// A Daemon is a Process with a folder of its own for whatever it reads and writes.
type Daemon struct {
	process *Process
	dir     string
	stop    sync.Once
}

// StartDaemon makes a folder that every user may search, has prepare fill it and say
// with which arguments to start the program, and returns when answers returns true.
// ctx bounds the start only; Stop ends the daemon, and it ends by itself when this
// program dies. The error is ErrNotInstalled where the program is missing.
func StartDaemon(ctx context.Context, program string, prepare func(dir string) (args []string, err error), answers func() bool) (*Daemon, error) {
	path, err := Command(program)
	if err != nil {
		return nil, fmt.Errorf("start %w", err)
	}
	dir, err := TempDir("authkey-" + program + "-")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	d := &Daemon{dir: dir}
	args, err := prepare(dir)
	if err == nil {
		d.process, err = Start(exec.Command(path, args...), filepath.Join(dir, "log"), dir)
	}
	if err == nil {
		err = d.process.Ready(ctx, answers)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, errors.Join(err, d.Stop()))
	}
	return d, nil
}

// Log is what the daemon has written so far to standard output and error.
func (d *Daemon) Log() string { return string(d.process.Log()) }

// Stop ends the daemon and removes its folder. A second call does nothing.
func (d *Daemon) Stop() (err error) {
	d.stop.Do(func() {
		if d.process != nil {
			err = d.process.Stop()
		}
		err = errors.Join(err, os.RemoveAll(d.dir))
	})
	return err
}
