package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/program"
)

func newSetup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Print, apply or undo what makes an MTA ask the milter",
		Long: "Print, apply or undo what makes an MTA ask the milter: see the commands below.\n\n" +
			"--undo is for the end, when the program is to be removed: it takes back what was\n" +
			"applied to any Postfix of this machine, reloads it, and names what else in the\n" +
			"configuration of Postfix or Sendmail still leads to the milter, which it leaves to\n" +
			"you. The removal of the package does this. Exit code 1: something still does.",
		Args: cobra.NoArgs,
	}
	undo := cmd.Flags().Bool("undo", false, "take every MTA of this machine off the milter")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*undo {
			return program.WhichCommand(cmd, args)
		}
		return leaveMTAs(cmd)
	}
	cmd.AddCommand(newSetupPostfix(), newSetupSendmail())
	return cmd
}

func newSetupPostfix() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "postfix",
		Short: "Make Postfix ask the milter",
		Long: "Print the lines of main.cf and master.cf that make Postfix ask the milter: behind the\n" +
			"milters that verify SPF, DKIM and DMARC, before those that scan or sign, with the\n" +
			"default action that suits mode:. Where attach: is set, submission services that do\n" +
			"not ask the milter get it too. The other milters and their default action stay as\n" +
			"they are. --apply makes the edits with postconf(1), --undo takes them back. Postfix\n" +
			"is not reloaded.\n\n" +
			"Exit code 1: there is no Postfix, or nothing to undo; 78: Postfix cannot reach the\n" +
			"socket that the milter is configured to listen on.",
		Args: cobra.NoArgs,
	}
	dir := addPostfixConfig(cmd)
	apply := cmd.Flags().Bool("apply", false, "make the edits")
	undo := cmd.Flags().Bool("undo", false, "take them back")
	cmd.MarkFlagsMutuallyExclusive("apply", "undo")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		load := loadConfig
		if *undo {
			load = loadForUndo
		}
		loaded, err := load(cmd, false)
		if err != nil {
			return err
		}
		ours := mtaconf.Listening(cmd.Context(), loaded)
		opts := mtaOptions(loaded.Config, ours)
		opts.ConfigDir = *dir
		postfix, err := mtaconf.ReadPostfix(cmd.Context(), opts)
		switch {
		case err != nil:
			return program.Exit(program.Negative, err)
		case *undo:
			return undoPostfix(cmd, postfix)
		}
		edits, err := postfix.Propose(cmd.Context(), ours, mtaconf.DefaultAction(loaded.Config.Mode))
		var unreachable *mtaconf.Unreachable
		switch {
		case errors.As(err, &unreachable):
			file := loaded.Path
			if file == "" {
				file = this().DefaultConfig
			}
			return program.Exit(program.Config, fmt.Errorf("%w; to mend it:\n%s", err, unreachable.Mend(file)))
		case err != nil:
			return program.Exit(program.Negative, err)
		case len(edits) == 0:
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to change: Postfix asks the milter as it should")
			return nil
		case !*apply:
			return postfix.WriteEdits(cmd.OutOrStdout(), edits)
		}
		if err := postfix.Apply(cmd.Context(), edits); err != nil {
			return program.Exit(program.Negative, err)
		}
		for _, e := range edits {
			fmt.Fprintln(cmd.OutOrStdout(), "done:", postfix.EditCommand(e))
		}
		fmt.Fprintln(cmd.OutOrStdout(), "now run:", postfix.Command("postfix", "reload"))
		return nil
	}
	return cmd
}

func undoPostfix(cmd *cobra.Command, postfix *mtaconf.Postfix) error {
	restored, err := postfix.Undo(cmd.Context())
	for _, name := range restored {
		fmt.Fprintln(cmd.OutOrStdout(), "restored:", name)
	}
	if err != nil {
		return program.Exit(program.Negative, err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), "now run:", postfix.Command("postfix", "reload"))
	return nil
}

func newSetupSendmail() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sendmail",
		Short: "Say how to make Sendmail ask the milter",
		Long: "Print the line for sendmail.mc that makes Sendmail ask the milter, and the commands\n" +
			"that put it into effect. What sendmail.mc generates is not taken apart:\n" +
			"--apply and --undo are refused.",
		Args: cobra.NoArgs,
	}
	apply := cmd.Flags().Bool("apply", false, "refused: edit sendmail.mc yourself")
	undo := cmd.Flags().Bool("undo", false, "refused: edit sendmail.mc yourself")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *apply || *undo {
			return program.Exit(program.Usage, errors.New("sendmail.mc is yours to edit: without --apply and --undo this prints the line"))
		}
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return err
		}
		c := loaded.Config
		line, err := mtaconf.InputMailFilter(mtaconf.Listening(cmd.Context(), loaded), mtaconf.DefaultAction(c.Mode), c.Verify.Timeout)
		if err != nil {
			return program.Exit(program.Config, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "dnl /etc/mail/sendmail.mc, before the MAILER lines; behind filters that verify SPF,\n"+
			"dnl DKIM and DMARC, before those that scan or sign\n%s\n\n# then\n%s\n", line, mtaconf.SendmailCommands)
		return nil
	}
	return cmd
}
