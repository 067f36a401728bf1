package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/milter"
)

// A teller is notify.Notifier in the words of package milter, which knows nothing
// of it.
type teller struct{ *notify.Notifier }

var _ milter.Notifier = teller{}

func (t teller) AllowDSN(o milter.Original) bool {
	return t.Notifier.AllowDSN(original(o)) == notify.Allowed
}

func (t teller) Deliver(ctx context.Context, o milter.Original, failures []milter.Failure, notices []milter.Notice) error {
	fs := make([]notify.Failure, len(failures))
	for i, f := range failures {
		fs[i] = notify.Failure(f)
	}
	ns := make([]notify.Notice, len(notices))
	for i, n := range notices {
		ns[i] = notify.Notice(n)
	}
	return t.Notifier.Deliver(ctx, original(o), fs, ns)
}

func original(o milter.Original) *notify.Original {
	header := make([]notify.Field, len(o.Header))
	for i, f := range o.Header {
		header[i] = notify.Field(f)
	}
	return &notify.Original{
		QueueID: o.QueueID, Sender: o.Sender, MailArgs: o.MailArgs, Client: o.Client, MTA: o.MTA, Arrived: o.Arrived,
		Header: header, Truncated: o.Truncated, SenderAuthenticated: o.SenderAuthenticated,
		Checked: o.Checked, Result: string(o.Result.Status), Reason: string(o.Result.Reason),
	}
}

// newTeller makes the notifier of a configuration.
func newTeller(c config.Config, ledger *notify.Ledger, log *slog.Logger) (milter.Notifier, error) {
	n, err := notify.New(notify.Options{
		SMTP: c.Notify.SMTP, DSN: notify.Mode(c.Notify.DSN), FromName: c.Notify.FromName, TemplateDir: c.Notify.TemplateDir,
		Hostname: hostName(),
		Rates: notify.Rates{
			PerSender: notify.Rate(c.Notify.Rate.PerSender), PerRecipient: notify.Rate(c.Notify.Rate.PerRecipient),
			Global: notify.Rate(c.Notify.Rate.Global),
		},
	}, ledger, log)
	if err != nil {
		return nil, err
	}
	return teller{n}, nil
}

// stateDir is where what was sent is remembered across restarts; "" is nowhere.
func stateDir(c config.Notify) string {
	if c.StateDir != "" {
		return c.StateDir
	}
	return os.Getenv("STATE_DIRECTORY")
}

// openLedger opens the memory of what was sent. Where the folder cannot be used
// mail goes on, and a restart may repeat a notice.
func openLedger(c config.Notify, log *slog.Logger) (*notify.Ledger, error) {
	dir := stateDir(c)
	ledger, err := notify.OpenLedger(dir, log)
	if err == nil || dir == "" || errors.Is(err, notify.ErrLocked) {
		if err != nil {
			err = fmt.Errorf("notify.state_dir: %w", err)
		}
		return ledger, err
	}
	log.Error("notices that were sent are not remembered across restarts", "error", err.Error())
	return notify.OpenLedger("", log)
}
