package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

func newCheck() *cobra.Command {
	return program.NewCheck(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		if _, err := settings(loaded.Config); err != nil {
			return config.Settings{}, program.Exit(program.Config, err)
		}
		return loaded.Settings, nil
	})
}

func newConfig() *cobra.Command {
	return program.NewConfig(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		return loaded.Settings, nil
	}, config.Describe)
}
