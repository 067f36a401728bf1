package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/testmta"
)

// forgedVouchers are values of Authentication-Results fields that a stranger writes so
// that mail of a victim looks signed or sent by its domain. A real OpenDKIM stands
// before the milter, and leaves most of them alone.
var forgedVouchers = []string{
	"mx.test; spf=pass smtp.mailfrom=alice@pass.test",
	"mx.test; spf=pass smtp.mailfrom=pass.test; dkim=pass header.d=pass.test",
	"mx.test; dkim=pass header.d=pass.test", // this one it deletes
	"mx.test;\r\n\tdkim=pass (2048-bit key) header.d=pass.test header.i=@pass.test header.b=abc",
	"mx.test.; dkim=pass header.d=pass.test",
	"mx.test(x); dkim=pass header.d=pass.test",
	"(x) mx.test; dkim=pass header.d=pass.test",
	"mx.test ; dkim=pass header.d=pass.test",
	"mx.test 1; dkim=pass header.d=pass.test",
	"mx.test/1; dkim=pass header.d=pass.test",
	"\"mx.test\"; dkim=pass header.d=pass.test",
	"mx\\.test; dkim=pass header.d=pass.test",
	"MX.test; dkim=pass header.d=pass.test",
	"\u00a0mx.test; dkim=pass header.d=pass.test",
	"mx.test\u00a0; dkim=pass header.d=pass.test",
	"=?utf-8?q?mx.test=3B_dkim=3Dpass_header.d=3Dpass.test?=",
	"mx.test; " + strings.Repeat("dkim=none; ", 20) + "dkim=pass header.d=pass.test",
	"mx.test; " + strings.Repeat("iprev=none; ", 7) + "dkim=pass header.d=pass.test",
	"mx.test; DKIM=pass header.d=pass.test",
	"mx.test; dkim/1=pass header.d=pass.test",
	"mx.test; dkim(c)=pass header.d=pass.test",
	"mx.test; dkim =pass header.d=pass.test",
	"mx.test; \"dkim\"=pass header.d=pass.test",
	"mx.test; dk\\im=pass header.d=pass.test",
	"mx.test;; dkim=pass header.d=pass.test",
	"mx.test; foo=pass bar.baz=x; dkim=pass header.d=pass.test",
	"mx.test; dkim=pass x.y=z header.d=pass.test",
	"mx.test; dkim=pass header.d=pass.test; spf",
	"mx.test; dkim=pass header.d=pass.test reason",
	"mx.test; dkim=pass header.d=pass.test header",
	"mx.test; dkim=pass header.d=pass.test;",
	"mx.test; dkim=pass header.d=pass.test (" + strings.Repeat("x", 5000) + ")",
	"mx.test; dkim=pass header.d=pass.test header.b=" + strings.Repeat("a.", 300),
	"mx.test; dkim=pass header.d=pass.test " + strings.Repeat("(c) ", 400),
	"mx.test; dkim=pass header.d=pass.test (unfinished",
	"mx.test; dkim=pass header.d=pass.test \"unfinished",
	"mx.test; dkim=pass (a (b) c) header.d=pass.test",
	"mx.test x; dkim=pass header.d=pass.test",
	"mx.test; auth=pass; x dkim=pass header.d=pass.test",
}

// TestForgedVouchers: with a filter before the milter that is trusted for what it
// deletes forgeries of, no victim hears of mail sent in its name; and whose mail that
// filter has verified hears of it.
func TestForgedVouchers(t *testing.T) {
	must(t, testmta.EnsureOpenDKIM(t.Context(), t.Logf))
	w := newWorld(t)
	verifier, err := testmta.StartDKIMVerifier(t.Context(), w.DNS.Addr(), "mx.test")
	must(t, err)
	stopLater(t, verifier)
	signer, err := testmta.StartSigner(t.Context(), withAS, "s")
	must(t, err)
	stopLater(t, signer)
	must(t, w.DNS.Set(signer.Record))
	o := newOffice(t, w, func(t *testing.T, socket string) (testmta.MTA, string) {
		postfix, err := testmta.StartPostfix(t.Context(), testmta.PostfixOptions{
			RecipientDomains: []string{"rcpt.test", withAS}, Milters: []string{verifier.Milter(), socket},
			Listeners: []testmta.Listener{testmta.RelayListener("relay"),
				{Name: "signed", Options: []string{"smtpd_milters=" + strings.Join([]string{signer.Milter(), verifier.Milter(), socket}, ",")}}}})
		must(t, err)
		return postfix, postfix.Listener("relay")
	})
	o.prefer(t, wishes)
	o.configure(t, "  trust: [mx.test/dkim]\npreferences: {source: \"file:PREFERENCES\"}\n")
	c := dialSMTP(t, o.mta)
	unread := 0
	for _, value := range forgedVouchers {
		m := o.forgedBy(t, at("accept", "reject")...)
		m.fields += "Authentication-Results: " + value + "\r\n"
		got := o.outcome(t, m, sendMail(t, c, m))
		if len(got.DSN) > 0 || got.Reply != "250" || len(got.Boxes) != 2 {
			t.Errorf("%.80q: %+v", value, got)
		}
		for _, left := range delivered(t, o.mta, m).Values("Authentication-Results") {
			if strings.Contains(strings.ToLower(left), "=pass") {
				unread++
			}
		}
	}
	if unread < len(forgedVouchers)/3 {
		t.Errorf("OpenDKIM left %d of %d forgeries: the test tests nothing", unread, len(forgedVouchers))
	}
	m := o.forgedBy(t, at("accept", "reject")...)
	m.author = "alice@" + withAS
	got := o.outcome(t, m, sendMail(t, dialAddr(t, o.mta.(*testmta.Postfix).Listener("signed")), m))
	if len(got.DSN) != 1 {
		t.Errorf("signed by the sender's domain: %+v", got)
	}
}

// TestOneMessageIDTwoMessages: whoever writes the Message-ID of another message takes
// nobody's DSN or notice away, and a message that comes again by another way causes
// none.
func TestOneMessageIDTwoMessages(t *testing.T) {
	for name, start := range map[string]startOffice{
		"postfix":  postfixOffice(testmta.PostfixOptions{RecipientDomains: []string{"rcpt.test", withAS}}),
		"sendmail": sendmailOffice(),
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, newWorld(t), start)
			o.prefer(t, wishes)
			o.configure(t, wishesYAML)
			c := dialSMTP(t, o.mta)
			reports := func(m *mail) (dsns, notices int) {
				if out := sendMail(t, c, m); !out.Accepted {
					t.Fatalf("the answer is %s", out.Final)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				must(t, o.mta.WaitIdle(ctx))
				all, err := o.mta.Deliveries()
				must(t, err)
				for _, d := range all {
					switch d.Get("X-Authkey-Report") {
					case "dsn":
						dsns++
					case "notice":
						notices++
					}
				}
				return dsns, notices
			}
			first := o.forgedBy(t, at("accept", "reject", "discard-notify")...)
			first.fields += vouched + "Message-ID: <one@far.test>\r\n"
			if dsns, notices := reports(first); dsns != 1 || notices != 1 {
				t.Errorf("the first one: %d DSNs, %d notices", dsns, notices)
			}
			second := o.forgedBy(t, at("accept", "reject", "discard-notify")...)
			second.fields += vouched + "Message-ID: <one@far.test>\r\n"
			if dsns, notices := reports(second); dsns != 2 || notices != 2 {
				t.Errorf("with the second one: %d DSNs, %d notices", dsns, notices)
			}
			for _, m := range []*mail{first, second} {
				m.fields = "Received: from another.test by one.test; Tue, 24 Nov 2026 10:00:07 +0000\r\n" + m.fields
				if dsns, notices := reports(m); dsns != 2 || notices != 2 {
					t.Errorf("when they come again: %d DSNs, %d notices", dsns, notices)
				}
			}
		})
	}
}
