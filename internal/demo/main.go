// Command demo is `make demo`: it sets up a small private world of mail in a
// temporary folder — DNS, Authentication Servers, the milter as a postmaster runs
// it, a real Postfix — sends real messages through it and prints what became of
// each, read from the bytes that were delivered. It exits with 1 if any of it is
// not as it should be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/e2e"
	"github.com/authkey/authkey/internal/testmta"
)

// patience bounds the whole demo once everything is installed.
const patience = time.Minute

func main() {
	milter := flag.String("milter", "bin/authkey-milter", "the built authkey-milter")
	builtin := flag.Bool("builtin", false, "use the built-in SMTP front even if there is a Postfix")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *milter, *builtin)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, builtin bool) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	if !builtin {
		switch err := testmta.EnsurePostfix(ctx, say); {
		case errors.Is(err, testmta.ErrNotRoot), errors.Is(err, testmta.ErrNoPostfix):
			say("%v: the demo uses its built-in SMTP front, which speaks to the milter as Postfix would.", err)
			builtin = true
		case err != nil:
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	world, err := e2e.NewWorld()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	scene, err := newScene(ctx, world, binary)
	if err != nil {
		return err
	}
	var front front
	if builtin {
		front, err = startBuiltin(scene.milter.Socket)
	} else {
		front, err = startPostfix(ctx, scene.milter.Socket)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, front.stop()) }()

	say("DNS at %s, Authentication Server at 127.0.0.1:%d, milter at %s,", world.DNS.Addr(), scene.asPort, scene.milter.Socket)
	say("%s at %s, everything in %s.", front.name(), front.addr(), world.Dir)
	if builtin {
		say("It leaves out SMTP, queues and mailboxes: what is delivered or held lies nowhere, and its bytes are those\nthat the milter's changes make.")
	}
	say("")
	rows, err := scene.play(ctx, front)
	if err != nil {
		return err
	}
	return report(os.Stdout, rows, scene)
}
