package packagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// The tests' tools, and where sendmail.cf is made from.
var (
	tools = []string{"lintian", "debootstrap", "systemd-container", "util-linux", "iproute2", "rpm", "apparmor", "man-db", "groff-base", "git", "strace"}

	sendmailPrefix string
)

// What all tests share.
var packages *built

func TestMain(m *testing.M) {
	if job := os.Getenv(senderVariable); job != "" {
		os.Exit(senderMain(job))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	dir, err := testdaemon.TempDir("authkey-packagetest-")
	if err != nil {
		say("%v", err)
		return 1
	}
	defer os.RemoveAll(dir)
	guard, err := testdaemon.NewGuard(`rm -rf "$1"`, dir)
	if err != nil {
		say("%v", err)
		return 1
	}
	defer guard.Release()
	if err := prepare(ctx, say, dir); err != nil {
		say("the tests of the packages need root, namespaces and Debian's archive: %v", err)
		return 1
	}
	return m.Run()
}

// prepare gets everything that takes long.
func prepare(ctx context.Context, say testdaemon.Logf, dir string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	if err := testdaemon.Install(ctx, say, testdaemon.Installation{Packages: tools}); err != nil {
		return err
	}
	if sendmailPrefix, err = testmta.EnsureSendmail(ctx, say); err != nil {
		return err
	}
	// None of these needs another.
	var all sync.WaitGroup
	errs := make([]error, len(debians)+1)
	for i, d := range debians {
		all.Go(func() { errs[i] = ensureDebian(ctx, say, d) })
	}
	all.Go(func() { packages, errs[len(debians)] = buildAll(ctx, filepath.Join(dir, "packages")) })
	all.Wait()
	return errors.Join(errs...)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
