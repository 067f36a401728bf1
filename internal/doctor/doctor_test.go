package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/inforce"
	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
)

// TestPlantedFaults breaks a healthy system in every way the doctor knows, one at
// a time; the doctor must name that fault and no other, and the commands that it
// gives must mend it.
func TestPlantedFaults(t *testing.T) {
	t.Parallel()
	c := newSite(t)
	for _, tc := range []struct {
		name  string
		plant func(p *machine)
		check string // the check that must find it; empty: nothing is wrong
		what  string // a part of what it says
		mend  string // a part of the commands
		works bool   // those of them that change files suffice
	}{
		{name: "nothing", plant: func(*machine) {}},
		{name: "no other milters' default action is touched", plant: func(p *machine) {
			p.yaml += "mode: test\n"
			p.postconf("-e", "smtpd_milters = { "+p.entry()+", default_action=accept }, unix:other")
		}},

		{"the milter is down", func(p *machine) { must(p.t, p.listener.Close()) }, CheckListening, "there is no socket", "systemctl start authkey-milter", false},
		{"its socket is left over", func(p *machine) {
			p.listener.(*net.UnixListener).SetUnlinkOnClose(false)
			must(p.t, p.listener.Close())
		}, CheckListening, "nobody listens on unix:", "systemctl start authkey-milter", false},
		{"the socket is there, and no service", func(p *machine) { p.answer(nil) },
			CheckListening, "accepts the connection, and nobody answers on it", "authkey-milter check", false},
		{"too many connections", func(p *machine) { p.answer(func(c net.Conn) { c.Close() }) },
			CheckListening, "closes connections at once", "journalctl -u authkey-milter", false},
		{"another program on the socket", func(p *machine) {
			p.answer(func(c net.Conn) { fmt.Fprint(c, "220 mx.test ESMTP\r\n"); c.Close() })
		}, CheckListening, "it is no milter", "ss -lp", false},

		{"the configuration is root's only", func(p *machine) {
			p.options.Service.User = "nobody"
			p.open()
			p.written = func(path string) {
				must(p.t, os.Chmod(path, 0o600))
				p.written = nil
			}
		}, CheckConfig, "the milter's user nobody may not read the configuration ", "chmod g+r ", true},
		{"the configuration is in a folder that is root's only", func(p *machine) {
			p.options.Service.User = "nobody"
			p.open()
			must(p.t, os.Chmod(filepath.Dir(p.configFile), 0o700))
		}, CheckConfig, "may not read the configuration ", "chmod g+x ", true},
		{"the configuration's list shuts the milter out", func(p *machine) {
			p.options.Service.User = "nobody"
			p.open()
			p.written = func(path string) { p.acl(path, 12345) }
		}, CheckConfig, "and an access control list", "chgrp nogroup ", false},
		{"the configuration's list lets the milter in", func(p *machine) {
			p.options.Service.User = "nobody"
			p.open()
			p.written = func(path string) { p.acl(path, 65534) }
		}, "", "", "", false},
		{"the configuration is where the service sees nothing", func(p *machine) {
			p.open()
			p.options.Service.Hidden = []string{filepath.Dir(p.configFile)}
		}, CheckConfig, "does not see the configuration ", "move it to /etc/authkey", false},
		{"a file that the configuration names", func(p *machine) {
			p.options.Service.User = "nobody"
			p.open()
			list := filepath.Join(filepath.Dir(p.configFile), "preferences")
			must(p.t, os.WriteFile(list, nil, 0o600))
			p.yaml += "preferences: {source: 'file:" + list + "'}\n"
		}, CheckConfig, "may not read preferences.source ", "chmod g+r ", true},
		{"saved and not reloaded", func(p *machine) { p.note("log: {level: debug}\n", nil) },
			CheckConfig, "was changed after the milter read it", "systemctl reload authkey-milter", false},
		{"in force as it is", func(p *machine) { p.note("", nil) }, "", "", "", false},
		{"in force, but for the environment", func(p *machine) {
			p.note("", func(n *inforce.Note, l *config.Loaded) {
				n.Environment = []string{"mode"}
				n.Digest = l.Digest(n.Environment)
			})
			p.yaml += "mode: enforce\n"
		}, "", "", "", false},
		{"another file is in force", func(p *machine) {
			p.note("", func(n *inforce.Note, _ *config.Loaded) { n.File = "/etc/authkey/other.yaml" })
		}, CheckConfig, "the milter runs with /etc/authkey/other.yaml, and this looks at ", "authkey-milter doctor --config /etc/authkey/other.yaml", false},
		{"the unit names another file", func(p *machine) { p.options.Service.ConfigFile = "/etc/authkey/other.yaml" },
			CheckConfig, "authkey-milter.service is to run with /etc/authkey/other.yaml", "--config /etc/authkey/other.yaml", false},

		{"socket mode", func(p *machine) { must(p.t, os.Chmod(p.socket, 0o600)) },
			CheckAccess, "may not write to the socket: " /* … */, `socket: {mode: "0660", group: postfix}`, false},
		{"socket group", func(p *machine) { must(p.t, os.Chown(p.socket, -1, 65534)) },
			CheckAccess, "owner root and group nogroup", `socket: {mode: "0660", group: postfix}`, false},
		{"folder", func(p *machine) { must(p.t, os.Chmod(filepath.Dir(p.socket), 0o700)) },
			CheckAccess, "user postfix may not search the folder ", "chmod g+x ", true},
		{"folder's group", func(p *machine) { must(p.t, os.Chown(filepath.Dir(p.socket), -1, 65534)) },
			CheckAccess, "has mode 0750, owner root and group nogroup", "chgrp postfix ", true},

		{"chroot path", func(p *machine) {
			p.chrootAll()
			p.postconf("-e", "smtpd_milters = unix:"+p.socket)
		}, CheckPath, "but is chrooted in ", "postconf -c ", true},
		{"socket outside of the chroot", func(p *machine) {
			p.chrootAll()
			dir, err := testdaemon.TempDir("authkey-doctor-")
			must(p.t, err)
			p.t.Cleanup(func() { os.RemoveAll(dir) })
			p.listen(filepath.Join(dir, "milter.sock"))
			p.postconf("-e", "smtpd_milters = unix:"+p.socket)
		}, CheckPath, "but is chrooted in ", "authkey/milter.sock\"]", false},

		{"moved since setup", func(p *machine) {
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

		{"missing smtpd_milters", func(p *machine) { p.postconf("-X", "smtpd_milters") }, CheckListed, "does not have the milter in smtpd_milters", "postconf -c ", true},
		{"another milter only", func(p *machine) { p.postconf("-e", "smtpd_milters = inet:localhost:8891") }, CheckListed, "does not have the milter", "'smtpd_milters = inet:localhost:8891, unix:", true},
		{"no_milters", func(p *machine) {
			p.postconf("-e", "receive_override_options = no_address_mappings, no_milters")
		}, CheckListed, "has no_milters", "receive_override_options=no_address_mappings", true},
		{"non_smtpd_milters", func(p *machine) { p.postconf("-e", "non_smtpd_milters = $smtpd_milters") }, CheckListed, "non_smtpd_milters has the milter", "'non_smtpd_milters = '", true},
		{"port 25 with a list of its own", func(p *machine) {
			p.postconf("-M", "smtp/inet=smtp inet n - n - - smtpd")
			p.postconf("-P", "smtp/inet/smtpd_milters=unix:x")
		}, CheckListed, "smtp/inet does not have the milter", "smtp/inet/smtpd_milters=unix:x,unix:", true},
		{"every listener opts out", func(p *machine) {
			for _, addr := range []string{p.postfix.SMTPAddr(), p.postfix.Listener("relay")} {
				p.postconf("-P", addr+"/inet/smtpd_milters=")
			}
		}, CheckListed, "no smtpd of master.cf asks the milter", "postconf -c ", false},
		{"asked again behind a content filter", func(p *machine) {
			p.postconf("-e", "content_filter = smtp:[127.0.0.1]:10024")
			p.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - n - - smtpd")
			p.postconf("-P", "127.0.0.1:10025/inet/content_filter=")
		}, CheckListed, "127.0.0.1:10025/inet asks the milter again", "127.0.0.1:10025/inet/smtpd_milters=", true},

		{"before-queue filter of a service", func(p *machine) {
			p.stock("smtpd_proxy_filter=127.0.0.1:10024")
			p.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - n - - smtpd")
		}, CheckListed, "smtp/inet hands mail to a filter before it is queued (smtpd_proxy_filter = 127.0.0.1:10024)", "smtp/inet/content_filter=smtp:[127.0.0.1]:10024", true},
		{"before-queue filter", func(p *machine) {
			p.stock()
			p.postconf("-e", "smtpd_proxy_filter = 10024")
			p.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - n - - smtpd")
			p.postconf("-P", "127.0.0.1:10025/inet/smtpd_proxy_filter=")
		}, CheckListed, "hands mail to a filter before it is queued", "-X smtpd_proxy_filter", true},
		{"before-queue filter, and the milter behind it", func(p *machine) {
			p.yaml += "submission: {networks: []}\n"
			p.stock("smtpd_proxy_filter=127.0.0.1:10024")
			p.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - n - - smtpd")
		}, "", "", "", false},
		{"no milter for anybody", func(p *machine) { p.postconf("-e", "smtpd_milter_maps = static:DISABLE") },
			CheckListed, "has no milter at all for the client 192.0.2.1 (smtpd_milter_maps)", "-X smtpd_milter_maps", true},
		{"no milter for a client, in main.cf", func(p *machine) { p.stock("smtpd_milter_maps=inline:{192.0.2.77=DISABLE}") },
			CheckListed, "smtp/inet has no milter at all for the client 192.0.2.77", "-PX smtp/inet/smtpd_milter_maps", true},
		{"no milter for a network in a file", func(p *machine) {
			p.postconf("-e", "smtpd_milter_maps = cidr:"+p.file("maps", "# internal\n10.0.0.0/8  "+p.entry()+"\n198.18.0.0/15\tDISABLE\n"))
		}, CheckListed, "for the client 198.18.0.0/15", "give 198.18.0.0/15 the milter too", false},
		{"other milters for a client in an indexed file", func(p *machine) {
			table := p.file("maps", "203.0.113.9 unix:other\n")
			p.age()
			must(p.t, exec.Command("postmap", "-c", p.etc, "hash:"+table).Run())
			p.postconf("-e", "smtpd_milter_maps = hash:"+table)
		}, CheckListed, "has unix:other for the client 203.0.113.9", "postmap -c ", false},
		{"other milters for those that a pattern matches", func(p *machine) {
			p.postconf("-e", "smtpd_milter_maps = regexp:"+p.file("maps", "/^2001:/ DISABLE\n"))
		}, CheckListed, "for the client 2001:db8::1", "give 2001:db8::1", false},
		{"maps that leave strangers alone", func(p *machine) {
			p.postconf("-e", "smtpd_milter_maps = cidr:"+p.file("maps", "192.0.2.0/24 "+p.entry()+"\n192.0.2.0/25 DISABLE\n127.0.0.0/8 DISABLE\n"))
		}, "", "", "", false},
		{"asked twice", func(p *machine) { p.postconf("-e", "smtpd_milters = "+p.entry()+", unix:x, unix:"+p.socket) },
			CheckChanges, "asks the milter more than once", "unix:x'", true},
		{"port 25 named as a submission", func(p *machine) {
			p.postconf("-e", "milter_macro_daemon_name = ORIGINATING")
			p.postconf("-M", "submission/inet=submission inet n - n - - smtpd")
		}, CheckOwnMail, "calls itself ORIGINATING", "submission/inet/milter_macro_daemon_name=ORIGINATING", true},
		{"port 25 named as a submission in master.cf", func(p *machine) { p.stock("milter_macro_daemon_name=originating") },
			CheckOwnMail, "smtp/inet calls itself originating", "-PX smtp/inet/milter_macro_daemon_name", true},
		{"a login for everybody", func(p *machine) {
			p.postconf("-e", "milter_macro_defaults = auth_type=x, {auth_authen} = nobody")
			p.postconf("-e", "milter_macro_defaults = auth_type=x, auth_authen=nobody")
		}, CheckOwnMail, "gives every client a login", "milter_macro_defaults = auth_type=x'", true},
		{"logins that are not told", func(p *machine) { p.postconf("-e", "milter_protocol = 4", "milter_mail_macros = i") },
			CheckOwnMail, "who has logged in (milter_protocol = 4", "-X milter_mail_macros", true},
		{"macros that are asked for", func(p *machine) { p.postconf("-e", "milter_mail_macros = i", "milter_connect_macros =") }, "", "", "", false},
		{"everybody may say who he is", func(p *machine) { p.postconf("-e", "smtpd_authorized_xclient_hosts = 0.0.0.0/0") },
			CheckOwnMail, "lets clients from outside say who they are", "-X smtpd_authorized_xclient_hosts", true},
		{"everybody is one of us", func(p *machine) { p.yaml += "submission: {networks: ['0.0.0.0/0']}\n" },
			CheckOwnMail, "submission.networks has 0.0.0.0/0", "name your own networks only", false},
		{"everybody is exempt", func(p *machine) { p.yaml += "exempt: {networks: ['::/0']}\n" },
			CheckOwnMail, "exempt.networks has ::/0", "name your own networks only", false},
		{"the key is taken off before", func(p *machine) {
			p.postconf("-e", "header_checks = regexp:"+p.file("checks", "/^X-Auth-Key:/ IGNORE\n"))
		}, CheckChanges, "cleanup/unix does IGNORE on X-Auth-Key (header_checks)", "take out the line", false},
		{"the key is taken off by another cleanup", func(p *machine) {
			p.stock("cleanup_service_name=inbound")
			p.postconf("-M", "inbound/unix=inbound unix n - n - 0 cleanup -o { header_checks = regexp:{{/^X-Auth-Key:/ REJECT}} }")
		}, CheckChanges, "inbound/unix does REJECT on X-Auth-Key (header_checks)", "-PX inbound/unix/header_checks", true},
		{"the key is dropped before", func(p *machine) {
			p.postconf("-e", "message_drop_headers = bcc, x-auth-KEY, return-path")
		}, CheckChanges, "cleanup/unix drops X-Auth-Key (message_drop_headers)", "'message_drop_headers = bcc, return-path'", true},
		{"the key is dropped by another cleanup", func(p *machine) {
			p.stock("cleanup_service_name=inbound")
			p.postconf("-M", "inbound/unix=inbound unix n - n - 0 cleanup -o message_drop_headers=X-Auth-Key,bcc")
		}, CheckChanges, "inbound/unix drops X-Auth-Key (message_drop_headers)", "inbound/unix/message_drop_headers=bcc", true},
		{"results are taken off after", func(p *machine) {
			p.postconf("-e", "milter_header_checks = regexp:"+p.file("checks", "/^Authentication-Results:.*x-authkey/ IGNORE\n"))
		}, CheckChanges, "does IGNORE on Authentication-Results (milter_header_checks)", "take out the line", false},
		{"results are taken off on the way into mailboxes", func(p *machine) {
			p.postconf("-M", "lmtp/unix=lmtp unix - - n - - lmtp")
			p.postconf("-e", "lmtp_header_checks = regexp:"+p.file("checks", "/^X-Auth-Key:/ IGNORE\n/^Authentication-Results:/ IGNORE\n"))
		}, CheckChanges, "lmtp/unix does IGNORE on Authentication-Results (lmtp_header_checks)", "take out the line", false},
		{"the key is taken off on the way into mailboxes", func(p *machine) {
			p.postconf("-M", "lmtp/unix=lmtp unix - - n - - lmtp")
			p.postconf("-e", "lmtp_header_checks = regexp:{{/^X-Auth-Key:/ IGNORE}}")
		}, "", "", "", false},
		{"marks are acted on", func(p *machine) {
			p.postconf("-e", "milter_header_checks = regexp:"+p.file("checks", "/^X-Spam-Flag: YES/ HOLD\n/^X-/ WARN\n"))
		}, "", "", "", false},
		{"the key is taken off on its way out", func(p *machine) {
			p.attach()
			p.postconf("-e", "smtp_header_checks = regexp:"+p.file("checks", "/^X-Auth-/ IGNORE\n"))
		}, CheckChanges, "smtp/unix does IGNORE on X-Auth-Key (smtp_header_checks)", "take out the line", false},
		{"impatient", func(p *machine) { p.postconf("-e", "milter_content_timeout = 2s") },
			CheckTimeout, "waits for the milter for 2s only", "-X milter_content_timeout", true},
		{"impatient by its entry", func(p *machine) { p.postconf("-e", "smtpd_milters = { "+p.entry()+", content_timeout=1s }") },
			CheckTimeout, "waits for the milter for 1s only", "content_timeout=300s }'", true},
		{"QMQP", func(p *machine) {
			p.postconf("-M", "628/inet=628 inet n - n - - qmqpd")
			p.postconf("-e", "qmqpd_authorized_clients = 192.0.2.0/24")
		}, CheckListed, "628/inet takes mail by QMQP from 192.0.2.0/24", "-MX 628/inet", true},

		{"default action accept while enforcing", func(p *machine) { p.postconf("-e", "milter_default_action = accept") },
			CheckDefault, "accept while the milter cannot be asked, wrong for mode enforce", "default_action=tempfail }", true},
		{"default action of the entry", func(p *machine) { p.postconf("-e", "smtpd_milters = { "+p.entry()+", default_action=accept }") },
			CheckDefault, "accept while", "'smtpd_milters = unix:", true},
		{"default action tempfail in test mode", func(p *machine) { p.yaml += "mode: test\n" },
			CheckDefault, "tempfail while the milter cannot be asked, wrong for mode test", "default_action=accept }", true},

		{"after a DKIM signer", func(p *machine) {
			must(p.t, os.WriteFile(p.openDKIM, []byte("Mode s\n"), 0o644))
			p.postconf("-e", "smtpd_milters = inet:localhost:8891, "+p.entry())
		}, CheckOrder, "runs authkey after inet:localhost:8891", "'smtpd_milters = unix:", true},
		{"after a DKIM signer on submission", func(p *machine) {
			p.postconf("-e", "smtpd_milters = unix:opendkim/opendkim.sock, "+p.entry())
			p.postconf("-M", "submission/inet=submission inet n - n - - smtpd")
		}, CheckOrder, "submission/inet runs authkey after unix:opendkim/opendkim.sock", "submission/inet/smtpd_milters=unix:authkey", true},
		{"before a DKIM verifier", func(p *machine) {
			p.postconf("-e", "smtpd_milters = "+p.entry()+", unix:opendkim/opendkim.sock")
		}, CheckOrder, "runs authkey before unix:opendkim/opendkim.sock", "'smtpd_milters = unix:opendkim/opendkim.sock, unix:authkey", true},
		{"after a spam scanner", func(p *machine) { p.postconf("-e", "smtpd_milters = inet:localhost:11332, "+p.entry()) },
			CheckOrder, "runs authkey after inet:localhost:11332", "'smtpd_milters = unix:", true},

		{"dead resolver", func(p *machine) { p.resolvers = deadAddr(p.t) },
			CheckDNS, ": no name server ", "repair that server, or take 127.0.0.1 out of dns.servers", false},
		{"one of two resolvers dead", func(p *machine) {
			p.resolvers += ", " + deadAddr(p.t)
		}, CheckDNS, ": no name server ", "repair that server", false},
		{"lame resolver", func(p *machine) {
			p.world.DNS.Behave(probeDomain, testdns.Rcode(2))
			p.t.Cleanup(func() { p.world.DNS.Behave(probeDomain) })
		}, CheckDNS, "no name server gave a usable answer", "repair that server", false},

		{"clock not kept", func(p *machine) { p.options.Synchronized = func() (bool, error) { return false, nil } },
			CheckClock, "the clock is not synchronised", "timedatectl set-ntp true", false},
		{"clock of a container, not kept", func(p *machine) {
			p.options.Synchronized = func() (bool, error) { return false, nil }
			p.options.Container = "lxc"
		}, "", "", "", false},
		{"clock off", func(p *machine) { p.options.Now = func() time.Time { return time.Now().Add(-time.Hour) } },
			CheckClock, "was changed at", "timedatectl set-ntp true", false},
		{"clock that cannot be told", func(p *machine) {
			p.options.Synchronized = func() (bool, error) { return false, syscall.ENOSYS }
		}, "", "", "", false},

		{"notify.smtp refused", func(p *machine) { p.yaml = strings.ReplaceAll(p.yaml, p.postfix.Listener("relay"), deadAddr(p.t)) },
			CheckNotify, "connection refused", `notify: {smtp: "HOST:PORT"}`, false},
		{"notify.smtp silent", func(p *machine) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			must(p.t, err)
			go func() {
				if c, err := ln.Accept(); err == nil {
					c.Close()
				}
			}()
			p.t.Cleanup(func() { ln.Close() })
			p.yaml = strings.ReplaceAll(p.yaml, p.postfix.Listener("relay"), ln.Addr().String())
		}, CheckNotify, "EHLO is not answered: ", `notify: {smtp: "HOST:PORT"}`, false},
		{"notify.smtp does not relay for us", func(p *machine) {
			p.yaml = strings.ReplaceAll(p.yaml, p.postfix.Listener("relay"), p.postfix.SMTPAddr())
		}, CheckNotify, "to postmaster@example.com: RCPT refused: 554 5.7.1", "127.0.0.1:10026/inet/mynetworks=127.0.0.0/8", false},

		{"own AS is down", func(p *machine) {
			must(p.t, p.world.Publish("down.test", "AS="+deadAddr(p.t)))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "down.test")
		}, CheckAS, "temperror, as-refused", "authkey-milter lookup down.test", false},
		{"own AS does not serve the domain", func(p *machine) {
			must(p.t, p.world.Publish("alien.test", lab.ASRecord(p.asPort)))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, ownDomain+", alien.test")
		}, CheckAS, "alien.test: Authentication Server 127.0.0.1:", "server.yaml: domains", false},
		{"own AS where it may not be", func(p *machine) {
			must(p.t, p.world.Publish("inside.test", "AS=10.1.2.3:7425"))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "inside.test")
		}, CheckAS, "none can be used", "authkey-milter lookup inside.test", false},
		{"own record is malformed", func(p *machine) {
			must(p.t, p.world.Publish("broken.test", "AS=somewhere; tls=perhaps"))
			p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "broken.test")
		}, CheckAS, "none can be used", "authkey-milter lookup broken.test", false},
		{"no AS", func(p *machine) { p.yaml = strings.ReplaceAll(p.yaml, ownDomain, "none.test") }, "", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := c.machine(t)
			tc.plant(p)
			p.checkFound(tc.check, tc.what, tc.mend, tc.works)
		})
	}
}

// checkFound lets the doctor look; see checkFaults. If works, the commands that it
// gives must mend what it finds.
func (p *machine) checkFound(check, what, mend string, works bool) {
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
	wrong := faults(found)
	if check == "" {
		if len(wrong) > 0 || AnyFault(found) {
			t.Errorf("faults of a healthy system: %+v", wrong)
		}
		return
	}
	if len(wrong) == 0 {
		t.Fatal("not found")
	}
	for _, f := range wrong {
		if f.Check != check || f.Why == "" || f.Mend == "" {
			t.Errorf("found %+v, want check %s", f, check)
		}
	}
	if !strings.Contains(wrong[0].What, what) || !strings.Contains(wrong[0].Mend, mend) {
		t.Errorf("found %q, mend %q; want parts %q, %q", wrong[0].What, wrong[0].Mend, what, mend)
	}
}

// answer has something else than a milter on its socket: nil accepts and says nothing.
func (p *machine) answer(serve func(net.Conn)) {
	p.t.Helper()
	must(p.t, p.listener.Close())
	ln, err := net.Listen("unix", p.socket)
	must(p.t, err)
	p.t.Cleanup(func() { ln.Close() })
	must(p.t, os.Chown(p.socket, -1, p.group("postfix")))
	must(p.t, os.Chmod(p.socket, 0o660))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.t.Cleanup(func() { c.Close() })
			if serve != nil {
				serve(c)
			}
		}
	}()
}

// open has the configuration where everybody may look.
func (p *machine) open() {
	p.t.Helper()
	dir, err := testdaemon.TempDir("authkey-doctor-")
	must(p.t, err)
	p.t.Cleanup(func() { os.RemoveAll(dir) })
	p.configFile = filepath.Join(dir, "milter.yaml")
}

// acl lets one user more read a file that is its owner's.
func (p *machine) acl(path string, uid uint32) {
	p.t.Helper()
	must(p.t, os.Chmod(path, 0o600))
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range []aclEntry{{aclUserObj, 6, math.MaxUint32}, {aclUser, 4, uid}, {aclGroupObj, 0, math.MaxUint32}, {aclMask, 4, math.MaxUint32}, {aclOther, 0, math.MaxUint32}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, uint16(e.bits))
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	must(p.t, unix.Setxattr(path, "system.posix_acl_access", b, 0))
}

// note has the milter say, when the configuration is written, that it has in force what
// the file was before more was added.
func (p *machine) note(more string, change func(*inforce.Note, *config.Loaded)) {
	p.written = func(path string) {
		loaded, err := config.Load(path, nil)
		must(p.t, err)
		n := inforce.Note{Version: "1", PID: 1, Loaded: time.Now(), File: path, Digest: loaded.Digest(nil)}
		if change != nil {
			change(&n, loaded)
		}
		must(p.t, n.Write(filepath.Dir(p.socket), inforce.Milter))
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(p.t, err)
		_, err = f.WriteString(more)
		must(p.t, errors.Join(err, f.Close()))
	}
}

// TestServiceDoesNotRun is what systemd says of a milter that does not answer.
func TestServiceDoesNotRun(t *testing.T) {
	for _, tc := range []struct {
		active string
		exit   int
		want   string // empty: nothing
		mend   string
	}{
		{"active", 0, "", ""},
		{"activating", 0, "", ""},
		{"activating", 78, "refused its configuration", "authkey-milter check"},
		{"failed", 78, "refused its configuration (exit code 78)", "reset-failed"},
		{"failed", 2, "has failed (exit code 2)", "journalctl"},
		{"inactive", 0, "does not run", "systemctl start authkey-milter"},
		{"", 0, "", ""},
	} {
		c := checks{Options: Options{Service: Service{User: "root", State: func(context.Context) (string, int) { return tc.active, tc.exit }}}}
		f, down := c.stopped(t.Context())
		if down != (tc.want != "") || !strings.Contains(f.What, tc.want) || !strings.Contains(f.Mend, tc.mend) {
			t.Errorf("%s, %d: %v %+v", tc.active, tc.exit, down, f)
		}
	}
}

// TestACL is the algorithm of acl(5), case by case.
func TestACL(t *testing.T) {
	a := account{uid: 1000, groups: []uint32{2000}}
	const none = math.MaxUint32
	for _, tc := range []struct {
		list         []aclEntry
		owner, group uint32
		need         uint32
		want         bool
	}{
		{[]aclEntry{{aclUserObj, 4, none}, {aclOther, 0, none}}, 1000, 0, mayRead, true},
		{[]aclEntry{{aclUserObj, 0, none}, {aclUser, 7, 1000}, {aclMask, 7, none}, {aclOther, 7, none}}, 1000, 0, mayRead, false},
		{[]aclEntry{{aclUserObj, 7, none}, {aclUser, 4, 1000}, {aclMask, 0, none}, {aclOther, 7, none}}, 0, 0, mayRead, false},
		{[]aclEntry{{aclUserObj, 7, none}, {aclUser, 0, 1000}, {aclGroupObj, 7, none}, {aclMask, 7, none}, {aclOther, 7, none}}, 0, 2000, mayRead, false},
		{[]aclEntry{{aclUserObj, 7, none}, {aclGroupObj, 0, none}, {aclGroup, 4, 2000}, {aclMask, 4, none}, {aclOther, 0, none}}, 0, 2000, mayRead, true},
		{[]aclEntry{{aclUserObj, 7, none}, {aclGroupObj, 0, none}, {aclOther, 7, none}}, 0, 2000, mayRead, false},
		{[]aclEntry{{aclUserObj, 7, none}, {aclGroupObj, 0, none}, {aclOther, 4, none}}, 0, 3000, mayRead, true},
		{[]aclEntry{{aclUserObj, 7, none}, {aclGroup, 4, 2000}, {aclGroupObj, 0, none}, {aclMask, 7, none}, {aclOther, 7, none}}, 0, 0, mayWrite, false},
	} {
		if got := a.allowed(tc.list, tc.owner, tc.group, tc.need); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func FuzzACL(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if entries, ok := parseACL(b); ok {
			account{uid: 1, groups: []uint32{1}}.allowed(entries, 2, 2, mayRead)
		}
	})
}

// stock adds port 25 itself, with options.
func (p *machine) stock(options ...string) {
	p.t.Helper()
	p.postconf("-M", "smtp/inet=smtp inet n - n - - smtpd")
	for _, option := range options {
		p.postconf("-P", "smtp/inet/"+option)
	}
}

// file writes a table.
func (p *machine) file(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.etc, name)
	must(p.t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// attach has keys put on our users' mail.
func (p *machine) attach() {
	domain := filepath.Join(p.world.Dir, "domain-"+ownDomain)
	p.yaml += fmt.Sprintf("attach: {domains: [{domain: %s, source: 'secret:%s/secret', addresses: 'file:%s/addresses'}]}\n", ownDomain, domain, domain)
}

// line is the milter in sendmail.mc.
func (p *machine) line() string {
	p.t.Helper()
	line, err := mtaconf.InputMailFilter(mtaconf.Ours{Sockets: []mtaconf.Socket{{Network: "unix", Address: p.socket}}}, "tempfail", 3*time.Second)
	must(p.t, err)
	return line
}

// TestWarnings are what only a person can judge: no fault, but not passed over.
func TestWarnings(t *testing.T) {
	t.Parallel()
	c := newSite(t)
	for _, tc := range []struct {
		name  string
		plant func(p *machine)
		check string
		want  string // empty: no warning of that check
	}{
		{"loopback only", func(*machine) {}, CheckOwnMail, "mail comes in from this machine only"},
		{"open to the world", func(p *machine) { p.postconf("-e", "inet_interfaces = all"); p.stock() }, CheckOwnMail, ""},
		{"loopback only, and a proxy that says who it is", func(p *machine) {
			p.postconf("-e", "smtpd_upstream_proxy_protocol = haproxy")
		}, CheckOwnMail, ""},
		{"loopback only, which is nobody's", func(p *machine) { p.yaml += "submission: {networks: []}\n" }, CheckOwnMail, ""},
		{"the gateway is one of us", func(p *machine) {
			p.yaml += "submission: {networks: [172.17.0.0/16]}\n"
			p.options.Gateways = []netip.Addr{netip.MustParseAddr("172.17.0.1")}
		}, CheckOwnMail, "default gateway 172.17.0.1 is in submission.networks"},
		{"the gateway is none of us", func(p *machine) {
			p.yaml += "submission: {networks: [10.0.0.0/8]}\n"
			p.options.Gateways = []netip.Addr{netip.MustParseAddr("172.17.0.1")}
		}, CheckOwnMail, ""},
		{"another port that opts out", func(p *machine) {
			p.postconf("-e", "inet_interfaces = all")
			p.postconf("-M", "2525/inet=2525 inet n - n - - smtpd")
			p.postconf("-P", "2525/inet/smtpd_milters=")
		}, CheckListed, "2525/inet does not ask the milter"},
		{"a resolver that knows its own network only", func(p *machine) {
			p.world.DNS.Behave(probeDomain, testdns.Rcode(3))
			p.t.Cleanup(func() { p.world.DNS.Behave(probeDomain) })
		}, CheckDNS, "knows no TXT record of example.com"},
		{"refusals become deferrals", func(p *machine) { p.postconf("-e", "soft_bounce = yes") }, CheckChanges, "makes every 5xx reply a 4xx"},
		{"Sendmail on loopback only", func(p *machine) {
			p.sendmailCF("DAEMON_OPTIONS(`Name=MTA, Port=smtp, Addr=127.0.0.1')", p.line())
		}, CheckOwnMail, "mail comes in from this machine only (MTA)"},
		{"Sendmail on every interface", func(p *machine) { p.sendmailCF("DAEMON_OPTIONS(`Name=MTA, Port=smtp')", p.line()) }, CheckOwnMail, ""},
		{"a further instance", func(p *machine) { p.postconf("-e", "multi_instance_directories = /etc/postfix-out") }, CheckListed, "a further instance of Postfix, configured in /etc/postfix-out"},
		{"a table that cannot be looked into", func(p *machine) { p.postconf("-e", "smtpd_milter_maps = cidr:/nonexistent") }, CheckListed, "smtpd_milter_maps cannot be looked into"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := c.machine(t)
			tc.plant(p)
			found := p.examine()
			if wrong := faults(found); len(wrong) > 0 {
				t.Errorf("faults: %+v", wrong)
			}
			var warned []Finding
			for _, f := range found {
				if f.Status == Warning && f.Check == tc.check {
					warned = append(warned, f)
				}
			}
			switch {
			case tc.want == "" && len(warned) > 0:
				t.Errorf("warned: %+v", warned)
			case tc.want != "" && (len(warned) == 0 || !strings.Contains(warned[0].What, tc.want) || warned[0].Why == "" || warned[0].Mend == ""):
				t.Errorf("warned %+v, want %q", warned, tc.want)
			}
		})
	}
}

// TestGateways reads what a Linux machine had.
func TestGateways(t *testing.T) {
	path := filepath.Join(t.TempDir(), "route")
	must(t, os.WriteFile(path, []byte("Iface\tDestination\tGateway \tFlags\neth0\t00000000\t010011AC\t0003\neth0\t000011AC\t00000000\t0001\ntun0\t00000000\t00000000\t0001\nbroken\t00000000\tXY\n"), 0o644))
	if got := gatewaysIn(path); len(got) != 1 || got[0] != netip.MustParseAddr("172.17.0.1") {
		t.Errorf("%v", got)
	}
	if got := gatewaysIn(path + ".none"); got != nil {
		t.Errorf("%v", got)
	}
}

// chrootAll makes every smtpd a chrooted one.
func (p *machine) chrootAll() {
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
	c := checks{Options: Options{MTAErr: errors.New("no Postfix on this machine")}}
	found := c.mta(t.Context())
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

func TestMendUnreachable(t *testing.T) {
	const queue, dir = "/var/spool/postfix", "/etc/postfix in"
	u := &mtaconf.Unreachable{Postfix: &mtaconf.Postfix{ConfigDir: dir, Explicit: true, QueueDir: queue, Owner: "postfix"}}
	want := "install -d -o authkey -g postfix -m 2750 " + queue + "/authkey\n" +
		"in milter.yaml: listen: [\"unix:" + queue + "/authkey/milter.sock\"]\nsystemctl restart authkey-milter\n" +
		"authkey-milter setup postfix --apply --postfix-config '" + dir + "'\npostfix -c '" + dir + "' reload"
	if got := MendUnreachable(u, "milter.yaml"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	u.Postfix.Explicit = false
	if got := MendUnreachable(u, "milter.yaml"); strings.Contains(got, dir) {
		t.Error(got)
	}
}
