package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

var (
	// described is what git describe says where there is a tag.
	described = regexp.MustCompile(`^v?([0-9]+(?:\.[0-9]+)*)(?:-([0-9A-Za-z.]+?))??(?:-([0-9]+)-(g[0-9a-f]+))?$`)
	// undescribed is a commit, or a word, where there is none.
	undescribed = regexp.MustCompile(`^[0-9A-Za-z.]+$`)
)

// packageVersion turns what git describe says into a version that dpkg and rpm both
// order as it was meant: v1.2.0-rc1 is before v1.2.0, and 14 commits later is after it.
// A tree without any tag is before every version, in the order of date.
func packageVersion(git string, date time.Time) (string, error) {
	clean, dirty := strings.CutSuffix(git, "-dirty")
	version := ""
	if m := described.FindStringSubmatch(clean); m != nil && strings.Contains(m[1], ".") {
		version = m[1]
		if m[2] != "" {
			version += "~" + m[2]
		}
		if m[3] != "" {
			version += "+" + m[3] + "." + m[4]
		}
	} else if undescribed.MatchString(clean) {
		version = "0~" + date.Format("20060102150405") + "." + clean
	} else {
		return "", fmt.Errorf("%q is no version that git describe gives", git)
	}
	if dirty {
		version += "+dirty"
	}
	return version, nil
}
