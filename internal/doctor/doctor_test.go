package doctor

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/e2e"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
)

// TestPlantedFaults makes a healthy system ill in every way the doctor knows, one at
// a time; the doctor must name that fault and no other, and the commands that it
// gives must mend it.
func TestPlantedFaults(t *testing.T) {
	c := newClinic(t)
	for _, tc := range []struct {
		name  string
		plant func(p *patient)
		check string // the check that must find it; empty: nothing is wrong
		what  string // a part of what it says
		mend  string // a part of the commands
		works bool   // those of them that change files suffice
	}{
		{name: "nothing", plant: func(*patient) {}},
		{name: "no other milters' default action is touched", plant: func(p *patient) {
			p.yaml += "mode: test\n"
			p.postconf("-e", "smtpd_milters = { "+p.entry()+", default_action=accept }, unix:other")
		}},

		{"the milter is down", func(p *patient) { must(p.t, p.listener.Close()) }, CheckListening, "there is no socket", "systemctl start authkey-milter", false},
		{"its socket is left over", func(p *patient) {
			p.listener.(*net.UnixListener).SetUnlinkOnClose(false)
			must(p.t, p.listener.Close())
		}, CheckListening, "nobody listens on unix:", "systemctl start authkey-milter", false},

		{"socket mode", func(p *patient) { must(p.t, os.Chmod(p.socket, 0o600)) },
			CheckAccess, "may not write to the socket: " /* … */, `socket: {mode: "0660", group: postfix}`, false},
		{"socket group", func(p *patient) { must(p.t, os.Chown(p.socket, -1, 65534)) },
			CheckAccess, "owner root and group nogroup", `socket: {mode: "0660", group: postfix}`, false},
		{"folder", func(p *patient) { must(p.t, os.Chmod(filepath.Dir(p.socket), 0o700)) },
			CheckAccess, "user postfix may not search the folder ", "chmod g+x ", true},
		{"folder's group", func(p *patient) { must(p.t, os.Chown(filepath.Dir(p.socket), -1, 65534)) },
			CheckAccess, "has mode 0750, owner root and group nogroup", "chgrp postfix ", true},

		{"chroot path", func(p *patient) {
			p.chrootAll()
			p.postconf("-e", "smtpd_milters = unix:"+p.socket)
		}, CheckPath, "but is chrooted in ", "postconf -c ", true},
		{"socket outside of the chroot", func(p *patient) {
			p.chrootAll()
			dir, err := testdaemon.TempDir("authkey-doctor-")
			must(p.t, err)
			p.t.Cleanup(func() { os.RemoveAll(dir) })
			p.listen(filepath.Join(dir, "milter.sock"))
			p.postconf("-e", "smtpd_milters = unix:"+p.socket)
		}, CheckPath, "but is chrooted in ", "authkey/milter.sock\"]", false},

		{"moved since setup", func(p *patient) {
			p.postconf("-X", "smtpd_milters")
			p.age()
			ours := mtaconf.Ours{Sockets: []mtaconf.Socket{{Network: "unix", Address: p.socket}}}
			postfix, err := mtaconf.ReadPostfix(p.t.Context(), mtaconf.Options{ConfigDir: p.etc, Ours: ours})
			must(p.t, err)
			edits, err := postfix.Propose(p.t.Context(), ours, "tempfail")
			must(p.t, err)
			must(p.t, postfix.Apply(p.t.Context(), edits))
			p.listen(p.socket + "2")
		}, CheckPath, "where the milter does not listen any more", "milter.sock2", true},

		{"missing smtpd_milters", func(p *patient) { p.postconf("-X", "smtpd_milters") }, CheckListed, "does not have the milter in smtpd_milters", "postconf -c ", true},
		{"another milter only", func(p *patient) { p.postconf("-e", "smtpd_milters = inet:localhost:8891") }, CheckListed, "does not have the milter", "'smtpd_milters = inet:localhost:8891, unix:", true},
		{"no_milters", func(p *patient) {
			p.postconf("-e", "receive_override_options = no_address_mappings, no_milters")
		}, CheckListed, "has no_milters", "receive_override_options=no_address_mappings", true},
		{"non_smtpd_milters", func(p *patient) { p.postconf("-e", "non_smtpd_milters = $smtpd_milters") }, CheckListed, "non_smtpd_milters has the milter", "'non_smtpd_milters = '", true},
		{"port 25 with a list of its own", func(p *patient) {
			p.postconf("-M", "smtp/inet=smtp inet n - n - - smtpd")
			p.postconf("-P", "smtp/inet/smtpd_milters=unix:x")
		}, CheckListed, "smtp/inet does not have the milter", "smtp/inet/smtpd_milters=unix:x,unix:", true},
		{"every listener opts out", func(p *patient) {
			for _, addr := range []string{p.postfix.SMTPAddr(), p.postfix.Listener("relay")} {
				p.postconf("-P", addr+"/inet/smtpd_milters=")
			}
		}, CheckListed, "no smtpd of master.cf asks the milter", "postconf -c ", false},
		{"asked again behind a content filter", func(p *patient) {
			p.postconf("-e", "content_filter = smtp:[127.0.0.1]:10024")
			p.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - n - - smtpd")
			p.postconf("-P", "127.0.0.1:10025/inet/content_filter=")
		}, CheckListed, "127.0.0.1:10025/inet asks the milter again", "127.0.0.1:10025/inet/smtpd_milters=", true},

		{"default action accept while enforcing", func(p *patient) { p.postconf("-e", "milter_default_action = accept") },
			CheckDefault, "does accept while the milter cannot be asked, in mode enforce", "default_action=tempfail }", true},
		{"default action of the entry", func(p *patient) { p.postconf("-e", "smtpd_milters = { "+p.entry()+", default_action=accept }") },
			CheckDefault, "does accept", "'smtpd_milters = unix:", true},
		{"default action tempfail in test mode", func(p *patient) { p.yaml += "mode: test\n" },
			CheckDefault, "does tempfail while the milter cannot be asked, in mode test", "default_action=accept }", true},

		{"after a DKIM signer", func(p *patient) {
			must(p.t, os.WriteFile(p.openDKIM, []byte("Mode s\n"), 0o644))
			p.postconf("-e", "smtpd_milters = inet:localhost:8891, "+p.entry())
		}, CheckOrder, "runs authkey after inet:localhost:8891", "'smtpd_milters = unix:", true},
		{"after a DKIM signer on submission", func(p *patient) {
			p.postconf("-e", "smtpd_milters = unix:opendkim/opendkim.sock, "+p.entry())
			p.postconf("-M", "submission/inet=submission inet n - n - - smtpd")
		}, CheckOrder, "submission/inet runs authkey after unix:opendkim/opendkim.sock", "submission/inet/smtpd_milters=unix:authkey", true},
		{"before a DKIM verifier", func(p *patient) {
			p.postconf("-e", "smtpd_milters = "+p.entry()+", unix:opendkim/opendkim.sock")
		}, CheckOrder, "runs authkey before unix:opendkim/opendkim.sock", "'smtpd_milters = unix:opendkim/opendkim.sock, unix:authkey", true},
		{"after a spam scanner", func(p *patient) { p.postconf("-e", "smtpd_milters = inet:localhost:11332, "+p.entry()) },
			CheckOrder, "runs authkey after inet:localhost:11332", "'smtpd_milters = unix:", true},

		{"dead resolver", func(p *patient) { p.resolvers = deadAddr(p.t) },
			CheckDNS, ": no name server ", "mend the server, or take 127.0.0.1 out of dns.servers", false},
		{"one of two resolvers dead", func(p *patient) {
			p.resolvers += ", " + deadAddr(p.t)
		}, CheckDNS, ": no name server ", "mend the server", false},
		{"lame resolver", func(p *patient) {
			p.world.DNS.Behave(probeDomain, testdns.Rcode(2))
			p.t.Cleanup(func() { p.world.DNS.Behave(probeDomain) })
		}, CheckDNS, "no name server gave a usable answer", "mend the server", false},

		{"clock not kept", func(p *patient) { p.options.Synchronized = func() (bool, error) { return false, nil } },
			CheckClock, "nobody keeps the clock", "timedatectl set-ntp true", false},
		{"clock of a container, not kept", func(p *patient) {
			p.options.Synchronized = func() (bool, error) { return false, nil }
			p.options.Container = "lxc"
		}, "", "", "", false},
		{"clock off", func(p *patient) { p.options.Now = func() time.Time { return time.Now().Add(-time.Hour) } },
			CheckClock, "was changed at", "timedatectl set-ntp true", false},
		{"clock that cannot be told", func(p *patient) {
			p.options.Synchronized = func() (bool, error) { return false, syscall.ENOSYS }
		}, "", "", "", false},

		{"notify.smtp refused", func(p *patient) { p.yaml = strings.ReplaceAll(p.yaml, p.postfix.Listener("relay"), deadAddr(p.t)) },
			CheckNotify, "connection refused", `notify: {smtp: "HOST:PORT"}`, false},
		{"notify.smtp silent", func(p *patient) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			must(p.t, err)
			go func() {
				if c, err := ln.Accept(); err == nil {
					c.Close()
				}
			}()
			p.t.Cleanup(func() { ln.Close() })
			p.yaml = strings.ReplaceAll(p.yaml, p.postfix.Listener("relay"), ln.Addr().String())
		}, CheckNotify, "no SMTP greeting", `notify: {smtp: "HOST:PORT"}`, false},
		{"notify.smtp does not relay for us", func(p *patient) {
			p.yaml = strings.ReplaceAll(p.yaml, p.postfix.Listener("relay"), p.postfix.SMTPAddr())
		}, CheckNotify, "RCPT TO:<postmaster@example.com>: 554", "127.0.0.1:10026/inet/mynetworks=127.0.0.0/8", false},

		{"own AS is down", func(p *patient) {
			must(p.t, p.world.Publish("down.test", "AS="+deadAddr(p.t)))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "down.test")
		}, CheckAS, "temperror, as-refused", "authkey-milter lookup down.test", false},
		{"own AS does not serve the domain", func(p *patient) {
			must(p.t, p.world.Publish("alien.test", e2e.ASRecord(p.asPort)))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, ownDomain+", alien.test")
		}, CheckAS, "alien.test: Authentication Server 127.0.0.1:", "server.yaml: domains", false},
		{"own AS where it may not be", func(p *patient) {
			must(p.t, p.world.Publish("inside.test", "AS=10.1.2.3:7425"))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "inside.test")
		}, CheckAS, "none can be used", "authkey-milter lookup inside.test", false},
		{"own record is malformed", func(p *patient) {
			must(p.t, p.world.Publish("broken.test", "AS=somewhere; tls=perhaps"))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "broken.test")
		}, CheckAS, "none can be used", "authkey-milter lookup broken.test", false},
		{"no AS", func(p *patient) { p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "none.test") }, "", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := c.patient(t)
			tc.plant(p)
			p.checkFound(tc.check, tc.what, tc.mend, tc.works)
		})
	}
}

// checkFound lets the doctor look; see checkFaults. If works, the commands that it
// gives must mend what it finds.
func (p *patient) checkFound(check, what, mend string, works bool) {
	p.t.Helper()
	found := p.examine()
	p.t.Logf("%s", text(p.t, found))
	checkFaults(p.t, found, check, what, mend)
	for _, f := range faults(found) {
		p.mend(f) // which must at least be commands that can be run
	}
	if !works {
		return
	}
	if left := faults(p.examine()); len(left) > 0 {
		p.t.Errorf("not mended:\n%s", text(p.t, left))
	}
}

// checkFaults wants every fault to be of one check, and the first to say what.
func checkFaults(t *testing.T, found []Finding, check, what, mend string) {
	t.Helper()
	ill := faults(found)
	if check == "" {
		if len(ill) > 0 || AnyFault(found) {
			t.Errorf("faults of a healthy system: %+v", ill)
		}
		return
	}
	if len(ill) == 0 {
		t.Fatal("not found")
	}
	for _, f := range ill {
		if f.Check != check || f.Why == "" || f.Mend == "" {
			t.Errorf("found %+v, want check %s", f, check)
		}
	}
	if !strings.Contains(ill[0].What, what) || !strings.Contains(ill[0].Mend, mend) {
		t.Errorf("found %q, mend %q; want parts %q, %q", ill[0].What, ill[0].Mend, what, mend)
	}
}

// chrootAll makes every smtpd a chrooted one.
func (p *patient) chrootAll() {
	p.t.Helper()
	path := filepath.Join(p.etc, "master.cf")
	b, err := os.ReadFile(path)
	must(p.t, err)
	must(p.t, os.WriteFile(path, bytes.ReplaceAll(b, []byte(" inet n - n "), []byte(" inet n - y ")), 0o644))
}

// deadAddr is an address at which nobody listens, TCP or UDP.
func deadAddr(t *testing.T) string {
	t.Helper()
	port, err := testdaemon.FreePort()
	must(t, err)
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
}

func text(t *testing.T, found []Finding) string {
	t.Helper()
	var b bytes.Buffer
	must(t, WriteText(&b, found))
	return b.String()
}

func TestNoMTA(t *testing.T) {
	o := Options{MTAErr: errors.New("no Postfix on this machine")}
	found := o.mta(t.Context())
	if len(found) != 1 || found[0].Status != Fault || !strings.Contains(found[0].What, "no Postfix on this machine") {
		t.Errorf("%+v", found)
	}
}

// TestSynchronized compares the kernel's answer with itself: it must not fail where
// the kernel has such a call.
func TestSynchronized(t *testing.T) {
	first, err := Synchronized()
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		return
	}
	must(t, err)
	if second, err := Synchronized(); err != nil || second != first {
		t.Errorf("%v, then %v, %v", first, second, err)
	}
}
