package program

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/manual"
)

// newManual makes the hidden command with which the packages' build asks for the
// part of the manual page that the program knows best.
func newManual() *cobra.Command {
	return &cobra.Command{
		Use:    "manual",
		Short:  "Print the commands for the manual page",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return manual.WriteCommands(cmd.OutOrStdout(), cmd.Root())
		},
	}
}
