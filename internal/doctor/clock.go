package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxError is the kernel's estimate of the clock's error at which systemd too takes
	// the clock for not synchronised; the estimate grows to it while no program adjusts
	// the clock.
	maxError = 16_000_000 // µs
	// ahead is how far in the future a file may have been changed.
	ahead = time.Minute
)

// Synchronized asks the kernel whether a program such as timesyncd, chrony or ntpd keeps its
// clock right. It needs no network.
func Synchronized() (bool, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Maxerror < maxError, nil
}

// Container says what kind of container this is, as systemd, Docker and Podman leave
// word of it; empty: none.
func Container() string { return containerIn("/") }

func containerIn(root string) string {
	for _, name := range []string{"run/systemd/container", "run/host/container-manager"} {
		if b, err := os.ReadFile(filepath.Join(root, name)); err == nil {
			if kind := strings.TrimSpace(string(b)); kind != "" {
				return kind
			}
		}
	}
	for name, kind := range map[string]string{".dockerenv": "docker", "run/.containerenv": "podman"} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			return kind
		}
	}
	return ""
}

// ExamineClock looks at the clock, and needs no network: it relies on what the kernel
// knows (see Synchronized), and on a file that cannot have been changed in the future, ""
// where there is none. container is what Container says.
func ExamineClock(configFile string, now time.Time, synchronized func() (bool, error), container string) []Finding {
	const why = "certificates of Authentication Servers are refused, and keys are attached or accepted at the wrong time"
	const mend = "timedatectl set-ntp true"
	if info, err := os.Stat(configFile); err == nil && info.ModTime().After(now.Add(ahead)) {
		return []Finding{{CheckClock, Fault, fmt.Sprintf("it is %s by the clock, and %s was changed at %s",
			now.Format(time.RFC3339), configFile, info.ModTime().Format(time.RFC3339)), why, mend}}
	}
	synced, err := synchronized()
	switch {
	case err != nil:
		return []Finding{Inapplicablef(CheckClock, "the kernel does not say whether the clock is synchronised: %v", err)}
	case !synced && container != "":
		return []Finding{Inapplicablef(CheckClock, "this is a container (%s), and its host sets the clock; the kernel says that it is not synchronised", container)}
	case !synced:
		return []Finding{{CheckClock, Fault, "the kernel says that the clock is not synchronised", why, mend}}
	}
	return []Finding{Okf(CheckClock, "the kernel says that the clock is synchronised")}
}
