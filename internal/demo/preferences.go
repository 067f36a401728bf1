package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/authkey/authkey/internal/testmta"
)

// wanted is what each of the six is to have in the end.
var wanted = map[string]string{
	"accept@rcpt.test":         "in the mailbox",
	"mark@rcpt.test":           "in mark+spam@rcpt.test",
	"discard@rcpt.test":        "nothing",
	"discard-notify@rcpt.test": "a notice",
	"reject@rcpt.test":         "a DSN to the sender",
	"reject-notify@rcpt.test":  "a notice, a DSN to the sender",
}

// reportPreferences prints what each of the six got of their message, read from the
// mailboxes and from what was handed over, and returns what is not as it should be.
func reportPreferences(w io.Writer, r row, told []testmta.Message, keys []string) (faults []string, err error) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nOF THE SIX, WHO WANTS\tHAS IN THE END")
	for _, rcpt := range r.rcpts {
		got := outcomeFor(rcpt, r.copies, told)
		fmt.Fprintf(table, "%s\t%s\n", rcpt, got)
		if got != wanted[rcpt] {
			faults = append(faults, fmt.Sprintf("%s has %s, should have %s", rcpt, got, wanted[rcpt]))
		}
	}
	for _, m := range told {
		for _, key := range keys {
			if strings.Contains(string(m.Raw), key) {
				faults = append(faults, "a key is in the notice to "+m.Recipient)
			}
		}
	}
	return faults, table.Flush()
}

func outcomeFor(rcpt string, copies []string, told []testmta.Message) string {
	var has []string
	local, domain, _ := strings.Cut(rcpt, "@")
	if slices.Contains(copies, rcpt) {
		has = append(has, "in the mailbox")
	}
	if spam := local + "+spam@" + domain; slices.Contains(copies, spam) {
		has = append(has, "in "+spam)
	}
	dsn := ""
	for _, m := range told {
		switch {
		case m.Recipient == rcpt:
			has = append(has, "a notice")
		case strings.Contains(string(m.Raw), "rfc822; "+rcpt), strings.Contains(string(m.Raw), "rfc822;"+rcpt):
			dsn = "a DSN to the sender"
		}
	}
	if dsn != "" {
		has = append(has, dsn)
	}
	if len(has) == 0 {
		return "nothing"
	}
	return strings.Join(has, ", ")
}
