package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/program"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps the milter from doing its work",
		Long: "Look whether Postfix or Sendmail can reach the milter's socket and asks it, in the\n" +
			"right order and with the right default action; at DNS, the clock, notify.smtp and\n" +
			"the Authentication Servers of local_domains; and, where attach: is set, at what keys\n" +
			"are made from, and whether the domain's own servers accept them. Each fault comes\n" +
			"with the commands that correct it. Nothing is changed. Run it as root, on the MTA's machine.\n\n" +
			"Exit code 0: no fault; 1: at least one.",
		Args: cobra.NoArgs,
	}
	postfixDir := addPostfixConfig(cmd)
	sendmailCF := cmd.Flags().String("sendmail-cf", "", "look at the Sendmail of this `file` (default "+mtaconf.SendmailCF+", where there is no Postfix)")
	asJSON := program.AddJSON(cmd)
	cmd.MarkFlagsMutuallyExclusive("postfix-config", "sendmail-cf")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, verifierOpts, err := loadVerifier(cmd)
		if err != nil {
			return err
		}
		opts := doctor.Options{
			Config: loaded.Config, ConfigFile: loaded.Path, Ours: mtaconf.Listening(cmd.Context(), loaded),
			Service: doctor.FindService(cmd.Context()), Version: version, Verifier: verifierOpts, OpenDKIMConf: mtaconf.OpenDKIMConf,
			Hostname: hostName(), Now: time.Now, Synchronized: doctor.Synchronized, Container: doctor.Container(),
			Gateways: doctor.Gateways(),
		}
		findMTA(cmd.Context(), &opts, *postfixDir, *sendmailCF)
		findings := doctor.Examine(cmd.Context(), opts)
		return doctor.Report(cmd.OutOrStdout(), findings, *asJSON)
	}
	return cmd
}

func addPostfixConfig(cmd *cobra.Command) *string {
	return cmd.Flags().String("postfix-config", "", "look at the Postfix of this configuration `directory` (default Postfix's own)")
}

// findMTA reads the MTA that was named, or the one that is there.
func findMTA(ctx context.Context, opts *doctor.Options, postfixDir, sendmailCF string) {
	mta := mtaOptions(opts.Config, opts.Ours)
	if sendmailCF == "" {
		mta.ConfigDir = postfixDir
		opts.Postfix, opts.MTAErr = mtaconf.ReadPostfix(ctx, mta)
		if opts.Postfix != nil || postfixDir != "" {
			return
		}
		sendmailCF = mtaconf.SendmailCF
	}
	var err error
	opts.Sendmail, err = mtaconf.ReadSendmail(sendmailCF, mta)
	opts.MTAErr = errors.Join(opts.MTAErr, err)
}

// mtaOptions are those for the MTA of a configuration.
func mtaOptions(c config.Config, ours mtaconf.Ours) mtaconf.Options {
	return mtaconf.Options{Daemons: c.Submission.Daemons, OpenDKIMConf: mtaconf.OpenDKIMConf, Ours: ours, Attach: len(c.Attach.Domains) > 0}
}
