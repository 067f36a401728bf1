package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/manual"
)

// makeManual puts into the pages that are written by hand what the program knows.
func (b *build) makeManual(ctx context.Context, p product, program string) error {
	commands, err := output(ctx, "", program, "manual")
	if err != nil {
		return err
	}
	var keys strings.Builder
	if err := manual.WriteKeys(&keys, p.keys()); err != nil {
		return err
	}
	for _, page := range []struct{ name, program string }{
		{p.name + ".8", commands},
		{p.name + ".yaml.5", keys.String()},
	} {
		in, err := os.ReadFile(filepath.Join(b.root, "packaging", p.folder, page.name+".in"))
		if err != nil {
			return err
		}
		roff := strings.NewReplacer("@PROGRAM@", strings.TrimSuffix(page.program, "\n"), "@VERSION@", b.version, "@DATE@", b.date.Format(time.DateOnly)).Replace(string(in))
		if err := writeGzip(filepath.Join(b.shared(p), page.name+".gz"), []byte(roff)); err != nil {
			return err
		}
	}
	var reasons bytes.Buffer
	if err := manual.WriteReasons(&reasons, b.version, b.date); err != nil {
		return err
	}
	return writeGzip(filepath.Join(b.shared(p), "authkey-reasons.7.gz"), reasons.Bytes())
}

// makeDocs makes the changelogs, and copies README.md, and the licence for formats that
// have it no other way.
func (b *build) makeDocs(p product) error {
	changes, err := os.ReadFile(filepath.Join(b.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	if err := writeGzip(filepath.Join(b.shared(p), "changelog.gz"), changes); err != nil {
		return err
	}
	debian := fmt.Sprintf("%s (%s-1) unstable; urgency=medium\n\n  * Version %s. What changed is in changelog.gz.\n\n -- The authkey authors <authkey@users.noreply.github.com>  %s\n",
		p.name, b.version, b.git, b.date.Format(time.RFC1123Z))
	if err := writeGzip(filepath.Join(b.shared(p), "changelog.Debian.gz"), []byte(debian)); err != nil {
		return err
	}
	for _, name := range []string{"README.md", "LICENSE"} {
		text, err := os.ReadFile(filepath.Join(b.root, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.shared(p), name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeLicences gathers the licences of everything that is linked into a program. Most
// of them want to go with it.
func (b *build) makeLicences(ctx context.Context, program, dir string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	goroot, err := output(ctx, b.root, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	var all bytes.Buffer
	if err := appendLicences(&all, "Go "+info.GoVersion, goroot); err != nil {
		return err
	}
	args := []string{"list", "-m", "-json"}
	for _, dep := range info.Deps {
		args = append(args, dep.Path)
	}
	list, err := output(ctx, b.root, "go", args...)
	if err != nil {
		return err
	}
	for modules := json.NewDecoder(strings.NewReader(list)); ; {
		var m struct{ Path, Version, Dir string }
		if err := modules.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if err := appendLicences(&all, m.Path+" "+m.Version, m.Dir); err != nil {
			return err
		}
	}
	return writeGzip(filepath.Join(dir, "third-party-licenses.gz"), all.Bytes())
}

// appendLicences adds the licence files of a module.
func appendLicences(to *bytes.Buffer, what, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		licence := strings.HasPrefix(name, "LICEN") || strings.HasPrefix(name, "COPYING")
		if e.IsDir() || !licence && !strings.HasPrefix(name, "NOTICE") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		found = found || licence
		fmt.Fprintf(to, "==== %s: %s\n\n%s\n\n", what, e.Name(), bytes.TrimSpace(text))
	}
	if !found {
		return fmt.Errorf("%s: no licence in %s", what, dir)
	}
	return nil
}

// makeBill writes the bill of materials of a program.
func (b *build) makeBill(ctx context.Context, p product, program, arch string) error {
	to, err := os.MkdirTemp(b.work, "bill-")
	if err != nil {
		return err
	}
	file := filepath.Join(to, fmt.Sprintf("%s_%s_%s.cdx.json", p.name, b.version, arch))
	cmd := exec.CommandContext(ctx, "go", "run", cyclonedx, "bin", "-json", "-noserial", "-version", b.git, "-output", file, program)
	cmd.Dir = b.root
	if err := runTool(cmd); err != nil {
		return err
	}
	if err := b.dateBill(file); err != nil {
		return err
	}
	return b.keep(to)
}

// writeGzip writes a text compressed, without name and date.
func writeGzip(file string, text []byte) error {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
