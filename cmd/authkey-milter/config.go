package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/verifier"
)

func newConfig() *cobra.Command {
	return program.NewConfig(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		return loaded.Settings, nil
	}, config.Describe)
}

// loadConfig reads milter.yaml; see program.LoadConfig.
func loadConfig(cmd *cobra.Command, mustExist bool) (*config.Loaded, error) {
	return program.LoadConfig(self(), cmd, mustExist, config.Load)
}

// loadVerifier reads milter.yaml, which may be missing, for a command that verifies and
// needs nothing else of it.
func loadVerifier(cmd *cobra.Command) (*config.Loaded, verifier.Options, error) {
	loaded, err := loadConfig(cmd, false)
	if err != nil {
		return nil, verifier.Options{}, err
	}
	opts, err := verifierOptions(loaded.Config)
	if err != nil {
		err = program.Refuse(cmd, loaded.FaultOf("verify.ca_file", err))
	}
	return loaded, opts, err
}
