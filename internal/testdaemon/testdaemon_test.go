package testdaemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// helperEnv makes the test binary play a program that dies without cleaning up.
const helperEnv = "TESTDAEMON_DIE_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		p, err := startShell(dir, "exec tail -f /dev/null")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Println(p.Pid())
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func startShell(dir, script string) (*Process, error) {
	return Start(exec.Command("sh", "-c", script), filepath.Join(dir, "log"), dir)
}

func TestParsePlan(t *testing.T) {
	out := "Reading package lists...\n" +
		"Remv exim4-daemon-light [4.96-15]\n" +
		"Inst postfix (3.7.11-0+deb12u1 Debian:12.5/stable [amd64])\n" +
		"Inst ssl-cert (1.1.2 Debian:12.5/stable [all])\n" +
		"Conf postfix (3.7.11-0+deb12u1 Debian:12.5/stable [amd64])\nInst\n"
	got := parsePlan([]byte(out))
	if diff := cmp.Diff([]string{"postfix", "ssl-cert"}, got.installed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"exim4-daemon-light"}, got.removed); diff != "" {
		t.Error(diff)
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		stat  string
		m     Member
		state string
		group int
		ok    bool
	}{
		{"12 (master) S 1 12 12 0 -1", Member{12, "master"}, "S", 12, true},
		{"13 (a) Z 9 9 (x) Z 1 44 44 0", Member{13, "a) Z 9 9 (x"}, "Z", 44, true},
		{"13 (x) Z 1", Member{}, "", 0, false},
		{"x (x) S 1 12 12 0", Member{}, "", 0, false},
		{"13 (x) S 1 g 12 0", Member{}, "", 0, false},
		{"13 no name", Member{}, "", 0, false},
		{") 13 (", Member{}, "", 0, false},
		{"", Member{}, "", 0, false},
	} {
		m, state, group, ok := parseStat(tt.stat)
		if m != tt.m || state != tt.state || group != tt.group || ok != tt.ok {
			t.Errorf("parseStat(%q) = %v, %q, %d, %v", tt.stat, m, state, group, ok)
		}
	}
}

func TestFreePort(t *testing.T) {
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	// Nobody listens there, and yet another asks in vain.
	if mark, err := net.Listen("unix", "@authkey-port-"+strconv.Itoa(port)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the port is not taken: %v, %v", mark, err)
	}
}

func TestTempDirIsSearchable(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir, err := TempDir("authkey-testdaemon-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	fi, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o755 {
		t.Errorf("mode %o", fi.Mode().Perm())
	}
}

func TestPollEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	err := Poll(ctx, func() (bool, error) {
		if calls++; calls == 2 {
			cancel()
		}
		return false, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Poll = %v", err)
	}
	broken := errors.New("broken")
	if err := Poll(context.Background(), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("Poll = %v", err)
	}
}

func TestProcessStopsWithItsChildren(t *testing.T) {
	for name, script := range map[string]string{
		"obeys":    "tail -f /dev/null & echo ready; wait",
		"survivor": "trap '' TERM; tail -f /dev/null & trap - TERM; echo ready; wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := startShell(t.TempDir(), script)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Ready(t.Context(), func() bool { return strings.Contains(string(p.Log()), "ready") }); err != nil {
				t.Fatal(err)
			}
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			if alive, err := groupAlive(p.Pid()); alive || err != nil {
				t.Errorf("group alive = %v, %v", alive, err)
			}
			if err := p.Stop(); err != nil {
				t.Errorf("second Stop: %v", err)
			}
		})
	}
}

func TestReadySaysWhyADaemonEnded(t *testing.T) {
	p, err := startShell(t.TempDir(), "echo cannot bind; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = p.Ready(t.Context(), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "cannot bind") {
		t.Errorf("Ready = %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestGuardEndsWhatADeadProgramLeft(t *testing.T) {
	dir, err := TempDir("authkey-testdaemon-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = Poll(ctx, func() (bool, error) {
		alive, err := groupAlive(pid)
		_, statErr := os.Stat(dir)
		return !alive && errors.Is(statErr, os.ErrNotExist), err
	})
	if err != nil {
		t.Errorf("daemon %d or its folder is still there: %v", pid, err)
	}
}

func TestDaemon(t *testing.T) {
	var folder string
	write := func(script string) func(string) ([]string, error) {
		return func(dir string) ([]string, error) {
			folder = dir
			return []string{filepath.Join(dir, "script")}, os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o644)
		}
	}
	gone := func() {
		t.Helper()
		if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("folder: %v", err)
		}
	}
	d, err := StartDaemon(t.Context(), "sh", write("echo ready > $(dirname $0)/up; exec tail -f /dev/null"), func() bool {
		_, err := os.Stat(filepath.Join(folder, "up"))
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
	gone()
	if members, err := Members(d.process.Pid()); len(members) != 0 || err != nil {
		t.Errorf("left over: %v, %v", members, err)
	}

	_, err = StartDaemon(t.Context(), "sh", write("echo no such option; exit 2"), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("a daemon that ends: %v", err)
	}
	gone()
	broken := errors.New("broken")
	if _, err := StartDaemon(t.Context(), "sh", func(dir string) ([]string, error) { folder = dir; return nil, broken }, nil); !errors.Is(err, broken) {
		t.Errorf("no configuration: %v", err)
	}
	gone()
	if _, err := StartDaemon(t.Context(), "no-such-program", nil, nil); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("no program: %v", err)
	}
}

func TestEnsure(t *testing.T) {
	nothing := Installation{Packages: []string{"no-such-package"}}
	if err := Ensure(t.Context(), t.Logf, "sh", nothing); err != nil {
		t.Errorf("what is there: %v", err)
	}
	if _, err := Command("no-such-program"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("what nobody has: %v", err)
	}
}
