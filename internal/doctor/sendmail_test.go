package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/mtaconf"
	"github.com/authkey/authkey/internal/testmta"
)

// sendmailCF has Sendmail's own m4 make a sendmail.cf with these filters.
func (p *machine) sendmailCF(filters ...string) {
	p.t.Helper()
	dir := p.t.TempDir()
	mc := filepath.Join(dir, "sendmail.mc")
	must(p.t, os.WriteFile(mc, []byte("OSTYPE(`linux')dnl\n"+strings.Join(filters, "\n")+"\nMAILER(`smtp')dnl\n"), 0o644))
	cf := filepath.Join(sendmailPrefix, "usr/share/sendmail/cf") + "/"
	out, err := exec.Command("m4", "-D_CF_DIR_="+cf, cf+"m4/cf.m4", mc).Output()
	must(p.t, err)
	p.cf = filepath.Join(dir, "sendmail.cf")
	must(p.t, os.WriteFile(p.cf, out, 0o644))
}

// TestPlantedFaultsOfSendmail is TestPlantedFaults for what Sendmail says otherwise.
func TestPlantedFaultsOfSendmail(t *testing.T) {
	t.Parallel()
	c := newSite(t)
	for _, tc := range []struct {
		name  string
		plant func(p *machine, ours string) // ours is the line that setup prints
		check string
		what  string
	}{
		{"nothing", func(p *machine, ours string) { p.sendmailCF(ours) }, "", ""},
		{"behind a verifier", func(p *machine, ours string) {
			p.sendmailCF("INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')", ours)
		}, "", ""},
		{"not listed", func(p *machine, _ string) { p.sendmailCF() }, CheckListed, "no filter at the milter's socket"},
		{"defined only", func(p *machine, ours string) {
			p.sendmailCF(strings.Replace(ours, "INPUT_MAIL_FILTER", "MAIL_FILTER", 1))
		}, CheckListed, "InputMailFilters lacks it"},
		{"no F=T while enforcing", func(p *machine, ours string) { p.sendmailCF(strings.Replace(ours, ", F=T", "", 1)) },
			CheckDefault, "Sendmail: accept while"},
		{"F=T in test mode", func(p *machine, ours string) { p.sendmailCF(ours); p.yaml += "mode: test\n" },
			CheckDefault, "Sendmail: tempfail while"},
		{"before a verifier", func(p *machine, ours string) {
			p.sendmailCF(ours, "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')")
		}, CheckOrder, "Sendmail runs authkey before inet:8891@localhost"},
		{"before a verifier that signs, where keys are attached", func(p *machine, ours string) {
			p.yaml += "attach: {domains: [{domain: own.test, source: 'secret:" + filepath.Join(p.world.Dir, "domain-own.test/secret") + "', addresses: 'file:" + filepath.Join(p.world.Dir, "domain-own.test/addresses") + "'}]}\n"
			p.sendmailCF(ours, "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')")
		}, "", ""},
		{"asked twice", func(p *machine, ours string) {
			p.sendmailCF(ours, strings.Replace(ours, "`authkey'", "`again'", 1))
		}, CheckChanges, "InputMailFilters has the milter more than once"},
		{"a scanner before a verifier", func(p *machine, ours string) {
			p.sendmailCF("INPUT_MAIL_FILTER(`rspamd', `S=inet:11332@localhost')", "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')", ours)
		}, CheckOrder, "Sendmail runs authkey after inet:11332@localhost"},
		{"a daemon with filters of its own", func(p *machine, ours string) {
			p.sendmailCF("DAEMON_OPTIONS(`Name=MTA, Port=smtp, InputMailFilters=opendkim')", "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')", ours)
		}, CheckListed, "the daemon MTA has filters of its own"},
		{"a daemon with ours of its own", func(p *machine, ours string) {
			p.sendmailCF("DAEMON_OPTIONS(`Name=MTA, Port=smtp, InputMailFilters=opendkim;authkey')", "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')", ours)
		}, "", ""},
		{"a submission daemon without filters", func(p *machine, ours string) {
			p.sendmailCF("DAEMON_OPTIONS(`Name=MSA, Port=587, M=Ea, InputMailFilters=opendkim')", "INPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')", ours)
		}, "", ""},
		{"port 25 named as a submission", func(p *machine, ours string) {
			p.sendmailCF("DAEMON_OPTIONS(`Name=ORIGINATING, Port=smtp')", ours)
		}, CheckOwnMail, "the daemon ORIGINATING has a name of submission.daemons"},
		{"submission named as one", func(p *machine, ours string) {
			p.sendmailCF("DAEMON_OPTIONS(`Name=MTA, Port=smtp')", "DAEMON_OPTIONS(`Name=ORIGINATING, Port=submission')", ours)
		}, "", ""},
		{"impatient", func(p *machine, ours string) { p.sendmailCF(strings.Replace(ours, "E:60s", "E:2s", 1)) },
			CheckTimeout, "waits for 2s at the end of a message, and verify.timeout is 3s"},
		{"socket mode", func(p *machine, ours string) {
			p.sendmailCF("define(`confRUN_AS_USER', `postfix:postfix')", ours)
			must(p.t, os.Chmod(p.socket, 0o600))
		}, CheckAccess, "user postfix may not write to the socket"},
		{"socket mode, for root", func(p *machine, ours string) {
			p.sendmailCF(ours)
			must(p.t, os.Chmod(p.socket, 0o600))
		}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := c.machine(t)
			ours, err := mtaconf.InputMailFilter(mtaconf.Ours{Sockets: []mtaconf.Socket{{Network: "unix", Address: p.socket}}}, "tempfail", 3*time.Second)
			must(t, err)
			tc.plant(p, ours)
			found := p.examine()
			mend := ""
			switch {
			case tc.what == "the daemon MTA has filters of its own":
				mend = "take InputMailFilters out of the DAEMON_OPTIONS of MTA"
			case tc.check == CheckOwnMail:
				mend = "another Name in the DAEMON_OPTIONS"
			case tc.check == CheckOrder && strings.Contains(tc.name, "scanner"):
				mend = "the filters' lines in this order: opendkim, authkey, rspamd"
			case tc.check != "" && tc.check != CheckAccess:
				mend = fmt.Sprintf("INPUT_MAIL_FILTER(`authkey', `S=unix:%s", p.socket)
			}
			checkFaults(t, found, tc.check, tc.what, mend)
		})
	}
}

// TestNotifyUnknownMailbox: a mail system that relays, and has no postmaster for our
// domain, is not one that does not relay.
func TestNotifyUnknownMailbox(t *testing.T) {
	t.Parallel()
	p, err := testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Listeners: []testmta.Listener{testmta.RelayListener("relay")},
		Main: map[string]string{"virtual_mailbox_maps": "inline:{bob@rcpt.test=all/}"}})
	must(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	for _, mta := range []Options{{Sendmail: &mtaconf.Sendmail{}}, {}} {
		c := checks{Options: mta}
		c.Hostname, c.Config.LocalDomains, c.Config.Notify.SMTP = "mx.test", []string{testmta.DefaultRecipientDomain}, p.Listener("relay")
		found := c.notify(t.Context())
		if len(found) != 1 || found[0].Status != Warning || !strings.Contains(found[0].What, "knows no postmaster@rcpt.test") ||
			!strings.Contains(found[0].What, "550") || !strings.Contains(found[0].Mend, "newaliases") {
			t.Errorf("without postmaster: %+v", found)
		}
		c.Config.LocalDomains = nil
		if found := c.notify(t.Context()); len(found) != 1 || found[0].Status != OK {
			t.Errorf("to strangers: %+v", found)
		}
		// Where no DSN is ever sent, nobody need relay to strangers.
		c.Config.Notify.DSN, c.Config.Notify.SMTP = "never", p.SMTPAddr()
		if found := c.notify(t.Context()); len(found) != 1 || found[0].Status != Inapplicable {
			t.Errorf("no DSNs: %+v", found)
		}
	}
}
