package selftest

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/authkey/authkey/internal/terminal"
)

// A Report is what became of all messages.
type Report struct {
	Client   string   `json:"client"` // the SMTP client's address
	Messages []Row    `json:"messages"`
	Faults   []string `json:"faults"` // that are no single message's
}

// A Row is what became of one message, as the log and the MTA in front say.
type Row struct {
	Message   string   `json:"message"`
	Recipient string   `json:"recipient"`
	Result    string   `json:"result"`
	Reason    string   `json:"reason,omitempty"`
	Cached    bool     `json:"cached"`
	From      string   `json:"from_result,omitempty"`
	Action    string   `json:"action"`
	Would     string   `json:"would,omitempty"` // in test mode
	By        string   `json:"by"`
	Became    string   `json:"became"`
	KeyGone   bool     `json:"key_gone"`
	Faults    []string `json:"faults"` // what is not as it must be
}

// OK reports whether everything is as it must be.
func (r *Report) OK() bool {
	return len(r.Faults) == 0 && !slices.ContainsFunc(r.Messages, func(row Row) bool { return len(row.Faults) > 0 })
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	view := struct {
		OK bool `json:"ok"`
		Report
	}{r.OK(), *r}
	if view.Faults == nil {
		view.Faults = []string{}
	}
	return json.NewEncoder(w).Encode(view)
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	width := terminal.Width(w)
	for start := 0; start < len(r.Messages); {
		end := start
		for end < len(r.Messages) && r.Messages[end].Recipient == r.Messages[start].Recipient {
			end++
		}
		fmt.Fprintf(w, "To %s, from a client at %s:\n", r.Messages[start].Recipient, r.Client)
		if err := writeTable(w, r.Messages[start:end], width); err != nil {
			return err
		}
		start = end
	}
	var faults []string
	for _, row := range r.Messages {
		for _, fault := range row.Faults {
			faults = append(faults, row.Message+": "+fault)
		}
	}
	for _, fault := range append(faults, r.Faults...) {
		if _, err := fmt.Fprintln(w, "NOT AS IT MUST BE:", fault); err != nil {
			return err
		}
	}
	if !r.OK() {
		return nil
	}
	_, err := fmt.Fprintf(w, "All %d messages as they must be; no key in anything delivered, held, sent or logged.\n", len(r.Messages))
	return err
}

// minLastColumn is how narrow the last column may become beside the others; below it,
// what became of a message gets a line of its own.
const minLastColumn = 24

// writeTable writes the rows about one recipient, the last column wrapped.
func writeTable(w io.Writer, rows []Row, width int) error {
	table := [][6]string{{"MESSAGE", "RESULT", "FROM", "ACTION", "BY", "WHAT BECAME OF IT"}}
	for _, row := range rows {
		table = append(table, [6]string{row.Message, row.result(), orDash(row.From), row.action(), orDash(row.By), row.Became})
	}
	var columns [5]int
	for _, row := range table {
		for i := range columns {
			columns[i] = max(columns[i], utf8.RuneCountInString(row[i])+2)
		}
	}
	indent := 0
	for _, n := range columns {
		indent += n
	}
	var b strings.Builder
	for _, row := range table {
		line := ""
		for i, n := range columns {
			line += fmt.Sprintf("%-*s", n, row[i])
		}
		at := indent
		if width-indent < minLastColumn {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			at, line = 4, strings.Repeat(" ", 4)
		}
		for _, part := range terminal.Wrap(row[5], width-at, width-at) {
			b.WriteString(strings.TrimRight(line+part, " ") + "\n")
			line = strings.Repeat(" ", at)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r Row) result() string {
	text := orDash(r.Result)
	if r.Reason != "" {
		text += " (" + r.Reason + ")"
	}
	if r.Cached {
		text += " (cached)"
	}
	return text
}

func (r Row) action() string {
	if r.Would != "" {
		return orDash(r.Action) + ", would " + r.Would
	}
	return orDash(r.Action)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
