package terminal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text        string
		width, rest int
		want        []string
	}{
		{"", 10, 10, []string{""}},
		{"one", 10, 10, []string{"one"}},
		{"one two three", 7, 7, []string{"one two", "three"}},
		{"one two three", 7, 3, []string{"one two", "thr", "ee"}},
		{`["accept","mark","discard"]`, 16, 16, []string{`["accept",`, `"mark","discard"`, "]"}},
		{"ünïcödé wörds", 7, 7, []string{"ünïcödé", "wörds"}},
		{"a  b", 10, 10, []string{"a  b"}},
	} {
		got := Wrap(tt.text, tt.width, tt.rest)
		if strings.Join(got, "|") != strings.Join(tt.want, "|") {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
	for width := 1; width < 40; width++ {
		text := "some words of differentlengths,with,commas and averyveryverylongone that ends"
		lines := Wrap(text, width, width)
		for _, line := range lines {
			if utf8.RuneCountInString(line) > width {
				t.Errorf("%d: %q", width, line)
			}
		}
		if strings.ReplaceAll(strings.Join(lines, ""), " ", "") != strings.ReplaceAll(text, " ", "") {
			t.Errorf("%d: something is lost: %q", width, lines)
		}
	}
}

// Whatever is named for a file, its reading ends with the context.
func TestOpenEnds(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(f); string(data) != "text" || err != nil || f.Close() != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	endless, err := Open(ctx, "/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()
	if _, err := io.ReadFull(endless, make([]byte, 100)); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, endless); !errors.Is(err, context.Canceled) {
		t.Errorf("endless: %v", err)
	}
	if _, err := Open(ctx, fifo); !errors.Is(err, context.Canceled) {
		t.Errorf("a FIFO that nobody writes to: %v", err)
	}
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0) // lets the open that goes on end
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	through, err := Open(t.Context(), fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer through.Close()
	if _, err := writer.WriteString("from a pipe"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 11)
	if _, err := io.ReadFull(through, got); err != nil || !bytes.Equal(got, []byte("from a pipe")) {
		t.Errorf("%q, %v", got, err)
	}
}
