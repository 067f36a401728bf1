package packagetest

import (
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/config"
)

var programs = []string{"authkey-milter", "authkey-server"}

// output runs a program, which must succeed, and returns all that it printed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// unpacked is a folder with what is in a deb.
func unpacked(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	output(t, "dpkg-deb", "-x", file, dir)
	return dir
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestRelease(t *testing.T) {
	version := strings.TrimSuffix(newPackage, "-1")
	var want []string
	for _, p := range programs {
		want = append(want,
			p+"-"+newPackage+".aarch64.rpm", p+"-"+newPackage+".x86_64.rpm",
			p+"_"+newPackage+"_amd64.deb", p+"_"+newPackage+"_arm64.deb",
			p+"_"+version+"_amd64.cdx.json", p+"_"+version+"_arm64.cdx.json")
	}
	want = append([]string{"SHA256SUMS"}, want...)
	if diff := cmp.Diff(want, names(t, packages.release)); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = packages.release
	out, err := check.CombinedOutput()
	if err != nil || strings.Count(string(out), ": OK\n") != len(want)-1 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestReproducible: the same tree elsewhere, with another umask, makes the same octets.
func TestReproducible(t *testing.T) {
	compared := 0
	for _, name := range names(t, packages.again) {
		if name == "SHA256SUMS" { // it is of fewer files
			continue
		}
		one, err := os.ReadFile(filepath.Join(packages.release, name))
		must(t, err)
		two, err := os.ReadFile(filepath.Join(packages.again, name))
		must(t, err)
		if !bytes.Equal(one, two) {
			t.Errorf("%s differs", name)
		}
		compared++
	}
	if compared != 3*len(programs) {
		t.Errorf("%d files compared", compared)
	}
}

func TestLintian(t *testing.T) {
	debs, err := filepath.Glob(filepath.Join(packages.release, "*.deb"))
	must(t, err)
	if len(debs) != 2*len(programs) {
		t.Fatalf("%d debs", len(debs))
	}
	if out := output(t, "lintian", append([]string{"--allow-root", "--fail-on", "error,warning"}, debs...)...); out != "" {
		t.Error(out)
	}
}

func TestContents(t *testing.T) {
	for _, tc := range []struct{ program, want string }{
		{"authkey-milter", `
-rw-r--r-- /etc/apparmor.d/usr.sbin.authkey-milter
drwxr-x--- /etc/authkey/addresses/
drwx------ /etc/authkey/credentials/
-rw-r--r-- /etc/authkey/milter.yaml
-rw-r--r-- /etc/logcheck/ignore.d.server/authkey-milter
-rwxr-xr-x /usr/lib/authkey-milter/close-sockets
-rw-r--r-- /usr/lib/systemd/system/authkey-milter-retry.timer
-rw-r--r-- /usr/lib/systemd/system/authkey-milter.service
-rw-r--r-- /usr/lib/systemd/system/authkey-milter.socket
-rw-r--r-- /usr/lib/sysusers.d/authkey-milter.conf
-rw-r--r-- /usr/lib/tmpfiles.d/authkey-milter.conf
-rwxr-xr-x /usr/sbin/authkey-milter
-rw-r--r-- /usr/share/authkey-milter/authkey.m4
-rw-r--r-- /usr/share/bash-completion/completions/authkey-milter
-rw-r--r-- /usr/share/doc/authkey-milter/README.Debian
-rw-r--r-- /usr/share/doc/authkey-milter/README.md
-rw-r--r-- /usr/share/doc/authkey-milter/changelog.Debian.gz
-rw-r--r-- /usr/share/doc/authkey-milter/changelog.gz
-rw-r--r-- /usr/share/doc/authkey-milter/copyright
-rw-r--r-- /usr/share/doc/authkey-milter/third-party-licenses.gz
-rw-r--r-- /usr/share/fish/vendor_completions.d/authkey-milter.fish
-rw-r--r-- /usr/share/lintian/overrides/authkey-milter
-rw-r--r-- /usr/share/man/man5/authkey-milter.yaml.5.gz
-rw-r--r-- /usr/share/man/man7/authkey-reasons.7.gz
-rw-r--r-- /usr/share/man/man8/authkey-milter.8.gz
-rw-r--r-- /usr/share/zsh/vendor-completions/_authkey-milter
`},
		{"authkey-server", `
-rw-r--r-- /etc/apparmor.d/usr.sbin.authkey-server
drwxr-x--- /etc/authkey/addresses/
drwx------ /etc/authkey/credentials/
-rw-r--r-- /etc/logcheck/ignore.d.server/authkey-server
-rw-r--r-- /usr/lib/systemd/system/authkey-server-retry.timer
-rw-r--r-- /usr/lib/systemd/system/authkey-server.service
-rw-r--r-- /usr/lib/sysusers.d/authkey-server.conf
-rw-r--r-- /usr/lib/tmpfiles.d/authkey-server.conf
-rwxr-xr-x /usr/sbin/authkey-server
-rw-r--r-- /usr/share/bash-completion/completions/authkey-server
-rw-r--r-- /usr/share/doc/authkey-server/README.Debian
-rw-r--r-- /usr/share/doc/authkey-server/README.md
-rw-r--r-- /usr/share/doc/authkey-server/changelog.Debian.gz
-rw-r--r-- /usr/share/doc/authkey-server/changelog.gz
-rw-r--r-- /usr/share/doc/authkey-server/copyright
-rwxr-xr-x /usr/share/doc/authkey-server/examples/certbot-deploy-hook
-rw-r--r-- /usr/share/doc/authkey-server/third-party-licenses.gz
-rw-r--r-- /usr/share/fish/vendor_completions.d/authkey-server.fish
-rw-r--r-- /usr/share/lintian/overrides/authkey-server
-rw-r--r-- /usr/share/man/man5/authkey-server.yaml.5.gz
-rw-r--r-- /usr/share/man/man8/authkey-server.8.gz
-rw-r--r-- /usr/share/zsh/vendor-completions/_authkey-server
`},
	} {
		var got strings.Builder
		for line := range strings.Lines(output(t, "dpkg-deb", "-c", deb(packages.release, tc.program))) {
			f := strings.Fields(line)
			if f[1] != "root/root" {
				t.Errorf("%s belongs to %s", f[5], f[1])
			}
			if f[0] != "drwxr-xr-x" && !strings.Contains(f[5], "/docs/") { // those are checked where they are installed
				got.WriteString(f[0] + " " + strings.TrimPrefix(f[5], ".") + "\n")
			}
		}
		if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.program, diff)
		}
	}
}

// TestArchitecture: each package has programs for the processor that it names.
func TestArchitecture(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		for _, program := range programs {
			file := one(filepath.Join(packages.release, program+"_*_"+arch+".deb"))
			if named := output(t, "dpkg-deb", "--field", file, "Architecture"); named != arch+"\n" {
				t.Errorf("%s is for %s", file, named)
			}
			f, err := elf.Open(filepath.Join(unpacked(t, file), "usr/sbin", program))
			must(t, err)
			if f.Machine != machine || f.Type != elf.ET_DYN {
				t.Errorf("%s has a program for %v, %v", file, f.Machine, f.Type)
			}
			must(t, f.Close())
		}
	}
}

func gunzip(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	r, err := gzip.NewReader(f)
	must(t, err)
	text, err := io.ReadAll(r)
	must(t, err)
	return string(text)
}

// TestManual: the pages have no fault that groff sees, and describe every key and
// every command.
func TestManual(t *testing.T) {
	for program, docs := range map[string][]config.KeyDoc{"authkey-milter": config.Describe(), "authkey-server": config.DescribeServer()} {
		dir := unpacked(t, deb(packages.release, program))
		pages := []string{"man8/" + program + ".8.gz", "man5/" + program + ".yaml.5.gz"}
		if program == "authkey-milter" {
			pages = append(pages, "man7/authkey-reasons.7.gz")
		}
		for _, page := range pages {
			file := filepath.Join(dir, "usr/share/man", page)
			cmd := exec.Command("man", "--warnings", "--encoding=UTF-8", "--local-file", "--troff-device=utf8", "--ditroff", file)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=")
			var warnings bytes.Buffer
			cmd.Stderr = &warnings
			if err := cmd.Run(); err != nil || warnings.Len() > 0 {
				t.Errorf("%s: %v\n%s", page, err, &warnings)
			}
		}
		keys := gunzip(t, filepath.Join(dir, "usr/share/man/man5", program+".yaml.5.gz"))
		for _, d := range docs {
			if !strings.Contains(keys, `\fB`+d.Key+`\fR (`) {
				t.Errorf("%s.yaml(5) lacks %s", program, d.Key)
			}
		}
		commands := gunzip(t, filepath.Join(dir, "usr/share/man/man8", program+".8.gz"))
		_, help, _ := strings.Cut(output(t, filepath.Join(dir, "usr/sbin", program), "--help"), "Available Commands:\n")
		help, _, _ = strings.Cut(help, "\n\n")
		for line := range strings.Lines(help) {
			name := strings.Fields(line)[0]
			if name != "help" && name != "completion" && !strings.Contains(commands, `\fB`+name+`\fR`) {
				t.Errorf("%s(8) lacks %s", program, name)
			}
		}
	}
}

func TestCompletions(t *testing.T) {
	for _, program := range programs {
		dir := filepath.Join(unpacked(t, deb(packages.release, program)), "usr/share")
		script := filepath.Join(dir, "bash-completion/completions", program)
		output(t, "bash", "-n", script)
		if out := output(t, "bash", "-c", "source "+script+"; complete -p "+program); !strings.Contains(out, "-F __start_"+program) {
			t.Errorf("bash completes %s by %s", program, out)
		}
		for name, begin := range map[string]string{
			"zsh/vendor-completions/_" + program:             "#compdef " + program,
			"fish/vendor_completions.d/" + program + ".fish": "# fish completion for " + program,
		} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.HasPrefix(string(text), begin) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestBill: the bill of materials has every module that is in the program.
func TestBill(t *testing.T) {
	for _, program := range programs {
		file := one(filepath.Join(packages.release, program+"_*_"+runtime.GOARCH+".cdx.json"))
		text, err := os.ReadFile(file)
		must(t, err)
		var bill struct {
			BomFormat string
			Metadata  struct {
				Timestamp string
				Component struct{ Version string }
			}
			Components []struct{ Name, Version string }
		}
		must(t, json.Unmarshal(text, &bill))
		if bill.BomFormat != "CycloneDX" || bill.Metadata.Timestamp != "2023-11-14T22:13:20Z" || bill.Metadata.Component.Version != newVersion {
			t.Errorf("%s %+v", bill.BomFormat, bill.Metadata)
		}
		has := map[string]bool{}
		for _, c := range bill.Components {
			has[c.Name+"@"+c.Version] = true
		}
		dir := unpacked(t, deb(packages.release, program))
		info, err := buildinfo.ReadFile(filepath.Join(dir, "usr/sbin", program))
		must(t, err)
		licences := gunzip(t, filepath.Join(dir, "usr/share/doc", program, "third-party-licenses.gz"))
		for _, dep := range info.Deps {
			if !has[dep.Path+"@"+dep.Version] {
				t.Errorf("%s lacks %s %s", filepath.Base(file), dep.Path, dep.Version)
			}
			if !strings.Contains(licences, "==== "+dep.Path+" "+dep.Version+": ") {
				t.Errorf("the licences of %s lack that of %s", program, dep.Path)
			}
		}
		if len(info.Deps) == 0 {
			t.Errorf("%s has no build information", program)
		}
	}
}

// TestSendmailSnippet: what Sendmail makes of it.
func TestSendmailSnippet(t *testing.T) {
	snippet := filepath.Join(unpacked(t, deb(packages.release, "authkey-milter")), "usr/share/authkey-milter/authkey.m4")
	cf := filepath.Join(sendmailPrefix, "usr/share/sendmail/cf") + "/"
	for define, want := range map[string]string{
		"":                                     "Xauthkey, S=unix:/run/authkey/milter.sock, F=T, T=S:30s;R:30s;E:60s\n",
		"define(`confAUTHKEY_TEST', `1')dnl\n": "Xauthkey, S=unix:/run/authkey/milter.sock, T=S:30s;R:30s;E:60s\n",
	} {
		mc := filepath.Join(t.TempDir(), "test.mc")
		must(t, os.WriteFile(mc, []byte("OSTYPE(`linux')\n"+define+"include(`"+snippet+"')dnl\nMAILER(`smtp')\n"), 0o644))
		out := output(t, "m4", "-D_CF_DIR_="+cf, cf+"m4/cf.m4", mc)
		if !strings.Contains(out, "\n"+want) || !strings.Contains(out, "\nO InputMailFilters=authkey\n") {
			t.Errorf("with %q it lacks %s", define, want)
		}
	}
}
