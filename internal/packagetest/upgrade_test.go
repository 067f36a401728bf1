package packagetest

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestUpgrade: an older build with a configuration that was changed, the new one in its
// place, and its end.
func TestUpgrade(t *testing.T) {
	m := boot(t)
	key := m.serveAuthentication()
	m.install(deb(packages.old, "authkey-milter"))
	if version := m.value("dpkg-query --show --showformat='${Version}' authkey-milter"); version != "1.0.0-1" {
		t.Fatalf("version %s", version)
	}
	const changed = "mode: test\nlocal_domains: [b.example]\n# mine\n"
	m.write("/etc/authkey/milter.yaml", changed)
	m.run("systemctl reload authkey-milter && authkey-milter setup postfix --apply && postfix reload")
	m.await("authkey-milter doctor --json | grep -q '\"check\":\"listed\",\"status\":\"ok\"'")
	m.sendOne(key, "old")
	socket := m.value("systemctl show --property=InvocationID --value authkey-milter.socket")
	process := m.value("systemctl show --property=MainPID --value authkey-milter")

	m.install(deb(packages.release, "authkey-milter"))
	if version := m.value("dpkg-query --show --showformat='${Version}' authkey-milter"); version != newPackage {
		t.Errorf("version %s", version)
	}
	if text := readFile(t, filepath.Join(m.root, "etc/authkey/milter.yaml")); text != changed {
		t.Errorf("the configuration is now %s", text)
	}
	if !m.exists("/etc/authkey/milter.yaml.dpkg-dist") {
		t.Error("the package's own configuration is not beside it")
	}
	if now := m.value("systemctl show --property=InvocationID --value authkey-milter.socket"); now != socket {
		t.Error("the sockets were made anew")
	}
	if now := m.value("systemctl show --property=MainPID --value authkey-milter"); now == process || now == "0" {
		t.Errorf("process %s after %s", now, process)
	}
	if out := m.value("authkey-milter version"); !strings.HasPrefix(out, "authkey-milter "+newVersion+" ") {
		t.Errorf("%s is installed", out)
	}
	m.sendOne(key, "new")
	m.checkRemoval()
	m.checkServerRemoval()
}

// checkRemoval: remove leaves the configuration, purge does not, and nothing runs.
func (m *machine) checkRemoval() {
	m.t.Helper()
	m.run("authkey-milter setup postfix --undo && postfix reload && dpkg --remove authkey-milter")
	for path, want := range map[string]bool{
		"/etc/authkey/milter.yaml": true, "/usr/sbin/authkey-milter": false, "/run/authkey": false,
		"/var/spool/postfix/authkey": false, "/lib/systemd/system/authkey-milter.service": false,
	} {
		if m.exists(path) != want {
			m.t.Errorf("after removal %s exists: %v", path, !want)
		}
	}
	if state, err := m.try("systemctl is-active authkey-milter.service authkey-milter.socket || pgrep -l authkey-milter"); err == nil {
		m.t.Errorf("after removal: %s", state)
	}
	m.run("dpkg --purge authkey-milter")
	for _, path := range []string{"/etc/authkey/milter.yaml", "/etc/apparmor.d/usr.sbin.authkey-milter", "/var/lib/authkey",
		"/etc/systemd/system/sockets.target.wants/authkey-milter.socket", "/etc/systemd/system/multi-user.target.wants/authkey-milter.service",
		"/etc/systemd/system/authkey-milter.service"} {
		if m.exists(path) {
			m.t.Errorf("after purging there is still %s", path)
		}
	}
	m.run("getent passwd authkey")
	if out := m.run("find /var/lib/systemd -name '*authkey-milter*'"); out != "" {
		m.t.Errorf("after purging there is still %s", out)
	}
}

// checkServerRemoval: what init made is nobody's to delete.
func (m *machine) checkServerRemoval() {
	m.t.Helper()
	m.run("dpkg --purge authkey-server")
	for path, want := range map[string]bool{
		"/usr/sbin/authkey-server": false, "/etc/authkey/server.yaml": true,
		"/etc/authkey/credentials/a.example.secret": true, "/etc/authkey/addresses/a.example": true,
		"/etc/systemd/system/multi-user.target.wants/authkey-server.service": false,
	} {
		if m.exists(path) != want {
			m.t.Errorf("after purging the server %s exists: %v", path, !want)
		}
	}
	if state, err := m.try("pgrep -l authkey-server"); err == nil {
		m.t.Errorf("after purging: %s", state)
	}
}

// TestBeforePostfix: the sockets are made where there is no Postfix, and are Postfix's
// when it comes.
func TestBeforePostfix(t *testing.T) {
	m := boot(t)
	m.run("dpkg --purge postfix && rm -rf /var/spool/postfix && if getent group postfix; then groupdel postfix; fi")
	m.install(deb(packages.release, "authkey-milter"))
	m.run("systemctl is-active authkey-milter.socket authkey-milter.service")
	const socket = "/var/spool/postfix/authkey/milter.sock"
	if got := m.value("stat -c '%U:%G %a' " + socket); got != "authkey:authkey 660" {
		t.Errorf("without Postfix the socket is %s", got)
	}
	m.run("dpkg --install /var/cache/apt/archives/postfix_*.deb")
	if got := m.value("stat -c '%U:%G %a' " + socket + " /run/authkey/milter.sock"); got != "authkey:postfix 660\nauthkey:postfix 660" {
		t.Errorf("with Postfix the sockets are %s", got)
	}
	m.run("systemctl restart authkey-milter.socket authkey-milter.service")
	if got := m.value("stat -c '%U:%G %a' " + socket); got != "authkey:postfix 660" {
		t.Errorf("started again the socket is %s", got)
	}
}
