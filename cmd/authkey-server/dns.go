package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func newDNS() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns [DOMAIN]",
		Short: "Compare the records that are published with those that are wanted",
		Long: "Print the AS records that the sockets of the configuration call for, and compare\n" +
			"them with what DNS says of DOMAIN, or of every domain. A wanted record counts as\n" +
			"published whatever its pri and req are; records that name other hosts are those\n" +
			"of other servers. The host is --host, else host of the configuration, else the\n" +
			"machine's name. Each name is looked up, too, as recipients do.\n\n" +
			"Exit code 0: all is published; 1: something is missing, unexpected or unusable, a\n" +
			"name has no address (with --connect: a server cannot be reached from here), or the\n" +
			"configuration does not have DOMAIN; 75: DNS failed.",
		Args: cobra.MaximumNArgs(1),
	}
	hostFlag := cmd.Flags().String("host", "", "name or address of this server in the records")
	nameServers := addResolver(cmd)
	connect := program.AddConnect(cmd)
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return err
		}
		domains, err := domainsToCompare(loaded, args)
		if err != nil {
			return err
		}
		host, err := hostName(*hostFlag, loaded.Config)
		if err != nil {
			return err
		}
		wanted := wantedRecords(host, loaded.Config.Listen)
		v := verifier.New(verifier.Options{Resolvers: *nameServers})
		defer v.Close()
		code := program.OK
		for _, d := range domains {
			found := v.Discover(cmd.Context(), d.Name)
			view := compare(wanted, found)
			view.follow(cmd.Context(), v, found, *connect)
			code = max(code, view.code) // a failure is the highest
			if err := program.Print(cmd, *asJSON, view, func(w io.Writer) { view.print(w, wanted) }); err != nil {
				return err
			}
		}
		return program.Exit(code, nil)
	}
	return cmd
}

// domainsToCompare are the one that is named, or all.
func domainsToCompare(loaded *config.LoadedServer, args []string) ([]config.ServerDomain, error) {
	if len(args) == 1 {
		d, err := namedDomain(loaded, args[0])
		return []config.ServerDomain{d}, err
	}
	if len(loaded.Config.Domains) == 0 {
		return nil, program.Exit(program.Config, fmt.Errorf("%s has no domains", loaded.Path))
	}
	return loaded.Config.Domains, nil
}

// addResolver gives a command the flag --resolver, which may be given more than once.
func addResolver(cmd *cobra.Command) *[]netip.AddrPort {
	nameServers := new([]netip.AddrPort)
	cmd.Flags().Func("resolver", "name server to ask, as `IP:PORT` (default those of /etc/resolv.conf)", func(list string) error {
		for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
			server, err := netip.ParseAddrPort(text)
			if err != nil {
				return fmt.Errorf("%q is not IP:PORT", text)
			}
			*nameServers = append(*nameServers, server)
		}
		return nil
	})
	return nameServers
}

// A comparison is how a domain's published records differ from the wanted ones.
type comparison struct {
	Domain     string             `json:"domain"`
	Resolver   string             `json:"resolver,omitempty"`
	AD         bool               `json:"ad"`
	Wanted     []string           `json:"wanted"`
	Published  []string           `json:"published"`  // wanted ones
	Missing    []string           `json:"missing"`    // wanted ones
	Unexpected []string           `json:"unexpected"` // of this host, where it does not listen so
	Unusable   []remark           `json:"unusable"`
	Others     []string           `json:"others"` // of other hosts
	Notes      []remark           `json:"notes"`  // well-formed, but recipients do not go there by default
	Misses     []program.NearMiss `json:"near_misses"`
	Routes     []route            `json:"routes"` // of every well-formed record
	Verdict    string             `json:"verdict"`
	code       int
}

// A remark says something about a published record.
type remark struct {
	Record string `json:"record"`
	Why    string `json:"why"`
}

// A route is where the server of a published record can be reached.
type route struct {
	Record string `json:"record"`
	program.RouteView
}

func compare(wanted []wire.Record, found verifier.Discovery) comparison {
	c := comparison{
		Domain: found.Domain, Resolver: found.Resolver, AD: found.AD,
		Wanted: []string{}, Published: []string{}, Missing: []string{}, Unexpected: []string{}, Unusable: []remark{}, Others: []string{}, Notes: []remark{},
		Misses: program.NearMisses(found), Routes: []route{},
	}
	published := map[wire.Server]bool{}
	take := func(r wire.Record) {
		published[r.Server] = true
		switch {
		case slices.ContainsFunc(wanted, func(w wire.Record) bool { return w.Server == r.Server }):
			c.Published = append(c.Published, r.String())
		case slices.ContainsFunc(wanted, func(w wire.Record) bool { return w.Host == r.Host }):
			c.Unexpected = append(c.Unexpected, r.String())
		default:
			c.Others = append(c.Others, r.String())
		}
	}
	for _, r := range found.Used {
		take(r)
	}
	for _, refused := range found.Refused {
		// A record that is right may still point where strangers do not go.
		if r, err := wire.ParseRecord(refused.Text); err == nil && !errors.Is(refused.Why, wire.ErrDowngrade) {
			take(r)
			c.Notes = append(c.Notes, remark{r.String(), refused.Why.Error()})
			continue
		}
		c.Unusable = append(c.Unusable, remark{refused.Text, refused.Why.Error()})
	}
	for _, w := range wanted {
		c.Wanted = append(c.Wanted, w.String())
		if !published[w.Server] {
			c.Missing = append(c.Missing, w.String())
		}
	}
	switch {
	case errors.Is(found.Err, verifier.ErrDNSTimeout), errors.Is(found.Err, verifier.ErrDNSFailure):
		c.Verdict, c.code = "unknown: "+found.Err.Error(), program.Temp
	case found.Err != nil:
		c.Verdict, c.code = found.Err.Error(), program.Negative
	case len(c.Missing)+len(c.Unexpected)+len(c.Unusable)+len(c.Misses) > 0:
		c.Verdict, c.code = "differs", program.Negative
	default:
		c.Verdict = "as wanted"
	}
	return c
}

// follow finds out where the published records lead, and says so in the verdict.
func (c *comparison) follow(ctx context.Context, v *verifier.Verifier, found verifier.Discovery, connect bool) {
	router := program.Router{Verifier: v}
	records := slices.Clone(found.Used)
	for _, n := range c.Notes {
		if r, err := wire.ParseRecord(n.Record); err == nil {
			records = append(records, r)
		}
	}
	var lost, failed, refused bool
	for _, r := range records {
		router.Connect = verifier.ConnectNone
		switch {
		case connect && slices.Contains(c.Published, r.String()):
			router.Connect = verifier.ConnectAll // it is the caller's own
		case connect:
			router.Connect = verifier.ConnectAllowed
		}
		to := router.Follow(ctx, r.Server)
		view := route{r.String(), program.ViewRoute(to)}
		c.Routes = append(c.Routes, view)
		reached, tried := false, false
		for _, a := range to.Addresses {
			tried = tried || a.Tried
			reached = reached || a.Tried && a.Err == nil
		}
		noted := slices.ContainsFunc(c.Notes, func(n remark) bool { return n.Record == r.String() })
		switch {
		case errors.Is(to.Err, verifier.ErrDNSTimeout), errors.Is(to.Err, verifier.ErrDNSFailure):
			failed = true
		case to.Err != nil && len(to.Addresses) == 0, tried && !reached:
			lost = true
		case to.Err != nil && !noted:
			c.Notes = append(c.Notes, remark{r.String(), to.Err.Error()})
			refused = true
		case to.Err != nil:
			refused = true
		}
	}
	switch {
	case c.code == program.Temp, c.code == program.Negative && !failed:
	case failed:
		c.Verdict, c.code = "unknown: DNS fails for the name of a server", program.Temp
	case lost:
		c.Verdict, c.code = "published, but a server cannot be reached", program.Negative
	case refused:
		c.Verdict += ", but recipients do not connect there by default"
	}
}

func (c comparison) print(w io.Writer, wanted []wire.Record) {
	say := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%-11s"+format+"\n", append([]any{label}, args...)...)
	}
	say("domain", "%s", c.Domain)
	for _, r := range wanted {
		say("wanted", "%s", zoneLine(c.Domain, r))
	}
	for _, r := range c.Published {
		say("published", "%q", r)
	}
	if c.code != program.Temp {
		for _, r := range c.Missing {
			say("missing", "%q", r)
		}
	}
	for _, r := range c.Unexpected {
		say("unexpected", "%q: this server does not listen so", r)
	}
	for _, r := range c.Unusable {
		say("unusable", "%q: %s", r.Record, r.Why)
	}
	for _, r := range c.Others {
		say("other", "%q: another server", r)
	}
	for _, r := range c.Notes {
		say("note", "%q: recipients do not connect there by default: %s", r.Record, r.Why)
	}
	for _, m := range c.Misses {
		say("near miss", "%q looks like an AS record, but %s; right would be %q", m.Record, m.Why, m.Right)
	}
	for _, r := range c.Routes {
		for _, line := range r.Lines() {
			say("leads to", "%q: %s", r.Record, line)
		}
	}
	say("verdict", "%s", c.Verdict)
}
