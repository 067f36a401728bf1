package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/notify"
)

// newNotifier makes the notifier of a configuration.
func newNotifier(c config.Config, ledger *notify.Ledger, log *slog.Logger) (*notify.Notifier, error) {
	return notify.New(notify.Options{
		SMTP: c.Notify.SMTP, DSN: notify.Mode(c.Notify.DSN), FromName: c.Notify.FromName, TemplateDir: c.Notify.TemplateDir,
		Hostname: hostName(),
		Rates: notify.Rates{
			PerSender: notify.Rate(c.Notify.Rate.PerSender), PerRecipient: notify.Rate(c.Notify.Rate.PerRecipient),
			Global: notify.Rate(c.Notify.Rate.Global),
		},
	}, ledger, log)
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
