package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A scenario is one thing to measure.
type scenario struct {
	name  string
	about string
	run   func(context.Context, *bench) error
}

// scenarios are in the order in which they run. The last takes minutes and runs
// only where it is named.
var scenarios = []scenario{
	{"load", "cached messages against OpenDKIM, libmilter and a bare reader", runLoad},
	{"uncached", "every message from another address, the AS asked each time", runUncached},
	{"policy", "ten thousand rules and a hundred thousand preferences, against none", runPolicy},
	{"from", "reading From fields: everyday ones against net/mail, hostile ones by their length", runFrom},
	{"postfix", "through a real Postfix, over a unix socket and over TCP", runPostfix},
	{"stuck", "a fast domain beside messages that wait for dead servers", runStuck},
	{"idle", "memory of idle MTA connections", runIdle},
	{"memory", "memory with a full cache of addresses", runMemory},
	{"flood", "the cache under a flood of valid keys from one domain", runFlood},
	{"server", "the Authentication Server's answers against a bare echo", runServer},
	{"addresses", "the Authentication Server with a million addresses", runAddresses},
	{"connections", "memory of the Authentication Server's idle connections", runConnections},
	{"timing", "whether times of answers tell which addresses exist", runTiming},
	{"set", "a set of Authentication Servers, one killed and one slow", runSet},
	{soakName, "a million messages, half of them with a fault", runSoak},
}

const soakName = "soak"

// helpers are what this program is when it is run as a process of its own, to
// measure others against; the word is followed by the socket.
var helpers = map[string]func(ctx context.Context, socket string) error{
	readerName: serveReader,
	echoName:   serveEcho,
}

const (
	readerName = "reader"
	echoName   = "echo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program; it returns the exit code: 0 every target met, 1 one missed
// or not measured, 2 usage.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	if len(args) == 2 && helpers[args[0]] != nil {
		if err := helpers[args[0]](ctx, args[1]); err != nil {
			fmt.Fprintf(errOut, "bench: %v\n", err)
			return 1
		}
		return 0
	}
	b, chosen, err := parseArgs(args, out, errOut)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	if err := b.measure(ctx, chosen); err != nil {
		fmt.Fprintf(errOut, "bench: %v\n", err)
		return 1
	}
	if b.missed > 0 {
		fmt.Fprintf(errOut, "bench: %d target(s) missed\n", b.missed)
		return 1
	}
	return 0
}

func parseArgs(args []string, out, errOut io.Writer) (*bench, []scenario, error) {
	b := &bench{out: out, err: errOut}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&b.binary, "milter", "bin/authkey-milter", "the authkey-milter to measure")
	flags.StringVar(&b.server, "server", "bin/authkey-server", "the authkey-server to measure")
	flags.IntVar(&b.runs, "runs", 5, "interleaved runs of which the median counts")
	flags.DurationVar(&b.duration, "duration", 5*time.Second, "of each run")
	flags.BoolVar(&b.quick, "quick", false, "one short run of everything, for trying: the figures mean little")
	flags.Usage = func() {
		fmt.Fprintf(errOut, "usage: bench [flags] [scenario...]\n\nWithout a scenario all run, %s excepted.\n\n", soakName)
		for _, s := range scenarios {
			fmt.Fprintf(errOut, "  %-11s %s\n", s.name, s.about)
		}
		fmt.Fprintln(errOut)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return nil, nil, err
	}
	if b.quick {
		b.runs, b.duration = 1, time.Second
	}
	if b.runs < 1 || b.duration <= 0 {
		fmt.Fprintln(errOut, "bench: -runs and -duration must be above 0")
		return nil, nil, errors.New("usage")
	}
	if flags.NArg() == 0 {
		return b, slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return s.name == soakName }), nil
	}
	var chosen []scenario
	for _, name := range flags.Args() {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			fmt.Fprintf(errOut, "bench: no scenario %q\n", strings.TrimSpace(name))
			return nil, nil, errors.New("usage")
		}
		chosen = append(chosen, scenarios[i])
	}
	return b, chosen, nil
}

// A bench is what the scenarios share.
type bench struct {
	binary   string // authkey-milter
	server   string // authkey-server
	runs     int
	duration time.Duration
	quick    bool

	out, err io.Writer
	missed   int // targets
}

// of returns full, or a share of it in a quick bench.
func (b *bench) of(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

func (b *bench) measure(ctx context.Context, chosen []scenario) error {
	for _, program := range []string{b.binary, b.server} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("what is to be measured: %w", err)
		}
	}
	machine, err := describeMachine()
	if err != nil {
		return err
	}
	fmt.Fprintln(b.out, machine)
	for _, s := range chosen {
		fmt.Fprintf(b.out, "\n## %s: %s\n\n", s.name, s.about)
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// logf tells what is about to be done to the machine.
func (b *bench) logf(format string, args ...any) { fmt.Fprintf(b.err, format+"\n", args...) }
