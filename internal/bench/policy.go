package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What a large site configures, and what it may cost.
const (
	manyRules       = 10_000
	manyPreferences = 100_000
	policyPairs     = 7
	policyCost      = 1.1 // CPU a message, times that without
)

// runPolicy measures many rules and preferences against none, in pairs.
func runPolicy(ctx context.Context, b *bench) error {
	return b.withMilter(ctx, func(w *world, d *domain, plain *contender) error {
		preferences := filepath.Join(w.Dir, "preferences.yaml")
		var list, rules strings.Builder
		for i := range manyPreferences {
			fmt.Fprintf(&list, "- {recipient: \"user%d@rcpt.test\", fail: reject}\n", i)
		}
		for i := range manyRules {
			fmt.Fprintf(&rules, "    - {recipient: \"someone%d@rcpt.test\", fail: quarantine}\n", i)
		}
		if err := os.WriteFile(preferences, []byte(list.String()), 0o644); err != nil {
			return err
		}
		rich, err := w.startMilter(ctx, b.binary, milterName+"-rich", "unix",
			"policy:\n  rules:\n"+rules.String()+"preferences: {source: \"file:"+preferences+"\"}\n")
		if err != nil {
			return err
		}
		l := load{connections: usualConnections, next: same(d.message(), 0)}
		figures := []*figure{{contender: plain, load: l, check: changed}, {contender: rich, load: l, check: changed}}
		pairs := *b
		pairs.runs = max(b.runs, policyPairs)
		if err := pairs.interleave(ctx, figures); err != nil {
			return err
		}
		t := newTable("", "messages/s", "CPU µs/message")
		for i, name := range []string{"no rules, no preferences", fmt.Sprintf("%d rules, %d preferences", manyRules, manyPreferences)} {
			m := medians(figures[i].samples)
			t.add(name, fmt.Sprintf("%.0f", m.rate), fmt.Sprintf("%.1f", m.cpu))
		}
		t.write(b.out)
		fmt.Fprintln(b.out)
		var ratios []float64
		for i, s := range figures[1].samples {
			ratios = append(ratios, s.cpu/figures[0].samples[i].cpu)
		}
		b.atMost("CPU a message with them, times that without, median of pairs", median(ratios), policyCost, "")
		fmt.Fprintf(b.out, "  (pair by pair %.2f to %.2f)\n", slices.Min(ratios), slices.Max(ratios))
		return nil
	})
}
