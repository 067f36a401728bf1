package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

// newCheck makes check, which reads secrets, address lists and the certificate too, and
// judges whether the service may read them.
func newCheck() *cobra.Command {
	var as *string
	cmd := program.NewCheck(func(cmd *cobra.Command) (settings config.Settings, warnings []string, err error) {
		loaded, err := loadConfig(cmd, true)
		if err != nil {
			return settings, nil, err
		}
		service, err := findServiceUser(cmd.Context(), *as)
		if err != nil {
			return settings, nil, err
		}
		faults, warnings := checkFiles(loaded, service.Reader == nil)
		if faults = append(faults, service.readingFaults(loaded)...); len(faults) > 0 {
			return settings, nil, program.Refuse(cmd, faults)
		}
		if warning := service.keyWarning(loaded); warning != "" {
			warnings = append(warnings, warning)
		}
		return loaded.Settings, warnings, nil
	})
	cmd.Long = "Read and validate the configuration, and the secrets, address lists and certificate\n" +
		"that it names, touching no network. Root may read every file; so of what root\n" +
		"checks it is judged too whether the service's user may read it, by owners, groups\n" +
		"and modes. That is --user, else User= of authkey-server.service, else authkey-server\n" +
		"where there is such a user. Secrets that systemd passes to the service\n" +
		"(LoadCredential=) are root's.\n\n" +
		"Exit code 0: all is well; 78: each fault is a line on standard error."
	as = addUser(cmd)
	return cmd
}

// checkFiles finds what is wrong with the files that a configuration names, and what may
// be wrong though they can be used. judgeKey: see certificate.warnings.
func checkFiles(loaded *config.LoadedServer, judgeKey bool) (faults config.Faults, warnings []string) {
	domains, faults := openDomains(loaded, readLists)
	for _, d := range domains {
		if d.Unexplained() {
			warnings = append(warnings, fmt.Sprintf("the address list of %s has no address; if that is meant, give it the line \"# empty\"", d.Name()))
		}
	}
	if loaded.Config.TLS.Cert == "" {
		return faults, warnings
	}
	cert, err := loadCertificate(loaded.Config.TLS)
	if err != nil {
		return append(faults, loaded.FaultOf("tls.cert", err)), warnings
	}
	host, err := hostName("", loaded.Config)
	if err != nil { // it is not known
		host = ""
	}
	for _, warning := range cert.warnings(host, judgeKey) {
		warnings = append(warnings, "tls.cert: "+warning)
	}
	return faults, warnings
}
