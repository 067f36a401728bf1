package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// exitConfig is the exit code on which our units are not started again
// (RestartPreventExitStatus).
const exitConfig = 78

// patience is for what has to happen some time; nothing is measured with it.
const patience = 60 * time.Second

// A unit is one of our programs as systemd runs it: started again after it was killed,
// its log going on.
type unit struct {
	name    string
	program string
	args    []string
	dir     string // its working directory
	log     string
	ready   string      // what its log says when it is ready
	answers func() bool // and somebody listens

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{}
	expected bool // somebody ends it
	code     int  // of the last end; -1 for a signal
	began    int64
	stray    []string // ends that nobody wanted
}

// spawn starts the process and waits for nothing.
func (u *unit) spawn() error {
	out, err := os.OpenFile(u.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(u.program, u.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = u.dir, out, out
	// Should this program be killed, the kernel ends ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", u.name, err)
	}
	done := make(chan struct{})
	u.mu.Lock()
	u.cmd, u.done, u.expected, u.began = cmd, done, false, size
	u.mu.Unlock()
	go func() {
		_ = cmd.Wait() // the code says it
		u.mu.Lock()
		u.code = cmd.ProcessState.ExitCode()
		if !u.expected {
			u.stray = append(u.stray, fmt.Sprintf("%s ended by itself: %s", u.name, cmd.ProcessState))
		}
		u.mu.Unlock()
		close(done)
	}()
	return nil
}

// start starts the process and returns when it is ready.
func (u *unit) start(ctx context.Context) error {
	if err := u.spawn(); err != nil {
		return err
	}
	return u.wait(ctx)
}

// wait returns when the process that was spawned is ready.
func (u *unit) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := testdaemon.Poll(ctx, func() (bool, error) {
		if u.ended() {
			return false, errors.New("it ended")
		}
		return bytes.Contains(u.said(u.began), []byte(u.ready)) && u.answers(), nil
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", u.name, err, u.said(u.began))
	}
	return nil
}

// mayEnd says whether an end is nothing to report.
func (u *unit) mayEnd(may bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.expected = may
}

func (u *unit) ended() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// size is how long the log is now.
func (u *unit) size() int64 {
	info, err := os.Stat(u.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// said is what it has logged since its log had that size.
func (u *unit) said(since int64) []byte {
	f, err := os.Open(u.log)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, since, 1<<40))
	if err != nil {
		return nil
	}
	return b
}

// waitSaid waits until its log has one of words since it had that size, and returns it.
func (u *unit) waitSaid(ctx context.Context, since int64, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var found string
	err := testdaemon.Poll(ctx, func() (bool, error) {
		said := u.said(since)
		for _, word := range words {
			if bytes.Contains(said, []byte(word)) {
				found = word
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("%s has not said any of %q: %w", u.name, words, err)
	}
	return found, nil
}

// signal sends a signal that is not meant to end it.
func (u *unit) signal(sig syscall.Signal) error { return u.cmd.Process.Signal(sig) }

// end sends a signal that ends it, and returns the exit code, or -1 if the signal did.
func (u *unit) end(sig syscall.Signal) (code int, err error) {
	u.mayEnd(true)
	if err := u.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	select {
	case <-u.done:
		return u.code, nil
	case <-time.After(patience):
		_ = u.cmd.Process.Kill()
		<-u.done
		return 0, fmt.Errorf("%s does not end after %s", u.name, sig)
	}
}

// A through is what happened to a unit that was started in a passing trouble.
type through struct {
	starts int
	given  bool // an exit code ended it on which the unit is not started again
}

// startThrough starts it while something is wrong, as often as the unit would, mends
// that, and returns when it is ready. A unit that would have stayed down for ever is
// started all the same.
func (u *unit) startThrough(ctx context.Context, mend func() error) (t through, err error) {
	const restarts = 3
	for t.starts < restarts && !t.given {
		if err := u.spawn(); err != nil {
			return t, err
		}
		u.mayEnd(true)
		t.starts++
		select {
		case <-u.done:
			t.given = u.code == exitConfig
			continue
		case <-time.After(time.Second): // it waits, or does without
		}
		break
	}
	if err := mend(); err != nil {
		return t, err
	}
	if u.ended() {
		return t, u.start(ctx)
	}
	u.mayEnd(false)
	return t, u.wait(ctx)
}

// replace puts a file in the place of another in one step.
func replace(path string, content []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return testdaemon.Replace(path, content, mode)
}

// inPlace writes into a file that is there, without its owner or mode being changed.
func inPlace(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// under is a path below a folder.
func under(dir string, names ...string) string {
	return filepath.Join(append([]string{dir}, names...)...)
}
