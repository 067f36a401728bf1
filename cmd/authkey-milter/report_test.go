package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/testpty"
)

// At a terminal report says that it waits, reads to Ctrl-D, and ends when it is
// interrupted. Elsewhere nothing to read is an error.
func TestReportInput(t *testing.T) {
	const line = "time=2026-11-24T10:00:00.000Z level=INFO msg=message from=a@b.example result=pass action=accept rcpts=1\n"
	for name, typed := range map[string]string{"typed": line + "\x04", "interrupted": ""} {
		keyboard, tty, err := testpty.Open()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var shown sync.WaitGroup
		shown.Go(func() { _, _ = io.Copy(io.Discard, keyboard) })
		if typed == "" {
			cancel()
		} else if _, err := io.WriteString(keyboard, typed); err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		code := self().Run(ctx, []string{"report"}, tty, &out, &errOut, commands()...)
		if !strings.HasPrefix(errOut.String(), "log lines, please, and Ctrl-D at their end") {
			t.Errorf("%s: no prompt: %q", name, errOut.String())
		}
		if typed == "" && code == program.OK || typed != "" && (code != program.OK || !strings.HasPrefix(out.String(), "1 messages ")) {
			t.Errorf("%s: exit %d\n%s%s", name, code, out.String(), errOut.String())
		}
		if typed == "" {
			_, _ = io.WriteString(keyboard, "\x04") // ends the read that nobody waits for
		}
		cancel()
		_ = tty.Close()
		_ = keyboard.Close()
		shown.Wait()
	}
	for args, want := range map[string]string{
		"report":           "report: no message in 0 lines: standard input is empty",
		"report --top -5":  "--top -5 is below zero",
		"report --since x": "want a duration such as 7d or 12h",
	} {
		var out, errOut bytes.Buffer
		if code := self().Run(t.Context(), strings.Fields(args), strings.NewReader(""), &out, &errOut, commands()...); code != program.Usage || !strings.Contains(errOut.String(), want) {
			t.Errorf("%s: exit %d, %s", args, code, errOut.String())
		}
	}
}
