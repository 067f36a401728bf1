// Command authkey-milter verifies AuthKeys for Postfix and Sendmail: it is the
// recipient's side of Address Authentication.
package main

import (
	"github.com/spf13/cobra"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/verifier"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "devel"

func main() { self().Main(commands()...) }

func self() program.Program {
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
