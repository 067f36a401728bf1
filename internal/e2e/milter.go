package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A Milter is a running authkey-milter serve.
type Milter struct {
	Socket string // as smtpd_milters has it
	Config string // path of its configuration

	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of its end; valid once done is closed
}

// MilterConfig is what every milter of a World needs in its configuration: this
// world's DNS, permission to dial loopback, loopback clients counted as strangers,
// and Told as the place for notices. listen is a value of the configuration's
// listen. notify stands last, so that more of it can follow on its indented lines.
func (w *World) MilterConfig(listen string) string {
	return fmt.Sprintf(`listen: [%q]
socket: {mode: "0666"}
dns: {servers: [%q], timeout: 1s}
verify: {timeout: 3s, connect_timeout: 500ms, reply_timeout: 1s, allow_networks: ["127.0.0.0/8"]}
submission: {networks: []}
notify:
  smtp: %q
  rate: {per_sender: 1000/1s, per_recipient: 1000/1s, global: 10000/1s}
`, listen, w.DNS.Addr(), w.Told.Addr())
}

// StartMilter runs a built authkey-milter with MilterConfig and more YAML behind
// it, on network "unix" or "inet", and returns when it listens.
func (w *World) StartMilter(ctx context.Context, binary, network, more string) (*Milter, error) {
	dir, err := os.MkdirTemp(w.Dir, "milter-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "milter.sock")
	listen := "unix:" + socket
	m := &Milter{Socket: listen, Config: filepath.Join(dir, "milter.yaml"), log: filepath.Join(dir, "milter.log"), done: make(chan struct{})}
	dial := func() (net.Conn, error) { return net.Dial("unix", socket) }
	if network == "inet" {
		port, err := testdaemon.FreePort()
		if err != nil {
			return nil, err
		}
		listen = fmt.Sprintf("inet:%d@127.0.0.1", port)
		m.Socket = fmt.Sprintf("inet:127.0.0.1:%d", port)
		dial = func() (net.Conn, error) { return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)) }
	}
	if err := os.WriteFile(m.Config, []byte(w.MilterConfig(listen)+more), 0o644); err != nil {
		return nil, err
	}
	if err := m.start(binary); err != nil {
		return nil, err
	}
	w.onClose(func() error {
		if m.Ended() {
			return nil // somebody wanted that
		}
		return m.Stop(15 * time.Second)
	})
	err = testdaemon.Poll(ctx, func() (bool, error) {
		if m.Ended() {
			return false, fmt.Errorf("authkey-milter ended: %v\n%s", m.err, m.Log())
		}
		c, err := dial()
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("authkey-milter does not listen: %w", err)
	}
	return m, nil
}

func (m *Milter) start(binary string) error {
	out, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	m.cmd = exec.Command(binary, "serve", "--config", m.Config)
	m.cmd.Stdout, m.cmd.Stderr = out, out
	// Should this program be killed, the kernel ends the milter.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	go func() {
		m.err = m.cmd.Wait()
		close(m.done)
	}()
	return nil
}

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
		lines := bufio.NewScanner(strings.NewReader(m.Log()))
		lines.Buffer(nil, 1<<20)
	next:
		for lines.Scan() {
			for _, part := range parts {
				if !strings.Contains(lines.Text(), part) {
					continue next
				}
			}
			found = lines.Text()
			return true, nil
		}
		return false, lines.Err()
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
