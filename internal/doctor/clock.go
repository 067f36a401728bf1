package doctor

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxError is above what a synchronised clock may be off, as the kernel sees it
	// and systemd judges it; the kernel's estimate grows to it while nobody keeps
	// the clock.
	maxError = 16_000_000 // µs
	// ahead is how far in the future a file may have been changed.
	ahead = time.Minute
)

// Synchronized asks the kernel whether somebody keeps its clock, such as timesyncd,
// chrony or ntpd. It needs no network.
func Synchronized() (bool, error) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, err
	}
	return t.Maxerror < maxError, nil
}

// clock needs no network: it relies on what the kernel knows, and on a file that
// cannot have been written in the future.
func (o Options) clock(context.Context) []Finding {
	const why = "certificates of Authentication Servers are refused, and keys are attached or accepted at the wrong time"
	const mend = "timedatectl set-ntp true"
	now := o.Now()
	if info, err := os.Stat(o.ConfigFile); err == nil && info.ModTime().After(now.Add(ahead)) {
		return []Finding{{CheckClock, Fault, fmt.Sprintf("it is %s by the clock, and %s was changed at %s",
			now.Format(time.RFC3339), o.ConfigFile, info.ModTime().Format(time.RFC3339)), why, mend}}
	}
	kept, err := o.Synchronized()
	switch {
	case err != nil:
		return []Finding{inapplicable(CheckClock, "the kernel does not say whether the clock is kept: %v", err)}
	case !kept:
		return []Finding{{CheckClock, Fault, "nobody keeps the clock: the kernel says that it is not synchronised", why, mend + "   # in a container, on its host"}}
	}
	return []Finding{ok(CheckClock, "the clock is kept, says the kernel")}
}
