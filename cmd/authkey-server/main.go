// Command authkey-server is an Authentication Server: the sender's side of Address
// Authentication. It answers VERIFY for the domains of server.yaml, and helps
// whoever runs it to publish, to keep the lists of addresses and to look at keys.
package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "devel"

func main() { self().Main(commands()...) }

func self() program.Program {
	return program.Program{
		Name:          "authkey-server",
		Short:         "Authentication Server: vouch for the AuthKeys of your domains",
		Version:       version,
		DefaultConfig: "/etc/authkey/server.yaml", // where the packages put it
	}
}

func commands() []*cobra.Command {
	return []*cobra.Command{newInit(), newServe(), newCheck(), newConfig(), newDNS(), newKey(), newAddress(), newSecret(), newVerify(), newDoctor()}
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
