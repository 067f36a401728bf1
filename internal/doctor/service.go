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
	// User is the user as which it runs; empty: that is not known.
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
	properties, files, err := askSystemd(ctx, serviceUnit)
	if err != nil {
		return Service{}
	}
	s := parseService(properties, files)
	if s.User != "" {
		s.State = state
	}
	return s
}

// askSystemd returns NAME=VALUE, one a line, of a unit's properties, and its files: what
// the properties say of LoadCredential is unprintable.
func askSystemd(ctx context.Context, unit string) (properties, files string, err error) {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	show, err := exec.CommandContext(ctx, "systemctl", "show", "--property=LoadState,User,Group,SupplementaryGroups,RuntimeDirectory,ExecStart,"+
		"ProtectHome,PrivateTmp,ActiveState,UnitFileState,StatusText,TriggeredBy,NeedDaemonReload", "--", unit).Output()
	if err != nil {
		return "", "", err
	}
	cat, err := exec.CommandContext(ctx, "systemctl", "cat", "--", unit).Output()
	return string(show), string(cat), err
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

// parseService reads what askSystemd returns.
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
			_, argv, _ := strings.Cut(value, "argv[]=") // of "{ path=… ; argv[]=… ; …"
			argv, _, _ = strings.Cut(argv, " ; ")
			s.ConfigFile = configOf(strings.Fields(argv))
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

// configOf finds --config among the arguments of a command; "": it is not there.
func configOf(args []string) string {
	for i, arg := range args {
		if path, ok := strings.CutPrefix(arg, "--config="); ok {
			return path
		}
		if arg == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// Passes reports whether systemd passes the service a copy of a secret file, under the
// name that package keyring looks for, when it starts.
func (s Service) Passes(path string) bool { return slices.Contains(s.Passed, filepath.Dir(path)) }

// copyOf is where systemd put the copy of a file.
func (s Service) copyOf(path string) string {
	return filepath.Join(s.Copies, credentialID+"_"+filepath.Base(path))
}

// hasCopy reports whether systemd passed a file of that name to the service.
func (s Service) hasCopy(path string) bool {
	_, err := os.Stat(s.copyOf(path))
	return s.Copies != "" && err == nil
}

// StaleCopy says why the running service does not have a secret file as it is now; "": it
// has, or does not run. name is what the service is called in the sentence.
func (s Service) StaleCopy(name, path string) (why string, err error) {
	if _, err := os.Stat(s.Copies); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	copied, err := os.ReadFile(s.copyOf(path))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%s was started before there was %s, and does not have it", name, path), nil
	}
	if err != nil {
		return "", err
	}
	now, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(copied, now) {
		why = fmt.Sprintf("%s was changed after %s was started, which has the old one", path, name)
	}
	clear(copied)
	clear(now)
	return why, err
}
