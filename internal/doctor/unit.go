package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
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
	properties, files, err := askSystemd(ctx, name)
	if err != nil {
		if files, err = unitFiles(name, unitFolders); err != nil {
			return Unit{Name: name}
		}
		properties = files
	}
	return parseUnit(name, properties, files)
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

// parseUnit reads what askSystemd returns.
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

// ConfigFile is the configuration that the unit runs with; def is the program's default.
func (u Unit) ConfigFile(def string) string { return cmp.Or(configOf(u.Args), def) }
