package e2e

import (
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testmta"
)

// TestAddressesAsTheMTAReadsThem: MTAs take paths that no RFC permits, each in its
// own way, and deliver under what they made of them. What is verified, and whose
// rules count, must be that. The AS of pass.test would vouch for anything.
func TestAddressesAsTheMTAReadsThem(t *testing.T) {
	t.Parallel()
	senders := []string{
		"<alice@req.test >", "<alice@req.test (hi)>", "<(hi)alice@req.test>", "< alice@req.test>", "<alice @ req.test>", "<alice@req.test;>",
		"<Alice <alice@req.test>>", "<<alice@req.test>>", "<alice@req.test\t>", "<alice@req.test\r>", "<alice%req.test>", "<req.test!alice>",
		"<alice@req.test (x@pass.test>", "<<alice@req.test> x@pass.test>", "<<alice@req.test>@pass.test>", "<alice@req.test>@pass.test",
		"<@pass.test:alice@req.test>", "<alice@\"req.test\">", "<alice@req\\.test>",
	}
	rcpts := []string{"<carol@rcpt.test>", "<carol@rcpt.test >", "<(x)carol@rcpt.test>", "<carol@rcpt.test (x)>", "<<carol@rcpt.test>>"}
	const rules = "policy:\n  fail: mark\n  rules:\n  - {recipient: carol@rcpt.test, fail: reject}\n"
	for _, mta := range mtas {
		t.Run(mta.name, func(t *testing.T) {
			m := startMilter(t, newWorld(t), rules)
			srv := startMTA(t, mta.start, m.Socket)
			c := dialSMTP(t, srv)
			command(t, c, "EHLO client.test")
			try := func(from, to string, wantRefused bool) {
				t.Helper()
				if command(t, c, "MAIL FROM:"+from) != 250 || command(t, c, "RCPT TO:"+to) != 250 {
					command(t, c, "RSET")
					return // the MTA's own word
				}
				msg := mail{}
				if code := command(t, c, "DATA"); code != 354 {
					t.Fatalf("DATA: %d", code)
				}
				code := command(t, c, strings.TrimSuffix(string(msg.data()), "\r\n")+"\r\n.")
				if (code == 550) != wantRefused {
					t.Errorf("MAIL FROM:%q RCPT TO:%q: %d", from, to, code)
				}
				if code != 250 {
					return
				}
				got := delivered(t, srv, &msg)
				if strings.HasSuffix(got.Sender, "@req.test") && !strings.Contains(authRes(got), `x-authkey=fail reason="required"`) {
					t.Errorf("MAIL FROM:%q is delivered from %s with %q", from, got.Sender, authRes(got))
				}
			}
			for _, from := range senders {
				try(from, "<bob@rcpt.test>", false)
			}
			for _, to := range rcpts {
				try("<alice@req.test>", to, true)
			}
		})
	}
}

// TestEveryFormOfARecipientIsTakenOff: a recipient who wants such mail discarded
// does not get it in any spelling.
func TestEveryFormOfARecipientIsTakenOff(t *testing.T) {
	t.Parallel()
	forms := []string{
		"<carol@rcpt.test>", "<carol@rcpt.test >", "<(x)carol@rcpt.test>", "<<carol@rcpt.test>>", "<Carol@RCPT.test.>", "<\"carol\"@rcpt.test>",
		"<@a.test:carol@rcpt.test>", "<@a.test,@b.test:Carol@rcpt.test>", "<carol%rcpt.test>", "<rcpt.test!carol>", "<c\\arol@rcpt.test>",
		"<carol@rcpt.test;>", "<Carol <carol@rcpt.test>>", "<carol@rcpt.test, >",
	}
	for _, mta := range mtas {
		t.Run(mta.name, func(t *testing.T) {
			m := startMilter(t, newWorld(t), "policy:\n  fail: accept\n  rules:\n  - {recipient: carol@rcpt.test, fail: discard}\n")
			srv := startMTA(t, mta.start, m.Socket)
			c := dialSMTP(t, srv)
			command(t, c, "EHLO client.test")
			for _, form := range forms {
				command(t, c, "MAIL FROM:<alice@req.test>")
				command(t, c, "RCPT TO:<bob@rcpt.test>")
				if command(t, c, "RCPT TO:"+form) != 250 {
					command(t, c, "RSET")
					continue // the MTA's own word
				}
				msg := mail{}
				command(t, c, "DATA")
				if code := command(t, c, strings.TrimSuffix(string(msg.data()), "\r\n")+"\r\n."); code != 250 {
					t.Fatalf("RCPT TO:%q: %d", form, code)
				}
				delivered(t, srv, &msg)
				must(t, srv.WaitIdle(t.Context()))
				all, err := srv.Deliveries()
				must(t, err)
				for _, d := range all {
					if d.Get("Subject") == msg.subject && !strings.HasPrefix(d.Recipient, "bob@") {
						t.Errorf("RCPT TO:%q is delivered to %s", form, d.Recipient)
					}
				}
			}
		})
	}
}

// TestLocalPartKeepsItsCase: only the AS knows whether it matters, and in the hashes
// of SRS and BATV it does.
func TestLocalPartKeepsItsCase(t *testing.T) {
	t.Parallel()
	for _, mta := range mtas {
		t.Run(mta.name, func(t *testing.T) {
			m := startMilter(t, newWorld(t), "")
			srv := startMTA(t, mta.start, m.Socket)
			c := dialSMTP(t, srv)
			msg := mail{from: "SRS0=Ab=cD=far.test=x@Pass.test"}
			sendMail(t, c, &msg)
			if got := authRes(delivered(t, srv, &msg)); !strings.HasSuffix(got, "smtp.mailfrom=SRS0%3DAb%3DcD%3Dfar.test%3Dx@pass.test") {
				t.Errorf("verified: %s", got)
			}
		})
	}
}

func command(t *testing.T, c *testmta.Client, line string) int {
	t.Helper()
	code, _, err := c.Cmd(line)
	must(t, err)
	return code
}
