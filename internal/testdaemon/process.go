package testdaemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopLimit is how long a daemon may take to obey SIGTERM.
const stopLimit = 5 * time.Second

// A Guard cleans up when this program dies without doing so itself: a shell
// which waits for the end of a pipe whose other end we hold.
type Guard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// NewGuard arms a shell script, to be run with args as $1, $2, … when this
// program ends before Release.
func NewGuard(script string, args ...string) (*Guard, error) {
	cmd := exec.Command("sh", append([]string{"-c", "read -r word || { " + script + "\n}", "guard"}, args...)...)
	// Its own group: the interrupt that ends us must not end the guard.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return &Guard{cmd: cmd, in: in}, nil
}

// Release disarms the guard.
func (g *Guard) Release() error {
	_, err := io.WriteString(g.in, "released\n")
	return errors.Join(err, g.in.Close(), g.cmd.Wait())
}

// A Process is a daemon that runs in the foreground as our child, in a process
// group of its own.
type Process struct {
	cmd   *exec.Cmd
	guard *Guard
	log   string
	done  chan struct{}
	err   error // of Wait; valid once done is closed
	stop  sync.Once
}

// guardScript ends the process group $1, waits up to five seconds for its end
// and removes the folder $2, unless empty.
const guardScript = `kill -s TERM -- "-$1"
n=0
while [ $n -lt 50 ] && kill -s 0 -- "-$1"; do n=$((n+1)); sleep 0.1; done
[ -z "$2" ] || rm -rf "$2"`

// Start starts cmd with its standard output and error written to the file log.
// Should this program die, the daemon's process group is ended and the folder
// dir (unless empty) removed.
func Start(cmd *exec.Cmd, log, dir string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	p.guard, err = NewGuard(guardScript, strconv.Itoa(cmd.Process.Pid), dir)
	if err != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
		return nil, err
	}
	return p, nil
}

// Pid is the daemon's process id, and that of its process group.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ready polls until answers returns true. It fails at once when the daemon has
// ended, and says what the daemon wrote.
func (p *Process) Ready(ctx context.Context, answers func() bool) error {
	err := Poll(ctx, func() (bool, error) {
		select {
		case <-p.done:
			return false, fmt.Errorf("ended: %v", p.err)
		default:
			return answers(), nil
		}
	})
	if err != nil {
		return fmt.Errorf("%s does not answer: %w: %s", filepath.Base(p.cmd.Path), err, bytes.TrimSpace(p.Log()))
	}
	return nil
}

// Log is what the daemon has written so far to standard output and error.
func (p *Process) Log() []byte {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return nil
	}
	return b
}

// Stop ends the daemon and its children: SIGTERM, and SIGKILL for those left
// after five seconds. It returns when none is left; a second call does nothing.
func (p *Process) Stop() (err error) {
	p.stop.Do(func() {
		err = StopGroup(p.Pid())
		<-p.done
		err = errors.Join(err, p.guard.Release())
	})
	return err
}

// StopGroup sends SIGTERM to a process group and returns when no process of it
// is left. What is left after five seconds is killed.
func StopGroup(group int) error {
	if err := syscall.Kill(-group, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end process group %d: %w", group, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	gone := func() (bool, error) {
		alive, err := groupAlive(group)
		return !alive, err
	}
	err := Poll(ctx, gone)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := syscall.Kill(-group, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", group, err)
	}
	return Poll(context.Background(), gone)
}

func groupAlive(group int) (bool, error) {
	members, err := Members(group)
	return len(members) > 0, err
}

// A Member is a process of a process group.
type Member struct {
	Pid  int
	Name string // of its program, cut to 15 bytes by the kernel
}

// Members are the running processes of a group. Zombies do not count: where
// process 1 reaps nobody's children, they stay for ever.
func Members(group int) ([]Member, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	if len(stats) == 0 {
		return nil, errors.New("list processes: no /proc here")
	}
	var members []Member
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has just ended
		}
		if m, state, g, ok := parseStat(string(b)); ok && g == group && state != "Z" && state != "X" {
			members = append(members, m)
		}
	}
	return members, nil
}

// parseStat reads proc_pid_stat(5): pid, (name), state, parent, group. The name
// may contain blanks and parentheses.
func parseStat(stat string) (m Member, state string, group int, ok bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Member{}, "", 0, false
	}
	pid, pidErr := strconv.Atoi(strings.TrimSpace(stat[:open]))
	f := strings.Fields(stat[end+1:])
	if pidErr != nil || len(f) < 3 {
		return Member{}, "", 0, false
	}
	group, err := strconv.Atoi(f[2])
	if err != nil {
		return Member{}, "", 0, false
	}
	return Member{pid, stat[open+1 : end]}, f[0], group, true
}
