package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A table is printed as Markdown, with columns of equal width.
type table struct{ rows [][]string }

func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range t.rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 { // figures to the right
				cell, pad = pad+cell, ""
			}
			fmt.Fprintf(w, "| %s%s ", cell, pad)
		}
		fmt.Fprintln(w, "|")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			line := strings.Repeat("-", width+1)
			if i > 0 {
				line += ":"
			} else {
				line += "-"
			}
			fmt.Fprintf(w, "|%s", line)
		}
		fmt.Fprintln(w, "|")
	}
}

// atLeast and atMost print a target, with what was measured, and count it where it
// is missed.
func (b *bench) atLeast(what string, got, want float64, unit string) {
	b.target(what, "at least", got, want, unit, got >= want)
}

func (b *bench) atMost(what string, got, want float64, unit string) {
	b.target(what, "at most", got, want, unit, got <= want)
}

func (b *bench) target(what, bound string, got, want float64, unit string, met bool) {
	verdict := "met"
	if !met {
		verdict = "MISSED"
		b.missed++
	}
	fmt.Fprintf(b.out, "- %s: %.4g%s (%s %.4g%s): %s\n", what, got, unit, bound, want, unit, verdict)
}

// median of a list that is not empty; of an even number, the lower of the two in
// the middle.
func median[T cmp.Ordered](list []T) T { return quantile(list, 0.5) }

// quantile returns the smallest value that at least that share of the list does
// not exceed.
func quantile[T cmp.Ordered](list []T, share float64) T {
	sorted := slices.Sorted(slices.Values(list))
	i := int(share*float64(len(sorted))+0.9999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// describeMachine says on what the figures were measured.
func describeMachine() (string, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	model := "unknown processor"
	lines := bufio.NewScanner(bytes.NewReader(info))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%s, %d processors, Linux %s, %s", model, runtime.NumCPU(), release, runtime.Version()), nil
}
