package selftest

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
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
	recipient := ""
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.Messages {
		if row.Recipient != recipient {
			recipient = row.Recipient
			if err := table.Flush(); err != nil {
				return err
			}
			fmt.Fprintf(w, "To %s, from a client at %s:\n", recipient, r.Client)
			fmt.Fprintln(table, "MESSAGE\tRESULT\tFROM\tACTION\tBY\tWHAT BECAME OF IT")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", row.Message, row.result(), orDash(row.From), row.action(), orDash(row.By), row.Became)
	}
	if err := table.Flush(); err != nil {
		return err
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
