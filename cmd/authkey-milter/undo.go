package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/program"
)

// loadForUndo is loadConfig for what must be possible with any configuration, also with one
// that is refused: then the defaults are used.
func loadForUndo(cmd *cobra.Command, mustExist bool) (*config.Loaded, error) {
	return program.LoadConfig(self(), cmd, mustExist, func(path string, environ []string) (*config.Loaded, error) {
		if loaded, err := config.Load(path, environ); err == nil {
			return loaded, nil
		}
		return config.Load("", nil)
	})
}

// postfixMain is where Postfix's configuration is by default. Its programs may be there
// without it, and nothing runs then.
const postfixMain = "/etc/postfix/main.cf"

// errStillAsked ends `setup --undo`.
var errStillAsked = errors.New("an MTA still asks the milter, or this could not be determined; see above")

// leaveMTAs takes every MTA of the machine off the milter, or says what still leads to it.
func leaveMTAs(cmd *cobra.Command) error {
	loaded, err := loadForUndo(cmd, false)
	if err != nil {
		return err
	}
	opts := mtaOptions(loaded.Config, mtaconf.Listening(cmd.Context(), loaded))
	postfix, err := leavePostfixes(cmd, opts)
	sendmail := leaveSendmail(cmd, opts)
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), err)
	}
	if err != nil || !postfix || !sendmail {
		return program.Exit(program.Negative, errStillAsked)
	}
	fmt.Fprintln(cmd.OutOrStdout(), "no MTA of this machine asks the milter")
	return nil
}

// leavePostfixes is leaveMTAs for every instance of Postfix.
func leavePostfixes(cmd *cobra.Command, opts mtaconf.Options) (left bool, err error) {
	first, err := mtaconf.ReadPostfix(cmd.Context(), opts)
	if _, missing := os.Stat(postfixMain); errors.Is(err, mtaconf.ErrNoPostfix) || err != nil && errors.Is(missing, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	instances, err := first.Instances(cmd.Context())
	if err != nil {
		return false, err
	}
	left = true
	for _, dir := range append([]string{""}, instances...) {
		opts.ConfigDir = dir
		done, leaveErr := leavePostfix(cmd, opts)
		left, err = left && done, errors.Join(err, leaveErr)
	}
	return left, err
}

func leavePostfix(cmd *cobra.Command, opts mtaconf.Options) (left bool, err error) {
	ctx := cmd.Context()
	postfix, err := mtaconf.ReadPostfix(ctx, opts)
	if err != nil {
		return false, err
	}
	restored, err := postfix.Undo(ctx)
	for _, name := range restored {
		fmt.Fprintf(cmd.OutOrStdout(), "restored: %s in %s\n", name, postfix.ConfigDir)
	}
	if errors.Is(err, mtaconf.ErrNothingApplied) {
		err = nil
	}
	if len(restored) > 0 {
		err = errors.Join(err, postfix.Reload(ctx))
	}
	if err != nil {
		return false, err
	}
	if postfix, err = mtaconf.ReadPostfix(ctx, opts); err != nil {
		return false, err
	}
	lines, edits, err := postfix.Remaining(ctx, opts.Ours)
	if err != nil || len(lines)+len(edits) == 0 {
		return err == nil, err
	}
	w := cmd.ErrOrStderr()
	fmt.Fprintf(w, "WARNING: Postfix still asks authkey-milter. While the milter is not\n"+
		"there Postfix defers mail, or accepts it unchecked, as its default action says. These\n"+
		"lines were not written by setup, so they are yours to edit:\n")
	for _, line := range lines {
		fmt.Fprintln(w, "    "+line)
	}
	if len(edits) > 0 {
		fmt.Fprintln(w, "These commands take it out:")
		for _, e := range edits {
			fmt.Fprintln(w, "    "+postfix.EditCommand(e))
		}
		fmt.Fprintln(w, "    "+postfix.Command("postfix", "reload"))
	}
	return false, nil
}

// leaveSendmail only looks: sendmail.mc is for its owner to edit.
func leaveSendmail(cmd *cobra.Command, opts mtaconf.Options) (left bool) {
	sendmail, err := mtaconf.ReadSendmail(mtaconf.SendmailCF, opts)
	switch {
	case errors.Is(err, mtaconf.ErrNoSendmail):
		return true
	case err != nil:
		fmt.Fprintln(cmd.ErrOrStderr(), err)
		return false
	case !sendmail.Asks():
		return true
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "WARNING: Sendmail still asks authkey-milter, says %s. While\n"+
		"the milter is not there Sendmail defers mail (F=T) or accepts it unchecked. Take the\n"+
		"line INPUT_MAIL_FILTER(`authkey', …), or the include of authkey.m4, out of sendmail.mc,\n"+
		"and then:\n    %s\n", sendmail.File, strings.ReplaceAll(mtaconf.SendmailCommands, "\n", "\n    "))
	return false
}
