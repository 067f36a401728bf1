package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseUnit(t *testing.T) {
	const files = `# /usr/lib/systemd/system/x.service
[Service]
ExecStart=/usr/sbin/authkey-server serve
User=ignored
LoadCredential=authkey:/etc/authkey/credentials
# /etc/systemd/system/x.service.d/override.conf
[Service]
ExecStart=
ExecStart=-/usr/sbin/authkey-server serve --config /srv/as.yaml
`
	got := parseUnit("x.service", "LoadState=loaded\nUser=as\nGroup=as\nSupplementaryGroups=one two\nActiveState=active\nUnitFileState=enabled\nStatusText=a = b\nNeedDaemonReload=yes\nTriggeredBy=x.socket\n", files)
	want := Unit{
		Service: Service{User: "as", Passed: []string{"/etc/authkey/credentials"}, Copies: "/run/credentials/x.service"},
		Name:    "x.service", Known: true, Groups: []string{"as", "one", "two"}, Args: []string{"/usr/sbin/authkey-server", "serve", "--config", "/srv/as.yaml"},
		Active: "active", Enabled: "enabled", Status: "a = b", TriggeredBy: "x.socket", Outdated: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := got.ConfigFile("/def"); got != "/srv/as.yaml" {
		t.Errorf("configuration %s", got)
	}
	if got := (Unit{Args: []string{"x", "--config=/y"}}).ConfigFile("/def"); got != "/y" {
		t.Errorf("configuration %s", got)
	}
	if got := (Unit{Args: []string{"x", "serve"}}).ConfigFile("/def"); got != "/def" {
		t.Errorf("configuration %s", got)
	}
	if got := parseUnit("x.service", "LoadState=not-found\nUser=\n", ""); got.Known {
		t.Errorf("%+v", got)
	}
}

// Without a running systemd the files are read: the first folder's unit, and everybody's
// changes to it, the strongest last.
func TestUnitFiles(t *testing.T) {
	root := t.TempDir()
	folders := []string{filepath.Join(root, "etc"), filepath.Join(root, "run"), filepath.Join(root, "lib")}
	write := func(path, text string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	if _, err := unitFiles("x.service", folders); err == nil {
		t.Error("there is none")
	}
	write(filepath.Join(root, "lib/x.service"), "[Service]\nUser=lib\nGroup=g\nExecStart=/x serve\n")
	write(filepath.Join(root, "lib/x.service.d/a.conf"), "[Service]\nUser=lib-changed\n")
	write(filepath.Join(root, "etc/x.service.d/b.conf"), "[Service]\nUser=etc-changed\nLoadCredential=authkey:/c\n")
	text, err := unitFiles("x.service", folders)
	must(t, err)
	u := parseUnit("x.service", text, text)
	if u.User != "etc-changed" || !slices.Equal(u.Groups, []string{"g"}) || !u.Passes("/c/secret") || u.Active != "" || !u.Known {
		t.Errorf("%+v", u)
	}
}
