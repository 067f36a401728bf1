package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/testdaemon"
)

// What the milter says when it has read its configuration.
const (
	inForce   = "configuration in force"
	isRefused = "configuration not reloaded"
)

// killMilter kills the milter in the midst of work and starts it again.
func killMilter(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	return s.killMilterNow(ctx)
}

func (s *storm) killMilterNow(ctx context.Context) error {
	began := time.Now()
	if _, err := s.w.milter.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill("authkey-milter")
	err := s.w.milter.start(ctx)
	s.note(milterKilled, began)
	return err
}

// killAtNotices kills the milter while it hands over many notices.
func killAtNotices(s *storm, ctx context.Context) error {
	before := s.w.Told.Count()
	some := before + 1 + s.random.IntN(crowd*3/4)
	done := make(chan *history, 1)
	go func() {
		c := &client{w: s.w}
		defer c.hangUp()
		done <- s.load.send(c, crowded)
	}()
	err := testdaemon.Poll(ctx, func() (bool, error) { return s.w.Told.Count() >= some || len(done) > 0, nil })
	if err == nil {
		err = s.killMilterNow(ctx)
	}
	<-done
	return err
}

// terminate ends the milter with SIGTERM: what is in flight is finished.
func terminate(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	return s.restart(ctx, s.w.milter)
}

func (s *storm) restart(ctx context.Context, u *unit) error {
	code, err := u.end(syscall.SIGTERM)
	if err != nil {
		return err
	}
	s.kill(u.Name + ", SIGTERM")
	if code != 0 {
		s.fault("%s ended with code %d on SIGTERM", u.Name, code)
	}
	return u.start(ctx)
}

// hangup sends SIGHUP, and waits until the milter has read its configuration. since is
// how long its log was before.
func (s *storm) hangup(ctx context.Context, since int64) error {
	if err := s.w.milter.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	_, err := s.w.milter.waitSaid(ctx, since, inForce, isRefused)
	return err
}

// good has the milter read configurations that differ in what changes no outcome.
func good(s *storm, ctx context.Context) error {
	more := []string{"", "log: {level: debug}\n", "limits: {connections: 500}\n"}
	for range 3 {
		content := append(bytes.Clone(s.w.config), more[s.random.IntN(len(more))]...)
		since := s.w.milter.LogSize()
		if err := replace(s.w.milterYAML(), content); err != nil {
			return err
		}
		if err := s.moment(ctx); err != nil {
			return err
		}
		for range 1 + s.random.IntN(5) { // in a row
			if err := s.w.milter.Signal(syscall.SIGHUP); err != nil {
				return err
			}
		}
		if err := s.hangup(ctx, since); err != nil {
			return err
		}
	}
	return nil
}

// bad has it read configurations that cannot be taken, or none.
func bad(s *storm, ctx context.Context) error {
	contents := []string{
		strings.Replace(string(s.w.config), "fail: reject", "fail: perhaps", 1),
		"\t: no YAML\n",
		string(s.w.config[:len(s.w.config)*2/3]) + "x", // within a line
		string(s.w.config) + "verify: {timeout: -1s}\n",
	}
	return s.refused(ctx, contents[s.random.IntN(len(contents))], "bad")
}

// cutOff has it read the beginning of its configuration, up to the end of a line, as of
// an editor or a disk that got no further: valid YAML, with defaults for the rest.
func cutOff(s *storm, ctx context.Context) error {
	lines := bytes.SplitAfter(s.w.config, []byte("\n"))
	n := s.random.IntN(len(lines) - 2)
	// The last of its sections, or their last lines, are missing most of the time.
	if s.random.IntN(2) == 0 {
		n = len(lines) - 4 - s.random.IntN(6)
	}
	return s.refused(ctx, string(bytes.Join(lines[:n], nil)), "cut off")
}

// refused writes a configuration in place, has it read, lets mail flow, and puts the
// good one back.
func (s *storm) refused(ctx context.Context, content, what string) error {
	since := s.w.milter.LogSize()
	if err := inPlace(s.w.milterYAML(), []byte(content)); err != nil {
		return err
	}
	if err := s.hangup(ctx, since); err != nil {
		return err
	}
	if err := s.load.flow(ctx, 3*clients); err != nil {
		return err
	}
	if bytes.Contains(s.w.milter.LogSince(since), []byte(inForce)) {
		s.fault("a configuration that is %s was put in force", what)
	}
	since = s.w.milter.LogSize()
	if err := replace(s.w.milterYAML(), s.w.config); err != nil {
		return err
	}
	return s.hangup(ctx, since)
}

// locked starts the milter while something else has locked its state folder.
func locked(s *storm, ctx context.Context) error {
	return s.trouble(ctx, s.w.milter, "its state folder is locked", func() (mend func() error, err error) {
		lock, err := os.OpenFile(under(s.w.stateDir(), "notified.lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		return lock.Close, unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	})
}

// half starts a program between the two writes of somebody who replaces a file.
func (s *storm) half(ctx context.Context, u *unit, path, what string) error {
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cut := len(whole) / 2
	for cut > 0 && bytes.IndexByte(whole[cut:], '\n') < 3 || whole[cut-1] == '\n' {
		cut-- // within a line: up to the end of one it may be what somebody wants
	}
	return s.trouble(ctx, u, what+" is half written", func() (mend func() error, err error) {
		return func() error { return inPlace(path, whole) }, inPlace(path, whole[:cut])
	})
}

// halfOwnSecret is about the milter, which attaches keys.
func halfOwnSecret(s *storm, ctx context.Context) error {
	return s.half(ctx, s.w.milter, s.w.secret(twoServers), "a secret")
}

// halfSecret is about the Authentication Server, which no other program shares this
// domain with.
func halfSecret(s *storm, ctx context.Context) error {
	return s.half(ctx, s.w.first, s.w.secret(requiring), "a secret")
}

// halfPreferences is about the milter and its recipients' preferences.
func halfPreferences(s *storm, ctx context.Context) error {
	s.prefs.paused.Lock()
	defer s.prefs.paused.Unlock()
	return s.half(ctx, s.w.milter, s.w.prefsYAML(), "its preferences file")
}

// trouble kills a program and starts it again while something is wrong for a time.
func (s *storm) trouble(ctx context.Context, u *unit, what string, begin func() (mend func() error, err error)) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	began := time.Now()
	if _, err := u.end(syscall.SIGKILL); err != nil {
		return err
	}
	s.kill(u.Name)
	mend, err := begin()
	if err != nil {
		return err
	}
	t, err := u.startThrough(ctx, mend)
	if t.given {
		s.fault("%s was started while %s: exit %d, and its unit would not start it again", u.Name, what, exitConfig)
	}
	if u == s.w.milter {
		s.note(milterKilled, began)
	}
	return err
}

// killMTA kills those processes of the MTA that take mail just now.
func killMTA(s *storm, ctx context.Context) error {
	if err := s.moment(ctx); err != nil {
		return err
	}
	began := time.Now()
	members, err := s.w.mta.Receivers()
	if err != nil || len(members) == 0 {
		return err
	}
	program := members[s.random.IntN(len(members))].Name
	for _, m := range members {
		if m.Name == program && syscall.Kill(m.Pid, syscall.SIGKILL) == nil {
			s.kill(s.w.mta.Name())
		}
	}
	s.note(mtaKilled, began)
	return nil
}
