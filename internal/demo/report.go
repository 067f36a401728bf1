package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// report prints the table, and returns an error that counts what is wrong.
func report(w io.Writer, rows []row, s *scene) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT WAS SENT\tRESULT\tACTION\tWHAT BECAME OF IT\tMS\tKEY GONE")
	faults := 0
	for _, r := range rows {
		result := r.gotResult
		if r.gotCached {
			result += " (cached)"
		}
		gone := "yes"
		if !r.keyGone {
			gone = "NO"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, result, r.gotAction, r.gotOutcome, r.milliseconds, gone)
		faults += len(r.faults)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i, r := range rows {
		if r.rcpts == nil {
			continue
		}
		told, err := s.world.Told.Deliveries()
		if err != nil {
			return err
		}
		wrong, err := reportPreferences(w, r, told, s.keys)
		if err != nil {
			return err
		}
		rows[i].faults = append(rows[i].faults, wrong...)
		faults += len(wrong)
	}
	for _, r := range rows {
		if r.what == "forged Authentication-Results" {
			fmt.Fprintf(w, "\nThe forged result went in as  mx.test; x-authkey=pass\nand came out as               %s\n", r.ours)
		}
	}
	if line, ok := firstLine(s.milter.Log(), "msg=message"); ok {
		fmt.Fprintf(w, "\nThe milter's log has a line for each message; the first one is\n%s\n", line)
	}
	for _, r := range rows {
		for _, fault := range r.faults {
			fmt.Fprintf(w, "NOT AS IT SHOULD BE: %s: %s\n", r.what, fault)
		}
	}
	if faults > 0 {
		return fmt.Errorf("%d things are not as they should be", faults)
	}
	fmt.Fprintf(w, "\nAll %d messages as they should be, and no key survived: not in a delivered or held message, a notice or DSN, or the log.\n", len(rows))
	return nil
}

func firstLine(text, with string) (string, bool) {
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, with) {
			return line, true
		}
	}
	return "", false
}
