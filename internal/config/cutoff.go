package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// Content is what a configuration file was when it was read, for comparison with what it
// is later.
type Content struct {
	data []byte
	info fs.FileInfo // nil: there is no file
	put  bool        // it was put in its place whole
}

// endOfDocument is the line with which YAML ends a document. Whoever ends his file with it
// says that it is whole.
const endOfDocument = "..."

// CutOff reports whether the file is a beginning of what other's file was, and says nothing
// that shows that this is meant: somebody is writing it, or the disk was full. Every key
// that is missing would silently fall back to its default. What differs in comments and
// empty lines only, or ends with a line "...", is not cut off. Nor is another file that was
// put in the place of the one before and not written since, unless it is empty.
func (c Content) CutOff(other Content) bool {
	rest, begins := bytes.CutPrefix(other.data, c.data)
	if !begins || len(rest) == 0 {
		return false
	}
	if len(c.data) > 0 && c.info != nil && other.info != nil && !os.SameFile(c.info, other.info) && c.put {
		return false
	}
	last := strings.TrimSpace(string(c.data))
	if last == endOfDocument || strings.HasSuffix(last, "\n"+endOfDocument) {
		return false
	}
	for line := range strings.Lines(string(rest)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line != endOfDocument {
			return true
		}
	}
	return false
}

// ErrCutOff refuses a configuration that is CutOff.
var ErrCutOff = errors.New(`looks cut off: it is the beginning of the one in force; if that is meant, end it with a line "..."`)
