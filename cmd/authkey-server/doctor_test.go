package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/testdns"
)

// A subject is a running server whose records are published.
type subject struct {
	place
	t    *testing.T
	dns  *testdns.Server
	port int
	proc *process
}

// newPatient is well, until a test makes it ill. more is put into its server.yaml.
func newSubject(t *testing.T, dns *testdns.Server, more string) *subject {
	t.Helper()
	addr := freePort(t)
	_, port, _ := strings.Cut(addr, ":")
	p := &subject{place: newPlace(t, ""), t: t, dns: dns}
	fmt.Sscan(port, &p.port)
	p.write(t, p.fill("host: 127.0.0.1\nlisten: ['tcp:127.0.0.1:{port}']\n"+more))
	p.publish(fmt.Sprintf("AS=%s", addr))
	return p
}

func (p *subject) fill(text string) string {
	return strings.NewReplacer("{port}", fmt.Sprint(p.port), "{dir}", p.dir).Replace(text)
}

// publish publishes records of both domains.
func (p *subject) publish(texts ...string) {
	p.t.Helper()
	var records []string
	for _, domain := range []string{"example.com", "example.org"} {
		for _, text := range texts {
			records = append(records, fmt.Sprintf("%s. 60 IN TXT %q", domain, text))
		}
	}
	if err := p.dns.Set(records...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *subject) start() { p.proc = startServing(p.t, serveCommand(p.config)) }

// examine runs the doctor and returns what it says is no good, check by check.
func (p *subject) examine(args ...string) (faults []doctor.Finding, all []doctor.Finding) {
	p.t.Helper()
	code, out, errOut := run(p.t, "", append([]string{"doctor", "--json", "--config", p.config, "--resolver", p.dns.Addr()}, args...)...)
	var report struct {
		OK       bool
		Findings []doctor.Finding
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		p.t.Fatalf("exit %d, %v\n%s%s", code, err, out, errOut)
	}
	for _, f := range report.Findings {
		if f.Check != "clock" && (f.Status == doctor.Fault || f.Status == doctor.Warning) {
			faults = append(faults, f)
		}
	}
	if (code == 0) != report.OK || code > 1 || report.OK != !doctor.AnyFault(report.Findings) {
		p.t.Errorf("exit %d, ok %v", code, report.OK)
	}
	return faults, report.Findings
}

// The doctor finds what is wrong, and only that.
func TestDoctor(t *testing.T) {
	dns, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	// Recipients do not dial loopback.
	const loopback = "warn dns: .*127.0.0.1 is not globally reachable"
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, p *subject)
		want  []string // "status check: what", patterns; without those about loopback
	}{
		{"well", func(_ *testing.T, p *subject) { p.start() }, nil},
		{"not running", func(*testing.T, *subject) {}, []string{"fault listening: nobody listens on tcp:127.0.0.1:{port}", "fault outside: 127.0.0.1:{port} at 127.0.0.1, an address of this machine: .*refused"}},
		{"stuck", func(_ *testing.T, p *subject) {
			p.start()
			p.proc.signal(syscall.SIGSTOP)
			awaitStopped(t, p.proc.Process.Pid)
		}, []string{"fault listening: tcp:127.0.0.1:{port}: what answers there is no Authentication Server: .*timeout", "fault outside: .*no Authentication Server"}},
		{"another program", func(t *testing.T, p *subject) {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ln.Close() })
			go func() {
				for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
					fmt.Fprint(c, "220 mx.example.com ESMTP\r\n")
					c.Close()
				}
			}()
		}, []string{"fault listening: .*no Authentication Server", "fault outside: .*no Authentication Server"}},
		{"settings that were saved and not reloaded", func(t *testing.T, p *subject) {
			p.start()
			writeFile(t, p.config, strings.Replace(readFile(t, p.config), "addresses: \"file:", "avt: 12h, addresses: \"file:", 1), 0o644)
		}, []string{"fault own-question: example.com: the running server refuses the key of bob@example.com that the files here make"}},
		{"a domain that was saved and not reloaded", func(t *testing.T, p *subject) {
			p.start()
			writeFile(t, p.config, strings.ReplaceAll(readFile(t, p.config), "Example.ORG", "example.net"), 0o644)
		}, []string{"fault own-question: example.net: the running server answers ERROR notserved", `fault dns: example.net: "AS=127.0.0.1:{port}" is not published`}},
		{"a list with a bad line", func(t *testing.T, p *subject) {
			p.start()
			writeFile(t, p.list, "bob\nbob bob\n", 0o640)
		}, []string{"fault addresses: .*line 2"}},
		{"an empty list", func(t *testing.T, p *subject) {
			p.start()
			writeFile(t, p.list, "# empty\n", 0o640)
		}, []string{"fault addresses: example.com: {dir}/list has no address"}},
		{"no list", func(t *testing.T, p *subject) {
			p.start()
			remove(t, p.list)
		}, []string{"fault addresses: .*no such file"}},
		{"an open secret", func(t *testing.T, p *subject) {
			p.start()
			writeFile(t, p.secret, readFile(t, p.secret), 0o644)
		}, []string{"fault secret: example.com: .*readable by others"}},
		{"no secret", func(t *testing.T, p *subject) {
			p.start()
			remove(t, p.secret+"2")
		}, []string{"fault secret: Example.ORG: .*no such file"}},
		{"a rotation that waits", func(t *testing.T, p *subject) {
			p.start()
			for range 2 {
				mustRun(t, "secret", "rotate", "--unchecked", "--config", p.config, "example.com")
			}
			p.proc.waitLogs(2, `msg="domain is served" domain=example.com`)
			text := regexp.MustCompile(`(?m)^(#rotation used \w+) .*$`).ReplaceAllString(readFile(t, p.secret), "$1 2026-01-01T00:00:00Z")
			writeFile(t, p.secret, text, 0o600)
		}, []string{"warn secret: example.com: the old secret .* is not needed since 2026-01-07T00:05:00Z"}},
		{"no record", func(t *testing.T, p *subject) {
			p.start()
			p.publish("v=spf1 -all")
		}, []string{`fault dns: example.com: "AS=127.0.0.1:{port}" is not published`, "fault dns: Example.ORG: .*is not published"}},
		{"a record of another port", func(t *testing.T, p *subject) {
			p.start()
			p.publish("AS=127.0.0.1:1999", p.fill("AS=127.0.0.1:{port}"))
		}, []string{`fault dns: example.com: "AS=127.0.0.1:1999" is published, and this server does not listen so`, "fault dns: Example.ORG: "}},
		{"a host without address", func(t *testing.T, p *subject) {
			writeFile(t, p.config, strings.Replace(readFile(t, p.config), "host: 127.0.0.1", "host: as.nowhere.example", 1), 0o644)
			p.start()
			p.publish(p.fill("AS=as.nowhere.example:{port}"))
		}, []string{"fault outside: as.nowhere.example has no address"}},
		{"a host elsewhere", func(t *testing.T, p *subject) {
			writeFile(t, p.config, strings.Replace(readFile(t, p.config), "host: 127.0.0.1", "host: as.else.example", 1), 0o644)
			if err := dns.Set("as.else.example. 60 IN A 127.0.0.2"); err != nil {
				t.Fatal(err)
			}
			p.start()
			p.publish(p.fill("AS=as.else.example:{port}"))
		}, []string{"fault outside: as.else.example:{port} at 127.0.0.2.*refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newSubject(t, dns, "")
			tt.spoil(t, p)
			found, all := p.examine()
			well := map[string]bool{}
			for _, f := range all {
				well[f.Check] = well[f.Check] || f.Status == doctor.OK
			}
			var got []string
			for _, f := range found {
				line := fmt.Sprintf("%s %s: %s", f.Status, f.Check, f.What)
				if regexp.MustCompile(loopback).MatchString(line) {
					continue
				}
				got = append(got, line)
				if f.Mend == "" || f.Why == "" && f.Status == doctor.Fault {
					t.Errorf("%+v says not why or how to mend it", f)
				}
			}
			if len(got) != len(tt.want) {
				t.Fatalf("found\n%s\nwant %q", strings.Join(got, "\n"), tt.want)
			}
			for i, pattern := range tt.want {
				if !regexp.MustCompile(p.fill(pattern)).MatchString(got[i]) {
					t.Errorf("%s, want %s", got[i], p.fill(pattern))
				}
			}
			if len(tt.want) == 0 {
				for _, check := range []string{"secret", "addresses", "listening", "own-question", "dns", "outside"} {
					if !well[check] {
						t.Errorf("nothing is well about %s", check)
					}
				}
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// Of certificates: what recipients would refuse, what the service cannot read, and one
// that is not in force.
func TestDoctorLooksAtCertificates(t *testing.T) {
	dns, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	p := newSubject(t, dns, "tls: {cert: '{dir}/cert.pem', key: '{dir}/key.pem'}\n")
	writeFile(t, p.config, strings.Replace(readFile(t, p.config), "tcp:127", "tls:127", 1), 0o644)
	writePair(t, p.dir, 1)
	p.publish(p.fill("AS=127.0.0.1:{port}; tls=yes"))
	p.start()
	has := func(pattern string, found []doctor.Finding) {
		t.Helper()
		if !slices.ContainsFunc(found, func(f doctor.Finding) bool {
			return regexp.MustCompile(pattern).MatchString(string(f.Status) + " " + f.Check + ": " + f.What + "\n" + f.Mend)
		}) {
			t.Errorf("not %s in\n%+v", pattern, found)
		}
	}
	found, all := p.examine()
	has("fault outside: .*certificate signed by unknown authority", found)
	has("ok own-question: example.com: the running server accepts the key of bob@example.com", all)
	if slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Check == "listening" || f.Check == "own-question" }) {
		t.Errorf("%+v", found)
	}
	// Another pair in the configuration, which was not reloaded.
	other := filepath.Join(p.dir, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	writePair(t, other, 2)
	writeFile(t, p.config, strings.ReplaceAll(strings.ReplaceAll(readFile(t, p.config), p.dir+"/cert.pem", other+"/cert.pem"), p.dir+"/key.pem", other+"/key.pem"), 0o644)
	found, _ = p.examine()
	has("fault certificate: tls:127.0.0.1:{port} shows another certificate than "+other+"/cert.pem", fillAll(p, found))
	// A key that is none of this certificate's.
	writeFile(t, filepath.Join(other, "key.pem"), readFile(t, p.dir+"/key.pem"), 0o600)
	found, _ = p.examine()
	has("fault certificate: .*private key does not match", found)
	if os.Getuid() != 0 {
		return
	}
	// certbot's folders, which the service cannot search.
	cert, key := certbotFolder(t, filepath.Join(openDir(t), "letsencrypt"), "as.example.com")
	writeFile(t, p.config, strings.ReplaceAll(strings.ReplaceAll(readFile(t, p.config), other+"/cert.pem", cert), other+"/key.pem", key), 0o644)
	found, _ = p.examine("--user", "nobody")
	has("(?s)fault certificate: .*nobody \\(--user\\) may not search the folder .*/live \\(mode 0700.*\nRENEWED_LINEAGE="+filepath.Dir(cert)+" \\S+certbot-deploy-hook\n", found)
	has("fault addresses: .*nobody \\(--user\\) may not ", found)
}

// fillAll puts the port's name in place of it, for patterns.
func fillAll(p *subject, found []doctor.Finding) []doctor.Finding {
	out := slices.Clone(found)
	for i := range out {
		out[i].What = strings.ReplaceAll(out[i].What, fmt.Sprint(p.port), "{port}")
	}
	return out
}

// Every key of the text is for people: no secret and no AuthKey is in it.
func TestDoctorTellsNoSecret(t *testing.T) {
	dns, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	p := newSubject(t, dns, "")
	p.start()
	key := p.key(t, "bob@example.com")
	for _, flag := range []string{"--json=false", "--json"} {
		_, out, errOut := run(t, "", "doctor", flag, "--config", p.config, "--resolver", dns.Addr())
		secret := strings.Fields(regexp.MustCompile(`(?m)^\w+ \S+=$`).FindString(readFile(t, p.secret)))[1]
		for _, text := range []string{key, secret} {
			if strings.Contains(out+errOut+p.proc.log.String(), text) {
				t.Errorf("%s tells %s", flag, text)
			}
		}
	}
	for _, tt := range [][]string{{"doctor", "x"}, {"doctor", "--resolver", "x"}} {
		if code, _, _ := run(t, "", tt...); code != 2 {
			t.Errorf("%q: exit %d", tt, code)
		}
	}
	if code, _, _ := run(t, "", "doctor", "--config", filepath.Join(p.dir, "none")); code != 78 {
		t.Errorf("without configuration: exit %d", code)
	}
}

// What a server says of itself to systemd names its configuration: another one is told
// from it, and comments do not matter.
func TestFingerprint(t *testing.T) {
	p := newPlace(t, "")
	load := func(environ ...string) *config.LoadedServer {
		t.Helper()
		loaded, err := config.LoadServer(p.config, environ)
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	running := load("AUTHKEY_SERVER_LOG_LEVEL=error")
	first := fingerprint(running)
	if found := inForce("3 connections, 2 keys valid, 0 invalid, 0 questions refused; configuration " + first); found != first || len(first) != 12 {
		t.Errorf("%q of %q", found, first)
	}
	if fingerprint(load()) != first {
		t.Error("the environment counts")
	}
	p.write(t, "# a comment")
	if fingerprint(load()) != first {
		t.Error("a comment counts")
	}
	p.write(t, "log: {level: warn}")
	if fingerprint(load()) == first {
		t.Error("a level does not count")
	}
	if fingerprint(running) != first {
		t.Error("a file that was not read counts")
	}
	if inForce("") != "" || inForce("configuration x") != "" {
		t.Error("there is a fingerprint of nothing")
	}
}
