package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tested are the programs under test, built with the race detector.
var tested programs

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	// Programs with the race detector wait a second before they end, unless told not to.
	if err := os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "authkey-build-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.CommandContext(ctx, "go", "build", "-race", "-o", dir, "github.com/authkey/authkey/cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	tested.milter, tested.server = filepath.Join(dir, "authkey-milter"), filepath.Join(dir, "authkey-server")
	return m.Run()
}

// The tasks of the short runs. One that takes long is in one of them only.
var shortRounds = map[string][]task{
	"postfix": {
		{"milter killed", 4, killMilter},
		{"milter killed while it notifies", 2, killAtNotices},
		{"milter ended", 1, terminate},
		{"good SIGHUP", 1, good},
		{"bad SIGHUP", 1, bad},
		{"cut-off SIGHUP", 2, cutOff},
		{"milter started with its state locked", 1, locked},
		{"milter started with half a secret", 1, halfOwnSecret},
		{"milter started with half its preferences", 1, halfPreferences},
		{"server killed", 1, killServer},
		{"server hangs", 1, stopServer},
		{"server started with half a secret", 1, halfSecret},
		{"server started without its list", 1, withoutList},
		{"server started with an empty list", 1, emptyList},
		{"DNS fails", 2, failDNS},
		{"MTA killed", 1, killMTA},
		{"list tool killed", 1, killedTool},
		{"ledger on a full disk", 1, fullLedger},
		{"lists on a full disk", 1, fullLists},
		{"preferences emptied", 1, emptied},
		{"revocation among edits", 1, revocation},
		{"preference among edits", 1, preference},
		{"revocation among edits in place", 1, byHand(revocation)},
		{"preference among edits in place", 1, byHand(preference)},
	},
	"sendmail": {
		{"milter killed", 2, killMilter},
		{"milter killed while it notifies", 1, killAtNotices},
		{"cut-off SIGHUP", 1, cutOff},
		{"server ended", 1, terminateServer},
		{"DNS fails", 1, failDNS},
		{"MTA killed", 1, killMTA},
	},
}

// TestStorm is a short storm on each MTA: every disturbance once or twice.
func TestStorm(t *testing.T) {
	for mta, round := range shortRounds {
		t.Run(mta, func(t *testing.T) {
			p := plan{programs: tested, seed: 1, repeats: repeatsPerKill, round: round, say: t.Logf}
			if err := p.prepare(t.Context(), mta); err != nil {
				t.Fatal(err)
			}
			r, err := p.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r.print(t.Logf)
			if len(r.Faults) > 0 {
				t.Errorf("%d faults", len(r.Faults))
			}
			if r.killed() == 0 || r.Deferred == 0 || r.Unverified == 0 {
				t.Errorf("there was no storm: %d kills, %d deferred, %d unverified", r.killed(), r.Deferred, r.Unverified)
			}
			for _, k := range kinds {
				if r.VerifiedByKind[k.name] == 0 {
					t.Errorf("no letter of this kind was verified: %s", k.name)
				}
			}
		})
	}
}

// TestUsage is about the command line.
func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-h"}, 0, "-seed"},
		{[]string{"-mta", "exim"}, 2, "-mta"},
		{[]string{"more"}, 2, "-kills"},
		{[]string{"-only", "an eclipse"}, 2, "an eclipse"},
		{[]string{"-milter", "/nowhere"}, 1, "/nowhere"},
	} {
		var out, errOut strings.Builder
		if code := run(t.Context(), tt.args, &out, &errOut); code != tt.code || !strings.Contains(errOut.String(), tt.says) {
			t.Errorf("%v: %d, want %d\n%s", tt.args, code, tt.code, errOut.String())
		}
	}
}
