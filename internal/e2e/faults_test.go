package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

const loadClients = 8

// A stage is where a fault happens: a milter under the load of a real Postfix.
type stage struct {
	t       *testing.T
	ctx     context.Context
	w       *lab.World
	milter  *lab.Milter
	postfix *testmta.Postfix
	load    *load
}

// TestFaults lets things go wrong while mail flows. Whatever they are, a message is
// delivered as the policy says or answered 4xx, no key survives, and nothing passes
// that should not; once all is well again, all of it goes through, with the
// descriptors there were before.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults := []struct {
		name   string
		happen func(*stage)
	}{
		{"SIGKILL", killed},
		{"SIGTERM", terminated},
		{"SIGHUP storm", reloadStorm},
		{"disk full", diskFull},
		{"no descriptors", noDescriptors},
		{"MTA killed", mtaKilled},
	}
	w := newWorld(t)
	milter, err := w.NewMilter(binary, "unix")
	must(t, err)
	postfix := startFaultPostfix(t, milter.Socket)
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			s := &stage{t: t, ctx: ctx, w: w, milter: milter, postfix: postfix}
			must(t, milter.Configure(""))
			must(t, milter.StartListening(ctx))
			t.Cleanup(func() { _ = milter.Stop(patience) }) // where the test was given up
			pid := milter.Pid()
			open, err := descriptors(pid)
			must(t, err)
			s.load = newLoad(t, w, postfix.SMTPAddr(), loadClients, everyday())
			s.load.send(3 * len(everyResult))
			fault.happen(s)
			s.load.send(3 * len(everyResult))
			s.load.reckon(postfix)
			if milter.Pid() == pid {
				s.noneLeft(open)
			}
			s.end()
		})
	}
}

// startFaultPostfix starts a Postfix whose milters come and go.
func startFaultPostfix(t *testing.T, socket string, listeners ...testmta.Listener) *testmta.Postfix {
	mta := startMTA(t, func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket}, Listeners: listeners,
			// A service whose process was killed is not left alone for a minute.
			Main: map[string]string{"service_throttle_time": "1s"}})
	}, socket)
	return mta.(*testmta.Postfix)
}

// end stops the milter and reads what it has left behind.
func (s *stage) end() {
	s.t.Helper()
	if err := s.milter.Stop(patience); err != nil {
		s.t.Errorf("the milter did not end well: %v", err)
	}
	log := s.milter.Log()
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if strings.Contains(log, bad) {
			s.t.Errorf("the milter's log has %q:\n%s", bad, log)
			break
		}
	}
	for _, m := range s.load.letters {
		if m.key != "" && strings.Contains(log, m.key) {
			s.t.Errorf("the key of %s is in the milter's log", m.mail.from)
			break
		}
	}
}

// descriptors counts those of a process.
func descriptors(pid int) (int, error) {
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	return len(open), err
}

// noneLeft waits until the milter, with all clients gone, has no more descriptors than
// it had at its start: but for the connections to AS, of which each may have two.
func (s *stage) noneLeft(before int) {
	s.t.Helper()
	const asConnections = 2 * 2
	now := 0
	err := testdaemon.Poll(s.ctx, func() (bool, error) {
		var err error
		now, err = descriptors(s.milter.Pid())
		return now <= before+asConnections, err
	})
	if err != nil {
		s.t.Errorf("%d descriptors, %d at the start: %v", now, before, err)
	}
}

// killed kills the milter three times, and starts it again.
func killed(s *stage) {
	s.again(3, func() {
		must(s.t, s.milter.Signal(syscall.SIGKILL))
		<-s.milter.Done()
	})
}

// terminated does so with SIGTERM: messages in flight are finished.
func terminated(s *stage) {
	s.again(3, func() {
		if err := s.milter.Stop(patience); err != nil {
			s.t.Errorf("the milter did not end well: %v", err)
		}
	})
}

// again ends the milter under load, sees that mail is deferred, and starts it again.
func (s *stage) again(rounds int, end func()) {
	for range rounds {
		s.load.flow(func() {
			s.load.waitFor("mail to flow", loadClients, accepted)
			s.load.disturb()
			end()
			s.load.waitFor("mail to be deferred", loadClients, refused)
			must(s.t, s.milter.StartListening(s.ctx))
			s.load.calm()
			s.load.waitFor("mail to flow", loadClients, accepted)
		})
	}
}

// reloadStorm sends SIGHUP as fast as it goes, with configurations good and bad, and
// sometimes none. No client notices anything.
func reloadStorm(s *stage) {
	configs := []string{
		"",
		"cache: {entries: 1000}\n",
		"policy: {fail: perhaps}\n",
		"log: {level: debug}\nverify: {require_tls: }\n",
		"log: {level: debug}\n",
		"\t: no YAML\n",
		"limits: {connections: 100}\n",
	}
	before := len(s.milter.Log())
	s.load.flow(func() {
		for i := 0; ; i++ {
			if i%10 == 9 {
				must(s.t, os.Remove(s.milter.Config))
			} else {
				must(s.t, s.milter.Configure(configs[i%len(configs)]))
			}
			for range 10 {
				must(s.t, s.milter.Signal(syscall.SIGHUP))
			}
			s.load.waitFor("a message", 1, accepted)
			log := s.milter.Log()[before:]
			if strings.Count(log, "configuration in force") >= 20 && strings.Count(log, "configuration not reloaded") >= 20 {
				break
			}
			if s.ctx.Err() != nil {
				s.t.Fatalf("too few configurations were read:\n%s", log)
			}
		}
	})
	must(s.t, s.milter.Configure(""))
	must(s.t, s.milter.Signal(syscall.SIGHUP))
}

// diskFull has the milter log to a file system that has no room, and then has again:
// mail does not depend on the log.
func diskFull(s *stage) {
	dir := filepath.Join(s.w.Dir, "full")
	must(s.t, os.Mkdir(dir, 0o755))
	must(s.t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	defer func() { must(s.t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	s.load.disturb()
	must(s.t, s.milter.Stop(patience))
	usual := s.milter.LogFile
	defer func() { s.milter.LogFile = usual }()
	s.milter.LogFile = filepath.Join(dir, "milter.log")
	must(s.t, s.milter.StartListening(s.ctx))
	s.load.calm()

	filler := filepath.Join(dir, "filler")
	err := os.WriteFile(filler, make([]byte, 1<<20), 0o644)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		s.t.Fatalf("the disk is not full: %v", err)
	}
	full := len(s.milter.Log())
	s.load.send(5 * len(everyResult))
	if grown := len(s.milter.Log()) - full; grown > 8<<10 {
		s.t.Fatalf("the disk was not full: %d octets more", grown)
	}
	must(s.t, os.Remove(filler))
	s.load.send(len(everyResult))
	_, err = s.milter.WaitLog(s.ctx, s.load.lastQueueID())
	must(s.t, err)

	s.load.disturb()
	must(s.t, s.milter.Stop(patience))
	s.milter.LogFile = usual
	must(s.t, s.milter.StartListening(s.ctx))
	s.load.calm()
}

// lastQueueID is that of the last message accepted.
func (l *load) lastQueueID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.letters) - 1; i >= 0; i-- {
		if id := l.letters[i].out.QueueID(); id != "" {
			return id
		}
	}
	return "no message was accepted"
}

// noDescriptors takes the milter's descriptors away: connections that nobody uses
// fill the few that are left. It waits ever longer between its attempts to accept,
// and goes on when there are some again.
func noDescriptors(s *stage) {
	open, err := descriptors(s.milter.Pid())
	must(s.t, err)
	var usual unix.Rlimit
	must(s.t, unix.Prlimit(s.milter.Pid(), unix.RLIMIT_NOFILE, nil, &usual))
	few := usual
	few.Cur = uint64(open + 5)
	before := len(s.milter.Log())
	s.load.flow(func() {
		s.load.disturb()
		must(s.t, unix.Prlimit(s.milter.Pid(), unix.RLIMIT_NOFILE, &few, nil))
		var idle []net.Conn
		for range 3 * loadClients {
			c, err := s.milter.Dial()
			must(s.t, err)
			idle = append(idle, c)
		}
		_, err := s.milter.WaitLog(s.ctx, "cannot accept a milter connection", "too many open files", "retry_in=320ms")
		must(s.t, err)
		must(s.t, unix.Prlimit(s.milter.Pid(), unix.RLIMIT_NOFILE, &usual, nil))
		for _, c := range idle {
			must(s.t, c.Close())
		}
		s.load.waitFor("mail to flow", loadClients, accepted)
		s.load.calm()
		s.load.waitFor("mail to flow", loadClients, accepted)
	})
	var last time.Duration
	for line := range strings.Lines(s.milter.Log()[before:]) {
		_, wait, failed := strings.Cut(line, "retry_in=")
		if !failed {
			continue
		}
		now, err := time.ParseDuration(strings.Fields(wait)[0])
		must(s.t, err)
		// Once it could accept one it begins anew.
		if now != min(2*last, time.Second) && now != 5*time.Millisecond {
			s.t.Errorf("it waits for %s after it has waited for %s:\n%s", now, last, line)
		}
		last = now
	}
}

// mtaKilled kills Postfix's processes in mid-message.
func mtaKilled(s *stage) {
	for i := range 4 {
		program := []string{"smtpd", "cleanup"}[i%2]
		// One message is in its header for certain.
		c, err := testmta.Dial(s.postfix.SMTPAddr())
		must(s.t, err)
		for _, line := range []string{"EHLO client.test", "MAIL FROM:<alice@" + withAS + ">", "RCPT TO:<bob@rcpt.test>", "DATA"} {
			if code, text, err := c.Cmd(line); err != nil || code/100 > 3 {
				s.t.Fatalf("%s: %d %s, %v", line, code, text, err)
			}
		}
		_, err = c.Write([]byte("X-Auth-Key: " + mustKey(s.t, s.w, "alice@"+withAS) + "\r\n" + strings.Repeat("X-Filler: y\r\n", 2000)))
		must(s.t, err)
		s.load.flow(func() {
			s.load.waitFor("mail to flow", loadClients, accepted)
			s.load.disturb()
			must(s.t, s.killPostfix(program))
			// The clients may all have been between two messages: this one was not.
			if code, text, err := c.Cmd("\r\n."); err == nil && code/100 != 4 {
				s.t.Errorf("a message of which the %s was killed: %d %s", program, code, text)
			}
			s.load.waitFor("mail to flow", loadClients, accepted)
			s.load.calm()
			s.load.waitFor("mail to flow", loadClients, accepted)
		})
		must(s.t, c.Close())
	}
	_, err := s.milter.WaitLog(s.ctx, "action=aborted")
	must(s.t, err)
}

// killPostfix kills every process of one of Postfix's programs.
func (s *stage) killPostfix(program string) error {
	b, err := os.ReadFile(filepath.Join(s.postfix.Dir(), "queue", "pid", "master.pid"))
	if err != nil {
		return err
	}
	group, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	members, err := testdaemon.Members(group)
	if err != nil {
		return err
	}
	killed := 0
	for _, m := range members {
		if m.Name == program && syscall.Kill(m.Pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	if killed == 0 {
		return fmt.Errorf("no %s to kill among %v", program, members)
	}
	return nil
}
