package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify ADDRESS",
		Short: "Ask the Authentication Server of an address about a key",
		Long: "Ask the Authentication Server of ADDRESS whether a key is the address's, as the\n" +
			"milter would. The key comes from standard input or --key-file: an argument could\n" +
			"be seen in the process list. At a terminal it is asked for, and not shown.\n\n" +
			"Exit code 0: the result is pass; 75: temperror; 1: any other.",
		Args: cobra.ExactArgs(1),
	}
	keyFile := cmd.Flags().String("key-file", "", "read the key from `file` instead of standard input")
	noKey := cmd.Flags().Bool("no-key", false, "read no key: say what a message without one gets")
	asJSON := program.AddJSON(cmd)
	cmd.MarkFlagsMutuallyExclusive("key-file", "no-key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, opts, err := loadVerifier(cmd)
		if err != nil {
			return err
		}
		var key wire.Key
		if !*noKey {
			if key, err = program.AskKey(cmd, *keyFile, args[0]); errors.Is(err, program.ErrNoKey) {
				err = program.Exit(program.Usage, fmt.Errorf("%w, or ask with --no-key what a message without one gets", program.ErrNoKey))
			}
			if err != nil {
				return err
			}
		}
		return program.Answer(cmd, args[0], *asJSON, func(address wire.Address) verifier.Result {
			v := verifier.New(opts)
			defer v.Close()
			return v.Verify(cmd.Context(), verifier.Query{Address: address, Key: key})
		})
	}
	return cmd
}
