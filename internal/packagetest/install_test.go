package packagetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/doctor"
)

// The most that systemd may find to say against the units.
const (
	milterExposure = 1.5
	serverExposure = 2.0
)

// serveAuthentication installs authkey-server and has it serve a.example. It returns
// the key of alice.
func (m *machine) serveAuthentication() string {
	m.t.Helper()
	m.install(deb(packages.release, "authkey-server"))
	if state, err := m.try("systemctl is-enabled authkey-server || systemctl is-active authkey-server"); err == nil || state != "disabled\ninactive\n" {
		m.t.Errorf("before init the service is %q", state)
	}
	m.run("authkey-server init a.example --host as.a.example && authkey-server address add alice@a.example && authkey-server check")
	m.run("systemctl enable --now authkey-server && authkey-server dns a.example")
	key := m.run("authkey-server key alice@a.example 2>/dev/null")
	return strings.TrimSpace(key)
}

// inbox are the messages that bob has got.
func (m *machine) inbox() []string {
	m.t.Helper()
	dir := filepath.Join(m.root, "home/bob/Maildir/new")
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(m.t, err)
		all = append(all, string(text))
	}
	return all
}

var (
	subject  = regexp.MustCompile(`(?m)^Subject: (.*)$`)
	verified = regexp.MustCompile(`(?m)^Authentication-Results: mx\.b\.example;\s+x-authkey=pass `)
)

// checkInbox waits until everything that was accepted is delivered, and checks that it
// was verified and has no key any more.
func (m *machine) checkInbox(prefix string, want int) {
	m.t.Helper()
	m.await(`test -z "$(postqueue -j)"`)
	copies := map[string]int{}
	for _, text := range m.inbox() {
		name := subject.FindStringSubmatch(text)
		if name == nil || !strings.HasPrefix(name[1], prefix) {
			continue
		}
		copies[name[1]]++
		header, _, _ := strings.Cut(text, "\n\n")
		if !verified.MatchString(header) || strings.Contains(strings.ToLower(header), "x-auth-key:") {
			m.t.Fatalf("not verified, or with its key:\n%s", text)
		}
	}
	for n := 1; n <= want; n++ {
		if name := fmt.Sprint(prefix, n); copies[name] != 1 {
			m.t.Errorf("%s: %d copies", name, copies[name])
		}
	}
}

// sendOne sends one message, which must be accepted at once, and checks it.
func (m *machine) sendOne(key, prefix string) {
	m.t.Helper()
	got := m.send(senderJob{Messages: 1, Workers: 1, Key: key, Prefix: prefix}, nil)
	if got.Accepted != 1 || got.Deferred != 0 || got.Broken != 0 {
		m.t.Fatalf("%+v", got)
	}
	m.checkInbox(prefix, 1)
}

// fiveMinutes are the lines that the README tells a recipient to type.
func fiveMinutes(t *testing.T) []string {
	t.Helper()
	lines := strings.Split(printed(t, "README.md", "Five minutes for a recipient")[0], "\n")
	if !strings.HasPrefix(lines[0], "apt install ./authkey-milter_") || lines[len(lines)-1] != "authkey-milter doctor" {
		t.Fatalf("the README's five minutes are not the packages': %q", lines)
	}
	return lines
}

// enter types lines, which must succeed.
func (m *machine) enter(lines []string) {
	m.t.Helper()
	for _, line := range lines {
		// One for the machine at hand.
		m.run(strings.ReplaceAll(line, "_amd64.deb", "_$(dpkg --print-architecture).deb"))
	}
}

// putAll copies all debs of a folder into the home of root, in place of those that are there.
func (m *machine) putAll(folder string) {
	m.t.Helper()
	m.run("rm -f ./*.deb")
	debs, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	must(m.t, err)
	if len(debs) == 0 {
		m.t.Fatalf("no packages in %s", folder)
	}
	for _, file := range debs {
		m.put(file)
	}
}

// checkDoctor wants everything well.
func (m *machine) checkDoctor() {
	m.t.Helper()
	var found struct{ Findings []doctor.Finding }
	out := m.run("authkey-milter doctor --json")
	must(m.t, json.Unmarshal([]byte(out), &found))
	if len(found.Findings) < 8 || doctor.AnyFault(found.Findings) {
		m.t.Errorf("doctor: %s", out)
	}
}

// checkUnits: systemd finds no fault in the units, which serve a domain, and they do
// what they promise.
func (m *machine) checkUnits(domain string) {
	m.t.Helper()
	if out := m.run("systemd-analyze verify --man=no authkey-milter.service authkey-milter.socket authkey-server.service 2>&1"); out != "" {
		m.t.Error(out)
	}
	for _, unit := range []string{"authkey-milter", "authkey-server"} {
		pid := m.value("systemctl show --property=MainPID --value " + unit)
		status := m.run("grep -E '^(CapBnd|CapEff|CapPrm|NoNewPrivs|Seccomp):' /proc/" + pid + "/status | tr -s '\\t ' ' '")
		if want := "CapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"; status != want {
			m.t.Errorf("%s runs with %s", unit, status)
		}
		if limit := m.value("grep '^Max core file size' /proc/" + pid + "/limits | tr -s ' '"); limit != "Max core file size 0 0 bytes" {
			m.t.Errorf("%s runs with %s", unit, limit)
		}
		if user := m.value("stat -c %U /proc/" + pid); user != strings.TrimSuffix(unit, "-milter") {
			m.t.Errorf("%s runs as %s", unit, user)
		}
		for property, want := range map[string]string{"MemoryMax": "1073741824", "LimitNOFILE": "65536", "WatchdogUSec": "30s", "NotifyAccess": "main", "NRestarts": "0"} {
			if got := m.value("systemctl show --property=" + property + " --value " + unit); got != want {
				m.t.Errorf("%s: %s is %s", unit, property, got)
			}
		}
	}
	secret := "/etc/authkey/credentials/" + domain + ".secret"
	if key := m.value("tail -1 " + secret); len(strings.Fields(key)) != 2 {
		m.t.Error("there is no secret")
	}
	for _, user := range []string{"authkey", "authkey-server"} {
		if _, err := m.try("setpriv --reuid=" + user + " --regid=" + user + " --init-groups cat " + secret); err == nil {
			m.t.Errorf("%s can read the secret", user)
		}
		m.run("setpriv --reuid=" + user + " --regid=" + user + " --init-groups cat /etc/authkey/addresses/" + domain)
	}
	m.await("systemctl show --property=StatusText --value authkey-milter | grep -q 'messages answered'")
}

// checkLogcheck: logcheck tells nobody of what is usual, and of errors it does.
func (m *machine) checkLogcheck() {
	m.t.Helper()
	for _, unit := range []string{"authkey-milter", "authkey-server"} {
		for _, format := range []string{"short", "short-iso"} {
			rule := " | grep -Evf /etc/logcheck/ignore.d.server/" + unit + " || true"
			lines := "journalctl --identifier=" + unit + " --quiet --output=" + format
			if format == "short-iso" { // as rsyslog has it
				lines += " | sed -E 's/^([^ ]+)\\+00:?00 /\\1.123456+00:00 /'"
			}
			all := m.run(lines)
			if rest := m.run(lines + rule); !strings.Contains(all, " level=INFO ") || rest != "" {
				m.t.Errorf("%s, %s: logcheck would report\n%s\nof\n%s", unit, format, rest, all)
			}
			if rest := m.run("(" + lines + " | sed s/level=INFO/level=ERROR/)" + rule); rest != strings.ReplaceAll(all, "level=INFO", "level=ERROR") {
				m.t.Errorf("%s, %s: logcheck would hide errors; it reports\n%s", unit, format, rest)
			}
		}
	}
}

// checkReload: a bad configuration is refused before anything changes.
func (m *machine) checkReload() {
	m.t.Helper()
	for _, unit := range []string{"authkey-milter", "authkey-server"} {
		file := "/etc/authkey/" + strings.TrimPrefix(unit, "authkey-") + ".yaml"
		pid := m.value("systemctl show --property=MainPID --value " + unit)
		m.run("systemctl reload " + unit)
		m.run("cp " + file + " /root/good && echo 'nonsense: true' >> " + file)
		if out, err := m.try("systemctl reload " + unit); err == nil {
			m.t.Errorf("%s takes a bad configuration: %s", unit, out)
		}
		m.run("cp /root/good " + file + " && systemctl reload " + unit + " && systemctl is-active " + unit)
		if now := m.value("systemctl show --property=MainPID --value " + unit); now != pid {
			m.t.Errorf("%s was process %s, now it is %s", unit, pid, now)
		}
		if log := m.run("journalctl --output=cat --unit=" + unit); !strings.Contains(log, "nonsense: is not a key") {
			m.t.Errorf("nothing says why:\n%s", log)
		}
	}
}

// TestNothingIsLost sends 5000 messages while the milter is reloaded and started again:
// with tempfail while it is away, every message is delivered once, verified.
func TestNothingIsLost(t *testing.T) {
	const (
		messages = 5000
		step     = 300
		reloads  = 10
		restarts = 5
	)
	m := boot(t, debian12)
	key := m.serveAuthentication()
	m.install(deb(packages.release, "authkey-milter"))
	m.run("sed -i 's/^mode: test$/mode: enforce/' /etc/authkey/milter.yaml && systemctl reload authkey-milter")
	m.run("authkey-milter setup postfix --apply && postfix reload")
	if action := m.value("postconf -h smtpd_milters milter_default_action"); action != "unix:authkey/milter.sock\ntempfail" {
		t.Fatalf("smtpd_milters and its default action: %s", action)
	}
	// Postfix takes a moment; then mail comes to the milter.
	m.await("authkey-milter doctor --json | grep -q '\"check\":\"listed\",\"status\":\"ok\"'")
	reloaded, restarted := 0, 0
	got := m.send(senderJob{Messages: messages, Workers: 4, Key: key, Prefix: "load", Report: step}, func(int) {
		if reloaded < 2*restarted+2 && reloaded < reloads {
			m.run("systemctl reload authkey-milter")
			reloaded++
		} else if restarted < restarts {
			m.run("systemctl reset-failed authkey-milter; systemctl restart authkey-milter")
			restarted++
		}
	})
	t.Logf("%+v; %d reloads, %d restarts", got, reloaded, restarted)
	if got.Accepted != messages || len(got.Refused) > 0 || got.Broken > 0 || reloaded != reloads || restarted != restarts {
		t.Errorf("%+v; %d reloads, %d restarts", got, reloaded, restarted)
	}
	m.checkInbox("load", messages)
	if log := m.run("journalctl --output=cat --unit=authkey-milter"); strings.Contains(log, "level=ERROR") {
		t.Errorf("errors in the log:\n%s", log)
	}
	m.checkWatchdog(key)
}

// checkWatchdog: a process that is stuck is started again.
func (m *machine) checkWatchdog(key string) {
	m.t.Helper()
	m.write("/etc/systemd/system/authkey-milter.service.d/test.conf", "[Service]\nWatchdogSec=10s\n")
	m.run("systemctl daemon-reload && systemctl restart authkey-milter")
	// It is fed, not only just begun.
	m.await("systemctl show --property=StatusText --value authkey-milter | grep -q answered")
	before := m.value("systemctl show --property=MainPID --value authkey-milter")
	m.run("kill -STOP " + before)
	m.await(`test "$(systemctl show --property=NRestarts --value authkey-milter)" = 1 && systemctl is-active authkey-milter`)
	if after := m.value("systemctl show --property=MainPID --value authkey-milter"); after == before || after == "0" {
		m.t.Errorf("process %s after %s", after, before)
	}
	if log := m.run("journalctl --unit=authkey-milter --output=cat"); !strings.Contains(log, "Watchdog timeout") || strings.Contains(log, key) {
		m.t.Error("nothing says why, or the key is in the log")
	}
	m.sendOne(key, "unstuck")
}
