package design

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// root is the folder of go.mod.
const root = "../.."

// A listed is a package as "go list" knows it.
type listed struct {
	ImportPath string
	Imports    []string
}

// short is its folder in the tree.
func short(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

// listPackages lists the tree's packages, once for all tests.
var listPackages = sync.OnceValues(func() (all []listed, err error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	for in := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := in.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

// block returns the lines of the code block of docs/design.md that follows a heading.
func block(t *testing.T, heading string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs/design.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(b), "\n"+heading+"\n")
	_, rest, opened := strings.Cut(rest, "\n```\n")
	text, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !opened || !closed {
		t.Fatalf("docs/design.md has no code block under %q", heading)
	}
	return strings.Split(text, "\n")
}

// TestPackagesAreListed: docs/design.md says of every package what it is for, and of no
// other.
func TestPackagesAreListed(t *testing.T) {
	var described, there []string
	for _, line := range block(t, "## Packages") {
		if fields := strings.Fields(line); len(fields) > 1 && !strings.HasPrefix(line, " ") {
			described = append(described, strings.TrimSuffix(fields[0], "/"))
		}
	}
	packages, err := listPackages()
	must(t, err)
	for _, p := range packages {
		there = append(there, short(p.ImportPath))
	}
	slices.Sort(described)
	slices.Sort(there)
	for _, name := range there {
		if !slices.Contains(described, name) {
			t.Errorf("%s is not described", name)
		}
	}
	for i, name := range described {
		if !slices.Contains(there, name) {
			t.Errorf("%s is described and not there", name)
		}
		if i > 0 && described[i-1] == name {
			t.Errorf("%s is described twice", name)
		}
	}
}

// TestArrows: what imports what is what docs/design.md says, and each package imports
// only such as stand below it there.
func TestArrows(t *testing.T) {
	lines := block(t, "## What imports what")
	var got []string
	imports := make(map[string][]string)
	packages, err := listPackages()
	must(t, err)
	for _, p := range packages {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, module+"/") {
				imports[short(p.ImportPath)] = append(imports[short(p.ImportPath)], short(i))
			}
		}
	}
	var below []string
	for _, line := range slices.Backward(lines) {
		name, list, _ := strings.Cut(line, ":")
		want := strings.Fields(list)
		for _, i := range want {
			if !slices.Contains(below, i) && imports[i] != nil {
				t.Errorf("%s imports %s, which stands above it", name, i)
			}
		}
		below = append(below, name)
		slices.Sort(want)
		if !slices.Equal(want, imports[name]) {
			t.Errorf("docs/design.md says that %s imports %q, it imports %q", name, want, imports[name])
		}
	}
	for name, list := range imports {
		if !slices.Contains(below, name) {
			got = append(got, fmt.Sprintf("%s: %s", name, strings.Join(list, " ")))
		}
	}
	slices.Sort(got)
	for _, line := range got {
		t.Errorf("docs/design.md lacks: %s", line)
	}
}

// TestLibraries: each of these libraries is imported only in the packages that are listed.
func TestLibraries(t *testing.T) {
	importers := map[string][]string{
		"github.com/d--j/go-milter":     {"milter", "internal/front"},
		"github.com/miekg/dns":          {"internal/stubdns", "internal/testdns", "internal/bench", "internal/storm"}, // the last for constants
		"github.com/patrickmn/go-cache": {"verifier"},
		"github.com/spf13/viper":        {"internal/config"},
	}
	used := make(map[string]bool)
	packages, err := listPackages()
	must(t, err)
	for _, p := range packages {
		for _, i := range p.Imports {
			if allowed, special := importers[i]; special {
				used[i] = true
				if !slices.Contains(allowed, short(p.ImportPath)) {
					t.Errorf("%s imports %s, which belongs to %v", short(p.ImportPath), i, allowed)
				}
			}
		}
	}
	for library := range importers {
		if !used[library] {
			t.Errorf("nobody imports %s", library)
		}
	}
}

// TestFilesAreThere: every file that docs/design.md or CONTRIBUTING.md names by its path is
// there.
func TestFilesAreThere(t *testing.T) {
	path := regexp.MustCompile("`((?:[a-z0-9-]+/)+[A-Za-z0-9_.-]+\\.[a-z]+)`")
	for _, document := range []string{"docs/design.md", "CONTRIBUTING.md"} {
		b, err := os.ReadFile(filepath.Join(root, document))
		must(t, err)
		found := path.FindAllStringSubmatch(string(b), -1)
		if len(found) == 0 {
			t.Errorf("%s names no file", document)
		}
		for _, match := range found {
			if _, err := os.Stat(filepath.Join(root, match[1])); err != nil {
				t.Errorf("%s names %s, which is not there", document, match[1])
			}
		}
	}
}
