package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testmta"
)

// wishes is a file of preferences: each local part says what it wants.
const wishes = `
- {recipient: accept@rcpt.test, fail: accept}
- {recipient: mark@rcpt.test, fail: mark}
- {recipient: quarantine@rcpt.test, fail: quarantine}
- {recipient: discard@rcpt.test, fail: discard}
- {recipient: discard-notify@rcpt.test, fail: discard-notify, language: de}
- {recipient: reject@rcpt.test, fail: reject}
- {recipient: reject-notify@rcpt.test, fail: reject-notify}
`

// wishesYAML continues MilterConfig: those preferences, one recipient who wants
// what no preference can, and a filter before us that vouches for senders.
const wishesYAML = `  trust: [border.test/spf]
preferences: {source: "file:PREFERENCES"}
`

const deferring = "policy: {rules: [{recipient: tempfail@rcpt.test, fail: tempfail}]}\n"

// vouched is what that filter writes.
const vouched = "Authentication-Results: border.test; spf=pass smtp.mailfrom=" + withAS + "\r\n"

const (
	refusal  = "550 5.7.1 Sender address not authenticated: AuthKey invalid"
	deferral = "451 4.7.1 AuthKey cannot be verified now, try again later"
)

var sixWishes = strings.Fields("accept mark discard reject discard-notify reject-notify")

// at makes addresses at rcpt.test.
func at(locals ...string) []string {
	var list []string
	for _, local := range locals {
		list = append(list, local+"@rcpt.test")
	}
	return list
}

// aWish is a forged message to recipients with different wishes.
type aWish struct {
	name     string
	more     string // configuration behind wishesYAML
	rcpts    []string
	rcptArgs []string
	fields   string // further fields
	stranger bool   // nobody vouches for the sender
	want     outcome
	log      []string // parts of the milter's line
}

// mergeRules are the numbered rules of docs/policy.md, "Several recipients", one
// after the other.
var mergeRules = []aWish{
	{name: "six wishes", more: "mark: {readdress: '{local}+spam@{domain}'}\n", rcpts: at(sixWishes...),
		want: outcome{Reply: "250", Boxes: at("accept", "mark+spam"), DSN: at("reject", "reject-notify"),
			Notices: []string{"discard-notify@rcpt.test de", "reject-notify@rcpt.test"}},
		log: []string{"action=mark", "accept@rcpt.test=accept", "mark@rcpt.test=mark", "discard@rcpt.test=discard", "reject@rcpt.test=reject",
			"discard-notify@rcpt.test=discard-notify", "reject-notify@rcpt.test=reject-notify", "by=pref", "rcpts=6"}},
	{name: "six wishes in test mode", more: "mode: test\nmark: {readdress: '{local}+spam@{domain}'}\n", rcpts: at(sixWishes...),
		want: outcome{Reply: "250", Boxes: at(sixWishes...)},
		log:  []string{"action=accept", "would=\"accept@rcpt.test=accept,mark@rcpt.test=mark,discard@rcpt.test=discard"}},

	{name: "1 anyone's tempfail defers all", more: deferring, rcpts: at("accept", "tempfail", "discard-notify", "reject"),
		want: outcome{Reply: deferral}, log: []string{"action=tempfail", "by=rule-rcpt"}},
	{name: "2 nobody is delivered, anyone rejects", rcpts: at("discard", "reject", "discard-notify"),
		want: outcome{Reply: refusal, Notices: []string{"discard-notify@rcpt.test de"}}, log: []string{"action=reject"}},
	{name: "2 nobody is delivered, nobody rejects", rcpts: at("discard", "discard-notify"),
		want: outcome{Reply: "250", Notices: []string{"discard-notify@rcpt.test de"}}, log: []string{"action=discard"}},
	{name: "3 the others are taken off", rcpts: at("accept", "discard", "reject"),
		want: outcome{Reply: "250", Boxes: at("accept"), DSN: at("reject")}, log: []string{"action=accept"}},
	{name: "3 no DSN, no silence", rcpts: at("accept", "discard", "reject", "reject-notify"), stranger: true,
		want: outcome{Reply: "250", Boxes: []string{"accept@rcpt.test marked", "reject-notify@rcpt.test marked", "reject@rcpt.test marked"}},
		log:  []string{"note=no-dsn,marked-for-all"}},
	{name: "3 a sender who wants no DSN", rcpts: at("accept", "reject"), rcptArgs: []string{"", "NOTIFY=NEVER"}, stranger: true,
		want: outcome{Reply: "250", Boxes: at("accept")}, log: []string{"reject@rcpt.test=reject"}},
	{name: "4 marked for all", rcpts: at("accept", "mark"), fields: "X-Spam-Flag: NO\r\n",
		want: outcome{Reply: "250", Boxes: []string{"accept@rcpt.test marked", "mark@rcpt.test marked"}}, log: []string{"note=marked-for-all"}},
	{name: "4 marked for nobody", more: "policy: {mark_conflict: accept}\n", rcpts: at("accept", "mark"),
		want: outcome{Reply: "250", Boxes: at("accept", "mark")}, log: []string{"note=not-marked"}},
	{name: "4 readdressed, all marked", more: "mark: {readdress: '{local}+spam@{domain}'}\n", rcpts: at("mark", "discard"),
		want: outcome{Reply: "250", Boxes: []string{"mark+spam@rcpt.test marked"}}},
	{name: "5 held for all", rcpts: at("accept", "mark", "quarantine", "discard", "reject-notify"),
		want: outcome{Reply: "250", Held: at("accept", "mark", "quarantine"), DSN: at("reject-notify"), Notices: at("reject-notify")},
		log:  []string{"action=quarantine", "held-for-all"}},
	{name: "5 a quarantine mailbox", more: "quarantine: {mailbox: '{local}@{domain}.quarantine.test'}\n", rcpts: at("accept", "quarantine", "discard"),
		fields: "X-Authkey-Quarantine: ceo@rcpt.test; pass\r\n",
		want:   outcome{Reply: "250", Boxes: []string{"accept@rcpt.test", "quarantine@rcpt.test.quarantine.test"}}, log: []string{"action=quarantine"}},
	{name: "5 a quarantine mailbox alone", more: "quarantine: {mailbox: '{local}@{domain}.quarantine.test'}\n", rcpts: at("quarantine", "reject"),
		fields: "X-Authkey-Quarantine: ceo@rcpt.test; pass\r\n",
		want: outcome{Reply: "250", DSN: at("reject"),
			Boxes: []string{"quarantine@rcpt.test.quarantine.test for quarantine@rcpt.test; fail (invalid-key)"}}},
	{name: "5 the quarantine mailbox is a recipient", more: "quarantine: {mailbox: accept@rcpt.test}\n", rcpts: at("quarantine", "accept"),
		want: outcome{Reply: "250", Boxes: at("accept")}},
	{name: "5 its owner is the only recipient", more: "quarantine: {mailbox: quarantine@rcpt.test}\n", rcpts: at("quarantine"),
		want: outcome{Reply: "250", Boxes: []string{"quarantine@rcpt.test for quarantine@rcpt.test; fail (invalid-key)"}}},
}

// TestWishes gives recipients of one message, on real mail, what each of them
// wants; and where one verdict cannot, what the rules say.
func TestWishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	postfix := postfixOffice(testmta.PostfixOptions{RecipientDomains: []string{"rcpt.test", withAS},
		Main: map[string]string{"virtual_alias_maps": "inline:{ {team@rcpt.test = one@rcpt.test, two@rcpt.test}, {boss@rcpt.test = reject@rcpt.test} }"}})
	sendmail := sendmailOffice("team: one@rcpt.test, two@rcpt.test", "boss: reject@rcpt.test")
	for _, kind := range []struct {
		name  string
		start startOffice
		more  func(*testing.T, *office)
	}{
		{"postfix", postfix, onPostfixOnly},
		{"sendmail", sendmail, func(t *testing.T, o *office) {
			t.Run("aliases", func(t *testing.T) { o.aliases(t, "mx.test") })
		}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, w, kind.start)
			o.prefer(t, wishes)
			c := dialSMTP(t, o.mta)
			for _, each := range mergeRules {
				t.Run(each.name, func(t *testing.T) { o.grant(t, c, each) })
			}
			must(t, c.Quit())
			t.Run("RFC 3461", o.envelopeParameters)
			t.Run("6 separate transactions", o.separate)
			t.Run("release", o.release)
			kind.more(t, o)
		})
	}
}

func onPostfixOnly(t *testing.T, o *office) {
	t.Run("aliases", func(t *testing.T) { o.aliases(t, "rcpt.test") })
	must(t, o.mta.(*testmta.Postfix).Reload(t.Context(), map[string]string{"enable_original_recipient": "no"}))
	t.Run("aliases, enable_original_recipient=no", func(t *testing.T) { o.aliases(t, "rcpt.test") })
}

func (o *office) grant(t *testing.T, c *testmta.Client, each aWish) {
	o.configure(t, wishesYAML+each.more)
	m := o.forgedBy(t, each.rcpts...)
	m.rcptArgs = each.rcptArgs
	m.fields += each.fields
	if !each.stranger {
		m.fields += vouched
	}
	since := len(o.milter.Log())
	diff(t, o.send(t, c, m), each.want)
	o.wantLog(t, since, append(each.log, "result=fail")...)
}

// envelopeParameters has a DSN repeat what the sender asked to have repeated.
func (o *office) envelopeParameters(t *testing.T) {
	o.configure(t, wishesYAML)
	m := o.forgedBy(t, at("accept", "reject")...)
	m.fields += vouched
	m.mailArgs, m.rcptArgs = "RET=HDRS ENVID=envelope+2B1", []string{"", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;first+2Bchoice@rcpt.test"}
	c := dialSMTP(t, o.mta)
	diff(t, o.send(t, c, m), outcome{Reply: "250", Boxes: at("accept"), DSN: at("reject")})
	must(t, c.Quit())
	all, err := o.mta.Deliveries()
	must(t, err)
	dsn := all[slices.IndexFunc(all, func(d testmta.Message) bool {
		return d.Get("In-Reply-To") == m.id() && d.Get("X-Authkey-Report") == "dsn"
	})]
	for _, want := range []string{"\nOriginal-Envelope-Id: envelope+1\n", "\nOriginal-Recipient: rfc822; first+choice@rcpt.test\n",
		"\nDiagnostic-Code: smtp; " + refusal + "\n", "\nSubject: " + m.subject + "\n"} {
		if !strings.Contains(string(dsn.Body()), want) {
			t.Errorf("the DSN lacks %q:\n%s", want, dsn.Raw)
		}
	}
	if strings.Contains(string(dsn.Raw), "Hello Bob") {
		t.Errorf("the DSN has the body:\n%s", dsn.Raw)
	}
}

// separate sends one message to six wishes as a client does that is told 452: what
// is left goes in the next transaction.
func (o *office) separate(t *testing.T) {
	o.configure(t, wishesYAML+"policy: {recipients: separate}\n")
	c := dialSMTP(t, o.mta)
	replies := map[string]string{"reject": refusal, "reject-notify": refusal}
	notices := map[string][]string{"discard-notify": {"discard-notify@rcpt.test de"}, "reject-notify": at("reject-notify")}
	boxes := map[string][]string{"accept": at("accept"), "mark": {"mark@rcpt.test marked"}}
	for i, wish := range sixWishes {
		m := o.forgedBy(t, at(sixWishes[i:]...)...)
		// The second time of the first recipient, in other words.
		m.rcpts = append(m.rcpts, wish+"+tag@RCPT.test")
		reply := sendMail(t, c, m)
		for j, r := range reply.Rcpts {
			same := j == 0 || j == len(reply.Rcpts)-1
			if got := r.String(); same && r.Code != 250 || !same && got != "452 4.5.3 Recipient needs a transaction of its own" {
				t.Errorf("%s after %s: %s", m.rcpts[j], wish, got)
			}
		}
		m.rcpts = m.rcpts[:1]
		got := o.outcome(t, m, reply)
		got.Boxes = slices.DeleteFunc(got.Boxes, func(s string) bool { return strings.Contains(s, "+tag@") })
		got.Notices = slices.DeleteFunc(got.Notices, func(s string) bool { return strings.Contains(s, "+tag@") })
		diff(t, got, outcome{Reply: cmp.Or(replies[wish], "250"), Boxes: boxes[wish], Notices: notices[wish]})
	}
	must(t, c.Quit())
}

// release lets a held message go: it is delivered as it was held.
func (o *office) release(t *testing.T) {
	o.configure(t, wishesYAML)
	c := dialSMTP(t, o.mta)
	m := o.forgedBy(t, at("accept", "quarantine", "discard")...)
	reply := sendMail(t, c, m)
	diff(t, o.outcome(t, m, reply), outcome{Reply: "250", Held: at("accept", "quarantine")})
	must(t, o.mta.(interface{ Release(queueID string) error }).Release(reply.QueueID()))
	diff(t, o.outcome(t, m, reply), outcome{Reply: "250", Boxes: at("accept", "quarantine")})
	must(t, c.Quit())
}

// aliases sends to names that stand for others: preferences and rules know them as
// RCPT had them, and who is taken off is taken off with all that it stands for.
func (o *office) aliases(t *testing.T, domain string) {
	c := dialSMTP(t, o.mta)
	rule := func(local, action string) string {
		return fmt.Sprintf("%spolicy: {rules: [{recipient: %s@%s, fail: %s}]}\n", wishesYAML, local, domain, action)
	}
	team, boss := "team@"+domain, "boss@"+domain
	for _, tt := range []struct {
		name, yaml string
		rcpts      []string
		want       outcome
	}{
		{"several taken off", rule("team", "discard"), append(at("accept"), team), outcome{Reply: "250", Boxes: at("accept")}},
		{"one of them is a recipient too", rule("team", "discard"), append(at("accept", "one"), team),
			outcome{Reply: "250", Boxes: []string{"accept@rcpt.test marked", "one@rcpt.test marked"}}},
		{"several refused", rule("team", "reject-notify"), append(at("accept"), team),
			outcome{Reply: "250", Boxes: at("accept"), DSN: []string{team}, Notices: nil}},
		{"the alias's wish counts, not its target's", rule("boss", "accept"), append(at("discard"), boss),
			outcome{Reply: "250", Boxes: at("reject")}},
		{"readdressed", rule("team", "mark") + "mark: {readdress: '{local}+spam@rcpt.test'}\n", append(at("accept"), team),
			outcome{Reply: "250", Boxes: at("accept", "team+spam")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o.configure(t, tt.yaml)
			m := o.forgedBy(t, tt.rcpts...)
			m.fields += vouched
			got := o.send(t, c, m)
			// The notice for an alias goes where the alias points.
			if slices.Contains(got.DSN, team) {
				slices.Sort(got.Notices)
				if want := at("one", "two"); !slices.Equal(got.Notices, want) {
					t.Errorf("notices for %q, want %q", got.Notices, want)
				}
				got.Notices = nil
			}
			diff(t, got, tt.want)
		})
	}
	must(t, c.Quit())
}
