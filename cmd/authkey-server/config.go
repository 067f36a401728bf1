package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

// newCheck makes check, which reads secrets, address lists and the certificate too, and
// judges whether the service may read them.
func newCheck() *cobra.Command {
	var as *string
	cmd := program.NewCheck(func(cmd *cobra.Command) (config.Settings, error) {
		loaded, err := loadConfig(cmd, false)
		if err != nil {
			return config.Settings{}, err
		}
		service, err := findServiceUser(cmd.Context(), *as)
		if err != nil {
			return config.Settings{}, err
		}
		if faults := append(checkFiles(loaded), service.readingFaults(loaded)...); len(faults) > 0 {
			return config.Settings{}, program.Refuse(cmd, faults)
		}
		return loaded.Settings, nil
	})
	cmd.Long = "Read and validate the configuration, and the secrets, address lists and certificate\n" +
		"that it names, touching no network. Root may read every file; so of what root\n" +
		"checks it is judged too whether the service's user may read it, by owners, groups\n" +
		"and modes. Secrets that systemd passes to the service (LoadCredential=) are root's.\n\n" +
		"Exit code 0: all is well; 78: each fault is a line on standard error."
	as = addUser(cmd)
	return cmd
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
