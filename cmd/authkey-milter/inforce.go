package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/inforce"
)

// An announcer writes down, for other programs on this machine such as the doctor, which
// configuration the service has in force.
type announcer struct {
	started time.Time
	dir     string // where the note is; empty: there is none
}

// announce writes a note of the configuration that is in force now. If there is no folder
// for it, the service runs without.
func (a *announcer) announce(loaded *config.Loaded) error {
	now := time.Now()
	if a.started.IsZero() {
		a.started = now
		a.dir = inforce.Folder(os.Getenv, firstSocket(loaded.Config))
	}
	if a.dir == "" {
		return nil
	}
	file := loaded.Path
	if file != "" {
		if absolute, err := filepath.Abs(file); err == nil {
			file = absolute
		}
	}
	names := loaded.FromEnvironment()
	n := inforce.Note{Version: version, PID: os.Getpid(), Started: a.started, Loaded: now,
		File: file, Digest: loaded.Digest(names), Environment: names}
	return n.Write(a.dir, inforce.Milter)
}

// withdraw takes the note away when the service ends.
func (a *announcer) withdraw() {
	if a.dir != "" {
		inforce.Remove(a.dir, inforce.Milter)
	}
}

// firstSocket is the path of the first socket that the configuration has; empty: none
// has a path.
func firstSocket(c config.Config) string {
	for _, l := range c.Listen {
		if l.Network == "unix" {
			return l.Address
		}
	}
	return ""
}
