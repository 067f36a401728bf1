package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
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
	if again.Stanza != "" || len(again.Files) != 3 {
		t.Errorf("%+v", again)
	}
	if diff := cmp.Diff([]string{`example.com. 3600 IN TXT "AS=192.0.2.1:7425"`}, again.Records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}

	// Another domain: its own files, and the part to add.
	other := decodeSetup(t, mustRun(t, "init", "example.org", "--dir", dir, "--json"))
	after := snapshot(t, dir)
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s has changed", name)
		}
	}
	if len(after) != len(before)+2 || other.Stanza == "" || !strings.Contains(mustRun(t, "init", "example.org", "--dir", dir), "Add to the domains of "+dir+"/server.yaml:\n\n  - name: example.org\n") {
		t.Errorf("%d files, part to add %q", len(after), other.Stanza)
	}
	file := filepath.Join(dir, "server.yaml")
	writeFile(t, file, strings.Replace(after["server.yaml"], "domains:\n", "domains:\n"+other.Stanza, 1), 0o644)
	mustRun(t, "check", "--config", file)
	mustRun(t, "address", "add", "a@example.org", "b@example.com", "--config", file)

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
	if diff := cmp.Diff(want, s, cmp.AllowUnexported(setupFile{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(s.Steps) != 3 {
		t.Errorf("%d steps", len(s.Steps))
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
	if err != nil || n != 6 {
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
