package packagetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// newVersion is that of the packages under test, and oldVersion that of those from
	// which they upgrade.
	newVersion = "v2.0.0-3-g1234567"
	newPackage = "2.0.0+3.g1234567-1"
	oldVersion = "v1.0.0"
	sourceDate = "1700000000"
)

// built are the packages under test, all from the same tree.
type built struct {
	release string // folder: everything that `make release` makes, for all processors
	again   string // the same for this processor only, made elsewhere
	old     string // older packages, of a milter.yaml that was different, and units elsewhere
}

// buildAll builds from copies of the tree, since that may change meanwhile.
func buildAll(ctx context.Context, dir string) (*built, error) {
	b := &built{filepath.Join(dir, "release"), filepath.Join(dir, "again"), filepath.Join(dir, "old")}
	one, two := filepath.Join(dir, "tree"), filepath.Join(dir, "elsewhere", "tree")
	if err := copyTree(ctx, filepath.Join("..", ".."), one); err != nil {
		return nil, err
	}
	if err := copyTree(ctx, one, two); err != nil {
		return nil, err
	}
	if err := makePackages(ctx, one, "022", "-release", "-version", newVersion, "-arch", "amd64,arm64", "-out", b.release); err != nil {
		return nil, err
	}
	if err := makePackages(ctx, two, "077", "-release", "-version", newVersion, "-arch", runtime.GOARCH, "-out", b.again); err != nil {
		return nil, err
	}
	for name, change := range map[string]func(string) string{
		"milter/milter.yaml": func(s string) string { return s + "# as it was\n" },
		// Where units were once. It is the same folder where /lib is a link.
		"milter/nfpm.yaml": func(s string) string {
			return strings.ReplaceAll(s, "dst: /usr/lib/systemd/system/", "dst: /lib/systemd/system/")
		},
	} {
		path := filepath.Join(two, "packaging", name)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(change(string(text))), 0o644); err != nil {
			return nil, err
		}
	}
	return b, makePackages(ctx, two, "022", "-version", oldVersion, "-out", b.old)
}

// makePackages runs packaging/build as the Makefile does.
func makePackages(ctx context.Context, tree, umask string, args ...string) error {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `umask "$1"; shift; exec go run ./packaging/build "$@"`, "sh", umask}, args...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+sourceDate)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build packages: %w\n%s", err, out)
	}
	return nil
}

// copyTree copies the files that git has or would have, and git's own, so that the
// programs carry the same commit.
func copyTree(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `
		set -e
		if [ -e .git ]; then
			cp -a .git "$1/"
			git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done
		else
			find . -type f -print0
		fi | tar --null -T - -cf - | tar -C "$1" -xf -`, "sh", to)
	cmd.Path, cmd.Args[0] = "/bin/bash", "bash"
	cmd.Dir = from
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the tree: %w\n%s", err, out)
	}
	return nil
}

// deb is the package of a program for this machine in a folder.
func deb(folder, program string) string {
	return one(filepath.Join(folder, program+"_*_"+runtime.GOARCH+".deb"))
}

// rpm is likewise the other one.
func rpm(folder, program string) string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return one(filepath.Join(folder, program+"-*."+arch+".rpm"))
}

// one is the one file of a pattern. A name that is not there lets the test that wants it
// fail.
func one(pattern string) string {
	if found, err := filepath.Glob(pattern); err == nil && len(found) == 1 {
		return found[0]
	}
	return strings.ReplaceAll(pattern, "*", "(one file)")
}
