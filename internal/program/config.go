package program

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
)

// LoadConfig reads the configuration that --config names with load, which is
// config.Load or its like. Where the default file is missing and may be, defaults
// and environment are the configuration.
func LoadConfig[T any](p Program, cmd *cobra.Command, mustExist bool, load func(path string, environ []string) (T, error)) (T, error) {
	path, err := cmd.Flags().GetString("config")
	if err == nil && path == "" {
		path = p.DefaultConfig
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !mustExist {
			path = ""
		}
	}
	if err != nil {
		var none T
		return none, err
	}
	loaded, err := load(path, os.Environ())
	if err != nil {
		return loaded, Refuse(cmd, err)
	}
	return loaded, nil
}

// Refuse prints the faults of a configuration, each on a line of its own, and
// returns the error that ends the program with Config.
func Refuse(cmd *cobra.Command, faults error) error {
	fmt.Fprintln(cmd.ErrOrStderr(), faults)
	return Exit(Config, nil)
}

// NewCheck makes the command check. read reads and validates the configuration and
// what it names, and warns of what may be wrong though it can be used.
func NewCheck(read func(cmd *cobra.Command) (settings config.Settings, warnings []string, err error)) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Read and validate the configuration, touching no network",
		Long: "Read and validate the configuration and the files that it names, touching no network,\n" +
			"and say which file was read and how many keys it sets. What is set and has no effect\n" +
			"is named.\n\n" +
			"Exit code 0: the configuration is right; 78: it is refused, or there is none.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, warnings, err := read(cmd)
			if err != nil {
				return err
			}
			warnings = append(warnings, settings.Warnings()...)
			for _, fault := range settings.Idle() {
				warnings = append(warnings, fault.Error())
			}
			for _, warning := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			for _, key := range settings.NotImplemented() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: no effect yet\n", key)
			}
			if settings.File() == "" {
				return nil
			}
			file, environment := settings.Set()
			text := fmt.Sprintf("%s is right: %s", settings.File(), count(file, "key set"))
			if environment > 0 {
				text += fmt.Sprintf(", %d more by the environment", environment)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
}

// count is a number of things: "1 key set", "3 keys set".
func count(n int, what string) string {
	if n != 1 {
		first, rest, _ := strings.Cut(what, " ")
		what = strings.TrimSpace(first + "s " + rest)
	}
	return fmt.Sprintf("%d %s", n, what)
}

// NewConfig makes the command config. read reads the configuration; docs are its
// keys.
func NewConfig(read func(cmd *cobra.Command) (config.Settings, error), docs func() []config.KeyDoc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print every effective value and where it came from",
		Args:  cobra.NoArgs,
	}
	describe := cmd.Flags().Bool("describe", false, "print every key with its type, default and meaning instead")
	asJSON := AddJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *describe {
			return config.WriteDescribe(cmd.OutOrStdout(), docs(), *asJSON)
		}
		settings, err := read(cmd)
		if err != nil {
			return err
		}
		return config.WriteEffective(cmd.OutOrStdout(), settings, *asJSON)
	}
	return cmd
}
