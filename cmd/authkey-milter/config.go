package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

func newCheck() *cobra.Command {
	return program.NewCheck(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return config.Settings{}, err
		}
		p, warnings, faults := buildable(loaded)
		if len(faults) > 0 {
			return config.Settings{}, program.Refuse(cmd, faults)
		}
		for _, warning := range warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
		}
		if err := unknownGroup(loaded); err != nil {
			return config.Settings{}, program.Refuse(cmd, err)
		}
		if p.prefs != nil { // what recipients choose and may not
			for _, fault := range p.prefs.Idle(loaded.Config.Policy.Allowed) {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", fault)
			}
		}
		if err := readableByService(cmd.Context(), loaded); err != nil {
			return config.Settings{}, program.Exit(program.Config, err)
		}
		return loaded.Settings, nil
	})
}

// readableByService refuses what root can read and the service's user cannot. Only root
// can tell, and only the configuration of the service is the service's to read: another
// one may be a draft.
func readableByService(ctx context.Context, loaded *config.Loaded) error {
	if os.Geteuid() != 0 || loaded.Path != self().DefaultConfig {
		return nil
	}
	service := doctor.FindService(ctx)
	if service.User == "" || service.User == "root" {
		return nil
	}
	reader, err := doctor.NewReader(service.User)
	if err != nil {
		return fmt.Errorf("as whom the service runs: %w", err)
	}
	var refused error
	for _, path := range namedFiles(loaded, service.Passed) {
		// A file that is not there is somebody else's fault.
		if obstacle, err := reader.Read(path); err == nil && obstacle != nil {
			refused = errors.Join(refused, fmt.Errorf("%s: %s, as whom the service runs, %s; to mend it: %s",
				path, service.User, obstacle.What, strings.ReplaceAll(obstacle.Mend, "\n", " && ")))
		}
	}
	return refused
}

// namedFiles are the files that serve reads, but for those in folders of which systemd
// passes copies.
func namedFiles(loaded *config.Loaded, passed []string) []string {
	c := loaded.Config
	files := []string{loaded.Path, c.Verify.CAFile, c.Notify.TemplateDir}
	add := func(prefix, value string) {
		if path, ok := strings.CutPrefix(value, prefix); ok && !slices.Contains(passed, filepath.Dir(path)) {
			files = append(files, path)
		}
	}
	add("file:", string(c.Preferences.Source))
	add("map:", c.Attach.Authorize)
	for _, d := range c.Attach.Domains {
		add("secret:", d.Source)
		add("file:", d.Addresses)
	}
	return slices.DeleteFunc(files, func(path string) bool { return path == "" })
}

func newConfig() *cobra.Command {
	return program.NewConfig(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		return loaded.Settings, nil
	}, config.Describe)
}

// buildable makes what a configuration says but for what touches the network, and
// throws it away. What may be wrong with the files, though they can be used, are warnings.
func buildable(loaded *config.Loaded) (p parts, warnings []string, faults config.Faults) {
	p, faults = assemble(loaded, parts{}) // preferences without any are for the log of a start to say
	_, more := newSilent(loaded)
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
	return p, warnings, append(faults, more...)
}
