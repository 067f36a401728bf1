package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A Milter is an authkey-milter serve.
type Milter struct {
	Socket string // as smtpd_milters has it
	Config string // path of its configuration

	world   *World
	binary  string
	listen  string // as the configuration has it
	network string // to dial it
	address string
	log     string   // where standard error goes
	wrapper []string // a command that runs the milter; none if empty
	environ []string // beside this program's own

	cmd  *exec.Cmd
	done chan struct{}
	err  error // of its end; valid once done is closed
}

// MilterConfig is what every milter of a World needs in its configuration: this
// world's DNS, permission to dial loopback, loopback clients counted as strangers,
// and Told as the place for notices. Its timeouts are such that what answers at all
// answers in time, however busy the machine is. listen is a value of the configuration's
// listen. notify stands last, so that more of it can follow on its indented lines.
func (w *World) MilterConfig(listen string) string {
	return fmt.Sprintf(`listen: [%q]
socket: {mode: "0666"}
dns: {servers: [%q], timeout: 20s}
verify: {timeout: 45s, connect_timeout: 20s, reply_timeout: 20s, allow_networks: ["127.0.0.0/8"]}
submission: {networks: []}
notify:
  smtp: %q
  rate: {per_sender: 1000/1s, per_recipient: 1000/1s, global: 10000/1s}
`, listen, w.DNS.Addr(), w.Told.Addr())
}

// StartMilter runs a built authkey-milter with MilterConfig and more YAML behind
// it, on network "unix" or "inet", and returns when it listens.
func (w *World) StartMilter(ctx context.Context, binary, network, more string) (*Milter, error) {
	m, err := w.newMilter(binary, network)
	if err != nil {
		return nil, err
	}
	if err := m.configure(more); err != nil {
		return nil, err
	}
	if err := m.startListening(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// newMilter chooses where a milter will be. It neither configures nor starts it.
func (w *World) newMilter(binary, network string) (*Milter, error) {
	dir, err := os.MkdirTemp(w.Dir, "milter-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	m := &Milter{
		Config: filepath.Join(dir, "milter.yaml"), log: filepath.Join(dir, "milter.log"),
		world: w, binary: binary, network: "unix", address: filepath.Join(dir, "milter.sock"),
	}
	m.listen = "unix:" + m.address
	m.Socket = m.listen
	if network == "inet" {
		port, err := testdaemon.FreePort()
		if err != nil {
			return nil, err
		}
		m.network, m.address = "tcp", fmt.Sprintf("127.0.0.1:%d", port)
		m.listen = fmt.Sprintf("inet:%d@127.0.0.1", port)
		m.Socket = "inet:" + m.address
	}
	w.onClose(func() error {
		if m.cmd == nil || m.Ended() {
			return nil // somebody wanted that
		}
		return m.Stop(time.Minute)
	})
	return m, nil
}

// configure puts MilterConfig and more YAML behind it in place of the configuration
// there was, in one step. A running milter is not told.
func (m *Milter) configure(more string) error {
	return testdaemon.Replace(m.Config, []byte(m.world.MilterConfig(m.listen)+more), 0o644)
}

// startListening starts the process, for the first time or after its end, and
// returns when it listens.
func (m *Milter) startListening(ctx context.Context) error {
	m.done = make(chan struct{})
	if err := m.start(m.binary); err != nil {
		return err
	}
	err := testdaemon.Poll(ctx, func() (bool, error) {
		if m.Ended() {
			return false, fmt.Errorf("authkey-milter ended: %v\n%s", m.err, m.Log())
		}
		c, err := m.dial()
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		return fmt.Errorf("authkey-milter does not listen: %w", err)
	}
	return nil
}

func (m *Milter) dial() (net.Conn, error) { return net.Dial(m.network, m.address) }

func (m *Milter) start(binary string) error {
	out, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	argv := append(slices.Clone(m.wrapper), binary, "serve", "--config", m.Config)
	m.cmd = exec.Command(argv[0], argv[1:]...)
	m.cmd.Env = append(os.Environ(), m.environ...)
	m.cmd.Stdout, m.cmd.Stderr = out, out
	// Should this program be killed, the kernel ends the milter.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		m.err = cmd.Wait()
		close(done)
	}(m.cmd, m.done)
	return nil
}

// Pid is the process id.
func (m *Milter) Pid() int { return m.cmd.Process.Pid }

// Log is everything that the milter has written.
func (m *Milter) Log() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// WaitLog waits for a line of the log that holds every one of parts, and returns it.
func (m *Milter) WaitLog(ctx context.Context, parts ...string) (string, error) {
	var found string
	err := testdaemon.Poll(ctx, func() (bool, error) {
	next:
		for line := range strings.Lines(m.Log()) {
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
		return "", fmt.Errorf("no log line with %q: %w\n%s", parts, err, m.Log())
	}
	return found, nil
}

// Ended reports whether the process is gone.
func (m *Milter) Ended() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// Signal sends a signal to the process.
func (m *Milter) Signal(sig os.Signal) error { return m.cmd.Process.Signal(sig) }

// Stop sends SIGTERM, waits for the end up to patience, and returns how the
// process ended. A second call returns the same.
func (m *Milter) Stop(patience time.Duration) error {
	if m.Ended() {
		return m.err
	}
	if err := m.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-m.done:
		return m.err
	case <-time.After(patience):
		_ = m.cmd.Process.Kill()
		<-m.done
		return fmt.Errorf("authkey-milter did not stop within %s", patience)
	}
}
