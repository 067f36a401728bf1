package packagetest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFirstUse goes through the whole life of the packages on a fresh Debian with
// Postfix, with the lines that README.md prints, on each release: install, a message
// that passes, one that is refused, a configuration that is refused, a hostile user,
// undo, upgrade, remove, purge. The log says how long each step took.
func TestFirstUse(t *testing.T) {
	for _, d := range debians {
		t.Run(d.suite, func(t *testing.T) {
			t.Parallel()
			m := boot(t, d)
			// Whoever changed a file that the package brings a new version of is asked.
			m.write("/etc/apt/apt.conf.d/keep", `Dpkg::Options { "--force-confdef"; "--force-confold"; };`)
			u := &firstUse{machine: m, key: m.serveAuthentication()}
			for _, step := range []struct {
				name string
				do   func()
			}{
				{"install", u.install},
				{"pass", u.pass},
				{"units", u.units},
				{"enforce and refuse", u.refuse},
				{"upgrade", u.upgrade},
				{"a refused configuration", u.refusedConfiguration},
				{"a hostile user", u.hostileUser},
				{"confinement", u.confinement},
				{"a pass on one machine", u.oneMachine},
				{"undo", u.undo},
				{"remove", u.remove},
				{"remove, asked by hand", u.removeByHand},
				{"purge", u.purge},
			} {
				began := time.Now()
				step.do()
				t.Logf("%s: %.1f s", step.name, time.Since(began).Seconds())
				if t.Failed() {
					return
				}
			}
		})
	}
}

// A firstUse is the machine on which it is done.
type firstUse struct {
	*machine
	key string // of alice@a.example
}

// lifeLines are the lines of a block that the README prints for the packages' life.
func (u *firstUse) lifeLines(begin string) []string {
	u.t.Helper()
	return strings.Split(find(u.t, printed(u.t, "README.md", "Upgrading, undoing, removing"), begin), "\n")
}

// install types the five minutes. The packages are the older ones.
func (u *firstUse) install() {
	u.putAll(packages.old)
	lines := fiveMinutes(u.t)
	said := u.run(strings.ReplaceAll(lines[0], "_amd64.deb", "_$(dpkg --print-architecture).deb"))
	for _, want := range append(lines[1:], "/usr/share/doc/authkey-milter/README.Debian") {
		if !strings.Contains(said, strings.TrimSuffix(want, "\n")) {
			u.t.Errorf("the installation does not say %s:\n%s", want, said)
		}
	}
	if version := u.value("dpkg-query --show --showformat='${Version}' authkey-milter"); version != "1.0.0-1" {
		u.t.Fatalf("version %s", version)
	}
	u.enter(lines[1:])
	u.checkDoctor()
}

func (u *firstUse) pass() {
	u.sendOne(u.key, "first")
	u.await("journalctl --unit=authkey-milter --output=cat | grep ' from=alice@a.example result=pass '")
}

func (u *firstUse) units() {
	u.checkUnits("a.example")
	u.checkLogcheck()
	u.checkReload()
	if score := u.exposure("authkey-milter.service"); score > milterExposure {
		u.t.Errorf("authkey-milter.service is exposed %v", score)
	}
	if score := u.exposure("authkey-server.service"); score > serverExposure {
		u.t.Errorf("authkey-server.service is exposed %v", score)
	}
	for _, program := range programs {
		for _, doc := range []string{"README.md", "docs/operations.md", "docs/policy.md", "docs/server.md"} {
			if path := "/usr/share/doc/" + program + "/" + doc; !u.exists(path) {
				u.t.Errorf("there is no %s", path)
			}
		}
	}
}

const enforcing = "mode: enforce\nlocal_domains: [b.example]\npolicy: {fail: reject}\n# mine\n"

func (u *firstUse) refuse() {
	u.write("/etc/authkey/milter.yaml", enforcing)
	u.run("systemctl reload authkey-milter && authkey-milter setup postfix --apply && postfix reload")
	u.await("authkey-milter doctor --json | grep -q '\"check\":\"default-action\",\"status\":\"ok\"'")
	u.sendOne(u.key, "enforced")
	if got := u.send(senderJob{Messages: 1, Workers: 1, Key: strings.Repeat("x", 40), Prefix: "forged"}, nil); len(got.Refused) != 1 || !strings.HasPrefix(got.Refused[0], "550 5.7.1 ") {
		u.t.Errorf("a wrong key: %+v", got)
	}
}

func (u *firstUse) upgrade() {
	socket := u.value("systemctl show --property=InvocationID --value authkey-milter.socket")
	process := u.value("systemctl show --property=MainPID --value authkey-milter")
	u.putAll(packages.release)
	u.enter(u.lifeLines("apt install"))
	if version := u.value("dpkg-query --show --showformat='${Version}' authkey-milter"); version != newPackage {
		u.t.Errorf("version %s", version)
	}
	if text := readFile(u.t, filepath.Join(u.root, "etc/authkey/milter.yaml")); text != enforcing {
		u.t.Errorf("the configuration is now %s", text)
	}
	if !u.exists("/etc/authkey/milter.yaml.dpkg-dist") {
		u.t.Error("the package's own configuration is not beside it")
	}
	if now := u.value("systemctl show --property=InvocationID --value authkey-milter.socket"); now != socket {
		u.t.Error("the sockets were made anew")
	}
	if now := u.value("systemctl show --property=MainPID --value authkey-milter"); now == process || now == "0" {
		u.t.Errorf("process %s after %s", now, process)
	}
	if out := u.value("authkey-milter version"); !strings.HasPrefix(out, "authkey-milter "+newVersion+" ") {
		u.t.Errorf("%s is installed", out)
	}
	u.checkDoctor()
	u.sendOne(u.key, "upgraded")
}

// refusedConfiguration: while the milter cannot start, nobody waits for it and systemd
// does not run wild; when the file is mended it comes back by itself.
func (u *firstUse) refusedConfiguration() {
	u.run("install -m 0600 /etc/authkey/milter.yaml draft.yaml && authkey-milter check --config draft.yaml") // is not the service's
	for i, breakIt := range []struct{ what, do, mend string }{
		// Here it comes back by itself.
		{"unreadable", "chmod 0600 /etc/authkey/milter.yaml", "chmod 0644 /etc/authkey/milter.yaml"},
		{"no YAML", "echo 'mode: [' >> /etc/authkey/milter.yaml", "sed -i '/mode: \\[/d' /etc/authkey/milter.yaml; systemctl start authkey-milter || true"},
	} {
		u.run(breakIt.do)
		for _, command := range []string{"authkey-milter check", "systemctl reload authkey-milter", "systemctl restart authkey-milter"} {
			if out, err := u.try(command); err == nil {
				u.t.Errorf("%s: %s takes it: %s", breakIt.what, command, out)
			}
		}
		since, began := u.value("date '+%F %T'"), time.Now()
		// Each session would start the service again, and wait for it.
		for n := range 20 {
			got := u.send(senderJob{Messages: 1, Workers: 1, Key: u.key, Prefix: fmt.Sprint("waits", i, "-", n, "-"), Once: true}, nil)
			if got.Accepted+len(got.Refused) > 0 { // the default action is tempfail
				u.t.Errorf("%s: %+v", breakIt.what, got)
			}
		}
		elapsed := time.Since(began)
		u.await("systemctl is-failed authkey-milter") // which people see
		starts := strings.Count(u.run("journalctl --unit=authkey-milter.service --output=cat --since='"+since+"'"), "Starting authkey-milter.service")
		if limit := 3 + 2*int(elapsed/(20*time.Second)); starts > limit {
			u.t.Errorf("%s: started %d times in %s", breakIt.what, starts, elapsed)
		}
		postfix := u.run("journalctl --identifier=postfix/smtpd --output=cat --since='" + since + "'")
		if strings.Contains(postfix, "timed out") || strings.Count(postfix, "milter-reject: CONNECT ") != 20 || !strings.Contains(postfix, "No such file or directory") {
			u.t.Errorf("%s: Postfix waits for the milter:\n%s", breakIt.what, postfix)
		}
		u.run(breakIt.mend)
		u.await("systemctl is-active authkey-milter.service authkey-milter.socket")
		u.sendOne(u.key, fmt.Sprint("mended", i))
	}
	// Whoever stops it wants it stopped.
	u.run("echo 'mode: [' >> /etc/authkey/milter.yaml; ! systemctl restart authkey-milter; systemctl is-active authkey-milter-retry.timer; systemctl stop authkey-milter")
	if state, err := u.try("systemctl is-active authkey-milter-retry.timer"); err == nil {
		u.t.Errorf("stopped, it is still to be tried again: %s", state)
	}
	u.run("sed -i '/mode: \\[/d' /etc/authkey/milter.yaml")
	u.start("authkey-milter")
	u.sendOne(u.key, "started")
	// What passes by itself is tried again soon: another process has the state folder.
	u.run("systemctl stop authkey-milter.socket authkey-milter && systemd-run --unit=holder --quiet flock /var/lib/authkey/notified.lock sleep 1000")
	u.await("! flock --nonblock /var/lib/authkey/notified.lock true")
	u.try("systemctl start authkey-milter")
	u.run("systemctl stop holder")
	u.await("systemctl is-active authkey-milter.service")
	u.sendOne(u.key, "unlocked")
}

// oneMachine types what docs/operations.md says, for the domain that is served here.
func (u *firstUse) oneMachine() {
	blocks := printed(u.t, "docs/operations.md", "A `pass` on one machine")
	lines := func(begin string) []string {
		text := strings.ReplaceAll(find(u.t, blocks, begin), "test.example", "a.example")
		return strings.Split(text, "\n")
	}
	server := lines("apt install ./authkey-server_")
	u.enter(server)
	u.enter(lines("cp -p /etc/authkey/milter.yaml"))
	u.append("/etc/authkey/milter.yaml", strings.Join(lines("submission: {networks: []}"), "\n"))
	u.enter(lines("systemctl reload authkey-milter")[:3])
	u.await(lines("systemctl reload authkey-milter")[3])
	u.enter(lines("mv ")[:3])
	// What was before is in force again.
	u.await("authkey-milter doctor --json | grep -q '\"check\":\"config\",\"status\":\"ok\",\"what\":\"the milter has '")
	if text := readFile(u.t, filepath.Join(u.root, "etc/authkey/milter.yaml")); text != enforcing {
		u.t.Errorf("the configuration is now %s", text)
	}
}

func (u *firstUse) undo() {
	u.enter(u.lifeLines("authkey-milter setup postfix --undo"))
	if list := u.value("postconf -h smtpd_milters"); list != "" {
		u.t.Errorf("after undo smtpd_milters is %s", list)
	}
	u.run("authkey-milter setup postfix --apply && postfix reload")
}

// remove: the package goes with its entry in main.cf, whatever milter.yaml says, and
// mail goes on.
func (u *firstUse) remove() {
	u.write("/etc/authkey/milter.yaml", "mode: [\n")
	u.enter(u.lifeLines("apt remove -y authkey-milter"))
	if list := u.value("postconf -h smtpd_milters"); list != "" {
		u.t.Errorf("after removal smtpd_milters is %s", list)
	}
	got := u.send(senderJob{Messages: 1, Workers: 1, Key: u.key, Prefix: "removed", Once: true}, nil)
	if got.Accepted != 1 {
		u.t.Errorf("after removal: %+v", got)
	}
	u.checkRemoved()
}

// removeByHand: what setup did not write is not taken out, and said loudly.
func (u *firstUse) removeByHand() {
	u.write("/etc/authkey/milter.yaml", enforcing)
	u.installAgain()
	u.run("postconf -e 'smtpd_milters = inet:127.0.0.1:1, unix:authkey/milter.sock'")
	u.write("/etc/mail/sendmail.cf", "O InputMailFilters=authkey\nXauthkey, S=unix:/run/authkey/milter.sock, F=T\n")
	before := readFile(u.t, filepath.Join(u.root, "etc/postfix/main.cf"))
	said := strings.ReplaceAll(u.run("apt-get remove --yes authkey-milter"), "\r", "") // apt gives dpkg a terminal
	for _, want := range []string{"DEFERRED", "smtpd_milters = inet:127.0.0.1:1, unix:authkey/milter.sock\n", "postconf -e 'smtpd_milters = inet:127.0.0.1:1'\n", "Sendmail still asks authkey-milter"} {
		if !strings.Contains(said, want) {
			u.t.Errorf("the removal does not say %s:\n%s", want, said)
		}
	}
	if now := readFile(u.t, filepath.Join(u.root, "etc/postfix/main.cf")); now != before {
		u.t.Errorf("the removal edited what is not setup's:\n%s", now)
	}
	u.run("postconf -e smtpd_milters= && rm -r /etc/mail")
}

// installAgain installs what was removed, which says again what there is to do.
func (u *firstUse) installAgain() {
	u.t.Helper()
	said := u.run("apt-get install --yes ./authkey-milter_*_$(dpkg --print-architecture).deb")
	if !strings.Contains(said, "authkey-milter setup postfix --apply") {
		u.t.Errorf("installed again it does not say what there is to do:\n%s", said)
	}
	u.await("systemctl is-active authkey-milter.service authkey-milter.socket")
}

// start starts services. Where the machine outside has the older kind of control groups,
// systemd 257 in a container sometimes finds that of a unit removed which has just ended
// ("Failed to spawn executor"), and starts it at the second try.
func (m *machine) start(units ...string) {
	m.t.Helper()
	names := strings.Join(units, " ")
	m.run("systemctl start " + names + " || true")
	m.await("systemctl is-active " + names)
}

func (u *firstUse) purge() {
	u.enter(u.lifeLines("apt purge -y authkey-milter"))
	u.checkPurged()
	u.checkServerRemoval()
}
