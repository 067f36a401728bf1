package milter

import (
	"slices"
	"strings"
)

// A fieldSet says which header fields sessions need to see. conn.go drops the
// others before the library, which allocates seven times for each, has read them.
//
// It only grows: a message that began under an older configuration must see all
// that it was promised.
type fieldSet struct {
	all   bool     // somebody keeps whole headers, for DSNs and notices
	marks []string // mark headers
}

// with adds what an Engine needs. The receiver may be nil, and is not changed.
func (f *fieldSet) with(e *Engine) *fieldSet {
	grown := &fieldSet{all: e.Notifier != nil, marks: []string{e.Settings.MarkHeader}}
	if f != nil {
		grown.all = grown.all || f.all
		grown.marks = append(grown.marks, f.marks...)
		slices.Sort(grown.marks)
		grown.marks = slices.Compact(grown.marks)
	}
	return grown
}

// has reports whether a session needs to see a field of that name.
func (f *fieldSet) has(name []byte) bool {
	if f.all {
		return true
	}
	is := func(known string) bool { return len(known) == len(name) && strings.EqualFold(known, string(name)) }
	return slices.ContainsFunc(fieldNames[:], is) || slices.ContainsFunc(f.marks, is)
}
