package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

func newConfig() *cobra.Command {
	return program.NewConfig(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		return loaded.Settings, nil
	}, config.DescribeServer)
}

// loadConfig reads server.yaml; see program.LoadConfig.
func loadConfig(cmd *cobra.Command, mustExist bool) (*config.LoadedServer, error) {
	return program.LoadConfig(self(), cmd, mustExist, func(path string, environ []string) (*config.LoadedServer, error) {
		loaded, err := config.LoadServer(path, environ)
		var faults config.Faults
		if errors.As(err, &faults) && path != "" {
			if _, missing := os.Stat(path); errors.Is(missing, fs.ErrNotExist) {
				faults[0].Want = "one that `" + self().Name + " init DOMAIN` makes"
			}
		}
		return loaded, err
	})
}
