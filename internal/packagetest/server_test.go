package packagetest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestServer lives with the package of the server on a fresh Debian, typing what
// docs/server.md and docs/backup.md say: two domains, a certificate of certbot's and its
// renewal, what people do wrong and the doctor's mends, a new secret, and the way back
// after everything was lost.
func TestServer(t *testing.T) {
	s := &serverMachine{machine: bootServer(t)}
	s.begin()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"a second domain", s.secondDomain},
		{"TLS", s.tls},
		{"files that only root can read", s.closedFiles},
		{"a configuration that was not reloaded", s.notReloaded},
		{"a new secret", s.rotate},
		{"a lost secret", s.lostSecret},
		{"everything lost", s.restore},
	} {
		step.do()
		if t.Failed() {
			t.Fatalf("at: %s", step.name)
		}
	}
}

// bootServer starts a machine with the packages' files at hand.
func bootServer(t *testing.T) *machine {
	m := bootAt(t, debian12, senderAddress)
	m.putAll(packages.release)
	return m
}

// A serverMachine is the machine of as.example.com.
type serverMachine struct {
	*machine
}

const serverHost = "as.example.com"

// publish publishes the record that the server wants, for both domains.
func (s *serverMachine) publish(record string) {
	s.t.Helper()
	s.startDNS([]string{"--host-record=" + serverHost + "," + senderAddress, "--txt-record=example.com," + record, "--txt-record=example.org," + record})
}

// begin types the ten minutes up to the record.
func (s *serverMachine) begin() {
	s.t.Helper()
	server := printed(s.t, "docs/server.md", "Ten minutes to a server")
	s.enter(strings.Split(find(s.t, server, "apt install ./authkey-server_"), "\n"))
	s.enter(strings.Split(find(s.t, server, "authkey-server address add"), "\n"))
	s.publish("AS=" + serverHost + ":7425")
	s.wellness()
}

// examine runs the doctor and returns its faults.
func (s *serverMachine) examine() (faults []serverFinding, text string) {
	s.t.Helper()
	out, _ := s.try("authkey-server doctor --json")
	var report struct{ Findings []serverFinding }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		s.t.Fatalf("%v in %s", err, out)
	}
	for _, f := range report.Findings {
		if f.Status == "fault" && f.Check != "clock" { // the container's host keeps it, or not
			faults = append(faults, f)
		}
	}
	return faults, out
}

type serverFinding struct{ Check, Status, What, Why, Mend string }

// wellness demands that the doctor finds nothing, of all that it looks at.
func (s *serverMachine) wellness() {
	s.t.Helper()
	s.await("systemctl is-active authkey-server")
	faults, text := s.examine()
	if len(faults) > 0 {
		s.t.Fatalf("faults: %+v", faults)
	}
	for _, check := range []string{"unit", "configuration", "secret", "addresses", "listening", "own-question", "dns", "outside"} {
		if !strings.Contains(text, `"check":"`+check+`","status":"ok"`) {
			s.t.Errorf("%s is not well:\n%s", check, text)
		}
	}
}

// mended demands one fault, types how it is mended, and demands that it is.
func (s *serverMachine) mended(pattern string, checks ...string) {
	s.t.Helper()
	faults, _ := s.examine()
	if len(faults) == 0 || !regexp.MustCompile(pattern).MatchString(faults[0].Check+": "+faults[0].What) {
		s.t.Fatalf("not %s: %+v", pattern, faults)
	}
	for line := range strings.Lines(faults[0].Mend) {
		line, _, _ := strings.Cut(strings.TrimSpace(line), "   #")
		if !strings.HasPrefix(line, "in ") && !strings.HasPrefix(line, "journalctl") {
			s.run(line)
		}
	}
	s.wellness()
}

func (s *serverMachine) secondDomain() {
	said := s.run("authkey-server init example.org")
	for _, want := range []string{"changed  /etc/authkey/server.yaml\n", `example.org. 3600 IN TXT "AS=` + serverHost + `:7425"`, "- domain: example.com\n", "- domain: example.org\n"} {
		if !strings.Contains(said, want) {
			s.t.Errorf("init of a second domain does not say %s:\n%s", want, said)
		}
	}
	for line := range strings.Lines(said) {
		if line, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "       "); found && !strings.Contains(line, "authkey-milter") {
			s.run(line)
		}
	}
	s.wellness()
	if list := s.run("stat -c '%a %U %G' /etc/authkey/addresses/example.org /etc/authkey/credentials/example.org.secret /etc/authkey/server.yaml"); list != "640 root authkey\n600 root root\n644 root root\n" {
		s.t.Errorf("modes and owners:\n%s", list)
	}
}

// issue puts a certificate into certbot's folders, with its links and modes, as the nth.
func (s *serverMachine) issue(n int) {
	s.t.Helper()
	s.run(fmt.Sprintf(`umask 022
		[ -e ca.key ] || { openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out /usr/local/share/ca-certificates/test.crt -subj /CN=Test -days 100 2>&1; update-ca-certificates; }
		mkdir -p /etc/letsencrypt/live/%[1]s /etc/letsencrypt/archive/%[1]s /etc/letsencrypt/renewal-hooks/deploy
		chmod 0700 /etc/letsencrypt/live /etc/letsencrypt/archive
		cd /etc/letsencrypt/archive/%[1]s
		openssl req -newkey rsa:2048 -nodes -keyout privkey%[2]d.pem -out /root/csr -subj /CN=%[1]s 2>&1
		echo subjectAltName=DNS:%[1]s > /root/ext
		openssl x509 -req -in /root/csr -CA /usr/local/share/ca-certificates/test.crt -CAkey /root/ca.key -set_serial %[2]d -days 90 -extfile /root/ext -out fullchain%[2]d.pem 2>&1
		chmod 0600 privkey%[2]d.pem
		for f in privkey fullchain; do ln -sfn ../../archive/%[1]s/${f}%[2]d.pem /etc/letsencrypt/live/%[1]s/$f.pem; done`, serverHost, n))
}

func (s *serverMachine) tls() {
	blocks := printed(s.t, "docs/server.md", "TLS")
	s.issue(1)
	before := readFile(s.t, s.root+"/etc/authkey/server.yaml")
	live := "/etc/letsencrypt/live/" + serverHost
	// What everybody tries first, root's own check and reload refuse.
	s.append("/etc/authkey/server.yaml", `listen: ["tls:7425"]`+"\n"+`tls: {cert: `+live+`/fullchain.pem, key: `+live+`/privkey.pem}`)
	for _, command := range []string{"authkey-server check", "systemctl reload authkey-server"} {
		if out, err := s.try(command); err == nil {
			s.t.Errorf("%s takes files that the service cannot read:\n%s", command, out)
		}
	}
	out, _ := s.try("authkey-server check")
	for _, want := range []string{"tls.key: authkey-server, the service's user (User= of authkey-server.service), may not search the folder /etc/letsencrypt/", "docs/server.md, TLS"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("check does not say %s:\n%s", want, out)
		}
	}
	if faults, _ := s.examine(); len(faults) == 0 || !strings.Contains(fmt.Sprint(faults), "RENEWED_LINEAGE="+live+" ") {
		s.t.Errorf("the doctor does not say how to correct it: %+v", faults)
	}
	// What is documented.
	s.write("/etc/authkey/server.yaml", before)
	s.enter(strings.Split(find(s.t, blocks, "RENEWED_LINEAGE="), "\n"))
	s.append("/etc/authkey/server.yaml", find(s.t, blocks, `listen: ["tls:7425"]`))
	s.publish("AS=" + serverHost + ":7425; tls=yes")
	last := strings.Split(find(s.t, blocks, "authkey-server check"), "\n")
	if last[len(last)-1] != "authkey-server doctor" {
		s.t.Errorf("the section ends with %s", last[len(last)-1])
	}
	s.enter(last[:len(last)-1])
	s.wellness()
	if modes := s.run("stat -c '%a %U %G' /etc/authkey/tls /etc/authkey/tls/privkey.pem"); modes != "750 root authkey-server\n640 root authkey-server\n" {
		s.t.Errorf("modes and owners:\n%s", modes)
	}
	// A renewal, as certbot makes it.
	s.issue(2)
	s.run("RENEWED_DOMAINS=" + serverHost + " RENEWED_LINEAGE=" + live + " run-parts /etc/letsencrypt/renewal-hooks/deploy")
	s.await("echo | openssl s_client -connect 127.0.0.1:7425 2>/dev/null | openssl x509 -noout -serial | grep -qx serial=02")
	s.wellness()
}

// closedFiles: what an editor with umask 077 saves, root's check does not take for good.
func (s *serverMachine) closedFiles() {
	for _, path := range []string{"/etc/authkey/addresses/example.com", "/etc/authkey/server.yaml"} {
		s.run("umask 077; cat " + path + " > new; mv new " + path)
		for _, command := range []string{"authkey-server check", "systemctl reload authkey-server"} {
			if out, err := s.try(command); err == nil {
				s.t.Errorf("%s takes %s:\n%s", command, path, out)
			}
		}
		s.mended("(addresses|configuration): .*authkey-server \\(User= of authkey-server.service\\) may not read " + path)
	}
	// A folder that was closed.
	s.run("chmod 0700 /etc/authkey/addresses")
	s.mended("addresses: .*may not search the folder /etc/authkey/addresses ")
	s.run("systemctl disable authkey-server")
	s.mended("unit: authkey-server.service is active, and disabled")
	s.run("systemctl stop authkey-server")
	s.mended("unit: authkey-server.service is inactive")
}

func (s *serverMachine) notReloaded() {
	s.run("sed -i 's/# ttl: 1h  /ttl: 30m  /' /etc/authkey/server.yaml")
	s.mended("configuration: /etc/authkey/server.yaml was changed, and the server runs with the previous version")
	s.append("/etc/authkey/server.yaml", "# a comment is no change")
	s.wellness()
}

func (s *serverMachine) rotate() {
	old := s.value("authkey-server key bob@example.com 2>/dev/null")
	s.run("authkey-server secret rotate example.com")
	if out, err := s.try("authkey-server secret rotate example.com"); err == nil || !strings.Contains(out, serverHost+":7425,tls does not accept keys of the new secret") && !strings.Contains(out, "does not accept keys of the new secret") {
		s.t.Errorf("the second step before the server has the secret: %v\n%s", err, out)
	}
	s.mended("secret: example.com: /etc/authkey/credentials/example.com.secret was changed after the server was started")
	s.run("authkey-server secret rotate example.com && systemctl restart authkey-server")
	s.await("systemctl is-active authkey-server")
	now := s.value("authkey-server key bob@example.com 2>/dev/null")
	if now == old {
		s.t.Error("the old secret makes the keys")
	}
	for _, key := range []string{old, now} {
		s.run("echo " + key + " | authkey-server verify bob@example.com")
	}
	if out, err := s.try("authkey-server secret rotate example.com"); err == nil || !strings.Contains(out, "too early") {
		s.t.Errorf("the third step at once: %v\n%s", err, out)
	}
	s.wellness()
}

// lostSecret: what systemd has passed can be had back.
func (s *serverMachine) lostSecret() {
	key := s.value("authkey-server key bob@example.com 2>/dev/null")
	s.run("rm /etc/authkey/credentials/example.com.secret")
	if faults, _ := s.examine(); len(faults) != 1 || faults[0].Check != "secret" {
		s.t.Errorf("%+v", faults)
	}
	s.enter(strings.Split(find(s.t, printed(s.t, "docs/backup.md", "A secret is lost"), "ls /run/credentials"), "\n"))
	if now := s.value("authkey-server key bob@example.com 2>/dev/null"); now != key {
		s.t.Error("it is another secret")
	}
	s.wellness()
}

// restore: everything is gone but the archive.
func (s *serverMachine) restore() {
	key := s.value("authkey-server key bob@example.com 2>/dev/null")
	s.enter(strings.Split(find(s.t, printed(s.t, "docs/backup.md", "Making a backup"), "umask 077"), "\n"))
	s.run("umask 077; tar -czf authkey-backup.tar.gz -C / etc/authkey && apt-get purge --yes authkey-server && rm -r /etc/authkey && userdel authkey-server && apt-get install --yes ./authkey-server_*_$(dpkg --print-architecture).deb")
	restore := strings.Split(find(s.t, printed(s.t, "docs/backup.md", "Restoring"), "tar -xzpf"), "\n")
	s.enter(restore[:len(restore)-1])
	s.wellness()
	s.run("echo " + key + " | authkey-server verify bob@example.com")
}
