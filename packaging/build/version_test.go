package main

import (
	"os/exec"
	"testing"
	"time"
)

func TestPackageVersion(t *testing.T) {
	date := time.Date(2026, 11, 24, 10, 20, 30, 0, time.UTC)
	last := ""
	for _, tc := range []struct{ git, want string }{
		// In the order in which they supersede each other.
		{"87b9994", "0~20261124102030.87b9994"},
		{"devel", "0~20261124102030.devel"},
		{"v0.9.0", "0.9.0"},
		{"v1.2.0-rc1", "1.2.0~rc1"},
		{"v1.2.0-rc1-3-gabc1234", "1.2.0~rc1+3.gabc1234"},
		{"v1.2.0", "1.2.0"},
		{"v1.2.0-14-gabc1234", "1.2.0+14.gabc1234"},
		{"v1.2.0-14-gabc1234-dirty", "1.2.0+14.gabc1234+dirty"},
		{"1.10", "1.10"},
	} {
		got, err := packageVersion(tc.git, date)
		if err != nil || got != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.git, got, err, tc.want)
		}
		if last != "" {
			if err := exec.Command("dpkg", "--compare-versions", last, "lt", got).Run(); err != nil {
				t.Errorf("%s is not before %s: %v", last, got, err)
			}
		}
		last = got
	}
	for _, git := range []string{"", "-dirty", "v1.2.0 rc", "feature/x", "v1.2.0-rc1-x-y"} {
		if got, err := packageVersion(git, date); err == nil {
			t.Errorf("%q: %q", git, got)
		}
	}
}
