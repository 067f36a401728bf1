package packagetest

import (
	"testing"
)

// checkRemoved: remove leaves the configuration, and nothing runs.
func (m *machine) checkRemoved() {
	m.t.Helper()
	for path, want := range map[string]bool{
		"/etc/authkey/milter.yaml": true, "/usr/sbin/authkey-milter": false, "/run/authkey": false,
		"/var/spool/postfix/authkey": false, "/usr/lib/systemd/system/authkey-milter.service": false,
	} {
		if m.exists(path) != want {
			m.t.Errorf("after removal %s exists: %v", path, !want)
		}
	}
	if state, err := m.try("systemctl is-active authkey-milter.service authkey-milter.socket || pgrep -l authkey-milter"); err == nil {
		m.t.Errorf("after removal: %s", state)
	}
}

// checkPurged: purge leaves nothing but the user.
func (m *machine) checkPurged() {
	m.t.Helper()
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
		"/etc/authkey/server.yaml.lock": false, "/etc/authkey/addresses/a.example.lock": false,
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
	m := boot(t, debian12)
	m.run("dpkg --purge postfix && rm -rf /var/spool/postfix && if getent passwd postfix; then userdel postfix; fi && if getent group postfix; then groupdel postfix; fi")
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
