package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Unit is a service of systemd's: how it runs, and whether it does.
type Unit struct {
	Service
	Name   string
	Known  bool     // there is such a unit
	Groups []string // beside those of the user
	Args   []string // what ExecStart= runs, and its arguments

	// What follows is known while systemd runs, which Active tells by not being empty.
	Active      string // active, inactive, failed, …
	Enabled     string // enabled, disabled, …
	Status      string // what the service says of itself
	TriggeredBy string // units that start it, such as sockets
	Outdated    bool   // its file was changed, and systemd has not read it
}

// unitFolders are where systemd looks for units, the first one before the others.
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// FindUnit asks systemd about a unit such as authkey-server.service, or, where it does
// not run or does not answer, reads the unit's files.
func FindUnit(ctx context.Context, name string) Unit {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	properties, err := exec.CommandContext(ctx, "systemctl", "show", "--property=LoadState,User,Group,SupplementaryGroups,"+
		"ActiveState,UnitFileState,StatusText,TriggeredBy,NeedDaemonReload", "--", name).Output()
	var files []byte
	if err == nil {
		files, err = exec.CommandContext(ctx, "systemctl", "cat", "--", name).Output()
	}
	if err == nil {
		return parseUnit(name, string(properties), string(files))
	}
	text, err := unitFiles(name, unitFolders)
	if err != nil {
		return Unit{Name: name}
	}
	return parseUnit(name, text, text)
}

// unitFiles reads the file of a unit and what changes it.
func unitFiles(name string, folders []string) (string, error) {
	text := ""
	for _, folder := range folders {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		text = string(b)
		break
	}
	if text == "" {
		return "", fs.ErrNotExist
	}
	for _, folder := range slices.Backward(folders) {
		drops, err := filepath.Glob(filepath.Join(folder, name+".d", "*.conf"))
		if err != nil {
			return "", err
		}
		for _, drop := range drops {
			b, err := os.ReadFile(drop)
			if err != nil {
				return "", err
			}
			text += "\n" + string(b)
		}
	}
	return text, nil
}

// parseUnit reads NAME=VALUE, one a line, of the unit's properties and of its files.
func parseUnit(name, properties, files string) Unit {
	u := Unit{Service: parseService(properties, files), Name: name}
	if u.User == "" { // not loaded
		return u
	}
	u.Known = true
	u.Copies = filepath.Join("/run/credentials", name)
	for line := range strings.Lines(properties) {
		switch property, value, _ := strings.Cut(strings.TrimSpace(line), "="); property {
		case "Group", "SupplementaryGroups":
			u.Groups = append(u.Groups, strings.Fields(value)...)
		case "ActiveState":
			u.Active = value
		case "UnitFileState":
			u.Enabled = value
		case "StatusText":
			u.Status = value
		case "TriggeredBy":
			u.TriggeredBy = value
		case "NeedDaemonReload":
			u.Outdated = value == "yes"
		}
	}
	for line := range strings.Lines(files) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); ok {
			u.Args = strings.Fields(strings.TrimLeft(command, "@-:+!"))
		}
	}
	return u
}

// ConfigFile is the configuration that the unit runs with; def is what the program takes
// where it is not told.
func (u Unit) ConfigFile(def string) string {
	for i, arg := range u.Args {
		if path, ok := strings.CutPrefix(arg, "--config="); ok {
			return path
		}
		if arg == "--config" && i+1 < len(u.Args) {
			return u.Args[i+1]
		}
	}
	return def
}

// Passes reports whether systemd passes the service a copy of a secret file, under the
// name that package keyring looks for, when it starts.
func (u Unit) Passes(path string) bool { return u.passes(path) }

// A Copy is what became of a file that systemd passes.
type Copy string

// What can have become of it.
const (
	CopyCurrent Copy = "current" // it is what the file is
	CopyMissing Copy = "missing" // the service was started before there was the file
	CopyOld     Copy = "old"     // the file was changed after the start
	CopyNone    Copy = "none"    // the service does not run, or it cannot be told
)

// Copied compares the file with the copy that the running service has.
func (u Unit) Copied(path string) (Copy, error) {
	why, err := u.stale(path)
	switch {
	case err != nil:
		return CopyNone, err
	case why == "" && !u.hasCopy(path):
		return CopyNone, nil
	case why == "":
		return CopyCurrent, nil
	case u.hasCopy(path):
		return CopyOld, nil
	}
	return CopyMissing, nil
}
