package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/testpty"
)

// What doctor says is wrapped at the width of the terminal.
func TestDoctorAtTerminal(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "milter.yaml")
	// No name server there is asked: every one is on a port of this machine that is closed.
	if err := os.WriteFile(file, []byte("listen: [\"unix:"+dir+"/s\"]\nnotify: {smtp: \"127.0.0.1:1\"}\ndns: {servers: [\"127.0.0.1:1\"]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	longest := map[uint16]int{}
	for _, columns := range []uint16{64, 80, 130} {
		keyboard, tty, err := testpty.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
			t.Fatal(err)
		}
		shown := make(chan string)
		go func() {
			b, _ := io.ReadAll(keyboard) // ends with EIO when the terminal is closed
			shown <- string(b)
		}()
		code := self().Run(t.Context(), []string{"doctor", "--config", file, "--postfix-config", filepath.Join(dir, "none")}, nil, tty, io.Discard, commands()...)
		_ = tty.Close()
		text := <-shown
		_ = keyboard.Close()
		if code != program.Negative || !strings.Contains(text, "faults found") {
			t.Fatalf("exit %d\n%s", code, text)
		}
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\r\n")
			if len(strings.Fields(line)) > 3 { // else it may be one long word
				longest[columns] = max(longest[columns], len(line))
			}
		}
		if longest[columns] > int(columns) {
			t.Errorf("%d columns: a line of %d\n%s", columns, longest[columns], text)
		}
	}
	if longest[130] <= 100 {
		t.Errorf("a wide terminal is not used: %v", longest)
	}
}
