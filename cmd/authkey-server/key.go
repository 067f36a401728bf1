package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/program"
)

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key ADDRESS",
		Short: "Print the key to attach to mail of an address now",
		Long: "Print the AuthKey of ADDRESS to standard output, and until when it is attached and\n" +
			"valid to standard error. Whoever sees a key can use it until it ends: keep it out\n" +
			"of files and other people's sight. With --all-valid, print every key that is\n" +
			"accepted now, newest first, each with its secret's id and both times.\n\n" +
			"Exit code 0: printed; 1: the address has no key; 2: it is no address; 78: the\n" +
			"configuration, secret or list cannot be used.",
		Args: cobra.ExactArgs(1),
	}
	all := cmd.Flags().Bool("all-valid", false, "print every key that is accepted now")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		domain, address, err := openFor(cmd, args[0])
		if err != nil {
			return err
		}
		var keys []keyring.Issued
		if now := time.Now(); *all {
			keys, err = domain.KeysAt(address, now)
		} else {
			keys = make([]keyring.Issued, 1)
			keys[0], err = domain.KeyAt(address, now)
		}
		switch {
		case errors.Is(err, keyring.ErrUnknownAddress):
			return program.Exit(program.Negative, fmt.Errorf("%s: %w", address, err))
		case err != nil:
			return program.Exit(program.Config, err)
		}
		return program.Print(cmd, *asJSON, viewKeys(address.String(), keys, *all), func(w io.Writer) {
			if *all {
				writeKeys(w, keys)
				return
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "attach until %s, valid until %s\n", stamp(keys[0].Until), stamp(keys[0].End))
			fmt.Fprintln(w, keys[0].Key.Reveal())
		})
	}
	return cmd
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func writeKeys(w io.Writer, keys []keyring.Issued) {
	for _, k := range keys {
		fmt.Fprintf(w, "%s  secret %s  attach until %s  valid until %s\n", k.Key.Reveal(), k.Secret, stamp(k.Until), stamp(k.End))
	}
}

// A keyView is an Issued with its key, which a wire.Key never writes.
type keyView struct {
	Key         string `json:"key"`
	Secret      string `json:"secret"` // its id
	AttachUntil string `json:"attach_until"`
	ValidUntil  string `json:"valid_until"`
}

// viewKeys is the one key, or a list of all.
func viewKeys(address string, keys []keyring.Issued, all bool) any {
	views := make([]keyView, len(keys))
	for i, k := range keys {
		views[i] = keyView{k.Key.Reveal(), k.Secret, stamp(k.Until), stamp(k.End)}
	}
	if !all {
		return struct {
			Address string `json:"address"`
			keyView
		}{address, views[0]}
	}
	return struct {
		Address string    `json:"address"`
		Keys    []keyView `json:"keys"`
	}{address, views}
}
