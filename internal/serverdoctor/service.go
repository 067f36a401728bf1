package serverdoctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/doctor"
)

// starting are the states of a unit's file in which it starts with the machine.
var starting = []string{"enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "linked"}

// unit looks whether systemd runs the server.
func (o Options) unit(context.Context) []doctor.Finding {
	u := o.Unit
	switch {
	case !u.Known:
		return []doctor.Finding{inapplicable(CheckUnit, "systemd has no %s: how the server is started cannot be told", u.Name)}
	case u.Active == "":
		return []doctor.Finding{inapplicable(CheckUnit, "systemd does not run here")}
	case u.Active == "active" || u.Active == "reloading":
	case u.Active == "activating":
		return []doctor.Finding{fault(CheckUnit, u.Name+" is started again and again, or just now", noneVerify, o.CommandLine("check")+"\n"+lookUnit)}
	default:
		return []doctor.Finding{fault(CheckUnit, fmt.Sprintf("%s is %s", u.Name, u.Active), noneVerify,
			o.CommandLine("check")+"\nsystemctl enable --now "+service+"\n"+lookUnit)}
	}
	var found []doctor.Finding
	if u.Outdated {
		found = append(found, fault(CheckUnit, u.Name+" was changed, and systemd has not read it", "it runs as the file said before", "systemctl daemon-reload\n"+restartUnit))
	}
	if !slices.Contains(starting, u.Enabled) && !strings.Contains(u.TriggeredBy, ".socket") { // a timer may only try again what failed
		found = append(found, fault(CheckUnit, fmt.Sprintf("%s is active, and %s", u.Name, u.Enabled), "it does not start with the machine", "systemctl enable "+service))
	}
	if len(found) == 0 {
		found = append(found, ok(CheckUnit, "%s is active, and starts with the machine", u.Name))
	}
	return found
}

// configuration looks whether what was saved is in force.
func (o Options) configuration(context.Context) []doctor.Finding {
	switch {
	case o.ConfigFile == "":
		return []doctor.Finding{inapplicable(CheckConfiguration, "there is no file: it is all defaults and environment")}
	case o.Unit.Active == "":
		return []doctor.Finding{inapplicable(CheckConfiguration, "%s is right; whether a server runs with it cannot be told", o.ConfigFile)}
	case o.UnitConfig != o.ConfigFile:
		return []doctor.Finding{inapplicable(CheckConfiguration, "%s is right; %s runs with %s", o.ConfigFile, o.Unit.Name, o.UnitConfig)}
	}
	if path := o.ConfigFile; o.Reader != nil {
		if obstacle, err := o.Reader.Read(path); err == nil && obstacle != nil {
			return []doctor.Finding{fault(CheckConfiguration, fmt.Sprintf("%s (%s) %s", o.Reader.Name, o.ReaderFrom, obstacle.What), "the server cannot be started or reloaded", obstacle.Mend)}
		}
	}
	switch {
	case o.InForce == "":
		return []doctor.Finding{inapplicable(CheckConfiguration, "%s is right; the server does not say what it runs with", o.ConfigFile)}
	case o.InForce != o.Saved:
		return []doctor.Finding{fault(CheckConfiguration, fmt.Sprintf("%s was changed, and the server runs with what it said before", o.ConfigFile), "what was saved is not in force",
			o.CommandLine("check")+"\n"+reloadUnit)}
	}
	return []doctor.Finding{ok(CheckConfiguration, "the server runs with %s as it is", o.ConfigFile)}
}
