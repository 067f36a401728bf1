package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Service is how systemd runs the milter.
type Service struct {
	// User is as whom; empty: that is not known.
	User string
	// Passed are the folders of whose files systemd passes copies to the milter when
	// it starts (LoadCredential=authkey:FOLDER), and Copies is where it puts them.
	Passed []string
	Copies string
	// RuntimeDir is its runtime folder, and ConfigFile the one that ExecStart= names;
	// empty: none is said.
	RuntimeDir string
	ConfigFile string
	// Hidden are folders that it does not see (ProtectHome=, PrivateTmp=).
	Hidden []string
	// State asks systemd whether the service runs, and how it ended; nil: nobody can
	// be asked.
	State func(context.Context) (active string, exit int)
}

// hides reports whether the service sees nothing of a path.
func (s Service) hides(path string) bool {
	return slices.ContainsFunc(s.Hidden, func(dir string) bool { return strings.HasPrefix(path, dir+"/") })
}

const (
	serviceUnit      = "authkey-milter.service"
	credentialID     = "authkey"
	systemctlTimeout = 3 * time.Second
)

// FindService asks systemd. Where there is none, or no such unit, nothing is known.
func FindService(ctx context.Context) Service {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	// What show says of LoadCredential is unprintable.
	properties, err := exec.CommandContext(ctx, "systemctl", "show",
		"--property=LoadState,User,RuntimeDirectory,ExecStart,ProtectHome,PrivateTmp", serviceUnit).Output()
	if err != nil {
		return Service{}
	}
	files, err := exec.CommandContext(ctx, "systemctl", "cat", serviceUnit).Output()
	if err != nil {
		return Service{}
	}
	s := parseService(string(properties), string(files))
	if s.User != "" {
		s.State = state
	}
	return s
}

// state asks systemd for ActiveState, and for the exit code of the last run.
func state(ctx context.Context) (active string, exit int) {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=ActiveState,ExecMainStatus", serviceUnit).Output()
	if err != nil {
		return "", 0
	}
	for line := range strings.Lines(string(out)) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "ActiveState":
			active = value
		case "ExecMainStatus":
			exit, _ = strconv.Atoi(value) // 0 where it is none
		}
	}
	return active, exit
}

// parseService reads NAME=VALUE, one a line, of the unit's properties and of its files.
func parseService(properties, files string) Service {
	s := Service{User: "root", Copies: filepath.Join("/run/credentials", serviceUnit)}
	for line := range strings.Lines(properties) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); {
		case name == "LoadState" && value != "loaded":
			return Service{}
		case name == "User" && value != "":
			s.User = value
		case name == "RuntimeDirectory" && value != "":
			s.RuntimeDir = filepath.Join("/run", strings.Fields(value)[0])
		case name == "ExecStart":
			s.ConfigFile = configOf(value)
		case name == "ProtectHome" && (value == "yes" || value == "tmpfs"):
			s.Hidden = append(s.Hidden, "/home", "/root", "/run/user")
		case name == "PrivateTmp" && value == "yes":
			s.Hidden = append(s.Hidden, "/tmp", "/var/tmp")
		}
	}
	for line := range strings.Lines(files) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.TrimSpace(name) != "LoadCredential" {
			continue
		}
		value = strings.TrimSpace(value)
		if value == "" {
			s.Passed = nil
		}
		if folder, ok := strings.CutPrefix(value, credentialID+":"); ok {
			s.Passed = append(s.Passed, filepath.Clean(folder))
		}
	}
	return s
}

// configOf finds --config in what systemd shows of ExecStart=: "{ path=… ; argv[]=… ; …".
func configOf(execStart string) string {
	_, argv, _ := strings.Cut(execStart, "argv[]=")
	argv, _, _ = strings.Cut(argv, " ; ")
	words := strings.Fields(argv)
	for i, word := range words {
		if path, ok := strings.CutPrefix(word, "--config="); ok {
			return path
		}
		if word == "--config" && i+1 < len(words) {
			return words[i+1]
		}
	}
	return ""
}

// passes reports whether the milter sees a copy of the file.
func (s Service) passes(path string) bool { return slices.Contains(s.Passed, filepath.Dir(path)) }

// copyOf is where systemd put the copy of a file.
func (s Service) copyOf(path string) string {
	return filepath.Join(s.Copies, credentialID+"_"+filepath.Base(path))
}

// hasCopy reports whether systemd passed a file of that name to the milter.
func (s Service) hasCopy(path string) bool {
	_, err := os.Stat(s.copyOf(path))
	return s.Copies != "" && err == nil
}

// stale says why the milter does not run with a secret file of a folder that systemd
// passes; empty: it does, or it does not run.
func (s Service) stale(path string) (why string, err error) {
	if _, err := os.Stat(s.Copies); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	copied, err := os.ReadFile(s.copyOf(path))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("the milter was started before %s was there, and does not see it", path), nil
	}
	if err != nil {
		return "", err
	}
	now, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(copied, now) {
		why = fmt.Sprintf("%s was changed after the milter was started, which has the old one", path)
	}
	clear(copied)
	clear(now)
	return why, err
}
