package packagetest

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const password = "correct horse"

// The place between the two machines of TestTenMinutes.
const (
	recipientCable = "9.9.9.12"
	senderCable    = "9.9.9.21"
)

// TestTenMinutes types what docs/server.md and docs/sender.md say into a fresh Debian
// with Postfix, Dovecot and OpenDKIM, after the README's five minutes there and on the
// machine of a recipient. It ends with a message that a user submits there, with its
// key, and that the recipient verifies here.
func TestTenMinutes(t *testing.T) {
	server := printed(t, "docs/server.md", "Ten minutes to a server")
	sender := printed(t, "docs/sender.md", "Ten minutes on Postfix")
	five := fiveMinutes(t)

	m, b := bootSender(t), bootAt(t, debian12, serverAddress)
	connect(t, m, b, senderCable, recipientCable)
	published := []string{"--mx-host=b.example,mx.b.example", "--host-record=mx.b.example," + serverAddress,
		"--host-record=as.example.com," + senderAddress, "--host-record=mail.example.com," + senderAddress}
	m.startDNS(published)
	b.putAll(packages.release)
	b.startDNS(published)
	b.enter(five)
	m.putAll(packages.release)
	m.enter(five)

	// The server.
	init := strings.Split(find(t, server, "apt install ./authkey-server_"), "\n")
	m.enter(init[:len(init)-1])
	said := m.run(init[len(init)-1])
	record := regexp.MustCompile(`(?m)^example\.com\. 3600 IN TXT "(.*)"$`).FindStringSubmatch(said)
	if record == nil {
		t.Fatalf("no record to publish:\n%s", said)
	}
	m.enter(strings.Split(find(t, server, "authkey-server address add"), "\n"))
	if out := m.run(find(t, server, "authkey-server key")); !regexp.MustCompile(`(?m)^result\s+pass$`).MatchString(out) {
		t.Errorf("its own key: %s", out)
	}
	published = append(published, "--txt-record=example.com,"+record[1])
	m.startDNS(published)
	b.startDNS(published)
	m.run(find(t, server, "authkey-server dns"))

	// The sender.
	m.run("cp /etc/authkey/credentials/example.com.secret /etc/authkey/addresses/example.com .")
	m.enter(strings.Split(find(t, sender, "install -m 0600"), "\n"))
	m.append("/etc/authkey/logins", find(t, sender, "# /etc/authkey/logins"))
	m.configureMilter(t, find(t, sender, "local_domains:"))
	m.append("/etc/postfix/master.cf", find(t, sender, "submission inet"))
	m.append("/etc/dovecot/local.conf", "service auth {\n"+find(t, sender, "unix_listener")+"\n}")
	m.run("systemctl restart dovecot")
	last := strings.Split(find(t, sender, "authkey-milter check"), "\n")
	if last[len(last)-1] != "authkey-milter doctor" {
		t.Errorf("docs/sender.md ends with %s", last[len(last)-1])
	}
	m.enter(last)
	m.checkDoctor()
	b.checkDoctor()

	m.checkSubmission(b)
	m.checkRotation()
	m.checkUnits("example.com")
}

// bootSender starts a machine of example.com, with a signer and passwords.
func bootSender(t *testing.T) *machine {
	m := bootAt(t, debian12, senderAddress)
	m.write("/etc/opendkim.conf", "Syslog yes\nMode sv\nDomain example.com\nSelector test\nKeyFile /etc/dkimkeys/test.private\n"+
		"Canonicalization relaxed/simple\nOversignHeaders From\nUserID opendkim\nUMask 007\nPidFile /run/opendkim/opendkim.pid\nSocket local:/var/spool/postfix/opendkim/opendkim.sock\n")
	m.run(`hostname mail.example.com
		postconf -e myhostname=mail.example.com 'mydestination=example.com, $myhostname, localhost' \
			smtpd_milters=unix:opendkim/opendkim.sock smtpd_tls_security_level=may
		echo 'bob:` + password + `' | chpasswd
		openssl genrsa -out /etc/dkimkeys/test.private 2048
		chown opendkim /etc/dkimkeys/test.private && chmod 0600 /etc/dkimkeys/test.private
		install -d -o opendkim -g opendkim -m 0750 /var/spool/postfix/opendkim
		usermod --append --groups opendkim postfix
		systemctl start opendkim
		systemctl restart postfix`)
	return m
}

// append puts lines at the end of a file.
func (m *machine) append(path, text string) {
	m.t.Helper()
	m.write("/root/append", text+"\n")
	m.run("cat /root/append >> " + path)
}

// configureMilter adds what docs/sender.md says to the package's milter.yaml, with the
// map that it says instead of the login.
func (m *machine) configureMilter(t *testing.T, yaml string) {
	t.Helper()
	const byMap = `authorize: "map:/etc/authkey/logins"`
	if text := readFile(t, filepath.Join("..", "..", "docs", "sender.md")); !strings.Contains(text, "say `"+byMap+"`") {
		t.Errorf("docs/sender.md does not say %s", byMap)
	}
	mapped := strings.Replace(yaml, "authorize: login", byMap, 1)
	if mapped == yaml {
		t.Errorf("there is no authorize: login in\n%s", yaml)
	}
	m.run("sed -i '/^local_domains:/d' /etc/authkey/milter.yaml")
	m.append("/etc/authkey/milter.yaml", mapped)
}

// checkSubmission has bob send a message to the recipient's machine.
func (m *machine) checkSubmission(b *machine) {
	m.t.Helper()
	job := senderJob{Submission: &submission{Server: senderAddress + ":587", Login: "bob", Password: password,
		From: "bob@example.com", To: "bob@b.example", Subject: "submitted"}}
	if got := m.send(job, nil); got.Accepted != 1 {
		m.t.Fatalf("%+v", got)
	}
	b.await("grep -rq '^Subject: submitted' /home/bob/Maildir/new")
	inbox := b.inbox()
	if len(inbox) != 1 {
		m.t.Fatalf("%d messages", len(inbox))
	}
	header, _, _ := strings.Cut(inbox[0], "\n\n")
	flat := regexp.MustCompile(`\n\s+`).ReplaceAllString(header, " ")
	for _, want := range []string{
		`(?m)^Authentication-Results: mx\.b\.example; x-authkey=pass smtp\.mailfrom=bob@example\.com`,
		`(?m)^X-Auth-Agent: smtp; authkey/`,
		`(?m)^DKIM-Signature: .* d=example\.com;.* h=[^;]*From`,
	} {
		if !regexp.MustCompile(want).MatchString(flat) {
			m.t.Errorf("not %s:\n%s", want, header)
		}
	}
	if regexp.MustCompile(`(?i)X-Auth-Key`).MatchString(header) {
		m.t.Errorf("the key was delivered, or signed:\n%s", header)
	}
	key := m.value("authkey-server key bob@example.com 2>/dev/null")
	log := m.run("journalctl --output=cat")
	if !strings.Contains(log, " result=skipped reason=submission ") || !strings.Contains(log, "note=key-attached") || strings.Contains(log, key) {
		m.t.Errorf("the log says nothing of it, or the key:\n%s", m.run("journalctl --output=cat --unit=authkey-milter"))
	}
}

// checkRotation puts a new secret on top and lets the doctor say what is missing.
func (m *machine) checkRotation() {
	m.t.Helper()
	m.run(`cd /etc/authkey/credentials
		{ printf 'k2 '; openssl rand -base64 32; cat example.com.secret; } > new
		mv new example.com.secret && chmod 0600 example.com.secret`)
	for _, step := range []struct{ says, mend string }{
		{"was changed after the milter was started", "systemctl restart authkey-milter"},
		{"does not have the secret that makes keys here", "systemctl restart authkey-server"},
	} {
		out, err := m.try("authkey-milter doctor")
		if unwrapped := strings.Join(strings.Fields(out), " "); err == nil || !strings.Contains(unwrapped, step.says) {
			m.t.Errorf("%v, does not say %q:\n%s", err, step.says, out)
		}
		m.run(step.mend)
	}
	m.checkDoctor()
}
