// Command authkey-server is an Authentication Server: the sender's side of Address
// Authentication. It answers VERIFY for the domains of server.yaml. Its other commands
// help to publish records, to keep the lists of addresses, and to look at keys.
package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/program"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "devel"

func main() { self().Main(commands()...) }

func self() program.Program {
	return program.Program{
		Name:          "authkey-server",
		Short:         "Authentication Server: verify the AuthKeys of your domains",
		Version:       version,
		DefaultConfig: "/etc/authkey/server.yaml", // where the packages put it
	}
}

func commands() []*cobra.Command {
	return []*cobra.Command{newInit(), newServe(), newCheck(), newConfig(), newDNS(), newKey(), newAddress(), newSecret(), newVerify(), newDoctor()}
}
