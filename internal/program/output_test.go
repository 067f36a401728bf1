package program

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What a stranger wrote must not reach the terminal as commands to it.
func TestOutputIsHarmless(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"plain\ttext\nof two lines\n", "plain\ttext\nof two lines\n"},
		{"b\u00FCro \u4F60\u597D \U0001F600", "b\u00FCro \u4F60\u597D \U0001F600"},
		{"\x1b[2J\x1b]0;x\x07", `\u001b[2J\u001b]0;x\u0007`},
		{"one\rtwo\x00\x7f\x08", `one\u000dtwo\u0000\u007f\u0008`},
		{"\u009b31m", `\u009b31m`},
		{"\x9b31m caf\xe9", `\x9b31m caf\xe9`},
		{"end \xe4\xbd", `end \xe4\xbd`},
		{"\ufffd", "\ufffd"},
	} {
		for size := 1; size <= len(tt.text); size++ { // however it is written
			print := &cobra.Command{Use: "print", Run: func(cmd *cobra.Command, _ []string) {
				for rest := []byte(tt.text); len(rest) > 0; {
					n, err := cmd.OutOrStdout().Write(rest[:min(size, len(rest))])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
			}}
			var out, errOut bytes.Buffer
			if code := testProgram(t).Run(t.Context(), []string{"print"}, nil, &out, &errOut, print); code != OK || out.String() != tt.want {
				t.Errorf("%q, %d octets at a time: exit %d, %q", tt.text, size, code, out.String())
			}
		}
	}
}

// JSON stays JSON, and means the same.
func FuzzHarmlessJSON(f *testing.F) {
	for _, s := range []string{"", "a\x1b[31m", "\u009b", "\x7f", "\u00FC\u4F60"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var text strings.Builder
		if err := json.NewEncoder(&text).Encode(s); err != nil {
			t.Fatal(err)
		}
		var before, after string
		if err := json.Unmarshal([]byte(text.String()), &before); err != nil {
			t.Fatal(err)
		}
		shown := harmless([]byte(text.String()))
		if err := json.Unmarshal(shown, &after); err != nil || before != after {
			t.Errorf("%q became %q: %v", text.String(), shown, err)
		}
		if again := harmless(shown); !bytes.Equal(again, shown) {
			t.Errorf("%q became %q", shown, again)
		}
	})
}
