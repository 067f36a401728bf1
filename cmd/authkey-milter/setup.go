package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
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
			"they are. --apply makes the edits with postconf(1), --undo takes them back, also in\n" +
			"further instances of Postfix, and where nothing was applied takes the milter off the\n" +
			"lists that name it; it works without a milter.yaml, or with a broken one. Postfix\n" +
			"is not reloaded.\n\n" +
			"Exit code 1: there is no Postfix, or nothing to undo; 75: the files could not be\n" +
			"changed, and are as they were; 78: Postfix cannot reach the socket that the milter\n" +
			"is configured to listen on.",
		Args: cobra.NoArgs,
	}
	dir := addPostfixConfig(cmd)
	apply := cmd.Flags().Bool("apply", false, "make the edits")
	undo := cmd.Flags().Bool("undo", false, "take them back")
	cmd.MarkFlagsMutuallyExclusive("apply", "undo")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *undo {
			return undoPostfix(cmd, *dir)
		}
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return err
		}
		ours := mtaconf.Listening(cmd.Context(), loaded)
		opts := mtaOptions(loaded.Config, ours)
		opts.ConfigDir = *dir
		postfix, err := mtaconf.ReadPostfix(cmd.Context(), opts)
		if err != nil {
			return program.Exit(program.Negative, err)
		}
		edits, err := postfix.Propose(cmd.Context(), ours, mtaconf.DefaultAction(loaded.Config.Mode))
		var unreachable *mtaconf.Unreachable
		switch {
		case errors.As(err, &unreachable):
			file := loaded.Path
			if file == "" {
				file = self().DefaultConfig
			}
			return program.Exit(program.Config, fmt.Errorf("%w; to correct it:\n%s", err, doctor.MendUnreachable(unreachable, file)))
		case err != nil:
			return program.Exit(program.Negative, err)
		case len(edits) == 0:
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to change: Postfix asks the milter as it should")
			writeLosses(cmd, postfix, loaded.Config)
			return nil
		case !*apply:
			if err := postfix.WriteEdits(cmd.OutOrStdout(), edits); err != nil {
				return err
			}
			writeLosses(cmd, postfix, loaded.Config)
			return nil
		}
		if err := postfix.Apply(cmd.Context(), edits); err != nil {
			return program.Exit(program.Temp, fmt.Errorf("nothing was changed: %w", err))
		}
		for _, e := range edits {
			fmt.Fprintln(cmd.OutOrStdout(), "done:", postfix.EditCommand(e))
			for _, move := range e.Moves {
				fmt.Fprintln(cmd.OutOrStdout(), "which", move)
			}
		}
		fmt.Fprintln(cmd.OutOrStdout(), "now run:", postfix.Command("postfix", "reload"))
		if after, err := mtaconf.ReadPostfix(cmd.Context(), opts); err == nil {
			writeLosses(cmd, after, loaded.Config)
		}
		return nil
	}
	return cmd
}

// writeLosses says what setup leaves to the administrator: settings by which mail goes
// past the milter all the same. The doctor finds the same, with more around it.
func writeLosses(cmd *cobra.Command, postfix *mtaconf.Postfix, c config.Config) {
	for _, l := range postfix.Losses(cmd.Context(), doctor.Options{Config: c, Hostname: hostName()}.Milter()) {
		if l.Doubt {
			continue
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "\nleft to you: %s\n%s\n", l.What, l.Why)
		for line := range strings.SplitSeq(l.Mend, "\n") {
			fmt.Fprintln(cmd.ErrOrStderr(), "   ", line)
		}
	}
}

// undoPostfix takes the milter out of one Postfix, or out of all instances of it.
func undoPostfix(cmd *cobra.Command, dir string) error {
	loaded, err := loadForUndo(cmd, false)
	if err != nil {
		return err
	}
	ours := mtaconf.Listening(cmd.Context(), loaded)
	var failed, nothing error
	done := false
	for _, u := range mtaconf.UndoPostfix(cmd.Context(), dir, ours) {
		for _, name := range u.Restored {
			fmt.Fprintln(cmd.OutOrStdout(), "restored:", name)
		}
		switch {
		case errors.Is(u.Err, mtaconf.ErrNothingApplied), errors.Is(u.Err, mtaconf.ErrNoPostfix):
			nothing = u.Err
		case u.Err != nil:
			failed = errors.Join(failed, u.Err)
		default:
			done = true
			fmt.Fprintln(cmd.OutOrStdout(), "now run:", u.Postfix.Command("postfix", "reload"))
		}
		if len(u.Left) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s in %s still names the milter, as before --apply: --undo again takes it off\n",
				strings.Join(u.Left, ", "), u.Postfix.ConfigDir)
		}
	}
	switch {
	case failed != nil:
		return program.Exit(program.Temp, failed)
	case !done:
		return program.Exit(program.Negative, nothing)
	}
	return nil
}

func newSetupSendmail() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sendmail",
		Short: "Say how to make Sendmail ask the milter",
		Long: "Print the line for sendmail.mc that makes Sendmail ask the milter, at which place\n" +
			"among the filters of sendmail.cf, which of those have to move, and the commands\n" +
			"that put it into effect. What sendmail.mc generates is not analysed:\n" +
			"--apply and --undo are refused.",
		Args: cobra.NoArgs,
	}
	apply := cmd.Flags().Bool("apply", false, "refused: edit sendmail.mc yourself")
	undo := cmd.Flags().Bool("undo", false, "refused: edit sendmail.mc yourself")
	cf := cmd.Flags().String("sendmail-cf", mtaconf.SendmailCF, "look at the filters of this `file`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *apply || *undo {
			return program.Exit(program.Usage, errors.New("sendmail.mc is yours to edit: without --apply and --undo this prints the line"))
		}
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return err
		}
		c := loaded.Config
		ours := mtaconf.Listening(cmd.Context(), loaded)
		sendmail, err := mtaconf.ReadSendmail(*cf, mtaOptions(c, ours))
		if err != nil && (!errors.Is(err, mtaconf.ErrNoSendmail) || cmd.Flags().Changed("sendmail-cf")) {
			return program.Exit(program.Negative, err)
		}
		plan, nothing, err := sendmail.Plan(ours, mtaconf.DefaultAction(c.Mode), c.Verify.Timeout)
		if err != nil {
			return program.Exit(program.Config, err)
		}
		if nothing {
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to change: Sendmail asks the milter as it should")
			return nil
		}
		out := cmd.OutOrStdout()
		fmt.Fprintln(out, "dnl /etc/mail/sendmail.mc, before the MAILER lines")
		switch {
		case len(plan.Order) > 0:
			fmt.Fprintf(out, "dnl the filters' lines in this order: %s\n", strings.Join(plan.Order, ", "))
			for _, move := range plan.Moves {
				fmt.Fprintf(out, "dnl this %s\n", move)
			}
			fmt.Fprintf(out, "dnl where confINPUT_MAIL_FILTERS is defined, it is to be: %s\n", strings.Join(plan.Order, ", "))
		case sendmail == nil:
			fmt.Fprint(out, "dnl behind filters that verify SPF, DKIM and DMARC, before those that scan or sign\n")
		}
		fmt.Fprintf(out, "%s\n\n# then\n%s\n", plan.Line, mtaconf.SendmailCommands)
		return nil
	}
	return cmd
}
