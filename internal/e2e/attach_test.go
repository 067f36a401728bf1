package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testmta"
)

// A site is a domain with everything it runs: its Authentication Server, its milter,
// its Postfix, which sends what is not its own to another site.
type site struct {
	w      *lab.World
	domain string
	milter *lab.Milter
	mta    *testmta.Postfix
}

// foundSite makes a site of an Authentication Server alone; tags stand in its record.
func foundSite(t *testing.T, w *lab.World, domain string, locals []string, tags ...string) *site {
	t.Helper()
	must(t, w.AddDomain(domain, locals...))
	port, _, err := w.ServeAS(domain)
	must(t, err)
	must(t, w.Publish(domain, lab.ASRecord(port, tags...)))
	return &site{w: w, domain: domain}
}

// startMilter starts a milter of the site. more are lines of its attach section.
func (s *site) startMilter(t *testing.T, more string) *lab.Milter {
	t.Helper()
	dir := filepath.Join(s.w.Dir, "domain-"+s.domain)
	return startMilter(t, s.w, fmt.Sprintf(`
local_domains: [%s]
policy: {fail: reject}
cache: {max_ttl: 1s}
attach:
  domains:
    - {domain: %s, source: "secret:%s/secret", addresses: "file:%s/addresses"}
%s`, s.domain, s.domain, dir, dir, more))
}

// startPostfix starts the site's Postfix, as mx. of its domain.
func (s *site) startPostfix(t *testing.T, options testmta.PostfixOptions) {
	t.Helper()
	options.Hostname = "mx." + s.domain
	options.RecipientDomains = append(options.RecipientDomains, s.domain)
	mta, err := testmta.StartPostfix(t.Context(), options)
	must(t, err)
	s.mta = mta
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of %s's Postfix:\n%s", s.domain, mta.Log())
		}
		must(t, mta.Stop())
	})
}

// newSite makes a site whose mail goes out to another, once that is known.
func newSite(t *testing.T, w *lab.World, domain string, locals ...string) *site {
	t.Helper()
	s := foundSite(t, w, domain, locals, "req=yes")
	s.milter = s.startMilter(t, "")
	s.startPostfix(t, testmta.PostfixOptions{Milters: []string{s.milter.Socket}})
	return s
}

// relayTo are parameters of a Postfix that sends all mail which is not its own there.
func relayTo(addr string) map[string]string {
	host, port, _ := strings.Cut(addr, ":")
	return map[string]string{"default_transport": "smtp", "relayhost": "[" + host + "]:" + port, "smtp_bind_address": "127.0.0.1"}
}

// sendsTo makes other the place for all mail that is not the site's own.
func (s *site) sendsTo(t *testing.T, other *site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	main := relayTo(other.mta.SMTPAddr())
	main["smtpd_relay_restrictions"] = "permit_mynetworks,permit_sasl_authenticated,reject_unauth_destination"
	must(t, s.mta.Reload(ctx, main))
}

// submit sends as a user who logged in.
func (s *site) submit(t *testing.T, login, from, to string, fields ...string) *mail {
	t.Helper()
	c, err := testmta.DialFrom("127.0.0.2", s.mta.SMTPAddr())
	must(t, err)
	defer c.Close()
	m := &mail{subject: newSubject()}
	data := "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nFrom: " + from + "\r\nTo: " + to +
		"\r\nMessage-ID: <" + strings.ReplaceAll(m.subject, " ", ".") + "@" + s.domain + ">\r\nSubject: " + m.subject + "\r\n" + strings.Join(fields, "") + "\r\nHello.\r\n"
	out, err := c.Send(testmta.Transaction{XClient: "LOGIN=" + login, MailFrom: from, Rcpts: []string{to}, Data: []byte(data)})
	must(t, err)
	if !out.Accepted {
		t.Fatalf("%s's submission: %d %s", login, out.Final.Code, out.Final.Text)
	}
	return m
}

// TestTwoDomains lets two sites authenticate each other, each through its own
// milter, and a user of one of them try what is not his.
func TestTwoDomains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := newSite(t, w, "a.test", "alice", "mallory"), newSite(t, w, "b.test", "bob")
	a.sendsTo(t, b)
	b.sendsTo(t, a)

	for _, way := range []struct {
		from, to     *site
		sender, rcpt string
	}{{a, b, "alice@a.test", "bob@b.test"}, {b, a, "bob@b.test", "alice@a.test"}} {
		m := way.from.submit(t, way.sender, way.sender, way.rcpt)
		got := delivered(t, way.to.mta, m)
		if res := authRes(got); res != "mx."+way.to.domain+"; x-authkey=pass smtp.mailfrom="+way.sender {
			t.Errorf("%s to %s: %q", way.sender, way.rcpt, res)
		}
		if got.Get("X-Auth-Key") != "" || strings.Contains(string(got.Raw), mustKey(t, w, way.sender)) {
			t.Errorf("the key arrived:\n%s", got.Raw)
		}
		if agent := got.Get("X-Auth-Agent"); !strings.HasPrefix(agent, "smtp; authkey/") {
			t.Errorf("X-Auth-Agent %q", agent)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a.submit(t, "mallory@a.test", "alice@a.test", "bob@b.test")
	_, err := a.milter.WaitLog(ctx, "result=skipped", "note=sender-not-allowed")
	must(t, err)
	_, err = b.milter.WaitLog(ctx, "from=alice@a.test", "reason=required", "action=reject")
	must(t, err)
	// Nor does a key that he stole get through his own server.
	a.submit(t, "mallory@a.test", "alice@a.test", "bob@b.test", "X-Auth-Key: "+mustKey(t, w, "alice@a.test")+"\r\n")
	_, err = a.milter.WaitLog(ctx, "result=skipped", "note=sender-not-allowed", "removed=1")
	must(t, err)

	// What the scheme cannot do: a key that was stolen is as good as its owner's,
	// until it is revoked and the answer about it is no longer cached.
	stolen := mustKey(t, w, "alice@a.test")
	steal := func() int {
		c := dialSMTP(t, b.mta)
		m := &mail{from: "alice@a.test", rcpts: []string{"bob@b.test"}, fields: "X-Auth-Key: " + stolen + "\r\n"}
		return sendMail(t, c, m).Final.Code
	}
	if code := steal(); code != 250 {
		t.Errorf("a stolen key: %d", code)
	}
	must(t, w.Revoke("a.test", "alice"))
	for steal() != 550 {
		if ctx.Err() != nil {
			t.Fatal("a revoked key is good for ever")
		}
	}
	for _, s := range []*site{a, b} {
		if strings.Contains(s.milter.Log(), stolen) {
			t.Errorf("a key is in the log of %s", s.domain)
		}
	}
}
