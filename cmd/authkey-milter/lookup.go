package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func newLookup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lookup DOMAIN",
		Short: "Show how a domain's Authentication Servers are found",
		Long: "Ask DNS for the AS records of DOMAIN and show, step by step, which records there\n" +
			"are, which are used in which order, why the others are not, and what the servers'\n" +
			"names lead to.\n\n" +
			"Exit code 0: there is a record that can be used; 1: none, or none whose server may\n" +
			"be dialled (with --connect: can be reached); 75: DNS failed.",
		Args: cobra.ExactArgs(1),
	}
	connect := program.AddConnect(cmd)
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, opts, err := loadVerifier(cmd)
		if err != nil {
			return err
		}
		v := verifier.New(opts)
		defer v.Close()
		d := v.Discover(cmd.Context(), args[0])
		view := viewDiscovery(d)
		router := program.Router{Verifier: v}
		if *connect {
			router.Connect = verifier.ConnectAllowed
		}
		dnsErr := view.follow(cmd.Context(), &router, d.Used)
		if err := program.Print(cmd, *asJSON, view, view.print); err != nil {
			return err
		}
		switch {
		case dnsFailed(d.Err), view.reachable == 0 && dnsErr != nil:
			return program.Exit(program.Temp, nil)
		case view.reachable == 0:
			return program.Exit(program.Negative, nil)
		}
		return nil
	}
	return cmd
}

func dnsFailed(err error) bool {
	return errors.Is(err, verifier.ErrDNSTimeout) || errors.Is(err, verifier.ErrDNSFailure)
}

// A discoveryView is a Discovery as people and programs read it.
type discoveryView struct {
	Domain   string             `json:"domain"`
	Resolver string             `json:"resolver,omitempty"`
	AD       bool               `json:"ad"`
	TTL      float64            `json:"ttl_seconds"`
	Took     float64            `json:"took_ms"`
	Aliases  []string           `json:"aliases,omitempty"`
	Records  []string           `json:"records"`
	Used     []usedView         `json:"used"`
	Refused  []refusedView      `json:"refused"`
	Misses   []program.NearMiss `json:"near_misses"`
	Required bool               `json:"required"`
	Verdict  string             `json:"verdict"`

	reachable int // servers of Used
}

type usedView struct {
	Server string `json:"server"`
	Pri    uint16 `json:"pri"`
	TLS    bool   `json:"tls"`
	program.RouteView
}

type refusedView struct {
	Record string `json:"record"`
	Why    string `json:"why"`
}

func viewDiscovery(d verifier.Discovery) discoveryView {
	view := discoveryView{
		Domain: d.Domain, Resolver: d.Resolver, AD: d.AD, TTL: d.TTL.Seconds(), Required: d.Required,
		Took: float64(d.Took.Microseconds()) / 1000, Aliases: d.CNAMEs,
		Records: d.Texts, Used: []usedView{}, Refused: []refusedView{}, Misses: program.NearMisses(d),
	}
	if view.Records == nil {
		view.Records = []string{}
	}
	for _, r := range d.Used {
		view.Used = append(view.Used, usedView{Server: r.Server.String(), Pri: r.Pri, TLS: r.TLS})
	}
	for _, r := range d.Refused {
		view.Refused = append(view.Refused, refusedView{r.Text, r.Why.Error()})
	}
	switch {
	case d.Err != nil:
		view.Verdict = d.Err.Error()
	case len(d.Used) > 0:
		view.Verdict = "takes part"
	case d.Published:
		view.Verdict = "publishes AS records, none of which can be used: permerror"
	default:
		view.Verdict = "publishes no AS record: none"
	}
	return view
}

// follow finds out where the servers that are used can be reached, and returns an error
// of DNS, if there was one.
func (v *discoveryView) follow(ctx context.Context, router *program.Router, used []wire.Record) error {
	var dnsErr error
	for i, r := range used {
		route := router.Follow(ctx, r.Server)
		v.Used[i].RouteView = program.ViewRoute(route)
		switch {
		case route.Err == nil:
			v.reachable++
		case dnsFailed(route.Err):
			dnsErr = route.Err
		}
	}
	if len(used) > 0 && v.reachable == 0 {
		v.Verdict = "publishes AS records, and none of their servers can be reached: permerror or temperror"
	}
	return dnsErr
}

// maxShown bounds how much of a stranger's TXT record is printed.
const maxShown = 300

func (v discoveryView) print(w io.Writer) {
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	say("domain    %s", v.Domain)
	if v.Resolver != "" {
		dnssec := "not validated by DNSSEC"
		if v.AD {
			dnssec = "validated by DNSSEC (AD)"
		}
		say("resolver  %s, %.3f ms, TTL %.0f s, %s", v.Resolver, v.Took, v.TTL, dnssec)
	}
	for _, alias := range v.Aliases {
		say("alias     of %s", alias)
	}
	for _, text := range v.Records {
		cut := ""
		if len(text) > maxShown {
			text, cut = text[:maxShown], "…"
		}
		say("TXT       %q%s", text, cut)
	}
	for i, u := range v.Used {
		transport := "clear text"
		if u.TLS {
			transport = "TLS"
		}
		say("used      %d. %s (pri %d, %s)", i+1, u.Server, u.Pri, transport)
		for _, line := range u.Lines() {
			say("            %s", line)
		}
	}
	for _, r := range v.Refused {
		say("refused   %q: %s", r.Record, r.Why)
	}
	for _, m := range v.Misses {
		say("near miss %q", m.Record)
		say("            looks like an AS record, but %s; right would be", m.Why)
		say("            %q", m.Right)
	}
	if v.Required {
		say("required  every message of this domain must carry a key (req=yes)")
	}
	say("verdict   %s", v.Verdict)
}
