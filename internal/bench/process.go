package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of times in proc_pid_stat(5): USER_HZ, 100 on every
// architecture that Go and Linux share.
const clockTick = 10 * time.Millisecond

// cpuTime returns the processor time that a process has used, all of its threads
// and both modes together.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPUTime(string(text))
}

func parseCPUTime(stat string) (time.Duration, error) {
	// The name, second of the fields, may hold blanks and parentheses.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const utime, stime = 14 - 3, 15 - 3 // numbered as in the manual, without the first two
	if len(fields) <= stime {
		return 0, errors.New("/proc/PID/stat: too few fields")
	}
	var ticks int64
	for _, field := range []string{fields[utime], fields[stime]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// ownCPUTime is the same for this process: client, DNS and Authentication Servers.
func ownCPUTime() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// A footprint is what a process occupies.
type footprint struct {
	resident int64 // octets
	peak     int64 // the most that resident ever was
	threads  int64
	files    int // open descriptors
}

func footprintOf(pid int) (footprint, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return footprint{}, err
	}
	f, err := parseStatus(string(text))
	if err != nil {
		return footprint{}, err
	}
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	f.files = len(open)
	return f, err
}

func parseStatus(status string) (footprint, error) {
	var f footprint
	for name, to := range map[string]*int64{"VmRSS": &f.resident, "VmHWM": &f.peak, "Threads": &f.threads} {
		_, rest, found := strings.Cut(status, name+":")
		line, _, _ := strings.Cut(rest, "\n")
		words := strings.Fields(line)
		if !found || len(words) == 0 {
			return f, fmt.Errorf("/proc/PID/status: no %s", name)
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return f, fmt.Errorf("/proc/PID/status: %s: %w", name, err)
		}
		if len(words) == 2 && words[1] == "kB" {
			n <<= 10
		}
		*to = n
	}
	return f, nil
}
