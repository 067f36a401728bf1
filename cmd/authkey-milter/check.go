package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

func newCheck() *cobra.Command {
	return program.NewCheck(func(cmd *cobra.Command) (settings config.Settings, warnings []string, err error) {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return settings, nil, err
		}
		warnings, faults := buildable(loaded)
		if len(faults) == 0 {
			faults, err = readableByService(cmd.Context(), loaded)
		}
		switch {
		case err != nil:
			return settings, nil, program.Exit(program.Config, err)
		case len(faults) > 0:
			return settings, nil, program.Refuse(cmd, faults)
		}
		return loaded.Settings, warnings, nil
	})
}

// readableByService refuses what root can read and the service's user cannot. Only root
// can tell, and only the configuration of the service is the service's to read: another
// one may be a draft.
func readableByService(ctx context.Context, loaded *config.Loaded) (faults config.Faults, err error) {
	if os.Geteuid() != 0 || loaded.Path != self().DefaultConfig {
		return nil, nil
	}
	service := doctor.FindService(ctx)
	if service.User == "" || service.User == "root" {
		return nil, nil
	}
	reader, err := doctor.NewReader(service.User)
	if err != nil {
		return nil, fmt.Errorf("the service's user: %w", err)
	}
	for _, f := range namedFiles(loaded, service.Passed) {
		// A file that is not there is somebody else's fault.
		if obstacle, err := reader.Read(f.path); err == nil && obstacle != nil {
			faults = append(faults, loaded.Fault(f.key, fmt.Sprintf("%s: %s, the service's user, %s; to correct it: %s",
				f.path, service.User, obstacle.What, strings.ReplaceAll(obstacle.Mend, "\n", " && ")), ""))
		}
	}
	return faults, nil
}

// A namedFile is a file that a key names.
type namedFile struct{ key, path string }

// namedFiles are the files that serve reads, but for those in folders of which systemd
// passes copies.
func namedFiles(loaded *config.Loaded, passed []string) []namedFile {
	c := loaded.Config
	files := []namedFile{{"", loaded.Path}, {"verify.ca_file", c.Verify.CAFile}, {"notify.template_dir", c.Notify.TemplateDir}}
	add := func(key, prefix, value string) {
		if path, ok := strings.CutPrefix(value, prefix); ok && !slices.Contains(passed, filepath.Dir(path)) {
			files = append(files, namedFile{key, path})
		}
	}
	add("preferences.source", "file:", string(c.Preferences.Source))
	add("attach.authorize", "map:", c.Attach.Authorize)
	for i, d := range c.Attach.Domains {
		add(fmt.Sprintf("attach.domains[%d].source", i), "secret:", d.Source)
		add(fmt.Sprintf("attach.domains[%d].addresses", i), "file:", d.Addresses)
	}
	return slices.DeleteFunc(files, func(f namedFile) bool { return f.path == "" })
}

// buildable makes the parts of a configuration that do not touch the network, to find faults.
// They are not used. What may be wrong with files that can be used all the same is a warning.
func buildable(loaded *config.Loaded) (warnings []string, faults config.Faults) {
	p, faults := assemble(loaded, parts{}) // preferences without any are for the log of a start to say
	_, more := notifierInMemory(loaded)
	faults = append(faults, more...)
	if fault, unknown := unknownGroup(loaded); unknown {
		faults = append(faults, fault)
	}
	if p.attacher != nil {
		p.attacher.Reload(func(d *keyring.Domain, err error) {
			if err != nil { // the milter starts all the same
				warnings = append(warnings, "attach: "+err.Error())
			}
		})
		warnings = append(warnings, p.attacher.Warnings()...)
	}
	if dir := loaded.Config.Notify.StateDir; dir != "" { // a folder in use cannot be opened
		if info, err := os.Stat(dir); err != nil {
			warnings = append(warnings, fmt.Sprintf("notify.state_dir: %v: what was sent is forgotten when the milter ends", err))
		} else if !info.IsDir() {
			warnings = append(warnings, fmt.Sprintf("notify.state_dir: %s is no folder: what was sent is forgotten when the milter ends", dir))
		}
	}
	if len(faults) == 0 && p.prefs != nil { // what recipients choose and may not
		for _, fault := range p.prefs.Idle(loaded.Config.Policy.Allowed) {
			warnings = append(warnings, fault.Error())
		}
	}
	return warnings, faults
}

// unknownGroup is the fault of a socket.group that is none of this machine's: serve would
// not start.
func unknownGroup(loaded *config.Loaded) (fault config.Fault, unknown bool) {
	c := loaded.Config
	unix := slices.ContainsFunc(c.Listen, func(l config.Listen) bool { return l.Network == "unix" })
	if _, err := strconv.Atoi(c.Socket.Group); c.Socket.Group == "" || !unix || err == nil {
		return config.Fault{}, false
	}
	var none user.UnknownGroupError
	if _, err := user.LookupGroup(c.Socket.Group); !errors.As(err, &none) {
		return config.Fault{}, false
	}
	return loaded.Fault("socket.group", strconv.Quote(c.Socket.Group)+" is no group of this machine", "one that getent group lists, or its number"), true
}
