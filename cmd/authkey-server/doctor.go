package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/serverdoctor"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps the server from verifying keys",
		Long: "Look whether systemd runs the server, with the configuration as it was saved; at\n" +
			"secrets, address lists and the certificate, as the service's user sees them; whether\n" +
			"the server listens, and accepts a real key of each domain; what DNS says, and where\n" +
			"that leads; and at the clock. Each fault comes with the commands that correct it. Nothing\n" +
			"is changed. Run it as root, on the server's machine. What a firewall keeps out cannot\n" +
			"be seen from there. The service's user is --user, else User= of\n" +
			"authkey-server.service, else authkey-server where there is such a user.\n\n" +
			"Exit code 0: no fault; 1: at least one; 78: the configuration is refused.",
		Args: cobra.NoArgs,
	}
	as := addUser(cmd)
	hostFlag := cmd.Flags().String("host", "", "name or address of this server in the records")
	nameServers := addResolver(cmd)
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return err
		}
		host, err := hostName(*hostFlag, loaded.Config)
		if err != nil {
			return err
		}
		service, err := findServiceUser(cmd.Context(), *as)
		if err != nil {
			return err
		}
		v := verifier.New(verifier.Options{Resolvers: *nameServers})
		defer v.Close()
		findings := serverdoctor.Examine(cmd.Context(), doctorOptions(loaded, host, service, v, *nameServers))
		return doctor.Report(cmd.OutOrStdout(), findings, *asJSON)
	}
	return cmd
}

func doctorOptions(loaded *config.LoadedServer, host string, service serviceUser, v *verifier.Verifier, nameServers []netip.AddrPort) serverdoctor.Options {
	o := serverdoctor.Options{
		Config: loaded.Config, ConfigFile: loaded.Path,
		CommandLine: func(args ...string) string { return commandLine(loaded.Path, args...) },
		InitLine:    func(domain string) string { return initLine(loaded, domain) },
		Unit:        service.unit, UnitConfig: service.unit.ConfigFile(self().DefaultConfig),
		InForce: inForce(service.unit.Status), Saved: fingerprint(loaded),
		Reader: service.Reader, ReaderFrom: service.how,
		Resolver: resolver(nameServers),
		Now:      time.Now, Synchronized: doctor.Synchronized, Container: doctor.Container(),
	}
	if path, err := filepath.Abs(loaded.Path); err == nil {
		o.ConfigFile = path
	}
	for _, d := range loaded.Config.Domains {
		domain := serverdoctor.Domain{Name: d.Name, Keys: keyringConfig(loaded.Config, d)}
		domain.Keys.SecretFile = d.SecretFile
		if list, err := listFile(d); err == nil {
			domain.List = list.Path
		}
		o.Domains = append(o.Domains, domain)
	}
	o.Certificate = func() (serverdoctor.Certificate, error) {
		c, err := loadCertificate(loaded.Config.TLS)
		if err != nil {
			return serverdoctor.Certificate{}, err
		}
		warnings := c.warnings(host, service.Reader == nil)
		if w := service.keyWarning(loaded); w != "" {
			warnings = append(warnings, w)
		}
		return serverdoctor.Certificate{Leaf: c.get().Leaf, Warnings: warnings}, nil
	}
	wanted := wantedRecords(host, loaded.Config.Listen)
	for _, r := range wanted {
		o.Wanted = append(o.Wanted, r.Server)
	}
	o.Compare = func(ctx context.Context, domain string) serverdoctor.Comparison {
		return forDoctor(compare(wanted, v.Discover(ctx, domain)), wanted)
	}
	return o
}

// initLine is the command that makes the files of a domain that are missing.
func initLine(loaded *config.LoadedServer, domain string) string {
	line := self().Name + " init " + domain
	if dir := filepath.Dir(loaded.Path); dir != filepath.Dir(self().DefaultConfig) {
		line += " --dir " + shellQuoted(dir)
	}
	return line
}

// forDoctor is a comparison in the words of the doctor.
func forDoctor(c comparison, wanted []wire.Record) (out serverdoctor.Comparison) {
	if c.code == program.Temp {
		out.Unknown = c.Verdict
		return out
	}
	say := func(format string, args ...any) { out.Differs = append(out.Differs, fmt.Sprintf(format, args...)) }
	for _, r := range c.Missing {
		say("%q is not published", r)
	}
	for _, r := range c.Unexpected {
		say("%q is published, and this server does not listen so", r)
	}
	for _, r := range c.Unusable {
		say("%q cannot be used: %s", r.Record, r.Why)
	}
	if c.code != program.OK && len(out.Differs) == 0 {
		say("%s", c.Verdict)
	}
	for _, n := range c.Notes {
		out.Notes = append(out.Notes, fmt.Sprintf("%q: %s", n.Record, n.Why))
	}
	for _, r := range wanted {
		out.Publish = append(out.Publish, zoneLine(c.Domain, r))
	}
	return out
}

// resolver asks the name servers given, or those of the system.
func resolver(nameServers []netip.AddrPort) *net.Resolver {
	if len(nameServers) == 0 {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, nameServers[0].String())
	}}
}

// fingerprint is the same for two configuration files with the same values, whatever their
// comments and spelling.
func fingerprint(loaded *config.LoadedServer) string {
	digest := loaded.FileDigest()
	return digest[:min(12, len(digest))]
}

var statusFingerprint = regexp.MustCompile(`configuration ([0-9a-f]{12})$`)

// inForce is the fingerprint in what a running server says of itself to systemd.
func inForce(status string) string {
	if found := statusFingerprint.FindStringSubmatch(status); found != nil {
		return found[1]
	}
	return ""
}
