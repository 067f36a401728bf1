// Command storm lets real mail flow through a real MTA, the milter and two
// Authentication Servers, kills and disturbs all of them, and then compares, message by
// message, what the clients heard with what was delivered. `make storm`; a short one is
// a test of this package.
//
// The disturbances and the messages follow from a seed. Which message is under way when a
// disturbance happens does not: that depends on the machine. docs/robustness.md says what is
// tried, what has to hold, and the results.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/authkey/authkey/internal/testmta"
)

// The tasks of one round of a long run: some forty kills, and everything else less often.
var round = []task{
	{"milter killed", 16, killMilter},
	{"milter killed while it notifies", 5, killAtNotices},
	{"milter ended", 2, terminate},
	{"good SIGHUP", 2, good},
	{"bad SIGHUP", 2, bad},
	{"cut-off SIGHUP", 2, cutOff},
	{"milter started with its state locked", 1, locked},
	{"milter started with half a secret", 1, halfOwnSecret},
	{"milter started with half its preferences", 1, halfPreferences},
	{"server killed", 5, killServer},
	{"server ended", 1, terminateServer},
	{"server hangs", 2, stopServer},
	{"server started with half a secret", 1, halfSecret},
	{"server started without its list", 1, withoutList},
	{"server started with an empty list", 1, emptyList},
	{"DNS fails", 4, failDNS},
	{"MTA killed", 4, killMTA},
	{"list tool killed", 2, killedTool},
	{"ledger on a full disk", 1, fullLedger},
	{"lists on a full disk", 1, fullLists},
	{"preferences emptied", 1, emptied},
	{"revocation among edits", 1, revocation},
	{"preference among edits", 1, preference},
	{"revocation among edits in place", 1, byHand(revocation)},
	{"preference among edits in place", 1, byHand(preference)},
}

const (
	// stormKills are those of `make storm`.
	stormKills = 1000
	// repeatsPerKill is how many notices of a message a kill of the milter may repeat:
	// the one that was being handed over.
	repeatsPerKill = 1
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program; it returns the exit code: 0 nothing went wrong, 1 something did,
// or there could be no storm, 2 usage.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	p := plan{round: round, say: func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }}
	flags := flag.NewFlagSet("storm", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&p.milter, "milter", "bin/authkey-milter", "the authkey-milter to try")
	flags.StringVar(&p.server, "server", "bin/authkey-server", "the authkey-server to try")
	flags.IntVar(&p.kills, "kills", stormKills, "kills, at least")
	flags.IntVar(&p.repeats, "repeats", repeatsPerKill, "notices of one message that a kill of the milter may repeat")
	flags.Uint64Var(&p.seed, "seed", 0, "what the storm is made of; 0: chosen")
	flags.StringVar(&p.record, "record", "", "write what was observed to this file, as JSON")
	flags.BoolVar(&p.keep, "keep", false, "print what the milter logged")
	only := flags.String("only", "", "only these disturbances, commas between them")
	mta := flags.String("mta", "postfix", "postfix or sendmail")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || *mta != "postfix" && *mta != "sendmail" {
		flags.Usage()
		return 2
	}
	if *only != "" {
		if p.round = choose(strings.Split(*only, ",")); len(p.round) == 0 {
			fmt.Fprintf(errOut, "storm: no disturbance %q; there are:\n", *only)
			for _, c := range round {
				fmt.Fprintf(errOut, "  %s\n", c.name)
			}
			return 2
		}
	}
	if err := p.prepare(ctx, *mta); err != nil {
		fmt.Fprintf(errOut, "storm: %v\n", err)
		return 1
	}
	p.say("%s, seed %d", *mta, p.seed)
	r, err := p.run(ctx)
	if err != nil {
		fmt.Fprintf(errOut, "storm: %v (seed %d)\n", err, p.seed)
		return 1
	}
	r.print(p.say)
	if len(r.Faults) > 0 {
		fmt.Fprintf(errOut, "storm: %d fault(s), with seed %d\n", len(r.Faults), p.seed)
		return 1
	}
	return 0
}

// choose returns the tasks with these names.
func choose(names []string) (chosen []task) {
	for _, c := range round {
		if slices.Contains(names, c.name) {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// prepare installs the MTA where it is missing, chooses a seed where none is given, and
// makes paths absolute.
func (p *plan) prepare(ctx context.Context, mta string) (err error) {
	logf := func(format string, args ...any) { p.say(format, args...) }
	if mta == "sendmail" {
		p.sendmail, err = testmta.EnsureSendmail(ctx, logf)
	} else {
		err = testmta.EnsurePostfix(ctx, logf)
	}
	if err != nil {
		return err
	}
	for p.seed == 0 {
		p.seed = rand.Uint64N(1_000_000)
	}
	for _, program := range []*string{&p.milter, &p.server} {
		if *program, err = filepath.Abs(*program); err != nil {
			return err
		}
		if _, err := os.Stat(*program); err != nil {
			return fmt.Errorf("what is to be tried: %w", err)
		}
	}
	return nil
}

// print prints what a storm came to.
func (r result) print(say func(format string, args ...any)) {
	say("\n%d kills in %.0f s:", r.killed(), r.Took.Seconds())
	for _, what := range slices.Sorted(maps.Keys(r.Kills)) {
		say("  %5d  %s", r.Kills[what], what)
	}
	say("disturbances:")
	for _, what := range slices.Sorted(maps.Keys(r.Counts)) {
		say("  %5d  %s", r.Counts[what], what)
	}
	say("%d messages in %d attempts: %d deferred, %d with the reply lost", r.Letters, r.Attempts, r.Deferred, r.Lost)
	say("  heard last: %d accepted, %d refused", r.Accepted, r.Refused)
	say("  ended as the policy says %d, let through unverified %d", r.Verified, r.Unverified)
	say("  %d copies delivered, %d held; %d of them more than one, after a lost reply", r.Delivered, r.Held, r.Repeated)
	say("  %d DSNs and %d notices, %d of them sent again", r.DSNs, r.Notices, r.RepeatedNotices)
	say("  %d without a log line, %d of them refused, discarded or with notices", r.MissingLines, r.MissingSure)
	say("by kind, and verified:")
	for _, what := range slices.Sorted(maps.Keys(r.ByKind)) {
		say("  %5d %5d  %s", r.ByKind[what], r.VerifiedByKind[what], what)
	}
	r.printFaults(say)
	if len(r.Faults) == 0 {
		say("no fault: nothing answered 250 is missing, nothing answered 550 was delivered, no key is anywhere, no wrong one passed and no right one failed")
	}
}

// examples is how many faults of a sort are shown in full.
const examples = 3

// printFaults prints how many faults of each sort there were, and some of them.
func (r result) printFaults(say func(format string, args ...any)) {
	sorts := make(map[string][]fault)
	for _, f := range r.Faults {
		sorts[f.sort()] = append(sorts[f.sort()], f)
	}
	for _, what := range slices.Sorted(maps.Keys(sorts)) {
		say("FAULT, %d times: %s", len(sorts[what]), what)
		for _, f := range sorts[what][:min(examples, len(sorts[what]))] {
			say("%s", f)
		}
	}
}
