package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A Program is one of the project's programs as a process of its own. It may be started
// again after its end; its log goes on. Name, Path and LogFile must be set.
type Program struct {
	Name    string // in errors
	Path    string
	Args    []string
	Env     []string // beside this process's own
	Dir     string   // its working directory; "" for this process's
	LogFile string   // what it writes to standard output and error is added there
	// OnEnd is called at each end, before Done is closed. It may be nil.
	OnEnd func(*os.ProcessState)

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts the process and waits for nothing. Should this process be killed, the
// kernel kills it too.
func (p *Program) Start() error {
	out, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env, cmd.Dir = append(os.Environ(), p.Env...), p.Dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // ProcessState says it
		if p.OnEnd != nil {
			p.OnEnd(cmd.ProcessState)
		}
		close(done)
	}()
	return nil
}

// running is the process that was started last; both are nil before the first.
func (p *Program) running() (*exec.Cmd, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.done
}

// Started reports whether it was ever started.
func (p *Program) Started() bool {
	cmd, _ := p.running()
	return cmd != nil
}

// Pid is the id of the process that was started last.
func (p *Program) Pid() int {
	cmd, _ := p.running()
	return cmd.Process.Pid
}

// Done is closed when the process that was started last has ended.
func (p *Program) Done() <-chan struct{} {
	_, done := p.running()
	return done
}

// Ended reports whether the process that was started last has ended.
func (p *Program) Ended() bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// State says how the process ended, once it has.
func (p *Program) State() *os.ProcessState {
	cmd, done := p.running()
	<-done
	return cmd.ProcessState
}

// Ready returns when answers returns true. It fails at once when the process has ended,
// and says what the process has logged.
func (p *Program) Ready(ctx context.Context, answers func() bool) error {
	since := p.LogSize()
	err := testdaemon.Poll(ctx, func() (bool, error) {
		if p.Ended() {
			return false, fmt.Errorf("it ended: %s", p.State())
		}
		return answers(), nil
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", p.Name, err, p.LogSince(max(0, since-maxSaid)))
	}
	return nil
}

// maxSaid is how much an error says of what was logged before it was waited for.
const maxSaid = 1 << 16

// Signal sends a signal to the process.
func (p *Program) Signal(sig os.Signal) error {
	cmd, _ := p.running()
	return cmd.Process.Signal(sig)
}

// End sends a signal that ends the process, and says how it ended. After patience it is
// killed, which is an error.
func (p *Program) End(sig os.Signal, patience time.Duration) (*os.ProcessState, error) {
	cmd, done := p.running()
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, err
	}
	select {
	case <-done:
		return cmd.ProcessState, nil
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-done
		return nil, fmt.Errorf("%s does not end within %s after %s", p.Name, patience, sig)
	}
}

// Stop ends the process with SIGTERM. Any exit code but 0 is an error, also of a process
// that had ended before.
func (p *Program) Stop(patience time.Duration) error {
	state, err := p.End(syscall.SIGTERM, patience)
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s ended: %s", p.Name, state)
	}
	return err
}

// Log is everything that the program has logged.
func (p *Program) Log() string { return string(p.LogSince(0)) }

// LogSize is how many octets the log has now.
func (p *Program) LogSize() int64 {
	info, err := os.Stat(p.LogFile)
	if err != nil {
		return 0
	}
	return info.Size()
}

// LogSince is what was logged after the log had that many octets.
func (p *Program) LogSince(size int64) []byte {
	f, err := os.Open(p.LogFile)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, size, 1<<40))
	if err != nil {
		return nil
	}
	return b
}

// WaitLog waits for a line of the log that holds every one of parts, and returns it.
func (p *Program) WaitLog(ctx context.Context, parts ...string) (string, error) {
	var found string
	err := testdaemon.Poll(ctx, func() (bool, error) {
	next:
		for line := range strings.Lines(p.Log()) {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue next
				}
			}
			if whole, ok := strings.CutSuffix(line, "\n"); ok { // the rest may still come
				found = whole
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("no log line of %s with %q: %w\n%s", p.Name, parts, err, p.Log())
	}
	return found, nil
}
