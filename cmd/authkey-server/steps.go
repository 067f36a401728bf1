package main

import (
	"context"
	"net/netip"
	"strings"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
)

// A setupStep is something that is left to do.
type setupStep struct {
	Text     string   `json:"text"`
	Commands []string `json:"commands,omitempty"`
}

// setupSteps are in this order because a key must be verifiable before anybody
// attaches it. further: the file has other domains already. byHand: somebody has to add
// to it first.
func setupSteps(ctx context.Context, d config.ServerDomain, host, yaml string, further, byHand bool) []setupStep {
	command := func(args ...string) string { return commandLine(yaml, args...) }
	var steps []setupStep
	if byHand {
		steps = append(steps, setupStep{Text: "Add to " + yaml + " what is printed above"})
	}
	start := setupStep{Text: "Start the server"}
	if strings.HasPrefix(d.Addresses, "file:") {
		start.Text = "Say who has keys, and start the server"
		start.Commands = append(start.Commands, command("address", "add", shellQuoted("you@"+d.Name)))
	}
	start.Commands = append(start.Commands, command("check"))
	unit := doctor.FindUnit(ctx, serviceUnit)
	switch byUnit := unit.Known && unit.ConfigFile(self().DefaultConfig) == yaml; {
	case byUnit && further:
		start.Text += " again: it is passed secrets at its start"
		start.Commands = append(start.Commands, "systemctl restart "+self().Name)
	case byUnit:
		start.Commands = append(start.Commands, "systemctl enable --now "+self().Name)
	case further:
		start.Text += ", or send the one that runs SIGHUP"
		start.Commands = append(start.Commands, command("serve"))
	default:
		start.Commands = append(start.Commands, command("serve"))
	}
	publish := setupStep{Text: "Open the port and publish the record; then", Commands: []string{command("dns", d.Name)}}
	if _, err := netip.ParseAddr(host); err != nil {
		publish.Text = "See that " + host + " has an address, open the port and publish the record; then"
	}
	return append(steps, start, publish, setupStep{Text: "Put the attach section into milter.yaml on the machines that your users send through, and the secret and the list in the same places; then restart authkey-milter there",
		Commands: []string{"systemctl restart authkey-milter", "authkey-milter doctor"}})
}

// shellQuoted is an argument as a shell needs it: in quotes only where it has to be.
func shellQuoted(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@:,="
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// commandLine is a command of ours for a configuration.
func commandLine(configFile string, args ...string) string {
	if configFile != self().DefaultConfig {
		args = append(args, "--config", shellQuoted(configFile))
	}
	return strings.Join(append([]string{self().Name}, args...), " ")
}
