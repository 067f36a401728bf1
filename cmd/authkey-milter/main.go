// Command authkey-milter verifies AuthKeys for Postfix and Sendmail: it is the
// recipient's side of Address Authentication.
package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "devel"

func main() { this().Main(commands()...) }

// this is the program.
func this() program.Program {
	return program.Program{
		Name:          "authkey-milter",
		Short:         "Verify AuthKeys for Postfix and Sendmail",
		Version:       version,
		DefaultConfig: "/etc/authkey/milter.yaml", // where the packages put it
	}
}

func commands() []*cobra.Command {
	return []*cobra.Command{newServe(), newCheck(), newConfig(), newLookup(), newVerify(), newExplain(), newSetup(), newDoctor(), newReport(), newSelftest()}
}

// loadConfig reads milter.yaml; see program.LoadConfig.
func loadConfig(cmd *cobra.Command, mustExist bool) (*config.Loaded, error) {
	return program.LoadConfig(this(), cmd, mustExist, config.Load)
}
