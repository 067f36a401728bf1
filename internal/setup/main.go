// Command setup installs the real programs that `make test` runs against: Postfix,
// unpacked Sendmail files, Dovecot, OpenDKIM, dnsmasq, unbound, libraries that read
// From fields, and a C compiler for the race detector. It says what it installs, starts
// no service, and leaves a mail system of the machine alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

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
	if err := together(ctx, say); err != nil {
		say("%v; going on one by one", err)
	}
	_, sendmail := testmta.EnsureSendmail(ctx, say)
	return errors.Join(
		testmta.EnsurePostfix(ctx, say),
		sendmail,
		testmta.EnsureReaders(ctx, say),
		testmta.EnsureSieve(ctx, say),
		testmta.EnsureOpenDKIM(ctx, say),
		testdns.EnsureDnsmasq(ctx, say),
		testdns.EnsureUnbound(ctx, say),
		ensureCompiler(ctx, say),
	)
}

// together installs with one call of apt-get most of what is ensured one by one
// afterwards: reading the lists and the database takes longer than many a package. It
// leaves alone where one by one there is something to decide: where systemd runs, a
// Postfix was configured, or installing takes more than root.
func together(ctx context.Context, say testdaemon.Logf) error {
	for _, path := range []string{"/run/systemd/system", "/etc/postfix/main.cf"} {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	if os.Geteuid() != 0 {
		return nil
	}
	var in testdaemon.Installation
	for _, p := range []struct{ program, packages string }{
		{"postfix", "postfix"}, {"dovecot", "dovecot-core"}, {"opendkim", "opendkim"}, {"dnsmasq", "dnsmasq-base"},
		{"unbound", "unbound"}, {"gcc", "gcc libc6-dev"},
	} {
		if _, err := testdaemon.Command(p.program); err != nil {
			in.Packages = append(in.Packages, strings.Fields(p.packages)...)
			if p.program == "postfix" {
				in.Debconf = testmta.PostfixDebconf
			}
		}
	}
	if len(in.Packages) == 0 {
		return nil
	}
	return testdaemon.Install(ctx, say, in)
}

func ensureCompiler(ctx context.Context, say testdaemon.Logf) error {
	if _, err := exec.LookPath("gcc"); err == nil {
		return nil
	}
	return testdaemon.Install(ctx, say, testdaemon.Installation{Packages: []string{"gcc", "libc6-dev"}})
}
