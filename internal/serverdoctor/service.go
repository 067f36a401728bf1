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
func (c *checks) unit(context.Context) []doctor.Finding {
	u := c.Unit
	switch {
	case !u.Known:
		return []doctor.Finding{doctor.Inapplicablef(CheckUnit, "systemd has no %s: how the server is started is not known", u.Name)}
	case u.Active == "":
		return []doctor.Finding{doctor.Inapplicablef(CheckUnit, "systemd does not run here")}
	case u.Active == "active" || u.Active == "reloading":
	case u.Active == "activating":
		return []doctor.Finding{doctor.NewFault(CheckUnit, u.Name+" is started again and again, or just now", noneVerify, c.CommandLine("check")+"\n"+lookUnit)}
	default:
		return []doctor.Finding{doctor.NewFault(CheckUnit, fmt.Sprintf("%s is %s", u.Name, u.Active), noneVerify,
			c.CommandLine("check")+"\nsystemctl enable --now "+service+"\n"+lookUnit)}
	}
	var found []doctor.Finding
	if u.Outdated {
		found = append(found, doctor.NewFault(CheckUnit, u.Name+" was changed, and systemd has not read it", "it runs as the file said before", "systemctl daemon-reload\n"+restartUnit))
	}
	if !slices.Contains(starting, u.Enabled) && !strings.Contains(u.TriggeredBy, ".socket") { // a timer may only try again what failed
		found = append(found, doctor.NewFault(CheckUnit, fmt.Sprintf("%s is active, and %s", u.Name, u.Enabled), "it does not start with the machine", "systemctl enable "+service))
	}
	if len(found) == 0 {
		found = append(found, doctor.Okf(CheckUnit, "%s is active, and starts with the machine", u.Name))
	}
	return found
}

// configuration looks whether what was saved is in force.
func (c *checks) configuration(context.Context) []doctor.Finding {
	switch {
	case c.ConfigFile == "":
		return []doctor.Finding{doctor.Inapplicablef(CheckConfiguration, "there is no file: it is all defaults and environment")}
	case c.Unit.Active == "":
		return []doctor.Finding{doctor.Inapplicablef(CheckConfiguration, "%s is right; whether a server runs with it is not known", c.ConfigFile)}
	case c.UnitConfig != c.ConfigFile:
		return []doctor.Finding{doctor.Inapplicablef(CheckConfiguration, "%s is right; %s runs with %s", c.ConfigFile, c.Unit.Name, c.UnitConfig)}
	}
	if obstacle, what := c.mayNotRead(c.ConfigFile); obstacle != nil {
		return []doctor.Finding{doctor.NewFault(CheckConfiguration, what, "the server cannot be started or reloaded", obstacle.Mend)}
	}
	switch {
	case c.InForce == "":
		return []doctor.Finding{doctor.Inapplicablef(CheckConfiguration, "%s is right; the server does not say what it runs with", c.ConfigFile)}
	case c.InForce != c.Saved:
		return []doctor.Finding{doctor.NewFault(CheckConfiguration, fmt.Sprintf("%s was changed, and the server runs with the previous version", c.ConfigFile), "what was saved is not in force",
			c.CommandLine("check")+"\n"+reloadUnit)}
	}
	return []doctor.Finding{doctor.Okf(CheckConfiguration, "the server runs with %s as it is", c.ConfigFile)}
}
