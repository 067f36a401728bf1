package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		list  []int
		share float64
		want  int
	}{
		{[]int{7}, 0.95, 7},
		{[]int{3, 1, 2}, 0.5, 2},
		{[]int{4, 3, 1, 2}, 0.5, 2},
		{[]int{20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 0.95, 19},
		{[]int{1, 2, 3}, 1, 3},
	} {
		if got := quantile(tt.list, tt.share); got != tt.want {
			t.Errorf("quantile(%v, %v) = %d; want %d", tt.list, tt.share, got, tt.want)
		}
	}
}

func TestTargets(t *testing.T) {
	var out strings.Builder
	b := &bench{out: &out}
	b.atLeast("rate", 12, 12, "")
	b.atMost("memory", 23.5, 24, " KiB")
	if b.missed != 0 {
		t.Errorf("missed %d", b.missed)
	}
	b.atLeast("rate", 11.9, 12, "")
	b.atMost("memory", 24.1, 24, " KiB")
	want := "- rate: 12 (at least 12): met\n- memory: 23.5 KiB (at most 24 KiB): met\n" +
		"- rate: 11.9 (at least 12): MISSED\n- memory: 24.1 KiB (at most 24 KiB): MISSED\n"
	if b.missed != 2 || out.String() != want {
		t.Errorf("missed %d, printed:\n%s", b.missed, out.String())
	}
}

func TestTable(t *testing.T) {
	table := newTable("filter", "µs")
	table.add("a", "10.5")
	var out strings.Builder
	table.write(&out)
	want := "| filter |   µs |\n|--------|-----:|\n| a      | 10.5 |\n"
	if out.String() != want {
		t.Errorf("printed:\n%s", out.String())
	}
}

func TestProcess(t *testing.T) {
	got, err := parseCPUTime("4711 (a (b) c) S 1 4711 4711 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 8 0 100 1 1 1")
	if err != nil || got != 2*time.Second {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "4711 (x) S 1 2", "4711 (a) S 1 4711 4711 0 -1 4194560 1 0 0 0 x y"} {
		if _, err := parseCPUTime(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	f, err := parseStatus("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t8\n")
	if err != nil || f.resident != 1<<20 || f.peak != 2<<20 || f.threads != 8 {
		t.Errorf("%+v, %v", f, err)
	}
	for _, bad := range []string{"", "VmHWM: 1 kB\nVmRSS: x kB\nThreads: 1\n"} {
		if _, err := parseStatus(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	f, err = footprintOf(os.Getpid())
	if err != nil || f.resident <= 0 || f.peak < f.resident || f.threads < 1 || f.files < 3 {
		t.Errorf("own footprint %+v, %v", f, err)
	}
	if _, err := cpuTime(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"-h"}, 0},
		{[]string{"fast"}, 2},
		{[]string{"-runs", "0"}, 2},
		{[]string{"-duration", "-1s", "load"}, 2},
		{[]string{"-milter", "/nonexistent", "load"}, 1},
		{[]string{"-milter", "/", "-server", "/nonexistent", "server"}, 1},
	} {
		if got := run(t.Context(), tt.args, io.Discard, io.Discard); got != tt.want {
			t.Errorf("%v: exit code %d; want %d", tt.args, got, tt.want)
		}
	}
}
