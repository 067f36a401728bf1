package program

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/terminal"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testpty"
)

// At a terminal a key is asked for, and not shown.
func TestAskKey(t *testing.T) {
	const key = "averysecretkeyof26letters2"
	for _, tt := range []struct {
		name, typed string
		code        int
	}{
		{"typed", key + "\n", OK},
		{"nothing typed", "\n", Usage},
		{"interrupted", "", Usage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keyboard, tty, err := testpty.Open()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			read := ""
			command := &cobra.Command{Use: "verify", RunE: func(cmd *cobra.Command, _ []string) error {
				k, err := AskKey(cmd, "", "bob@a.test")
				read = k.Reveal()
				return err
			}}
			// The prompt is what tells that echo is off by now, or soon: type then.
			prompted := make(chan struct{})
			errOut := &watcher{on: "(not shown): ", seen: prompted}
			shown := make(chan string)
			go func() {
				b, _ := io.ReadAll(keyboard) // ends with EIO when the terminal is closed
				shown <- string(b)
			}()
			fd, typed := int(tty.Fd()), make(chan struct{})
			go func() {
				defer close(typed)
				<-prompted
				if err := testdaemon.Poll(t.Context(), func() (bool, error) { return echoOff(fd), nil }); err != nil {
					t.Errorf("the terminal still shows what is typed: %v", err)
				}
				if tt.typed == "" {
					cancel()
				}
				_, _ = io.WriteString(keyboard, tt.typed)
			}()
			code := testProgram(t).Run(ctx, []string{"verify"}, tty, io.Discard, errOut, command)
			<-typed
			if tt.typed == "" {
				if echoOff(fd) {
					t.Error("the terminal shows nothing any more")
				}
				_, _ = io.WriteString(keyboard, "\n") // ends the read that nobody waits for
			}
			tty.Close()
			keyboard.Close()
			text := <-shown
			if code != tt.code || tt.code == OK && read != key {
				t.Errorf("exit %d, the key read is right: %v\n%s", code, read == key, errOut.String())
			}
			if strings.Contains(text+errOut.String(), key) {
				t.Errorf("the key is shown: %q", text)
			}
			if !strings.HasPrefix(errOut.String(), `AuthKey of "bob@a.test" (not shown): `) {
				t.Errorf("prompt %q", errOut.String())
			}
		})
	}
}

// echoOff reports whether a terminal does not show what is typed.
func echoOff(fd int) bool {
	state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err != nil || state.Lflag&unix.ECHO == 0
}

// A watcher says when a text has been written to it.
type watcher struct {
	mu   sync.Mutex
	b    bytes.Buffer
	on   string
	seen chan struct{}
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.b.String(), w.on)
	n, err := w.b.Write(p)
	if !before && strings.Contains(w.b.String(), w.on) {
		close(w.seen)
	}
	return n, err
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// Without a terminal nothing is asked for: a script's key is read, and nothing is
// an error.
func TestAskKeyOfPipe(t *testing.T) {
	for in, code := range map[string]int{"key\n": OK, "": Usage, "\n": Usage} {
		command := &cobra.Command{Use: "verify", RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := AskKey(cmd, "", "bob@a.test")
			return err
		}}
		var errOut bytes.Buffer
		got := testProgram(t).Run(t.Context(), []string{"verify"}, strings.NewReader(in), io.Discard, &errOut, command)
		if got != code || strings.Contains(errOut.String(), "not shown") || (code == Usage) != strings.Contains(errOut.String(), "no key") {
			t.Errorf("%q: exit %d, %s", in, got, errOut.String())
		}
	}
}

// A terminal says how wide it is.
func TestTerminalWidth(t *testing.T) {
	keyboard, tty, err := testpty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer tty.Close()
	for columns, want := range map[uint16]int{0: terminal.DefaultWidth, 20: 60, 72: 72, 200: 200} {
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
			t.Fatal(err)
		}
		if got := terminal.Width(&watchedWriter{w: tty}); got != want {
			t.Errorf("%d columns: %d, want %d", columns, got, want)
		}
	}
}
