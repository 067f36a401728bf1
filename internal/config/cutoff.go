package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
)

// Content is a configuration file as it was when it was read, for comparison with later
// readings.
type Content struct {
	data []byte
	info fs.FileInfo // nil: there is no file
	put  bool        // it was put in its place whole
}

// endOfDocument is the line with which YAML ends a document: comments only may follow.
const endOfDocument = "..."

// CutOff reports whether the file is only a beginning of other's file, and nothing in it
// shows that this is meant: somebody is writing it, or the disk was full. Every missing key
// would silently have its default again. A file is not cut off if it differs in comments and
// empty lines only. One that ends with a line "..." is no beginning of another file: nothing
// but comments could follow. Nor is one cut off that was put in the place of the other file
// and not written since, unless it is empty.
func (c Content) CutOff(other Content) bool {
	rest, begins := bytes.CutPrefix(other.data, c.data)
	if !begins || len(rest) == 0 {
		return false
	}
	if len(c.data) > 0 && c.info != nil && other.info != nil && !os.SameFile(c.info, other.info) && c.put {
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
