package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/config"
)

// snapshot is the content of every file below a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files[strings.TrimPrefix(path, dir+"/")] = readFile(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func decodeSetup(t *testing.T, text string) (s setup) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return s
}

// What init writes is a whole configuration, and what it prints fits it.
func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b c")
	text := mustRun(t, "init", "Example.COM", "--host", "AS.example.com", "--dir", dir)
	for _, want := range []string{
		"written  " + dir + "/server.yaml\n",
		`example.com. 3600 IN TXT "AS=as.example.com:7425"`,
		"tcp dport 7425 accept",
		`source: "secret:` + dir + `/credentials/example.com.secret"`,
		"smtpd_milters = unix:authkey/milter.sock",
		"INPUT_MAIL_FILTER(`authkey',",
		"\n1. ", "\n2. ", "\n3. ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	_, steps, _ := strings.Cut(text, "\nNext:\n")
	for line := range strings.Lines(steps) {
		if !strings.HasPrefix(line, "       ") && len(line) > 81 { // commands stay on one line
			t.Errorf("a line of %d columns: %s", len(line)-1, line)
		}
	}
	for path, mode := range map[string]os.FileMode{"credentials": 0o700, "credentials/example.com.secret": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	file := filepath.Join(dir, "server.yaml")
	mustRun(t, "check", "--config", file)
	mustRun(t, "address", "add", "you@example.com", "--config", file)
	if key := strings.TrimSpace(mustRun(t, "key", "you@example.com", "--config", file)); !isKey(key) {
		t.Errorf("key %q", key)
	}
	loaded, err := config.LoadServer(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	// What the file shows as comments is what holds without them.
	uncommented := regexp.MustCompile(`(?m)^( *)# (\w+: )`).ReplaceAllString(readFile(t, file), "$1$2")
	writeFile(t, file, uncommented, 0o644)
	again, err := config.LoadServer(file, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, uncommented)
	}
	if diff := cmp.Diff(loaded.Config, again.Config); diff != "" {
		t.Errorf("commented defaults (-without +with):\n%s", diff)
	}
	if !again.IsSet("limits.per_client") || !again.IsSet("tls.cert") || !again.IsSet("log.level") {
		t.Error("a comment of the file is none of a key")
	}
	// The section for the milter is one, and its keys derive the same.
	milter := filepath.Join(dir, "milter.yaml")
	writeFile(t, milter, decodeSetup(t, mustRun(t, "init", "example.com", "--dir", dir, "--json")).Attach, 0o644)
	attach, err := config.Load(milter, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, d := attach.Config.Attach.Domains[0], loaded.Config.Domains[0]
	if a.Domain != d.Name || a.Source != "secret:"+d.SecretFile || a.Addresses != d.Addresses || a.AVT != d.AVT ||
		a.CaseSensitive != d.CaseSensitive || a.Subaddress != d.Subaddress {
		t.Errorf("attach %+v of %+v", a, d)
	}
}

// A second init changes nothing, whatever there is.
func TestInitOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, "init", "example.com", "--host", "192.0.2.1", "--dir", dir)
	before := snapshot(t, dir)
	again := decodeSetup(t, mustRun(t, "init", "example.com", "--dir", dir, "--json"))
	for _, f := range again.Files {
		if f.State != "kept" {
			t.Errorf("%s is %s", f.Path, f.State)
		}
	}
	if len(again.Files) != 3 {
		t.Errorf("%+v", again)
	}
	if diff := cmp.Diff([]string{`example.com. 3600 IN TXT "AS=192.0.2.1:7425"`}, again.Records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}

	file := filepath.Join(dir, "server.yaml")
	// Without server.yaml, the rest is kept.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, f := range decodeSetup(t, mustRun(t, "init", "example.com", "--dir", dir, "--json")).Files {
		states[filepath.Base(f.Path)] = f.State
	}
	if diff := cmp.Diff(map[string]string{"server.yaml": "written", "example.com.secret": "kept", "example.com": "kept"}, states); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// For a domain that the file has, init speaks of its files and settings.
func TestInitOfAKnownDomain(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "s")
	writeFile(t, filepath.Join(dir, "server.yaml"), `host: as.example.com
listen: ["tcp:7425", "tls:443", "tls:127.0.0.1:443", "tls:7426"]
tls: {cert: /c, key: /k}
domains: [{name: example.com, secret_file: "`+secret+`", addresses: any, avt: 12h, case_sensitive: true, subaddress: ""}]
`, 0o644)
	s := decodeSetup(t, mustRun(t, "init", "example.com", "--dir", dir, "--json"))
	want := setup{
		Domain: "example.com", Postfix: postfixLine, Sendmail: sendmailLine,
		Files:    []setupFile{{Path: secret, State: "written"}, {Path: filepath.Join(dir, "server.yaml"), State: "kept"}},
		Records:  []string{`example.com. 3600 IN TXT "AS=as.example.com:443; tls=yes"`, `example.com. 3600 IN TXT "AS=as.example.com:7426; tls=yes"`},
		Firewall: "nft add rule inet filter input tcp dport { 443, 7426 } accept",
		Attach: "attach:\n  domains:\n    - domain: example.com\n      source: secret:" + secret + "\n      addresses: any\n" +
			"      avt: 12h0m0s\n      case_sensitive: true\n      subaddress: \"\"\n",
		Steps: s.Steps,
	}
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(setup{}, setupFile{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(s.Steps) != 3 {
		t.Errorf("%d steps", len(s.Steps))
	}
}

// A second domain is added to the file, and nothing else of it changes. Everything that is
// printed to be done next can be done, with --dir too.
func TestInitOfMoreDomains(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's here")
	file := filepath.Join(dir, "server.yaml")
	mustRun(t, "init", "a.example", "--host", "as.a.example", "--dir", dir)
	text := strings.Replace(readFile(t, file), "domains:\n", "# our domains, in the order of their age\ndomains:\n", 1) + "log: {level: warn}   # quiet\n"
	writeFile(t, file, text, 0o640)
	domains := []string{"a.example"}
	for _, domain := range []string{"b.example", "c.example", "d.example", "e.example"} {
		domains = append(domains, domain)
		before := readFile(t, file)
		out := mustRun(t, "init", domain, "--dir", dir)
		if !strings.Contains(out, "changed  "+file+"\n") || !strings.Contains(out, domain+`. 3600 IN TXT "AS=as.a.example:7425"`) {
			t.Errorf("%s", out)
		}
		runCommands(t, out)
		added := 0
		for line := range strings.Lines(readFile(t, file)) {
			if rest, ok := strings.CutPrefix(before, line); ok {
				before = rest
			} else {
				added++
			}
		}
		if before != "" || added != strings.Count(stanzaTemplate, "\n") {
			t.Errorf("%d lines were added, and this is gone:\n%s", added, before)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	loaded, err := config.LoadServer(file, nil)
	if err != nil || loaded.Config.Log.Level != slog.LevelWarn {
		t.Fatalf("%+v, %v", loaded, err)
	}
	// One attach section has all of them.
	milter := filepath.Join(dir, "milter.yaml")
	s := decodeSetup(t, mustRun(t, "init", "e.example", "--dir", dir, "--host", "AS.a.example", "--json"))
	writeFile(t, milter, s.Attach, 0o644)
	attach, err := config.Load(milter, nil)
	if err != nil {
		t.Fatal(err)
	}
	var attached, served []string
	for i, d := range loaded.Config.Domains {
		served = append(served, d.Name)
		attached = append(attached, attach.Config.Attach.Domains[i].Domain)
	}
	if diff := cmp.Diff(domains, served) + cmp.Diff(domains, attached); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Another host would be the host of all.
	code, _, errOut := run(t, "", "init", "f.example", "--dir", dir, "--host", "as.f.example")
	if code != 2 || !strings.Contains(errOut, "says host: as.a.example") {
		t.Errorf("exit %d, %s", code, errOut)
	}
}

// runCommands runs the program's commands that were printed, but for those that need the
// world, as a shell does.
func runCommands(t *testing.T, printed string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(os.Args[0], filepath.Join(bin, "authkey-server")); err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(printed) {
		line, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "       ")
		if !found || !strings.HasPrefix(line, "authkey-server ") || strings.HasPrefix(line, "authkey-server dns") || strings.HasPrefix(line, "authkey-server serve") {
			continue
		}
		n++
		cmd := programCommand([]string{"PATH=" + bin + ":" + os.Getenv("PATH")}, "sh", "-c", line)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	if n < 2 {
		t.Errorf("%d commands in\n%s", n, printed)
	}
}

// A host that server.yaml lacks is kept there, so that dns says what init said.
func TestInitKeepsTheHost(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server.yaml")
	writeFile(t, file, "domains: []  # none yet\n", 0o644)
	mustRun(t, "init", "example.com", "--host", "as.example.com", "--dir", dir)
	loaded, err := config.LoadServer(file, nil)
	if err != nil || loaded.Config.Host != "as.example.com" || len(loaded.Config.Domains) != 1 {
		t.Fatalf("%+v, %v in\n%s", loaded, err, readFile(t, file))
	}
	code, out, _ := run(t, "", "dns", "--config", file, "--resolver", "127.0.0.1:1", "example.com")
	if code != 75 || !strings.Contains(out, `"AS=as.example.com:7425"`) {
		t.Errorf("exit %d, %s", code, out)
	}
}

// What cannot be added to is printed, and the file is left alone.
func TestInitByHand(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server.yaml")
	const text = "{host: as.example.com}\n"
	writeFile(t, file, text, 0o644)
	out := mustRun(t, "init", "example.org", "--dir", dir)
	if readFile(t, file) != text || !strings.Contains(out, "kept     "+file) || !strings.Contains(out, "Add to the domains of "+file+", which") || !strings.Contains(out, "\n  - name: example.org\n") {
		t.Errorf("%s", out)
	}
}

// However strict the umask, the server can read what it has to.
func TestInitIgnoresTheUmask(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	cmd := programCommand(nil, "sh", "-c", `umask 077 && exec "$0" "$@"`, os.Args[0], "init", "example.com", "--host", "as.example.com", "--dir", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, mode := range map[string]os.FileMode{"": 0o755, "server.yaml": 0o644, "credentials": 0o700, "credentials/example.com.secret": 0o600, "addresses": 0o755, "addresses/example.com": 0o640} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

// Several at a time: every domain arrives.
func TestInitAtOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	const n = 8
	for i := range n {
		all.Go(func() {
			cmd := programCommand(nil, os.Args[0], "init", fmt.Sprintf("d%d.example", i), "--host", "as.example", "--dir", dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
	loaded, err := config.LoadServer(filepath.Join(dir, "server.yaml"), nil)
	if err != nil || len(loaded.Config.Domains) != n {
		t.Errorf("%+v, %v in\n%s", loaded, err, readFile(t, filepath.Join(dir, "server.yaml")))
	}
	mustRun(t, "check", "--config", filepath.Join(dir, "server.yaml"))
}

// What a killed init left behind keeps nobody from going on, and nothing half written
// stays.
func TestInitAfterAKilledOne(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "credentials", "example.com.secret.new"), "# AuthKey sec", 0o600)
	writeFile(t, filepath.Join(dir, "server.yaml.new"), "# The Auth", 0o600)
	mustRun(t, "init", "example.com", "--host", "as.example.com", "--dir", dir)
	mustRun(t, "check", "--config", filepath.Join(dir, "server.yaml"))
	for name := range snapshot(t, dir) {
		if strings.HasSuffix(name, ".new") {
			t.Errorf("%s is left", name)
		}
	}
}

// What root makes belongs to the owner of the folder, so that the server can read it.
func TestInitGivesFilesToTheFoldersOwner(t *testing.T) {
	if os.Getuid() != 0 {
		return // nobody else can give files away
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 23456); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "init", "example.com", "--host", "as.example.com", "--dir", dir)
	n := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n++
		if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 23456 {
			t.Errorf("%s belongs to %d:%d", path, s.Uid, s.Gid)
		}
		return nil
	})
	if err != nil || n != 7 { // with the lock
		t.Errorf("%d files and folders, %v", n, err)
	}
}

// The block of docs/server.md shows the defaults of every key.
func TestManualShowsDefaults(t *testing.T) {
	_, rest, _ := strings.Cut(readFile(t, "../../docs/server.md"), "```yaml\n")
	block, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("no block")
	}
	file := filepath.Join(t.TempDir(), "server.yaml")
	writeFile(t, file, block, 0o644)
	shown, err := config.LoadServer(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, `host: as.example.com
domains: [{name: example.com, secret_file: /etc/authkey/credentials/example.com.secret, addresses: "file:/etc/authkey/addresses/example.com"}]`, 0o644)
	defaults, err := config.LoadServer(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults.Config, shown.Config); diff != "" {
		t.Errorf("(-defaults +shown):\n%s", diff)
	}
	for _, s := range shown.Effective() {
		if !shown.IsSet(s.Key) {
			t.Errorf("%s is not shown", s.Key)
		}
	}
}
