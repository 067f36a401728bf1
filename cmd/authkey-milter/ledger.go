package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/notify"
)

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
	log.Error("sent notices are not recorded across restarts", "error", err.Error())
	return notify.OpenLedger("", log)
}
