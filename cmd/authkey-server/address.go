package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/terminal"
	"github.com/authkey/authkey/internal/wire"
)

// lockTimeout is how long another command that edits the same list is waited for.
const lockTimeout = 10 * time.Second

func newAddress() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "address",
		Short: "Edit the lists of addresses that have keys",
		Long: "Edit the address lists of the configuration's domains. A list is replaced in one\n" +
			"step, and a running server takes the new one up by itself within seconds.\n\n" +
			"Exit code 0: done; 1: an address is not in the list, or of no domain; 2: a text is\n" +
			"no address; 75: the list cannot be written now; 78: the configuration or the list\n" +
			"is bad, or there is none. Nothing has been changed\n" +
			"unless it is 0, or 74: done, but what there is to print could not be written.",
		Args: cobra.NoArgs,
		RunE: program.WhichCommand,
	}
	cmd.AddCommand(newAddressAdd(), newAddressList(), newAddressRevoke(), newAddressRemove(), newAddressImport())
	return cmd
}

func newAddressAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add ADDRESS...",
		Short: "Give addresses keys",
		Args:  cobra.MinimumNArgs(1),
	}
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return editLists(cmd, args, "added", *asJSON, func(ctx context.Context, f keyring.ListFile, addresses []string) (int, error) {
			return f.Add(ctx, addresses...)
		})
	}
	return cmd
}

func newAddressRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke ADDRESS...",
		Short: "Make all keys of addresses invalid, and give them new ones",
		Long: "Raise the generation of addresses. Every key they had is invalid as soon as the\n" +
			"servers have read the list; recipients may rely on an answer they got before for\n" +
			"as long as the domain's ttl.",
		Args: cobra.MinimumNArgs(1),
	}
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return editLists(cmd, args, "revoked", *asJSON, func(ctx context.Context, f keyring.ListFile, addresses []string) (int, error) {
			return len(addresses), f.Revoke(ctx, addresses...)
		})
	}
	return cmd
}

func newAddressRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove ADDRESS...",
		Short: "Remove addresses from the list: their keys become invalid",
		Args:  cobra.MinimumNArgs(1),
	}
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return editLists(cmd, args, "removed", *asJSON, func(ctx context.Context, f keyring.ListFile, addresses []string) (int, error) {
			return len(addresses), f.Remove(ctx, addresses...)
		})
	}
	return cmd
}

func newAddressImport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Add the addresses of a file, or of standard input",
		Long: "Add every address of FILE, one a line in the form of an address list, to the list\n" +
			"of its domain. An address without domain is taken where the configuration has one\n" +
			"domain. gen=N after an address is the least generation it has afterwards.\n\n" +
			"With --replace, take those addresses out that FILE does not have, as remove does:\n" +
			"their keys become invalid, and one that comes back later gets a new generation, so\n" +
			"that its old keys stay invalid. The lists of domains of which FILE has no address\n" +
			"are left alone. What would change is shown (+ is added, - is removed, ^ gets a\n" +
			"higher generation); it is done after a y at a terminal, or with --yes. Without\n" +
			"either, exit code 1.",
		Args: cobra.MaximumNArgs(1),
	}
	replace := cmd.Flags().Bool("replace", false, "take out the addresses that FILE does not have")
	yes := cmd.Flags().Bool("yes", false, "with --replace: do not ask")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *yes && !*replace {
			return program.Exit(program.Usage, errors.New("--yes is for --replace"))
		}
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return err
		}
		files, err := listFiles(loaded)
		if err != nil {
			return err
		}
		name, in := "standard input", cmd.InOrStdin()
		if len(args) == 1 && args[0] != "-" {
			file, err := terminal.Open(cmd.Context(), args[0])
			if err != nil {
				return program.Exit(program.Usage, err)
			}
			defer file.Close()
			name, in = args[0], file
		}
		if *replace {
			return replaceLists(cmd, name, in, files, *yes, *asJSON)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), lockTimeout)
		defer cancel()
		added, err := keyring.Import(ctx, name, in, files...)
		if err != nil {
			return exitImport(err, name)
		}
		return writeEdit(cmd, "added", added, *asJSON)
	}
	return cmd
}

// exitImport ends the program for an error of what was read under a name, or of an edit.
func exitImport(err error, name string) error {
	if line := (*keyring.LineError)(nil); errors.As(err, &line) && line.Path == name {
		return program.Exit(program.Usage, err)
	}
	return exitEdit(err)
}

// listFiles are the lists of all domains that have one.
func listFiles(loaded *config.LoadedServer) ([]keyring.ListFile, error) {
	var files []keyring.ListFile
	var none error
	for _, d := range loaded.Config.Domains {
		file, err := listFile(d)
		if err != nil {
			none = err
			continue
		}
		files = append(files, file)
	}
	if len(files) == 0 && none == nil {
		none = program.Exit(program.Config, fmt.Errorf("%s has no domains", loaded.Path))
	}
	if len(files) == 0 {
		return nil, none
	}
	return files, nil
}

// An edit changes the list of one domain and returns of how many addresses.
type edit func(context.Context, keyring.ListFile, []string) (int, error)

// editLists makes one edit of the list of each domain that the addresses are of.
func editLists(cmd *cobra.Command, mailboxes []string, done string, asJSON bool, change edit) error {
	loaded, err := loadConfig(cmd, true)
	if err != nil {
		return err
	}
	var order []config.ServerDomain
	of := map[config.ServerDomain][]string{}
	for _, mailbox := range mailboxes {
		address, err := wire.ParseAddress(mailbox)
		if err != nil {
			return program.Exit(program.Usage, fmt.Errorf("%q: %w", mailbox, err))
		}
		d, ok := domainOf(loaded, address.Domain())
		if !ok {
			return notServed(loaded, address.Domain())
		}
		if of[d] == nil {
			order = append(order, d)
		}
		of[d] = append(of[d], mailbox)
	}
	files := make([]keyring.ListFile, len(order))
	for i, d := range order { // before anything is changed
		if files[i], err = listFile(d); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), lockTimeout)
	defer cancel()
	count := 0
	for i, d := range order {
		n, err := change(ctx, files[i], of[d])
		if err != nil {
			return exitEdit(err)
		}
		count += n
	}
	return writeEdit(cmd, done, count, asJSON)
}

func writeEdit(cmd *cobra.Command, done string, count int, asJSON bool) error {
	return program.Print(cmd, asJSON, map[string]int{done: count}, func(w io.Writer) { fmt.Fprintln(w, done, count) })
}

// exitEdit ends the program for an error of an edit.
func exitEdit(err error) error {
	var address *keyring.AddressError
	var line *keyring.LineError
	switch {
	case errors.Is(err, keyring.ErrUnknownAddress):
		return program.Exit(program.Negative, err)
	case errors.As(err, &address):
		return program.Exit(program.Usage, err)
	case errors.Is(err, fs.ErrNotExist):
		return program.Exit(program.Config, fmt.Errorf("%w (init makes it)", err))
	case errors.As(err, &line), errors.Is(err, fs.ErrPermission):
		return program.Exit(program.Config, err)
	}
	return program.Exit(program.Temp, err)
}

func newAddressList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [DOMAIN]",
		Short: "Print the addresses that have keys, in the form of a list",
		Args:  cobra.MaximumNArgs(1),
	}
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return err
		}
		var files []keyring.ListFile
		if len(args) == 0 {
			files, err = listFiles(loaded)
		} else {
			files, err = listFileOf(loaded, args[0])
		}
		if err != nil {
			return err
		}
		write := writeEntry
		if *asJSON {
			write = writeEntryJSON
		}
		for _, f := range files {
			var broken error
			err := f.Each(func(e keyring.Entry) error {
				broken = write(cmd.OutOrStdout(), e)
				return broken
			})
			if broken != nil {
				return program.Exit(program.Temp, broken)
			}
			if err != nil {
				return exitEdit(err)
			}
		}
		return nil
	}
	return cmd
}

func listFileOf(loaded *config.LoadedServer, name string) ([]keyring.ListFile, error) {
	d, err := namedDomain(loaded, name)
	if err != nil {
		return nil, err
	}
	file, err := listFile(d)
	return []keyring.ListFile{file}, err
}

// namedDomain finds a domain that a command was given. The error ends the program.
func namedDomain(loaded *config.LoadedServer, name string) (config.ServerDomain, error) {
	canonical, err := wire.ParseDomain(name)
	if err != nil {
		return config.ServerDomain{}, program.Exit(program.Usage, fmt.Errorf("%q: %w", name, err))
	}
	d, ok := domainOf(loaded, canonical)
	if !ok {
		return d, notServed(loaded, canonical)
	}
	return d, nil
}

func writeEntry(w io.Writer, e keyring.Entry) error {
	_, err := fmt.Fprintln(w, entryLine(e))
	return err
}

// entryLine is an address as a list has it.
func entryLine(e keyring.Entry) string {
	if e.Generation == 0 {
		return e.Address
	}
	return fmt.Sprintf("%s gen=%d", e.Address, e.Generation)
}

// writeEntryJSON writes one object a line, since a list may be long.
func writeEntryJSON(w io.Writer, e keyring.Entry) error {
	return json.NewEncoder(w).Encode(struct {
		Address    string `json:"address"`
		Generation uint32 `json:"generation"`
	}{e.Address, e.Generation})
}
