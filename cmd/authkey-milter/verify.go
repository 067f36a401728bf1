package main

import (
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
			"be seen in the process list. No input asks what a message without a key gets.",
		Args: cobra.ExactArgs(1),
	}
	keyFile := cmd.Flags().String("key-file", "", "read the key from `file` instead of standard input")
	asJSON := program.AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return err
		}
		key, err := program.ReadKey(cmd.InOrStdin(), *keyFile)
		if err != nil {
			return err
		}
		opts, err := verifierOptions(loaded.Config)
		if err != nil {
			return program.Exit(program.Config, err)
		}
		address, err := wire.ParseAddress(args[0])
		res := verifier.Unaddressable(err)
		if err == nil {
			v := verifier.New(opts)
			defer v.Close()
			res = v.Verify(cmd.Context(), verifier.Query{Address: address, Key: key})
		}
		if err := program.WriteResult(cmd.OutOrStdout(), address, res, *asJSON); err != nil {
			return err
		}
		return program.ExitResult(res.Status)
	}
	return cmd
}
