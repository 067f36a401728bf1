package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	File    string // path of the file, or $NAME of the environment variable
	Line    int    // in the file; 0: not known
	Key     string // such as dns.timeout or policy.rules[0].fail; empty: the file as a whole
	Problem string // what is wrong
	Want    string // what would be right; empty where the problem says it
	Err     error  // what the problem is made of, for errors.Is; may be nil
}

// Unwrap returns Err.
func (f Fault) Unwrap() error { return f.Err }

// Error is the fault on one line.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(oneLine(f.File))
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if f.Key != "" {
		b.WriteString(": " + f.Key)
	}
	b.WriteString(": " + f.Problem)
	if f.Want != "" {
		b.WriteString("; want " + f.Want)
	}
	return b.String()
}

// Faults is everything wrong with a configuration, in the order of the file,
// then the environment. It is the error of Load.
type Faults []Fault

// Error has one line a fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns every fault.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// maxQuoted is how much of a value a fault shows, in characters.
const maxQuoted = 80

var userinfo = regexp.MustCompile(`://[^@]*@`)

// quote shows a value that somebody wrote: on one line, cut, and without what may be a
// password, since a DSN may have been written as the value of the wrong key.
func quote(s string) string {
	s = userinfo.ReplaceAllString(s, "://"+redacted+"@")
	if utf8.RuneCountInString(s) > maxQuoted {
		s = string([]rune(s)[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}

// oneLine keeps a file's name from breaking the line of a fault.
func oneLine(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return strconv.Quote(s)
	}
	return s
}
