package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	octets "encoding/binary" // the name is taken
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
)

// A processClock is the wall clock of one process, which can be made to jump while
// the process runs, and nobody else's with it. libfaketime cannot do that to a Go
// program, which asks the kernel's vDSO for the time and not libc; a time namespace
// shifts the other clocks only. So the process's own copy of the vDSO's
// clock_gettime(2) is written over: it makes the real system call and adds an
// offset, kept behind the code, to CLOCK_REALTIME.
type processClock struct {
	mem    *os.File
	offset int64 // where in the process the offset is
}

// clockGettime is that function: number 228 is clock_gettime, clock 0 CLOCK_REALTIME.
var clockGettime = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jne end
	0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,       // end: ret
	0x90, 0x90, // the offset begins at 24
}

// takeClock takes over the clock of a process, whose wall clock stays as it is.
func takeClock(t *testing.T, pid int) *processClock {
	t.Helper()
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = mem.Close() })
	begin, end, err := vdso(pid)
	must(t, err)
	image := make([]byte, end-begin)
	_, err = mem.ReadAt(image, begin)
	must(t, err)
	at, err := symbol(image, "__vdso_clock_gettime", uint64(len(clockGettime)+8))
	must(t, err)
	c := &processClock{mem: mem, offset: begin + int64(at) + int64(len(clockGettime))}

	// No thread may be in the midst of what is written over.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, testdaemon.Poll(ctx, func() (bool, error) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return false, err
		}
		defer syscall.Kill(pid, syscall.SIGCONT)
		if outside, err := stoppedOutside(pid, begin, end); !outside || err != nil {
			return false, err
		}
		_, err := mem.WriteAt(append(bytes.Clone(clockGettime), make([]byte, 8)...), begin+int64(at))
		return err == nil, err
	}))
	return c
}

// set makes the wall clock differ from the true one by so much, in whole seconds.
func (c *processClock) set(offset time.Duration) error {
	_, err := c.mem.WriteAt(octets.LittleEndian.AppendUint64(nil, uint64(offset/time.Second)), c.offset)
	return err
}

// vdso returns where it is in a process.
func vdso(pid int) (begin, end int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err = fmt.Sscanf(line, "%x-%x", &begin, &end)
			return begin, end, err
		}
	}
	return 0, 0, errors.New("a process without vDSO")
}

// symbol returns where in an image a function of at least so many octets begins. Its
// first octet must lie so that the offset behind our code is aligned.
func symbol(image []byte, name string, size uint64) (uint64, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == name && s.Size >= size && s.Value%8 == 0 {
			return s.Value, nil
		}
	}
	return 0, fmt.Errorf("no room for a function in place of %s", name)
}

// stoppedOutside reports whether every thread of a process is stopped, and none of
// them between two addresses.
func stoppedOutside(pid int, begin, end int64) (bool, error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		status, err := os.ReadFile(filepath.Join(tasks, thread.Name(), "stat"))
		if err != nil {
			return false, err
		}
		_, state, _ := strings.Cut(string(status), ") ")
		where, err := os.ReadFile(filepath.Join(tasks, thread.Name(), "syscall"))
		if err != nil {
			return false, err
		}
		words := strings.Fields(string(where))
		pc, err := strconv.ParseInt(strings.TrimPrefix(words[len(words)-1], "0x"), 16, 64)
		if !strings.HasPrefix(state, "T") || err != nil || pc >= begin && pc < end {
			return false, nil
		}
	}
	return true, nil
}

const day = 24 * time.Hour

// TestClockOfMilter has the milter's wall clock jump under load: no message notices.
// A key that was found valid is relied upon for the time that passes, not for the
// time that the clock shows.
func TestClockOfMilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	milter, err := w.NewMilter(binary, "unix")
	must(t, err)
	must(t, milter.Configure("cache: {max_ttl: 2s}\n"))
	must(t, milter.StartListening(t.Context()))
	s := &stage{t: t, ctx: t.Context(), w: w, milter: milter, postfix: startFaultPostfix(t, milter.Socket)}
	clock := takeClock(t, milter.Pid())
	s.load = newLoad(t, w, s.postfix.SMTPAddr(), loadClients, everyday())
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour, 400 * day, -400 * day, 30 * day, -9000 * day, day} {
		must(t, clock.set(jump))
		before := len(milter.Log())
		s.load.send(3 * len(everyResult))
		want := time.Now().Add(jump).UTC().Format("time=2006-01-")
		if _, err := milter.WaitLog(s.ctx, s.load.lastQueueID()); err != nil || !strings.Contains(milter.Log()[before:], want) {
			t.Fatalf("the clock did not jump by %s: no %s in the log, %v", jump, want, err)
		}
	}
	s.load.reckon(s.postfix)

	must(t, clock.set(0))
	old := &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"}
	result := func() string {
		c := dialSMTP(t, s.postfix)
		defer c.Close()
		m := *old
		m.subject = ""
		sendMail(t, c, &m)
		return authRes(delivered(t, s.postfix, &m))
	}
	if got := result(); !strings.HasPrefix(got, "mx.test; x-authkey=pass") {
		t.Fatalf("with a valid key: %s", got)
	}
	must(t, w.Revoke(withAS, "alice"))
	must(t, clock.set(-day))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	last := ""
	err = testdaemon.Poll(ctx, func() (bool, error) {
		last = result()
		return strings.HasPrefix(last, "mx.test; x-authkey=fail"), nil
	})
	if err != nil {
		t.Errorf("10 s after it was revoked, with a cache of 2 s and a clock set back by a day: %s", last)
	}
	s.end()
}

// TestClockOfServer has the wall clock of an Authentication Server jump: the key of
// today is valid as long as the server's own calendar says so.
func TestClockOfServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const domain = "clock.test"
	must(t, w.AddDomain(domain, "alice"))
	server := newServer(t, w, buildServer(t, "-race"), domain)
	server.start()
	must(t, w.Publish(domain, lab.ASRecord(server.port)))
	clock := takeClock(t, server.process.Pid())
	conf := writeConfig(t, w.MilterConfig("unix:"+filepath.Join(w.Dir, "unused.sock")))
	for _, step := range []struct {
		jump time.Duration
		want string
		code int
	}{
		{0, "pass", 0},
		{2 * day, "pass", 0}, // the default grace is 5 days
		{10 * day, "fail", 1},
		{2000 * day, "fail", 1}, // keys tell 1024 epochs apart
		{1024 * day, "fail", 1},
		{-3 * day, "fail", 1}, // a key of the future
		{-1024 * day, "fail", 1},
		{0, "pass", 0},
	} {
		must(t, clock.set(step.jump))
		out, code := runMilter(t, mustKey(t, w, "alice@"+domain)+"\n", "verify", "--config", conf, "alice@"+domain)
		if !strings.HasPrefix(out, "result    "+step.want) || code != step.code {
			t.Errorf("the server's clock is off by %s: exit %d, want %s\n%s", step.jump, code, step.want, out)
		}
	}
}
