package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testmta"
	"github.com/authkey/authkey/internal/wire"
)

// oddSenders are MAIL FROM addresses in which MTAs may see other ones than their readers.
var oddSenders = []string{
	`"mallory@evil.test"`, `(x)"mallory@evil.test"`, `"mallory@evil.test" (x)`, `x <"mallory@evil.test">`, `"mallory@evil.test"@`,
	`"mallory@evil.test"@mx.test`, `"mallory@evil.test"%mx.test`, `"mallory@evil.test"@none.test`,
	`mx.test!"mallory@evil.test"`, `@mx.test:"mallory@evil.test"`, `"mallory%evil.test"`, `"evil.test!mallory"`, `"mallory\"@evil.test"`, `"mallory@evil.test`,
	"mallory%evil.test", "mallory%evil.test@mx.test", "mallory%evil.test@", "mallory%evil.test%mx.test", "evil.test!mallory", "evil.test!mallory@mx.test", "mx.test!evil.test!mallory",
	"mallory@evil.test@none.test", "mallory@evil.test%mx.test", "mallory@evil.test!x",
	`"mallory"@"evil.test"`, `mallory@"evil.test"`, `mallory@ev\il.test`, `mallory@\evil"".test`, `"mallory"@evil.test`, `"\mallory"@evil.test`, `"mallory "@evil.test`,
	"@none.test:mallory@evil.test", "@none.test,@mx.test:mallory@evil.test", "@mx.test:mallory%evil.test@mx.test",
	"mallory@evil.test (x@none.test)", "(x)mallory@evil.test", "mallory(x)@evil.test", "mallory@(x)evil.test", "mallory @ evil.test", "mallory@evil.test.", "mallory@[evil.test]",
	"bank <mallory@evil.test>", "<mallory@evil.test>", `"ceo@none.test" <mallory@evil.test>`, "<mallory@evil.test> ceo@none.test", "<ceo@none.test> mallory@evil.test",
	"mallory@evil.test,ceo@none.test", "ceo@none.test,mallory@evil.test", "mallory@evil.test;", "MALLORY@EVIL.test", "'mallory@evil.test'", "'mallory'@evil.test",
	"mallory.@evil.test", ".mallory@evil.test", "mallory@.evil.test", "mallory@evil..test", "mallory\t@evil.test", "=?utf-8?q?mallory?=@evil.test",
	`""`, "()", "@", "mallory", `"mallory"`, `"mall ory"`, "mallory@localhost", "mallory@mx.test", "x!mallory@mx.test", "mallory@",
}

// forPostfix are some that Sendmail takes, and no next hop of it.
var forPostfix = []string{
	`"mallory@evil".test`, `mall"ory"@evil.test`, `mallory\@evil.test`, `""mallory@evil.test`, `""@evil.test`, "x:mallory@evil.test;",
	`"mallory@evil.test"%x%mx.test`, `"mallory@evil.test".`,
}

// TestSenderIsTheOneOnTheEnvelope: the address that has a result is the one with which
// the message goes on, whatever the client has written and the MTA has made of it.
func TestSenderIsTheOneOnTheEnvelope(t *testing.T) {
	w := newWorld(t)
	must(t, w.AddDomain("evil.test", "mallory"))
	port, _, err := w.ServeAS("evil.test")
	must(t, err)
	must(t, w.Publish("evil.test", lab.ASRecord(port)))
	key := "X-Auth-Key: " + mustKey(t, w, "mallory@evil.test") + "\r\n"
	kinds := mtas[:len(mtas):len(mtas)]
	kinds = append(kinds, kinds[0])
	kinds[2].name = "postfix with mail of its own" // and so with a name to strip off
	kinds[2].start = func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket}, Main: map[string]string{"mydestination": "mx.test"}})
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			milter := startMilter(t, w, "")
			mta := startMTA(t, kind.start, milter.Socket)
			c := dialSMTP(t, mta)
			var accepted []*mail
			senders := oddSenders
			if kind.name != "sendmail" {
				senders = slices.Concat(senders, forPostfix)
			}
			for _, from := range senders {
				m := &mail{from: from, fields: key}
				if sendMail(t, c, m).Accepted {
					accepted = append(accepted, m)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			must(t, mta.WaitIdle(ctx))
			all, err := mta.Deliveries()
			must(t, err)
			verified, passed := 0, 0
			for _, m := range accepted {
				for _, d := range all {
					if d.Get("Subject") != m.subject {
						continue
					}
					verified++
					_, about, _ := strings.Cut(authRes(d), " smtp.mailfrom=")
					address, err := wire.ParseAddress(unquotedDomain(d.Sender))
					switch {
					case strings.Contains(authRes(d), "x-authkey=pass"):
						passed++
						if err != nil || !strings.EqualFold(address.String(), about) {
							t.Errorf("MAIL FROM:<%s> goes on as <%s>, and %s", m.from, d.Sender, authRes(d))
						}
					case err == nil && address.Domain() == "evil.test" && !strings.HasSuffix(about, "@evil.test"):
						t.Errorf("MAIL FROM:<%s> goes on as <%s>, and %s", m.from, d.Sender, authRes(d))
					}
				}
			}
			if verified < 30 || passed < 5 {
				t.Errorf("of %d senders %d were delivered and %d passed: the test tests nothing", len(senders), verified, passed)
			}
		})
	}
}

// unquotedDomain drops quotes and backslashes in a domain, which Sendmail leaves where
// they are.
func unquotedDomain(mailbox string) string {
	at := strings.LastIndexByte(mailbox, '@')
	return mailbox[:at+1] + strings.NewReplacer(`"`, "", `\`, "").Replace(mailbox[at+1:])
}
