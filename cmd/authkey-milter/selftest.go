package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/selftest"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
)

const (
	// selftestTimeout bounds a whole self-test, which takes a fraction of a second.
	selftestTimeout = 30 * time.Second
	// selftestRcpt gets its mail where local_domains names no domain of ours.
	selftestRcpt = "selftest@recipient.test"
)

func newSelftest() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "selftest",
		Short: "Send a message of each result through the configuration's policy, without network or MTA",
		Long: "Start a milter with the configuration, and around it DNS, an Authentication Server\n" +
			"and the stand-in of an MTA, all in this process; send a message of each result\n" +
			"through it, and forgeries; and see that each was treated as the policy says, and\n" +
			"that no key is left in anything delivered, held, sent or logged. Nothing leaves\n" +
			"the process, and a milter that runs is not touched.\n\n" +
			"Of the configuration, dns, verify.ca_file and verify.allow_networks are replaced,\n" +
			"notices are handed to nobody and are not rate-limited, sockets and log are the\n" +
			"process's own, and nobody's mail gets a key. The invented senders are of domains\n" +
			"under .test.\n\n" +
			"Exit code 0: everything as it must be; 1: something is not.",
		Args: cobra.NoArgs,
	}
	rcpts := cmd.Flags().StringArray("rcpt", nil,
		"a recipient's `address`, for the rules and preferences that concern it; may be given more than once\n"+
			"(default: selftest at the first of local_domains, else "+selftestRcpt+")")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return err
		}
		recipients := trimAngles(*rcpts)
		for _, rcpt := range recipients {
			if _, err := wire.ParseAddress(rcpt); err != nil {
				return program.Exit(program.Usage, fmt.Errorf("--rcpt %q: %w", rcpt, err))
			}
		}
		if len(recipients) == 0 {
			recipients = []string{defaultRcpt(loaded.Config)}
		}
		report, err := runSelftest(cmd.Context(), *loaded, recipients)
		if err != nil {
			return err
		}
		write := report.WriteText
		if *asJSON {
			write = report.WriteJSON
		}
		if err := write(cmd.OutOrStdout()); err != nil {
			return err
		}
		if !report.OK() {
			return program.Exit(program.Negative, nil)
		}
		return nil
	}
	return cmd
}

func defaultRcpt(c config.Config) string {
	if len(c.LocalDomains) > 0 {
		return "selftest@" + c.LocalDomains[0]
	}
	return selftestRcpt
}

// runSelftest runs a milter as serve does, with a DNS server, an AS and an MTA's side of the
// self-test's own.
func runSelftest(ctx context.Context, loaded config.Loaded, recipients []string) (report *selftest.Report, err error) {
	// What is going to be replaced has to be right too.
	if _, err := verifierOptions(loaded.Config); err != nil {
		return nil, program.Exit(program.Config, loaded.FaultOf("verify.ca_file", err))
	}
	ctx, cancel := context.WithTimeout(ctx, selftestTimeout)
	defer cancel()
	world, err := selftest.NewWorld()
	if err != nil {
		return nil, broken(err)
	}
	defer func() { err = errors.Join(err, broken(world.Close())) }()
	d := &service{level: new(slog.LevelVar)}
	d.log = slog.New(slog.NewJSONHandler(world.Log(), &slog.HandlerOptions{Level: d.level}))
	loaded.Config = within(world, loaded.Config)
	engine, err := d.engine(&loaded)
	if err != nil {
		return nil, program.Exit(program.Config, err)
	}
	defer d.close()
	socket := filepath.Join(world.Dir(), "milter.sock")
	ln, err := milter.Listen("unix", socket, 0o600, "")
	if err != nil {
		return nil, broken(err)
	}
	d.server = milter.New(d.log, engine)
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(ln) }()
	defer func() {
		d.server.Shutdown(ctx)
		_ = ln.Close() // where Serve has not begun yet, the server does not know it
		err = errors.Join(err, broken(<-served))
	}()
	report, err = world.Run(ctx, selftest.Subject{Socket: socket, Engine: engine, Recipients: recipients})
	return report, broken(err)
}

// broken ends the program where the self-test itself could not be done.
func broken(err error) error {
	if err == nil {
		return nil
	}
	return program.Exit(program.Negative, fmt.Errorf("selftest: %w", err))
}

// within is the configuration with the DNS server, the AS and the rest of world in place of
// the real ones.
func within(world *selftest.World, c config.Config) config.Config {
	c.DNS.Servers = []netip.AddrPort{world.DNS()}
	c.Verify.CAFile = world.CAFile()
	c.Verify.AllowNetworks = append(slices.Clip(c.Verify.AllowNetworks), world.Network())
	c.Notify.SMTP = world.SMTP()
	c.Notify.StateDir = world.Dir()
	unlimited := config.Rate{Count: 1_000_000, Per: time.Second}
	c.Notify.Rate = config.NotifyRate{PerSender: unlimited, PerRecipient: unlimited, Global: unlimited}
	c.Log.Level = slog.LevelDebug
	c.Attach = config.Attach{} // its secrets are the service's to read
	return c
}
