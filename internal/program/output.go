package program

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/terminal"
)

// AddJSON gives a command the flag --json.
func AddJSON(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

// Print prints the output of a command, as JSON or by text. Errors of writing need not be
// checked: Run reports them at the end.
func Print(cmd *cobra.Command, asJSON bool, view any, text func(io.Writer)) error {
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(view)
	}
	text(cmd.OutOrStdout())
	return nil
}

// A watchedWriter is the standard output of a command. It remembers that writing failed:
// many commands print line after line, and a full disk must not look like success. And it
// shows control characters instead of sending them: what is printed of a message, a zone
// or a log is a stranger's, and a terminal obeys them.
type watchedWriter struct {
	w    io.Writer
	err  error
	part []byte // the beginning of a character whose rest is not written yet
}

// Columns is how wide its text may be.
func (w *watchedWriter) Columns() int { return terminal.Columns(w.w) }

func (w *watchedWriter) Write(p []byte) (int, error) {
	text := p
	if len(w.part) > 0 {
		text = append(w.part, p...)
		w.part = nil
	}
	whole := wholeRunes(text)
	w.part = append([]byte(nil), text[whole:]...)
	if err := w.send(text[:whole]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// finish writes what is left, which is no character.
func (w *watchedWriter) finish() {
	part := w.part
	w.part = nil
	w.send(part) // the error stays
}

func (w *watchedWriter) send(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	_, err := w.w.Write(harmless(text))
	if err != nil && w.err == nil {
		w.err = err
	}
	return err
}

// wholeRunes is how many octets of text do not belong to a character that it breaks off in.
func wholeRunes(text []byte) int {
	for i := len(text) - 1; i >= max(0, len(text)-utf8.UTFMax); i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return i
			}
			break
		}
	}
	return len(text)
}

// harmless returns text with its control characters, other than TAB and the end of a line,
// written as \u001b, which means the same in JSON, and with octets that are not UTF-8
// written as \x9b.
func harmless(text []byte) []byte {
	var out []byte // nil: nothing was changed so far
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		bad := r == utf8.RuneError && size == 1
		control := unicode.IsControl(r) && r != '\n' && r != '\t'
		if out == nil && (bad || control) {
			out = append(make([]byte, 0, 2*len(text)), text[:i]...)
		}
		switch {
		case bad:
			out = fmt.Appendf(out, "\\x%02x", text[i])
		case control:
			out = fmt.Appendf(out, "\\u%04x", r)
		case out != nil:
			out = append(out, text[i:i+size]...)
		}
		i += size
	}
	if out == nil {
		return text
	}
	return out
}
