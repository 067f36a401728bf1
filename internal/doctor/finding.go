package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/terminal"
)

// This file is what all doctors of this module share, that of the milter in this
// package and that of the Authentication Server: what a check found, and how it is
// written for people and for programs. It knows nothing of either. Its exported names,
// and the JSON that WriteJSON writes, are stable.

// A Status is what came of a check in one word.
type Status string

// The statuses.
const (
	OK           Status = "ok"
	Fault        Status = "fault"
	Warning      Status = "warn" // right in some networks, wrong in others: a person has to judge; no fault
	Inapplicable Status = "n/a"  // there is nothing to check, or it cannot be known from here
)

// A Finding is what one check found.
type Finding struct {
	Check  string `json:"check"` // by a name that stays the same: programs look for it
	Status Status `json:"status"`
	What   string `json:"what"`
	Why    string `json:"why,omitempty"`  // what comes of it
	Mend   string `json:"mend,omitempty"` // the commands that mend it, one a line; "in FILE: …" is a change to a file
}

// Okf is a Finding that there is nothing wrong.
func Okf(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: OK, What: fmt.Sprintf(format, args...)}
}

// Inapplicablef is a Finding that there is nothing to check, or why it cannot be known.
func Inapplicablef(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: Inapplicable, What: fmt.Sprintf(format, args...)}
}

// NewFault is a Finding that something has to be repaired.
func NewFault(check, what, why, mend string) Finding {
	return Finding{check, Fault, what, why, mend}
}

// NewWarning is a Finding that a person has to judge.
func NewWarning(check, what, why, mend string) Finding {
	return Finding{check, Warning, what, why, mend}
}

// AnyFault reports whether something has to be repaired. Warnings do not count.
func AnyFault(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Status == Fault })
}

// maxColumns is how wide text is at most, on a terminal that is wider.
const maxColumns = 160

// Report writes findings, for programs or for people, as the output of a command, and
// returns the error that ends the program: program.Negative where there is a fault.
func Report(w io.Writer, findings []Finding, asJSON bool) error {
	write := WriteText
	if asJSON {
		write = WriteJSON
	}
	if err := write(w, findings); err != nil {
		return err
	}
	if AnyFault(findings) {
		return program.Exit(program.Negative, nil)
	}
	return nil
}

// WriteText writes findings for people, wrapped at as many columns as w says that it has
// (terminal.Width), at most 160. A command that is too long goes on in the next line behind
// a backslash, so that it can be pasted into a shell as it is.
func WriteText(w io.Writer, findings []Finding) error {
	return writeText(w, findings, min(terminal.Width(w), maxColumns))
}

func writeText(w io.Writer, findings []Finding, width int) error {
	const indent = 23 // of what follows the name of a check
	var b strings.Builder
	faults, warnings := 0, 0
	for _, f := range findings {
		word := string(f.Status)
		switch f.Status {
		case Fault:
			word = "FAULT"
			faults++
		case Warning:
			word = "WARN"
			warnings++
		}
		head := fmt.Sprintf("%-5s  %-14s  ", word, f.Check)
		for _, line := range wrap(f.What, width-indent, "") {
			b.WriteString(head + line + "\n")
			head = strings.Repeat(" ", indent)
		}
		for _, more := range []struct{ word, text string }{{"why", f.Why}, {"mend", f.Mend}} {
			word := more.word // before the first line only
			for text := range strings.SplitSeq(more.text, "\n") {
				carry := ""
				if more.word == "mend" && isCommand(text) {
					carry = ` \`
				}
				for i, line := range wrap(text, width-indent, carry) {
					if i > 0 {
						line = "  " + line
					}
					if text != "" {
						fmt.Fprintf(&b, "       %14s  %s\n", word, line)
						word = ""
					}
				}
			}
		}
	}
	b.WriteString(summary(faults, warnings))
	_, err := io.WriteString(w, b.String())
	return err
}

func summary(faults, warnings int) string {
	text := "no fault found"
	switch {
	case faults == 1:
		text = "1 fault found"
	case faults > 1:
		text = fmt.Sprintf("%d faults found", faults)
	}
	switch {
	case warnings == 1:
		text += ", 1 warning"
	case warnings > 1:
		text += fmt.Sprintf(", %d warnings", warnings)
	}
	return text + "\n"
}

// isCommand reports whether a line of Mend is for the shell: other lines say where
// something is to be changed, and what.
func isCommand(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	return !slices.Contains([]string{"in", "on", "put", "repair", "correct", "copy", "give", "take", "run", "set", "move", "remove", "look", "let"}, word) &&
		!strings.HasSuffix(word, ",") && !strings.HasSuffix(word, ":")
}

// wrap breaks a line at blanks outside of quotes, so that no part is longer than width
// if that can be. carry ends each part but the last; the parts after the first are
// meant to be indented by two.
func wrap(line string, width int, carry string) []string {
	var parts []string
	current := ""
	left := width
	for _, word := range quotedWords(line) {
		switch {
		case current == "":
			current = word
		case len([]rune(current))+1+len([]rune(word))+len(carry) <= left:
			current += " " + word
		default:
			parts = append(parts, current+carry)
			current, left = word, width-2
		}
	}
	return append(parts, current)
}

// quotedWords splits at single blanks outside of quotes. A # in a command begins a
// comment, which stays on one line.
func quotedWords(line string) []string {
	var words []string
	start, quote := 0, rune(0)
	for i, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' && (i == start || strings.ContainsRune("=", rune(line[i-1]))) && strings.ContainsRune(line[i+1:], '\''):
			quote = c
		case c == '#' && i > 0 && line[i-1] == ' ':
			return append(words, line[start:])
		case c == ' ':
			words = append(words, line[start:i])
			start = i + 1
		}
	}
	return append(words, line[start:])
}

// WriteJSON writes findings for programs: an object of ok, which is false where there
// is a fault, and findings.
func WriteJSON(w io.Writer, findings []Finding) error {
	return json.NewEncoder(w).Encode(struct {
		OK       bool      `json:"ok"`
		Findings []Finding `json:"findings"`
	}{!AnyFault(findings), findings})
}
