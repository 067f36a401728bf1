package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func newSecret() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Replace the secret of a domain, or show the current step",
		Long: "Replace the secret that a domain's keys are derived from, step by step, so that no\n" +
			"key is refused meanwhile. Secrets are named by their ids; they are not printed.",
		Args: cobra.NoArgs,
		RunE: program.WhichCommand,
	}
	cmd.AddCommand(newSecretStatus(), newSecretRotate())
	return cmd
}

func newSecretStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [DOMAIN]",
		Short: "Print the current step of a secret's replacement, and what comes next",
		Long: "Say which secrets DOMAIN has, or every domain, which of them makes keys, the current\n" +
			"step of a replacement, since when, and what comes next. Nothing is changed or asked.\n\n" +
			"Exit code 0: said; 1: the configuration does not have DOMAIN; 78: the configuration\n" +
			"or a secret file cannot be used.",
		Args: cobra.MaximumNArgs(1),
	}
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
		for _, d := range domains {
			r, err := keyring.ReadRotation(d.SecretFile)
			if err != nil {
				return exitSecret(err)
			}
			if err := rotationOf(loaded, d, r).write(cmd, *asJSON); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func newSecretRotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate DOMAIN",
		Short: "Make the next step of the replacement of a secret",
		Long: "Replace the secret of DOMAIN in three steps, each of them one run of this command on\n" +
			"one machine; after each the file is copied to the others, as is printed:\n\n" +
			"  1. A new secret is added. Servers accept its keys, and nobody makes any.\n" +
			"  2. The new secret makes the keys. Before that every server of the domain's record\n" +
			"     is asked whether it accepts such a key: one that does not would refuse mail.\n" +
			"  3. When the last key of the old secret has ended, avt + grace later, the old one\n" +
			"     is taken out.\n\n" +
			"The state is kept in comments in the secret file, so that it goes where the file is\n" +
			"copied to, and the command can be run again whenever and wherever it was\n" +
			"interrupted. A secret that may have leaked is another matter: see docs/server.md.\n\n" +
			"Exit code 0: the step was made; 1: a server does not accept the new secret's keys, or\n" +
			"the file has several secrets that were put there by hand; 75: it is too early, a server\n" +
			"or DNS cannot be asked, or the file cannot be written; 78: the configuration or the\n" +
			"secret file cannot be used. Nothing has been changed unless it is 0,\n" +
			"or 74: the step was made, but what comes next could not be printed; see secret status.",
		Args: cobra.ExactArgs(1),
	}
	unchecked := cmd.Flags().Bool("unchecked", false, "make the second step without asking the servers of the record")
	nameServers := addResolver(cmd)
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return err
		}
		d, err := namedDomain(loaded, args[0])
		if err != nil {
			return err
		}
		r, err := rotate(cmd, loaded, d, *unchecked, *nameServers)
		if err != nil {
			return exitSecret(err)
		}
		view := rotationOf(loaded, d, r)
		view.Next = nextSteps(cmd.Context(), loaded, d, r)
		return view.write(cmd, *asJSON)
	}
	return cmd
}

// rotate makes the step that follows on the stage of the domain's secret file.
func rotate(cmd *cobra.Command, loaded *config.LoadedServer, d config.ServerDomain, unchecked bool, nameServers []netip.AddrPort) (keyring.Rotation, error) {
	r, err := keyring.ReadRotation(d.SecretFile)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), lockTimeout)
	defer cancel()
	now := time.Now()
	switch r.Stage {
	case keyring.StageIdle:
		return keyring.AddSecret(ctx, d.SecretFile, now)
	case keyring.StageAdded:
		if !unchecked {
			if err := everyServerAccepts(cmd.Context(), loaded, d, r, nameServers); err != nil {
				return r, err
			}
		}
		return keyring.UseSecret(ctx, d.SecretFile, now)
	case keyring.StageRetiring:
		if due := r.OldMayGo(d.AVT, d.Grace); now.Before(due) {
			return r, program.Exit(program.Temp, fmt.Errorf("too early: keys of the old secret (%s) are valid until %s", strings.Join(r.Old, ", "), stamp(due)))
		}
		return keyring.DropSecrets(ctx, d.SecretFile)
	}
	return r, program.Exit(program.Negative, fmt.Errorf("%s has %d secrets (%s) and no note of when they came: finish the manual replacement (docs/server.md)",
		d.SecretFile, len(r.Secrets), strings.Join(r.Secrets, ", ")))
}

// exitSecret ends the program for an error about a secret file.
func exitSecret(err error) error {
	var line *keyring.LineError
	switch {
	case program.Ends(err):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return program.Exit(program.Config, fmt.Errorf("%w (init makes it)", err))
	case errors.As(err, &line), errors.Is(err, fs.ErrPermission):
		return program.Exit(program.Config, err)
	}
	return program.Exit(program.Temp, err)
}

// askTimeout bounds the questions to the servers of a record.
const askTimeout = 30 * time.Second

// everyServerAccepts asks every server of the domain's record about a key of the new
// secret. The error ends the program, and names those that do not accept it.
func everyServerAccepts(ctx context.Context, loaded *config.LoadedServer, d config.ServerDomain, r keyring.Rotation, nameServers []netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	address, key, err := keyOfSecret(loaded, d, r.New)
	if err != nil {
		return err
	}
	v := verifier.New(ownServers(nameServers))
	defer v.Close()
	found := v.Discover(ctx, d.Name)
	const anyway = "; --unchecked goes on"
	switch {
	case found.Err != nil:
		return program.Exit(program.Temp, fmt.Errorf("which servers does %s have? %w%s", d.Name, found.Err, anyway))
	case len(found.Used) == 0:
		return program.Exit(program.Negative, fmt.Errorf("%s publishes no server that can be asked whether it has the new secret%s", d.Name, anyway))
	}
	var faults []string
	code := program.Temp
	for _, record := range found.Used {
		res := v.Ask(ctx, record.Server, verifier.Query{Address: address, Key: key})
		switch {
		case res.Status == verifier.Pass:
		case res.Status == verifier.Fail:
			code = program.Negative
			faults = append(faults, fmt.Sprintf("%s does not accept keys of the new secret %s: copy %s there, and systemctl restart authkey-server", record.Server, r.New, d.SecretFile))
		default:
			faults = append(faults, fmt.Sprintf("%s cannot be asked: %s", record.Server, cmp.Or(string(res.Reason), string(res.Status))))
		}
	}
	if len(faults) > 0 {
		return program.Exit(code, fmt.Errorf("nothing was changed:\n%s", strings.Join(faults, "\n")))
	}
	return nil
}

// ownServers are the options to ask servers of one's own, which may be in a network that
// strangers do not get to.
func ownServers(nameServers []netip.AddrPort) verifier.Options {
	const privileged = 1024
	ports := make([]uint16, 0, privileged)
	for port := uint16(1); port < privileged; port++ {
		ports = append(ports, port)
	}
	return verifier.Options{
		Resolvers:     nameServers,
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		AllowPorts:    ports,
	}
}

// keyOfSecret is a key of the domain, as it would be attached now, were a certain secret
// the first one. The error ends the program.
func keyOfSecret(loaded *config.LoadedServer, d config.ServerDomain, id string) (address wire.Address, key wire.Key, err error) {
	c := keyringConfig(loaded.Config, d)
	c.SecretFile = d.SecretFile // not the copy that a service has
	domain, err := readLists(c)
	if err != nil {
		return address, key, program.Exit(program.Config, err)
	}
	mailbox, err := anAddress(d)
	if err != nil {
		return address, key, exitEdit(err)
	}
	if mailbox == "" {
		return address, key, program.Exit(program.Negative, fmt.Errorf("%s: its list is empty, so no server can be asked about a key; --unchecked goes on", d.Name))
	}
	if address, err = wire.ParseAddress(mailbox); err != nil {
		return address, key, program.Exit(program.Config, err)
	}
	now := time.Now()
	keys, err := domain.KeysAt(address, now)
	if err != nil {
		return address, key, program.Exit(program.Config, err)
	}
	for _, k := range keys { // the newest first, which may be of the next period
		if k.Secret == id && k.Until.After(now) {
			key = k.Key
		}
	}
	return address, key, nil
}

// anAddress is one of the domain that has a key; empty: there is none.
func anAddress(d config.ServerDomain) (string, error) {
	list, err := listFile(d)
	if err != nil { // any
		return "postmaster@" + d.Name, nil
	}
	return list.First()
}

// A rotationView is a keyring.Rotation as people and programs read it.
type rotationView struct {
	Domain   string   `json:"domain"`
	File     string   `json:"file"`
	Stage    string   `json:"stage"` // idle, added, retiring or unknown
	Secrets  []string `json:"secrets"`
	New      string   `json:"new,omitempty"`
	Old      []string `json:"old,omitempty"`
	Since    string   `json:"since,omitempty"`
	OldMayGo string   `json:"old_may_go,omitempty"` // not before
	What     string   `json:"what"`
	Next     []string `json:"next"`
}

func rotationOf(loaded *config.LoadedServer, d config.ServerDomain, r keyring.Rotation) *rotationView {
	view := &rotationView{Domain: d.Name, File: d.SecretFile, Stage: string(r.Stage), Secrets: r.Secrets, New: r.New, Old: r.Old, Next: []string{}}
	again := commandLine(loaded.Path, "secret", "rotate", d.Name)
	old := strings.Join(r.Old, ", ")
	if !r.Since.IsZero() {
		view.Since = stamp(r.Since)
	}
	switch r.Stage {
	case keyring.StageIdle:
		view.What = fmt.Sprintf("one secret, %s, makes and verifies keys", r.Secrets[0])
	case keyring.StageAdded:
		view.What = fmt.Sprintf("step 1 of 3, made %s: secret %s is added; %s makes the keys still", view.Since, r.New, old)
		view.Next = []string{again + "    # when every server has the file and was restarted"}
	case keyring.StageRetiring:
		view.OldMayGo = stamp(r.OldMayGo(d.AVT, d.Grace))
		view.What = fmt.Sprintf("step 2 of 3, made %s: secret %s makes the keys; those of %s are valid until %s", view.Since, r.New, old, view.OldMayGo)
		view.Next = []string{again + "    # not before " + view.OldMayGo}
	default:
		view.What = "several secrets, put there by hand; the first makes keys"
	}
	return view
}

// nextSteps is what is to be done after a step was made.
func nextSteps(ctx context.Context, loaded *config.LoadedServer, d config.ServerDomain, r keyring.Rotation) []string {
	unit := doctor.FindUnit(ctx, serviceUnit)
	restart := func(name string) string { return "systemctl restart " + name }
	copyTo := "scp -p " + shellQuoted(d.SecretFile) + " root@HOST:" + shellQuoted(d.SecretFile)
	var next []string
	if unit.Known && unit.Passes(d.SecretFile) {
		next = append(next, restart("authkey-server")+"    # here, which passes the file to the server")
	}
	again := commandLine(loaded.Path, "secret", "rotate", d.Name)
	switch r.Stage {
	case keyring.StageAdded:
		return append(next, copyTo+"    # to every other server of "+d.Name,
			restart("authkey-server")+"    # there",
			again+"    # when all have it: it asks them")
	case keyring.StageRetiring:
		return append(next, copyTo+"    # to every machine that attaches keys of "+d.Name+", and every other server",
			restart("authkey-milter")+"    # on those that attach",
			again+"    # not before "+stamp(r.OldMayGo(d.AVT, d.Grace))+", counted from now: if you copy it later, that much later")
	}
	return append(next, copyTo+"    # to every other server of "+d.Name+", and every machine that attaches its keys",
		restart("authkey-server")+"    # there, and authkey-milter where keys are attached")
}

func (v *rotationView) write(cmd *cobra.Command, asJSON bool) error {
	return program.Print(cmd, asJSON, v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s\n", v.Domain, v.What)
		if len(v.Next) > 0 {
			fmt.Fprintln(w, "Next:")
		}
		for _, line := range v.Next {
			fmt.Fprintf(w, "    %s\n", line)
		}
	})
}
