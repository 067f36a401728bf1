package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/lab"
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
	lab.Program
	ready   string      // what its log says when it is ready
	answers func() bool // and somebody listens

	began int64 // how long the log was at the start

	mu       sync.Mutex
	expected bool     // somebody ends it
	stray    []string // ends that nobody wanted
}

// spawn starts the process and waits for nothing.
func (u *unit) spawn() error {
	u.began = u.LogSize()
	u.mayEnd(false)
	u.OnEnd = func(state *os.ProcessState) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if !u.expected {
			u.stray = append(u.stray, fmt.Sprintf("%s ended by itself: %s", u.Name, state))
		}
	}
	return u.Start()
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
	return u.Ready(ctx, func() bool {
		return bytes.Contains(u.LogSince(u.began), []byte(u.ready)) && u.answers()
	})
}

// mayEnd says whether an end is nothing to report.
func (u *unit) mayEnd(may bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.expected = may
}

// waitSaid waits until its log has one of words since it had that size, and returns it.
func (u *unit) waitSaid(ctx context.Context, since int64, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var found string
	err := testdaemon.Poll(ctx, func() (bool, error) {
		said := u.LogSince(since)
		for _, word := range words {
			if bytes.Contains(said, []byte(word)) {
				found = word
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("%s has not said any of %q: %w", u.Name, words, err)
	}
	return found, nil
}

// end sends a signal that ends it, and returns the exit code, or -1 if the signal did.
func (u *unit) end(sig syscall.Signal) (code int, err error) {
	u.mayEnd(true)
	state, err := u.End(sig, patience)
	if err != nil {
		return 0, err
	}
	return state.ExitCode(), nil
}

// A through is what happened to a unit that was started while something was wrong for a time.
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
		case <-u.Done():
			t.given = u.State().ExitCode() == exitConfig
			continue
		case <-time.After(time.Second): // it waits, or does without
		}
		break
	}
	if err := mend(); err != nil {
		return t, err
	}
	if u.Ended() {
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
