package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/report"
	"github.com/authkey/authkey/internal/terminal"
)

// defaultTop is how many sender domains are shown unless --top says otherwise.
const defaultTop = 50

func newReport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report [FILE…]",
		Short: "Add up the milter's log lines by sender domain",
		Long: "Read the milter's log lines from files (also compressed by gzip), standard input or\n" +
			"the journal, and print what was found out about the mail of each sender domain, what\n" +
			"was done with it and, in test mode, what would have been; and a plot over time.\n\n" +
			"Exit code 1: there is no message in what was read.",
	}
	journal := cmd.Flags().Bool("journal", false, "read the journal of "+report.Unit)
	since := cmd.Flags().String("since", "", "only messages of the last `duration`, such as 7d or 12h")
	top := cmd.Flags().Int("top", defaultTop, "how many domains to show; 0 means all")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		if *journal && len(files) > 0 {
			return errors.New("--journal and FILE: one of them")
		}
		if *top < 0 {
			return fmt.Errorf("--top %d is below zero: how many domains?", *top)
		}
		fromInput := !*journal && len(files) == 0
		if fromInput && terminal.Is(cmd.InOrStdin()) {
			fmt.Fprintln(cmd.ErrOrStderr(), "log lines, please, and Ctrl-D at their end (or name files, or --journal):")
		}
		var from time.Time
		if *since != "" {
			age, err := report.ParseAge(*since)
			if err != nil {
				return fmt.Errorf("--since %w", err)
			}
			from = time.Now().Add(-age)
		}
		r := report.New(from)
		if err := readLogs(cmd, r, *journal, files); err != nil {
			return program.Exit(program.Usage, err)
		}
		if fromInput && r.Empty() {
			return errors.New("report: no message in 0 lines: standard input is empty")
		}
		var err error
		if *asJSON {
			err = r.Summary().WriteJSON(cmd.OutOrStdout())
		} else {
			err = r.Summary().WriteText(cmd.OutOrStdout(), *top)
		}
		if err == nil && r.Messages() == 0 {
			err = program.Exit(program.Negative, nil)
		}
		return err
	}
	return cmd
}

func readLogs(cmd *cobra.Command, r *report.Report, journal bool, files []string) error {
	switch {
	case journal:
		return r.ReadJournal(cmd.Context())
	case len(files) == 0:
		return r.Read(cmd.Context(), terminal.Interruptible(cmd.Context(), cmd.InOrStdin()))
	}
	for _, name := range files {
		if err := readLog(cmd.Context(), r, name); err != nil {
			return err
		}
	}
	return nil
}

func readLog(ctx context.Context, r *report.Report, name string) error {
	f, err := terminal.Open(ctx, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.Read(ctx, f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
