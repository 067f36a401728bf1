// Command authkey-milter verifies AuthKeys for Postfix and Sendmail: it is the
// recipient's side of Address Authentication.
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
		Name:          "authkey-milter",
		Short:         "Verify AuthKeys for Postfix and Sendmail",
		Version:       version,
		DefaultConfig: "/etc/authkey/milter.yaml", // where the packages put it
	}
}

func commands() []*cobra.Command {
	return []*cobra.Command{newServe(), newCheck(), newConfig(), newLookup(), newVerify(), newExplain(), newSetup(), newDoctor(), newReport(), newSelftest()}
}
