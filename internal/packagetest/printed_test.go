package packagetest

import (
	"path/filepath"
	"strings"
	"testing"
)

// printed are the blocks of code in a section of a document, without their
// indentation: indented ones and those between fences.
func printed(t *testing.T, file, heading string) []string {
	t.Helper()
	blocks := codeBlocks(readFile(t, filepath.Join("..", "..", file)), heading)
	if len(blocks) == 0 {
		t.Fatalf("%s has no code under %q", file, heading)
	}
	return blocks
}

func codeBlocks(text, heading string) []string {
	_, section, _ := strings.Cut(text, "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks, block []string
	indent, fenced := 0, false
	end := func() {
		if len(block) > 0 {
			blocks = append(blocks, strings.Join(block, "\n"))
		}
		block = nil
	}
	for line := range strings.SplitSeq(section, "\n") {
		blanks := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case strings.HasPrefix(line[blanks:], "```"):
			end()
			fenced, indent = !fenced, blanks
		case fenced:
			block = append(block, line[min(indent, blanks):])
		case blanks < 4: // what follows a list's number is indented less
			end()
		default:
			if len(block) == 0 {
				indent = blanks
			}
			block = append(block, line[min(indent, blanks):])
		}
	}
	end()
	return blocks
}

func TestCodeBlocks(t *testing.T) {
	const text = "# A\n\n    no\n\n## B\n\n    one\n      two\n\n1. Text:\n\n       three\n       four\n   text\n\n   ```yaml\n   five:\n\n     six\n   ```\n## C\n\n    no\n"
	got := strings.Join(codeBlocks(text, "B"), "|")
	if want := "one\n  two|three\nfour|five:\n\n  six"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// find is the one block that begins with a text.
func find(t *testing.T, blocks []string, begin string) string {
	t.Helper()
	var found []string
	for _, b := range blocks {
		if strings.HasPrefix(b, begin) {
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d blocks begin with %q: %q", len(found), begin, blocks)
	}
	return found[0]
}
