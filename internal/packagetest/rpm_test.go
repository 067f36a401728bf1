package packagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRPM installs, upgrades and removes the rpm packages in a root of their own, with
// their scripts.
func TestRPM(t *testing.T) {
	root := newRoot(t, debian12)
	run := func(args ...string) string {
		t.Helper()
		return output(t, "rpm", append([]string{"--root", root}, args...)...)
	}
	exists := func(path string) bool {
		_, err := os.Lstat(filepath.Join(root, path))
		return err == nil
	}
	run("--initdb")
	// Debian's archive has no rpm, so nothing of it is known.
	run("--install", "--nodeps", rpm(packages.old, "authkey-milter"))
	const changed = "mode: test\nlisten: [\"inet:8895@127.0.0.1\"]\n# mine\n"
	yaml := filepath.Join(root, "etc/authkey/milter.yaml")
	must(t, os.WriteFile(yaml, []byte(changed), 0o644))
	run("--upgrade", "--nodeps", rpm(packages.release, "authkey-milter"), rpm(packages.release, "authkey-server"))
	if text, err := os.ReadFile(yaml); err != nil || string(text) != changed || !exists("etc/authkey/milter.yaml.rpmnew") {
		t.Errorf("after the upgrade the configuration is %s, %v", text, err)
	}
	if got := run("--query", "--queryformat", "%{VERSION}-%{RELEASE} %{LICENSE}\n", "authkey-milter"); got != newPackage+" Apache-2.0\n" {
		t.Errorf("installed: %s", got)
	}
	if out, err := exec.Command("rpm", "--root", root, "--verify", "--nodeps", "authkey-milter", "authkey-server").CombinedOutput(); err == nil || strings.TrimSpace(string(out)) != "S.5....T.  c /etc/authkey/milter.yaml" {
		t.Errorf("not as it was packed: %v\n%s", err, out)
	}
	for _, program := range programs {
		if out := output(t, "chroot", root, program, "version"); !strings.HasPrefix(out, program+" "+newVersion+" ") {
			t.Errorf("%s", out)
		}
		output(t, "chroot", root, "getent", "passwd", strings.TrimSuffix(program, "-milter"))
	}
	output(t, "chroot", root, "authkey-milter", "check")
	if !exists("etc/systemd/system/sockets.target.wants/authkey-milter.socket") || exists("etc/systemd/system/multi-user.target.wants/authkey-server.service") {
		t.Error("the milter is not enabled, or the server is")
	}
	output(t, "chroot", root, "authkey-milter", "setup", "postfix", "--apply")
	milters := func() string { return strings.TrimSpace(output(t, "chroot", root, "postconf", "-h", "smtpd_milters")) }
	if got := milters(); !strings.Contains(got, "inet:127.0.0.1:8895") {
		t.Fatalf("smtpd_milters is %s", got)
	}
	if said := run("--erase", "authkey-milter", "authkey-server"); strings.Contains(said, "DEFERRED") || milters() != "" {
		t.Errorf("after erasing smtpd_milters is %q:\n%s", milters(), said)
	}
	for path, want := range map[string]bool{
		"usr/lib/systemd/system/authkey-milter-retry.timer": false, "usr/sbin/authkey-milter": false, "usr/sbin/authkey-server": false, "etc/authkey/milter.yaml": false,
		"etc/authkey/milter.yaml.rpmsave": true, "etc/systemd/system/sockets.target.wants/authkey-milter.socket": false,
	} {
		if exists(path) != want {
			t.Errorf("after erasing %s exists: %v", path, !want)
		}
	}
}
