// Package testdaemon runs real programs for tests and demonstrations: it installs
// Debian packages where they are missing, chooses ports and folders, and starts
// processes, which end with the program that started them. It knows nothing of mail
// or DNS.
package testdaemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrNotInstalled says that a program is missing and cannot be installed here:
// this is no Debian system, we are not root, or the installation would touch
// something that is the user's own.
var ErrNotInstalled = errors.New("not installed")

// Logf receives what is about to be done to the machine, one line a call.
type Logf func(format string, args ...any)

// An Installation names Debian packages to install together.
type Installation struct {
	Packages []string
	// Debconf holds answers in the syntax of debconf-set-selections(1).
	Debconf string
	// Service: with the packages comes a service that systemd would start at the next
	// boot. There Ensure does not install them.
	Service bool
}

// Ensure installs the packages where a program of theirs is missing; see Install.
func Ensure(ctx context.Context, logf Logf, program string, in Installation) error {
	_, err := Command(program)
	if err == nil {
		return nil
	}
	if _, statErr := os.Stat("/run/systemd/system"); in.Service && statErr == nil {
		return fmt.Errorf("%w: its service would start at the next boot", err)
	}
	if err := Install(ctx, logf, in); err != nil {
		return err
	}
	_, err = Command(program)
	return err
}

// Command finds a program, also where PATH lacks /usr/sbin. The error is
// ErrNotInstalled.
func Command(program string) (string, error) {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", program, ErrNotInstalled)
}

// policyFile is Debian's switch for "start no service while installing".
const policyFile = "/usr/sbin/policy-rc.d"

// Install installs the packages with apt-get, after telling logf which ones,
// and starts no service. Where the installation would remove a package, as a
// second mail system does, it changes nothing and returns ErrNotInstalled.
func Install(ctx context.Context, logf Logf, in Installation) error {
	names := strings.Join(in.Packages, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("install %s: %w: only root can", names, ErrNotInstalled)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install %s: %w: no apt-get here", names, ErrNotInstalled)
	}
	unlock, err := lockInstallation()
	if err != nil {
		return fmt.Errorf("install %s: %w", names, err)
	}
	defer unlock()

	plan, err := simulate(ctx, in.Packages)
	if err != nil {
		logf("fetching Debian's package lists (apt-get update)")
		if _, err := aptGet(ctx, "update"); err != nil {
			return err
		}
		if plan, err = simulate(ctx, in.Packages); err != nil {
			return err
		}
	}
	if len(plan.removed) > 0 {
		return fmt.Errorf("install %s: %w: it would remove %s",
			names, ErrNotInstalled, strings.Join(plan.removed, " "))
	}
	if len(plan.installed) == 0 {
		return nil
	}
	logf("installing Debian packages: %s", strings.Join(plan.installed, " "))
	if err := answerDebconf(ctx, in.Debconf); err != nil {
		return err
	}
	allow, err := forbidServices()
	if err != nil {
		return err
	}
	defer allow()
	_, err = aptGet(ctx, append([]string{"install", "-y", "--no-install-recommends"}, in.Packages...)...)
	return err
}

// Unpack downloads the packages and unpacks them below prefix without
// installing anything, for programs whose packages conflict with installed
// ones. The folder is complete when Unpack returns without error.
func Unpack(ctx context.Context, logf Logf, prefix string, packages ...string) error {
	for _, tool := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("unpack %s: %w: no %s here", strings.Join(packages, " "), ErrNotInstalled, tool)
		}
	}
	if err := os.MkdirAll(filepath.Dir(prefix), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(prefix), ".unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	logf("downloading and unpacking (not installing) Debian packages: %s into %s", strings.Join(packages, " "), prefix)
	if err := download(ctx, logf, work, packages); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	for _, archive := range archives {
		if out, err := exec.CommandContext(ctx, "dpkg", "-x", archive, root).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg -x %s: %w: %s", filepath.Base(archive), err, bytes.TrimSpace(out))
		}
	}
	if err := os.RemoveAll(prefix); err != nil {
		return err
	}
	return os.Rename(root, prefix)
}

func download(ctx context.Context, logf Logf, dir string, packages []string) error {
	args := append([]string{"download"}, packages...)
	if _, err := aptGetIn(ctx, dir, args...); err == nil || os.Geteuid() != 0 {
		return err
	}
	logf("fetching Debian's package lists (apt-get update)")
	if _, err := aptGet(ctx, "update"); err != nil {
		return err
	}
	_, err := aptGetIn(ctx, dir, args...)
	return err
}

// aptPlan is what apt-get says it would do.
type aptPlan struct{ installed, removed []string }

func simulate(ctx context.Context, packages []string) (aptPlan, error) {
	out, err := aptGet(ctx, append([]string{"install", "--simulate", "--no-install-recommends"}, packages...)...)
	if err != nil {
		return aptPlan{}, err
	}
	return parsePlan(out), nil
}

func parsePlan(out []byte) aptPlan {
	var plan aptPlan
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		switch f := strings.Fields(lines.Text()); {
		case len(f) < 2:
		case f[0] == "Inst":
			plan.installed = append(plan.installed, f[1])
		case f[0] == "Remv":
			plan.removed = append(plan.removed, f[1])
		}
	}
	return plan
}

func aptGet(ctx context.Context, args ...string) ([]byte, error) {
	return aptGetIn(ctx, "/", args...)
}

func aptGetIn(ctx context.Context, dir string, args ...string) ([]byte, error) {
	// Other tests may be installing at this moment, and so may the user.
	args = append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	// Killing dpkg half-way would leave the user's system broken.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return out, nil
}

func answerDebconf(ctx context.Context, answers string) error {
	if answers == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "debconf-set-selections")
	cmd.Stdin = strings.NewReader(answers + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("debconf-set-selections: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// forbidServices makes the package system start nothing until allow is called.
// A policy which is already there stays.
func forbidServices() (allow func(), err error) {
	f, err := os.OpenFile(policyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(policyFile)
		return nil, err
	}
	return func() { os.Remove(policyFile) }, nil
}

// lockInstallation lets one test program install at a time.
func lockInstallation() (unlock func(), err error) {
	f, err := os.OpenFile("/run/authkey-testdaemon.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
