// Command build makes the packages of authkey: deb and rpm of each program, from the
// folders beside this one, and for a release a software bill of materials of each
// program (CycloneDX) and the packages' checksums too.
//
// The same tree, version and SOURCE_DATE_EPOCH make the same octets, wherever the tree
// is. It needs Go and, for the date where SOURCE_DATE_EPOCH is not set, git.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/authkey/authkey/internal/config"
)

// The tools, at the versions that were tried.
const (
	nfpm      = "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2"
	cyclonedx = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0"
)

// A product is a program that is packaged.
type product struct {
	name   string // of program and package
	folder string // beside this one
	keys   func() []config.KeyDoc
}

var products = []product{
	{"authkey-milter", "milter", config.Describe},
	{"authkey-server", "server", config.DescribeServer},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	syscall.Umask(0o022) // packages take over the modes of files
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	version := flags.String("version", "devel", "what git describe says")
	out := flags.String("out", "dist", "folder of the packages")
	arches := flags.String("arch", runtime.GOARCH, "processors, as Go names them, separated by commas")
	release := flags.Bool("release", false, "make bills of materials and SHA256SUMS too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &build{git: *version, release: *release}
	if b.date, err = sourceDate(ctx); err != nil {
		return err
	}
	if b.version, err = packageVersion(*version, b.date); err != nil {
		return err
	}
	if b.root, err = output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}"); err != nil {
		return err
	}
	if b.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "authkey-packages-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	for _, p := range products {
		if err := b.makePages(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, arch := range strings.Split(*arches, ",") {
			if err := b.makePackages(ctx, p, arch); err != nil {
				return fmt.Errorf("%s for %s: %w", p.name, arch, err)
			}
		}
	}
	if b.release {
		if err := b.writeChecksums(); err != nil {
			return err
		}
	}
	if err := b.removeOthers(); err != nil {
		return err
	}
	for _, name := range b.made {
		fmt.Println(filepath.Join(*out, name))
	}
	return nil
}

// A build is one run.
type build struct {
	root    string // of the tree
	out     string
	work    string // temporary
	git     string // version as git has it, for the programs
	version string // as packages have it
	date    time.Time
	release bool
	made    []string // names in out
}

// sourceDate is the time that everything in the packages has: SOURCE_DATE_EPOCH, or
// else that of the last commit.
func sourceDate(ctx context.Context) (time.Time, error) {
	text, set := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !set {
		var err error
		if text, err = output(ctx, "", "git", "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, fmt.Errorf("no SOURCE_DATE_EPOCH: %w", err)
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// shared is where the files of a product are that do not depend on the processor.
func (b *build) shared(p product) string { return filepath.Join(b.work, p.name) }

// makePages makes manual pages, completions and changelogs.
func (b *build) makePages(ctx context.Context, p product) error {
	dir := b.shared(p)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The program describes itself, so it must run here.
	program := filepath.Join(b.work, p.name+"-here")
	if err := b.compile(ctx, p, program, runtime.GOARCH); err != nil {
		return err
	}
	for _, shell := range []string{"bash", "fish", "zsh"} {
		script, err := output(ctx, "", program, "completion", shell)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "completion."+shell), []byte(script+"\n"), 0o644); err != nil {
			return err
		}
	}
	if err := b.makeManual(ctx, p, program); err != nil {
		return err
	}
	return b.makeDocs(p)
}

// compile builds a program.
func (b *build) compile(ctx context.Context, p product, file, arch string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-buildmode=pie",
		"-ldflags", "-s -w -X main.version="+b.git, "-o", file, "./cmd/"+p.name)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	return runTool(cmd)
}

// makePackages makes the packages of a product for one kind of processor.
func (b *build) makePackages(ctx context.Context, p product, arch string) error {
	stage := filepath.Join(b.work, p.name+"-"+arch)
	made := filepath.Join(stage, "build")
	if err := copyFolder(filepath.Join(b.root, "packaging", p.folder), stage); err != nil {
		return err
	}
	if err := copyFolder(b.shared(p), made); err != nil {
		return err
	}
	if err := copyFolder(filepath.Join(b.root, "docs"), filepath.Join(made, "docs")); err != nil {
		return err
	}
	program := filepath.Join(made, p.name)
	if err := b.compile(ctx, p, program, arch); err != nil {
		return err
	}
	if err := b.makeLicences(ctx, program, made); err != nil {
		return err
	}
	for _, format := range []string{"deb", "rpm"} {
		if err := b.pack(ctx, stage, format, arch); err != nil {
			return err
		}
	}
	if !b.release {
		return nil
	}
	return b.makeBill(ctx, p, program, arch)
}

// pack has nfpm make one package.
func (b *build) pack(ctx context.Context, stage, format, arch string) error {
	to, err := os.MkdirTemp(b.work, "packed-")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "run", nfpm, "package", "--config", "nfpm.yaml", "--packager", format, "--target", to)
	cmd.Dir = stage
	cmd.Env = append(os.Environ(), "VERSION="+b.version, "ARCH="+arch, "SOURCE_DATE_EPOCH="+strconv.FormatInt(b.date.Unix(), 10))
	if err := runTool(cmd); err != nil {
		return err
	}
	return b.keep(to)
}

// keep moves what is in a folder to the packages.
func (b *build) keep(from string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.out, e.Name()), content, 0o644); err != nil {
			return err
		}
		b.made = append(b.made, e.Name())
	}
	return nil
}

// removeOthers removes from the folder of the packages what earlier runs made: whoever
// installs authkey-milter_*_amd64.deb of it wants this build's. Other files stay.
func (b *build) removeOthers() error {
	entries, err := os.ReadDir(b.out)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if slices.Contains(b.made, name) || !slices.ContainsFunc(products, func(p product) bool { return p.made(name) }) && name != checksums {
			continue
		}
		if err := os.Remove(filepath.Join(b.out, name)); err != nil {
			return err
		}
	}
	return nil
}

// made reports whether a file is one of the product's packages or bills of materials.
func (p product) made(name string) bool {
	rest, ok := strings.CutPrefix(name, p.name)
	if !ok || !strings.HasPrefix(rest, "_") && !strings.HasPrefix(rest, "-") {
		return false
	}
	return slices.ContainsFunc([]string{".deb", ".rpm", ".cdx.json"}, func(suffix string) bool { return strings.HasSuffix(rest, suffix) })
}

// copyFolder copies the files of a folder, with modes that do not depend on the
// checkout.
func copyFolder(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program and returns what it printed, without the last line's end.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// runTool runs a program, whose output is only of interest where it fails.
func runTool(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
