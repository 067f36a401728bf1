package diskfile

import (
	"bytes"
	"strings"
)

// A List is what is remembered of a list that was read from a file: the next reading of the
// file is compared with it.
type List struct {
	Entries   int
	Text      []byte // the entries in the order of the file
	Last      byte   // the last octet of the file; 0 for an empty one
	SaysEmpty bool   // a line says that it has no entries on purpose
}

// CutOff reports whether the file looks as if it had been cut off since it was read as old: it
// has no entries any more and does not say that this is meant, or its last line has lost its
// line end (which some people never write). While the file is not settled, a file that is a
// beginning of old looks cut off too.
func (l List) CutOff(old List, settled bool) bool {
	switch {
	case old.Entries == 0:
		return false
	case l.Entries == 0:
		return !l.SaysEmpty
	}
	return l.Last != '\n' && old.Last == '\n' ||
		!settled && len(l.Text) < len(old.Text) && bytes.HasPrefix(old.Text, l.Text)
}

// Unexplained reports whether there are no entries, and the file does not say that this is
// meant: it may have been cut off before it was read for the first time.
func (l List) Unexplained() bool { return l.Entries == 0 && !l.SaysEmpty }

// SaysEmpty reports whether a line says that its file holds nothing on purpose: a comment
// of the one word "empty". A file that holds nothing and does not say so may be one that
// somebody is writing, or that a full disk has cut off.
func SaysEmpty(line string) bool {
	comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
	return ok && strings.EqualFold(strings.TrimSpace(comment), "empty")
}
