package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
)

// linePatience is how long a milter may take to log what it has decided, or to see
// that a list has changed, which it looks at every second.
const linePatience = time.Minute

// messageLine waits for a milter's line about the next message after a position in
// its log.
func messageLine(ctx context.Context, m *lab.Milter, from int) (map[string]string, error) {
	return lineAfter(ctx, m, from, "msg=message ")
}

// lineAfter waits for the first whole line behind a position in a milter's log that
// holds text, and returns its values.
func lineAfter(ctx context.Context, m *lab.Milter, from int, text string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, linePatience)
	defer cancel()
	var found map[string]string
	err := testdaemon.Poll(ctx, func() (bool, error) {
		lines := strings.SplitAfter(m.Log()[from:], "\n")
		for _, line := range lines[:len(lines)-1] {
			if strings.Contains(line, text) {
				found = logfmt(line)
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the milter logged no %q: %w\n%s", text, err, m.Log())
	}
	return found, nil
}

// logfmt splits a log line into its values; none that is looked at has blanks.
func logfmt(line string) map[string]string {
	fields := make(map[string]string)
	for word := range strings.FieldsSeq(line) {
		if name, value, ok := strings.Cut(word, "="); ok {
			fields[name] = strings.Trim(value, `"`)
		}
	}
	return fields
}

// fieldOf is the value of the first field of a name in a message, or in one of its
// parts, on one line; "" if there is none.
func fieldOf(text, name string) string {
	text = "\n" + strings.ReplaceAll(text, "\r\n", "\n")
	_, rest, ok := strings.Cut(text, "\n"+name+": ")
	if !ok {
		return ""
	}
	for i := range len(rest) {
		if rest[i] == '\n' && (i+1 == len(rest) || rest[i+1] != ' ' && rest[i+1] != '\t') {
			rest = rest[:i]
			break
		}
	}
	return strings.Join(strings.Fields(rest), " ")
}
