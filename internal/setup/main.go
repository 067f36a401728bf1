// Command setup installs the real programs that `make test` runs against: Postfix,
// unpacked Sendmail files, Dovecot without mailboxes, OpenDKIM, dnsmasq, unbound, and
// a C compiler for the race detector. It says what it installs, starts no service,
// and leaves a mail system of the machine alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/testmta"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	_, sendmail := testmta.EnsureSendmail(ctx, say)
	return errors.Join(
		testmta.EnsurePostfix(ctx, say),
		sendmail,
		testmta.EnsureDovecot(ctx, say),
		testmta.EnsureSieve(ctx, say),
		testmta.EnsureOpenDKIM(ctx, say),
		testdns.EnsureDnsmasq(ctx, say),
		testdns.EnsureUnbound(ctx, say),
		ensureCompiler(ctx, say),
	)
}

func ensureCompiler(ctx context.Context, say testdaemon.Logf) error {
	if _, err := exec.LookPath("gcc"); err == nil {
		return nil
	}
	return testdaemon.Install(ctx, say, testdaemon.Installation{Packages: []string{"gcc", "libc6-dev"}})
}
