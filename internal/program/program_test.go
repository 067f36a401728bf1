package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testProgram(t *testing.T) Program {
	return Program{Name: "authkey-test", Short: "Test", Version: "1.2.3", DefaultConfig: filepath.Join(t.TempDir(), "test.yaml")}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code int
		out  string
	}{
		{"fine", nil, 0, ""},
		{"a plain error is the command line's", errors.New("what?"), 2, "authkey-test: what?\nTry 'authkey-test do --help'.\n"},
		{"said already", Exit(Negative, nil), 1, ""},
		{"said here", Exit(Temp, errors.New("later")), 75, "authkey-test: later\n"},
		{"wrapped", fmt.Errorf("x: %w", Exit(Config, errors.New("bad"))), 78, "authkey-test: bad\n"},
	} {
		command := &cobra.Command{Use: "do", RunE: func(*cobra.Command, []string) error { return tc.err }}
		var out, errOut bytes.Buffer
		code := testProgram(t).Run(t.Context(), []string{"do"}, nil, &out, &errOut, command)
		if code != tc.code || errOut.String() != tc.out || out.Len() > 0 {
			t.Errorf("%s: exit %d, %q, %q", tc.name, code, out.String(), errOut.String())
		}
	}
	cause := errors.New("cause")
	if err := Exit(Temp, cause); !errors.Is(err, cause) || err.Error() != "cause" || Exit(Negative, nil).Error() != "exit 1" {
		t.Errorf("%v, %v", err, Exit(Negative, nil))
	}
}

// check and config read the file that --config names, or the default one if it is
// there.
func TestConfigCommands(t *testing.T) {
	p := testProgram(t)
	read := func(mustExist bool) func(cmd *cobra.Command) (config.Settings, error) {
		return func(cmd *cobra.Command) (config.Settings, error) {
			loaded, err := LoadConfig(p, cmd, mustExist, config.LoadServer)
			if err != nil {
				return config.Settings{}, err
			}
			return loaded.Settings, nil
		}
	}
	run := func(mustExist bool, args ...string) (int, string, string) {
		var out, errOut bytes.Buffer
		check := func(cmd *cobra.Command) (config.Settings, []string, error) {
			settings, err := read(mustExist)(cmd)
			return settings, nil, err
		}
		code := p.Run(t.Context(), args, nil, &out, &errOut, NewCheck(check), NewConfig(read(mustExist), config.DescribeServer))
		return code, out.String(), errOut.String()
	}
	dir := t.TempDir()
	other := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(other, []byte("lisen: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := run(false, "check"); code != 0 || out+errOut != "" {
		t.Errorf("check without the default file: exit %d, %q, %q", code, out, errOut)
	}
	if code, _, errOut := run(true, "check"); code != 78 || errOut != p.DefaultConfig+": does not exist\n" {
		t.Errorf("check without a file that must be: exit %d, %q", code, errOut)
	}
	if code, _, errOut := run(false, "check", "--config", filepath.Join(dir, "none")); code != 78 || !strings.Contains(errOut, "none: does not exist") {
		t.Errorf("check of a file that is not there: exit %d, %q", code, errOut)
	}
	if code, _, errOut := run(false, "config", "--config", other); code != 78 || errOut != other+":1: lisen: is not a key; want perhaps listen\n" {
		t.Errorf("config of a bad file: exit %d, %q", code, errOut)
	}
	if err := os.WriteFile(p.DefaultConfig, []byte("metrics: {listen: ':1'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run(true, "check"); code != 0 || errOut != "metrics.listen: no effect yet\n" {
		t.Errorf("check of the default file: exit %d, %q", code, errOut)
	}
	t.Setenv("AUTHKEY_SERVER_HOST", "as.example.com")
	if code, out, _ := run(true, "config"); code != 0 || !strings.Contains(out, "as.example.com  environment") {
		t.Errorf("config: exit %d\n%s", code, out)
	}
	if code, out, _ := run(true, "config", "--describe"); code != 0 || !strings.Contains(out, "domains[].avt") {
		t.Errorf("describe: exit %d\n%s", code, out)
	}
}

func TestReadKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("fromfile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, in, file, want string
		bad, refused         bool
	}{
		{name: "line", in: "abc\r\n", want: "abc"},
		{name: "no line end", in: "abc", want: "abc"},
		{name: "nothing"},
		{name: "file", in: "abc", file: file, want: "fromfile"},
		{name: "two lines", in: "abc\ndef\n", bad: true},
		{name: "longest", in: strings.Repeat("x", 512), want: strings.Repeat("x", 512)},
		{name: "too long", in: strings.Repeat("x", 513), bad: true},
		{name: "much too long", in: strings.Repeat("x", maxKeyInput+1), refused: true},
		{name: "no file", file: file + "2", refused: true},
	} {
		key, err := readKey(t.Context(), strings.NewReader(tc.in), tc.file)
		if (err != nil) != tc.refused || key.Bad() != tc.bad || key.Reveal() != tc.want {
			t.Errorf("%s: %v, bad %v, %v", tc.name, key.Reveal() == tc.want, key.Bad(), err)
		}
	}
}

func TestResult(t *testing.T) {
	address, err := wire.ParseAddress("bob@example.com")
	if err != nil {
		t.Fatal(err)
	}
	pass := verifier.Result{Status: verifier.Pass, Server: "as.example.com:7425", TTL: time.Hour, ASTime: 1500 * time.Microsecond}
	for _, tc := range []struct {
		address wire.Address
		result  verifier.Result
		json    bool
		want    string
		code    error
	}{
		{address, pass, false, "result    pass\naddress   bob@example.com\nasked     as.example.com:7425\ncacheable 1h0m0s\ntimes     DNS 0.000 ms, AS 1.500 ms\n", nil},
		{address, pass, true, `{"address":"bob@example.com","result":"pass","as":"as.example.com:7425","ttl_seconds":3600,"required":false,"stale":false,"ad":false,"dns_ms":0,"as_ms":1.5}` + "\n", nil},
		{wire.Address{}, verifier.Unaddressable(wire.ErrNoDomain), false, "result    none (no-domain)\ntimes     DNS 0.000 ms, AS 0.000 ms\n", Exit(Negative, nil)},
		{address, verifier.Result{Status: verifier.TempError, Reason: verifier.ReasonDNSTimeout}, false,
			"result    temperror (dns-timeout)\naddress   bob@example.com\ntimes     DNS 0.000 ms, AS 0.000 ms\n", Exit(Temp, nil)},
	} {
		var out bytes.Buffer
		if err := writeResult(&out, tc.address, tc.result, tc.json); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tc.want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := exitResult(tc.result.Status); fmt.Sprint(got) != fmt.Sprint(tc.code) {
			t.Errorf("%s: %v, want %v", tc.result.Status, got, tc.code)
		}
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, level, flush := NewLogger(&out, config.Log{Format: "json"})
	log.Debug("not yet")
	level.Set(slog.LevelDebug)
	log.Debug("now", "error", OneLine(errors.Join(errors.New("a"), errors.New("b"))))
	flush()
	if got := out.String(); !strings.Contains(got, `"msg":"now","error":"a; b"`) || strings.Contains(got, "not yet") {
		t.Error(got)
	}
}

// TestLogWriter: lines wait for each other for a moment, and for nothing after the end.
func TestLogWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newLogWriter(&out, func(int) { t.Error("lines are lost") })
		write := func(line string) {
			if _, err := w.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		written := func() string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return out.String()
		}
		write("a\n")
		write("b\n")
		if got := written(); got != "" {
			t.Errorf("%q was written at once", got)
		}
		time.Sleep(logDelay)
		synctest.Wait()
		if got := written(); got != "a\nb\n" {
			t.Errorf("after %s: %q", logDelay, got)
		}
		write(strings.Repeat("x", logBuffer))
		write("y")
		synctest.Wait()
		if len(written()) < logBuffer {
			t.Error("a full buffer waits")
		}
		w.close()
		write("late\n")
		if !strings.HasSuffix(written(), "ylate\n") {
			t.Error("the end is not written")
		}
	})
}

// TestSettle: who wants a line written does not wait for others' lines, nor for long for
// a reader who is stuck.
func TestSettle(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			log, _, flush := NewLogger(&out, config.Log{Format: format})
			settler := log.With("a", 1).WithGroup("g").Handler().(interface{ Settle() })
			began := time.Now()
			settler.Settle() // nothing waits
			for range 3 {
				log.Info("important")
				before := out.Len() // nobody writes: what waits has just begun to
				settler.Settle()
				if out.Len() == before || time.Since(began) > 0 {
					t.Errorf("%s: %d octets written, after %v", format, out.Len()-before, time.Since(began))
				}
			}
			flush()
			settler.Settle()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		log, _, flush := NewLogger(out, config.Log{})
		log.Info("important")
		began := time.Now()
		log.Handler().(interface{ Settle() }).Settle()
		if waited := time.Since(began); waited != settleTimeout {
			t.Errorf("waited %v for a reader who is stuck, want %v", waited, settleTimeout)
		}
		in.Close()
		flush()
	})
}

// TestNobodyReadsTheLog: what logs does not wait, not even at the end, and when
// somebody reads again, it is said how much is missing.
func TestNobodyReadsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		log, _, flush := NewLogger(out, config.Log{})
		text := strings.Repeat("x", 1000)
		const lines = 2 * maxUnread / 1000
		began := time.Now()
		for i := range lines {
			log.Info(text, "n", i)
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("waited %v", waited)
		}
		flush()
		if waited := time.Since(began); waited != closeTimeout {
			t.Errorf("the end took %v, want %v", waited, closeTimeout)
		}
		var read bytes.Buffer
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(&read, in)
		}()
		synctest.Wait()
		out.Close()
		<-done
		got := strings.Count(read.String(), text)
		want := fmt.Sprintf("level=WARN msg=\"log lines dropped: reader too slow\" lines=%d\n", lines-got)
		if got < lines/4 || got == lines || !strings.HasSuffix(read.String(), want) {
			t.Errorf("%d of %d lines, and at the end %q", got, lines, read.String()[max(0, read.Len()-200):])
		}
	})
}

// Run tells systemd what happens and reloads at each SIGHUP.
func TestService(t *testing.T) {
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", systemd.LocalAddr().String())
	next := func() (string, error) {
		_ = systemd.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 1024)
		n, err := systemd.Read(buf)
		return string(buf[:n]), err
	}
	told := func(want string) {
		t.Helper()
		if got, err := next(); err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("told %q, %v, want %q", got, err, want)
		}
	}
	s := NewService()
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	reloads := 0
	ended := make(chan error, 1)
	// A watchdog of 200 ms, to be fed while the service is well and no longer.
	t.Setenv("WATCHDOG_USEC", "200000")
	var sick atomic.Bool
	failures := make(chan error, 100)
	health := Health{
		Check: func(context.Context) error {
			if sick.Load() {
				return errors.New("a headache")
			}
			return nil
		},
		Status: func() string { return "at your service" },
		Failed: func(err error) { failures <- err },
	}
	go func() { ended <- s.Run(ctx, nil, func() { reloads++ }, health) }()
	told("READY=1\nSTATUS=at your service")
	told("WATCHDOG=1\nSTATUS=at your service")
	sick.Store(true)
	if err := <-failures; err.Error() != "a headache" {
		t.Error(err)
	}
	// However often it was fed before, it is not any more.
	notify("STATUS=sick")
	for got := ""; got != "STATUS=sick"; {
		if got, err = next(); err != nil || got != "STATUS=sick" && !strings.HasPrefix(got, "WATCHDOG=1\n") {
			t.Fatalf("told %q, %v", got, err)
		}
	}
	for range 2 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		told("RELOADING=1\nMONOTONIC_USEC=")
		told("READY=1\nSTATUS=at your service")
	}
	cancel()
	told("STOPPING=1")
	if err := <-ended; err != nil || reloads != 2 {
		t.Errorf("%v, %d reloads", err, reloads)
	}

	failed := make(chan error, 1)
	failed <- errors.New("accept: broken")
	err = s.Run(t.Context(), failed, nil, health)
	var e *exit
	if !errors.As(err, &e) || e.code != Temp || err.Error() != "accept: broken" {
		t.Errorf("a listener that fails: %v", err)
	}
}

// TestProtect: what Main does first. That it holds, for the real programs, is tested by
// the packages' tests.
func TestProtect(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || before != 1 {
		t.Fatalf("before: %d, %v", before, err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0) })
	protect()
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || now != 0 {
		t.Errorf("dumpable: %d, %v", now, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("core files of %+v, %v", limit, err)
	}
}
