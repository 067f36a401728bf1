// Command demo is `make demo`: it sets up a private mail system in a temporary folder,
// sends real messages through it and prints what was done with each, read from the bytes
// that were delivered and from the logs. It exits with 1 if anything is not as it should be.
//
// In its first part one domain receives mail: with DNS, an Authentication Server, the milter
// as a postmaster runs it, and a real Postfix. In its second part two domains, each with a
// server, a milter and a Postfix of its own, authenticate each other; a colleague and an
// attacker try to use addresses and keys that are not theirs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testmta"
)

// patience bounds the whole demo once everything is installed.
const patience = 5 * time.Minute

// programs are the paths of the built programs.
type programs struct{ milter, server string }

func main() {
	var p programs
	flag.StringVar(&p.milter, "milter", "bin/authkey-milter", "the built authkey-milter")
	flag.StringVar(&p.server, "server", "bin/authkey-server", "the built authkey-server")
	builtin := flag.Bool("builtin", false, "use the built-in SMTP front even if there is a Postfix")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, p, *builtin)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, p programs, builtin bool) (err error) {
	if p.milter, err = filepath.Abs(p.milter); err != nil {
		return err
	}
	if p.server, err = filepath.Abs(p.server); err != nil {
		return err
	}
	start := startBuiltin
	if !builtin {
		if start, err = choose(ctx, w); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return errors.Join(lab.InWorld(func(world *lab.World) error { return receive(ctx, w, world, p, start) }),
		lab.InWorld(func(world *lab.World) error { return correspond(ctx, w, world, p, start) }))
}

// choose takes Postfix where it can, and installs it where it is missing.
func choose(ctx context.Context, w io.Writer) (startMTA, error) {
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	err := testmta.ErrNotRoot
	if os.Geteuid() == 0 {
		err = testmta.EnsurePostfix(ctx, say)
	}
	switch {
	case errors.Is(err, testmta.ErrNotRoot), errors.Is(err, testmta.ErrNoPostfix):
		say("%v: the demo uses its built-in SMTP front, which speaks to the milter as Postfix would.", err)
		return startBuiltin, nil
	case err != nil:
		return nil, err
	}
	return startPostfix, nil
}

// receive is the first part: all that a milter may meet in mail from outside.
func receive(ctx context.Context, w io.Writer, world *lab.World, p programs, start startMTA) (err error) {
	scene, err := newScene(ctx, world, p.milter)
	if err != nil {
		return err
	}
	mx, err := start(ctx, "rcpt.test", scene.milter.Socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mx.stop()) }()

	fmt.Fprintf(w, "1. MAIL FROM OUTSIDE\n\nDNS at %s, Authentication Server at 127.0.0.1:%d, milter at %s,\n%s at %s, everything in %s.\nIts policy is stricter than the default: fail is rejected, nokey marked, permerror quarantined, temperror deferred.\n%s\n",
		world.DNS.Addr(), scene.asPort, scene.milter.Socket, mx.name(), mx.addr(), world.Dir, reservation(mx))
	rows, err := scene.sendAll(ctx, mx)
	if err != nil {
		return err
	}
	return report(w, rows, scene)
}

// reservation says what the built-in front is not.
func reservation(f mta) string {
	if _, ok := f.(*builtin); !ok {
		return ""
	}
	return "It leaves out SMTP, queues and mailboxes: what is delivered or held lies nowhere, and its bytes are those\n" +
		"that the milter's changes make.\n"
}

// correspond is the second part: two domains that write to each other.
func correspond(ctx context.Context, w io.Writer, world *lab.World, p programs, start startMTA) (err error) {
	exchange, err := openExchange(ctx, world, p, start)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, exchange.close()) }()

	fmt.Fprintf(w, "\n\n2. TWO DOMAINS\n\n")
	for _, o := range []*site{exchange.a, exchange.b} {
		fmt.Fprintf(w, "%s has its authkey-server (made by init) at 127.0.0.1:%d, its authkey-milter, which attaches and verifies,\nand %s at %s.\n",
			o.domain, o.port, o.mta.name(), o.mta.addr())
	}
	fmt.Fprintf(w, "%sBoth publish req=yes and refuse what fails. There are no passwords here: who is logged in, the demo tells\n"+
		"the MTA (Postfix by XCLIENT). A submission service asks for one: docs/sender.md.\n\n", reservation(exchange.a.mta))
	events, err := exchange.sendAll(ctx, w)
	if err != nil {
		return err
	}
	return exchange.tell(w, events)
}
