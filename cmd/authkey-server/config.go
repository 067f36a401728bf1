package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

// newCheck makes check, which reads secrets, address lists and the certificate too.
func newCheck() *cobra.Command {
	return program.NewCheck(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return config.Settings{}, err
		}
		if faults := checkFiles(loaded); len(faults) > 0 {
			return config.Settings{}, program.Refuse(cmd, faults)
		}
		return loaded.Settings, nil
	})
}

// checkFiles finds what is wrong with the files that a configuration names.
func checkFiles(loaded *config.LoadedServer) config.Faults {
	_, faults := openDomains(loaded, readLists)
	if loaded.Config.TLS.Cert != "" {
		if _, err := loadCertificate(loaded.Config.TLS); err != nil {
			faults = append(faults, loaded.Fault("tls.cert", err.Error(), ""))
		}
	}
	return faults
}

func newConfig() *cobra.Command {
	return program.NewConfig(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		return loaded.Settings, nil
	}, config.DescribeServer)
}
