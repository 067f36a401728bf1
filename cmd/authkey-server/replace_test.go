package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testpty"
)

// At a terminal a y is needed; --yes does without one.
func TestReplaceAsks(t *testing.T) {
	p := newPlace(t, "")
	input := filepath.Join(p.dir, "staff")
	before := readFile(t, p.list)
	const after = "# staff\n%s#removed alice@example.com gen=%d\n"
	for _, tt := range []struct {
		typed    string
		replaced bool
	}{{"n", false}, {"", false}, {"yes please", false}, {"y", true}, {"YES", true}} {
		writeFile(t, p.list, before, 0o640)
		writeFile(t, input, "bob\n", 0o644)
		keyboard, screen, err := testpty.Open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			keyboard.Close()
			screen.Close()
		})
		cmd := programCommand(nil, os.Args[0], "--config", p.config, "address", "import", "--replace", input)
		var out strings.Builder
		cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, &out, &out
		if _, err := keyboard.WriteString(tt.typed + "\n"); err != nil {
			t.Fatal(err)
		}
		err = cmd.Run()
		if (err == nil) != tt.replaced || !strings.Contains(out.String(), "- alice@example.com gen=3\nReplace? [y/N] ") {
			t.Errorf("%q: %v\n%s", tt.typed, err, out.String())
		}
		want := before
		if tt.replaced {
			want = fmt.Sprintf(after, "bob\n", 3)
		}
		if got := readFile(t, p.list); got != want {
			t.Errorf("%q: the list is\n%s", tt.typed, got)
		}
	}
	// She comes back, and her keys of before stay invalid.
	code, out, errOut := run(t, "bob@example.com\nalice@example.com\n", "--config", p.config, "address", "import", "--replace", "--yes")
	if code != 0 || !strings.Contains(out, "+ alice@example.com gen=4\n") || !strings.HasSuffix(out, "replaced\n") {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}
}
