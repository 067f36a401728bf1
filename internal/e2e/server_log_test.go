package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
)

// TestNobodyReadsTheLog starts both programs with a standard error that takes nothing,
// as when journald hangs: mail and questions go on, and so does the end. When somebody
// reads again, nothing is missing that there was room for.
func TestNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newServer(t, w, buildServer(t, "-race"), withAS)
	socket := filepath.Join(w.Dir, "stuck.sock")
	milterConfig := writeConfig(t, w.MilterConfig("unix:"+socket)+"log: {level: debug}\n")
	for _, program := range []struct {
		name, line string // that it logs at the end
		cmd        []string
		up         func() bool
		work       func() error
	}{
		{"milter", "action=accept", []string{binary, "serve", "--config", milterConfig}, func() bool {
			c, err := net.Dial("unix", socket)
			return err == nil && c.Close() == nil
		}, func() error { return sendToSocket(socket, 300) }},
		{"server", "stopping", []string{s.program, "serve", "--config", s.config()}, func() bool {
			// It listens before it has read the list, and its log cannot say when it has.
			return s.askMany(mustKey(t, w, "alice@"+withAS), 1) == nil
		}, func() error { return s.askMany(mustKey(t, w, "alice@"+withAS), 300) }},
	} {
		for _, read := range []bool{false, true} {
			name := program.name + ", and nobody ever does"
			if read {
				name = program.name + ", but at the end"
			}
			t.Run(name, func(t *testing.T) {
				out, in, stuffing := fullPipe(t)
				cmd := exec.Command(program.cmd[0], program.cmd[1:]...)
				cmd.Stderr = in
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				must(t, cmd.Start())
				must(t, in.Close())
				ended, gone := make(chan error, 1), make(chan struct{})
				go func() {
					ended <- cmd.Wait()
					close(gone)
				}()
				t.Cleanup(func() { // the next one listens at the same address
					_ = cmd.Process.Kill()
					<-gone
				})
				must(t, testdaemon.Poll(t.Context(), func() (bool, error) { return program.up(), nil }))
				for range 5 {
					must(t, cmd.Process.Signal(syscall.SIGHUP))
					must(t, program.work())
				}
				log := make(chan string, 1)
				if read {
					go func() {
						b, _ := io.ReadAll(out) // what there is, to the end of the process
						log <- string(b)
					}()
				}
				must(t, cmd.Process.Signal(syscall.SIGTERM))
				select {
				case err := <-ended:
					if err != nil {
						t.Errorf("the end: %v", err)
					}
				case <-time.After(patience):
					t.Fatal("it does not end")
				}
				if read {
					text := <-log
					if len(text) <= stuffing || !strings.Contains(text[stuffing:], program.line) || strings.Contains(text, "missing") {
						t.Errorf("%d octets of log:\n%s", len(text)-stuffing, text[min(stuffing, len(text)):])
					}
				}
			})
		}
	}
}

// fullPipe is a pipe that takes no octet more, and how many there are in it.
func fullPipe(t *testing.T) (out, in *os.File, size int) {
	t.Helper()
	out, in, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _ = out.Close() })
	raw, err := in.SyscallConn() // os makes its pipes so that they do not block
	must(t, err)
	for _, chunk := range []int{4096, 1} {
		var full error
		must(t, raw.Control(func(fd uintptr) {
			for full == nil {
				var n int
				n, full = syscall.Write(int(fd), make([]byte, chunk))
				size += max(n, 0)
			}
		}))
		if full != syscall.EAGAIN {
			t.Fatal(full)
		}
	}
	return out, in, size
}

// sendToSocket has a milter look at so many messages.
func sendToSocket(socket string, n int) error {
	for range n {
		c, err := dialMilter(socket)
		if err != nil {
			return err
		}
		for _, f := range messageFrames("alice@"+withoutAS, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA") {
			if err := c.send(f); err != nil {
				return err
			}
		}
		_, _, err = c.answer()
		if err = errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// askMany asks so many questions on a connection each.
func (s *server) askMany(key string, n int) error {
	for range n {
		a, err := s.dialFrom("127.0.0.1")
		if err != nil {
			return err
		}
		line, err := a.ask("alice@"+withAS, key)
		if err == nil && !strings.Contains(line, " VALIDKEY ") {
			err = errors.New(line)
		}
		if err = errors.Join(err, a.Close()); err != nil {
			return err
		}
	}
	return nil
}
