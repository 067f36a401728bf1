package e2e

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testmta"
	"github.com/authkey/authkey/internal/wire"
)

// Further domains of TestFrom.
const (
	curious = "curious.test" // its AS notes what it is asked, and likes every key
	greedy  = "greedy.test"  // the same, and says req=yes
	listing = "lists.test"   // has an AS; announce is an address
)

// theirKey is what curious.test's addresses attach.
const theirKey = "ORDINARYKEYOFTHEIROWN"

// A fromCase is a message, and what is said of MAIL FROM and of the From field.
type fromCase struct {
	name             string
	from, author     string
	key              string // the address whose key is attached, theirKey, or "" for none
	fields           string
	envelope, result string // in Authentication-Results, "" for nothing
	asked            bool   // the author's AS is shown the key
}

var fromCases = []fromCase{
	{name: "the sender itself", from: "alice@" + withAS, author: "Alice <alice@pass.test>", key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice@pass.test", result: "pass header.from=alice@pass.test"},
	{name: "the sender itself, forged", from: "alice@" + withAS, author: "alice@pass.test", key: "alice@" + requiring,
		envelope: `fail reason="invalid-key" smtp.mailfrom=alice@pass.test`, result: `fail reason="invalid-key" header.from=alice@pass.test`},
	{name: "a colleague", from: "alice@" + withAS, author: "The Boss <boss@pass.test>", key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice@pass.test", result: `fail reason="invalid-key" header.from=boss@pass.test`},
	{name: "the sender in another spelling", from: "alice+lists@" + withAS, author: "Alice@PASS.test", key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice+lists@pass.test", result: "pass header.from=Alice@pass.test"},
	{name: "the sender behind a bounce tag", from: "prvs=0123456789=alice@" + withAS, author: "alice@pass.test", key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=prvs%3D0123456789%3Dalice@pass.test", result: "pass header.from=alice@pass.test"},
	{name: "no AS", from: "alice@" + withAS, author: "alice@none.test", key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice@pass.test", result: `none reason="no-as" header.from=alice@none.test`},
	{name: "another domain", from: "alice@" + withAS, author: "ceo@" + curious, key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice@pass.test", result: `none reason="no AuthKey" header.from=ceo@curious.test`},
	{name: "another domain, which requires keys", from: "alice@" + withAS, author: "ceo@" + greedy, key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice@pass.test", result: `fail reason="key-is-envelope-senders" header.from=ceo@greedy.test`},
	{name: "another domain, somebody's key", from: "alice@" + withAS, author: "ceo@" + curious, key: "alice@" + requiring,
		envelope: `fail reason="invalid-key" smtp.mailfrom=alice@pass.test`, result: `none reason="no AuthKey" header.from=ceo@curious.test`},
	{name: "another domain, the sender's AS is down", from: "alice@" + downAS, author: "ceo@" + curious, key: "alice@" + downAS,
		envelope: `temperror reason="as-`, result: `none reason="no AuthKey" header.from=ceo@curious.test`},
	{name: "another domain, the sender's record is broken", from: "alice@" + brokenAS, author: "ceo@" + curious, key: "alice@" + withAS,
		envelope: `permerror reason="as-record"`, result: `none reason="no AuthKey" header.from=ceo@curious.test`},
	{name: "one of several", from: "alice@" + withAS, author: "alice@pass.test, ceo@" + greedy, key: "alice@" + withAS,
		envelope: "pass smtp.mailfrom=alice@pass.test", result: `fail reason="key-is-ambiguous" header.from=ceo@greedy.test`},
	{name: "a mailing service that names two domains", from: "bounce-17@" + withoutAS, author: "alice@pass.test, ceo@" + curious, key: "alice@" + withAS,
		envelope: `none reason="no-as" smtp.mailfrom=bounce-17@none.test`, result: `none reason="no AuthKey" header.from=alice@pass.test`},
	{name: "a mailing service", from: "bounce-17@" + withoutAS, author: "alice@pass.test", key: "alice@" + withAS,
		envelope: `none reason="no-as" smtp.mailfrom=bounce-17@none.test`, result: "pass header.from=alice@pass.test"},
	{name: "a mailing service that forges", from: "bounce-17@" + withoutAS, author: "alice@req.test",
		envelope: `none reason="no-as" smtp.mailfrom=bounce-17@none.test`, result: `fail reason="required" header.from=alice@req.test`},
	{name: "its own key", from: "bounce-17@" + withoutAS, author: "ceo@" + curious, key: theirKey,
		envelope: `none reason="no-as" smtp.mailfrom=bounce-17@none.test`, result: "pass header.from=ceo@curious.test", asked: true},
	{name: "null sender", author: "alice@pass.test", key: "alice@" + withAS, result: "pass header.from=alice@pass.test"},
	{name: "null sender, a mail system", author: "MAILER-DAEMON@req.test"},
}

// TestFrom checks the From field, which people read, on real mail.
func TestFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spy := startSpy(t)
	must(t, w.Publish(curious, lab.ASRecord(spy.port)))
	must(t, w.Publish(greedy, lab.ASRecord(spy.port, "req=yes")))
	must(t, w.AddDomain(listing, "announce"))
	port, _, err := w.ServeAS(listing)
	must(t, err)
	must(t, w.Publish(listing, lab.ASRecord(port)))
	for name, start := range map[string]startOffice{"postfix": postfixOffice(testmta.PostfixOptions{}), "sendmail": sendmailOffice()} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, w, start)
			o.prefer(t, wishes)
			t.Run("report", func(t *testing.T) { o.reportFrom(t, spy) })
			t.Run("enforce", o.enforceFrom)
			t.Run("forms", o.formsOfFrom)
			// Something for lookForKeys to read.
			o.configure(t, wishesYAML)
			diff(t, o.send(t, dialSMTP(t, o.mta), o.forgedBy(t, at("discard-notify")...)),
				outcome{Reply: "250", Notices: []string{"discard-notify@rcpt.test de"}})
		})
	}
	if asked := spy.keys(); !slices.Contains(asked, theirKey) || slices.ContainsFunc(asked, func(k string) bool { return k != theirKey }) {
		t.Errorf("the AS of %s was shown %d keys, of which one or more are somebody else's", curious, len(asked))
	}
}

func (o *office) letter(t *testing.T, each fromCase) *mail {
	t.Helper()
	m := &mail{from: each.from, author: each.author, rcpts: at("bob"), fields: each.fields}
	switch key := each.key; key {
	case "":
	case theirKey:
		m.fields += "X-Auth-Key: " + theirKey + "\r\n"
	default:
		m.fields += "X-Auth-Key: " + o.key(t, key) + "\r\n"
	}
	return m
}

func (o *office) reportFrom(t *testing.T, spy *spy) {
	c := dialSMTP(t, o.mta)
	for _, each := range fromCases {
		t.Run(each.name, func(t *testing.T) {
			before := len(spy.keys())
			m := o.letter(t, each)
			box := "bob@rcpt.test"
			if strings.HasPrefix(each.envelope, "fail") {
				box += " marked" // by what MAIL FROM is; of the From field nothing follows
			}
			diff(t, o.send(t, c, m), outcome{Reply: "250", Boxes: []string{box}})
			got := delivered(t, o.mta, m)
			fields := got.Values("Authentication-Results")
			if each.envelope == "" && each.result == "" {
				if len(fields) != 0 {
					t.Errorf("Authentication-Results %q", fields)
				}
				return
			}
			if len(fields) != 1 {
				t.Errorf("%d Authentication-Results, want one: %q", len(fields), fields)
			}
			for _, tt := range []struct{ got, want string }{{authRes(got), each.envelope}, {fromRes(got), each.result}} {
				if tt.want == "" && tt.got != "" || tt.want != "" && !strings.HasPrefix(tt.got, "mx.test; x-authkey="+tt.want) {
					t.Errorf("Authentication-Results %q, want x-authkey=%s", tt.got, tt.want)
				}
			}
			if asked := spy.keys()[before:]; (len(asked) > 0) != each.asked {
				t.Errorf("the author's AS was shown %d keys", len(asked))
			}
		})
	}
	must(t, c.Quit())
}

// enforceFrom lets the From field have a say.
func (o *office) enforceFrom(t *testing.T) {
	o.configure(t, `
policy: {nokey: mark, fail: reject}
from:
  check: enforce
  actions: {fail: reject, nokey: mark}
  trusted: [{mail_from: lists.test}, {client: 192.0.2.0/24}]
`)
	const missing = "550 5.7.1 Sender address not authenticated: AuthKey missing"
	victim := "Victim <alice@req.test>"
	for _, tt := range []struct {
		fromCase
		client string
		want   outcome
		log    string
	}{
		{fromCase{name: "somebody else's name", from: "alice@" + withAS, author: victim, key: "alice@" + withAS}, "",
			outcome{Reply: missing}, "by=from"},
		{fromCase{name: "the From field is worse", from: "alice@" + withAS, author: victim}, "",
			outcome{Reply: missing}, "by=from"},
		{fromCase{name: "the envelope is worse", from: "alice@" + withAS, author: "ceo@" + curious, key: "alice@" + requiring}, "",
			outcome{Reply: refusal}, "by=default"},
		{fromCase{name: "the From field is worse, mildly", from: "alice@" + withAS, author: "ceo@" + curious, key: "alice@" + withAS}, "",
			outcome{Reply: "250", Boxes: []string{"bob@rcpt.test marked"}}, "by=from"},
		{fromCase{name: "a list that passed", from: "announce@" + listing, author: victim, key: "announce@" + listing}, "",
			outcome{Reply: "250", Boxes: at("bob")}, "from_result=skipped"},
		{fromCase{name: "a list that did not", from: "announce@" + listing, author: victim}, "",
			outcome{Reply: missing}, "by=from"},
		{fromCase{name: "whoever says to be a list", from: "alice@" + withAS, author: victim, key: "alice@" + withAS, fields: "List-Id: <announce.lists.test>\r\n"}, "",
			outcome{Reply: missing}, "by=from"},
		{fromCase{name: "a forwarder", from: "carol@" + withoutAS, author: victim}, "192.0.2.9",
			outcome{Reply: "250", Boxes: at("bob")}, "from_result=skipped"},
		{fromCase{name: "not that forwarder", from: "carol@" + withoutAS, author: victim}, "198.51.100.9",
			outcome{Reply: missing}, "by=from"},
	} {
		if tt.client != "" && o.mta.Name() == "sendmail" {
			continue // it knows no XCLIENT
		}
		t.Run(tt.name, func(t *testing.T) {
			c := dialSMTP(t, o.mta)
			m := o.letter(t, tt.fromCase)
			transaction := m.transaction()
			if tt.client != "" {
				transaction.XClient = "ADDR=" + tt.client
			}
			since := len(o.milter.Log())
			reply, err := c.Send(transaction)
			must(t, err)
			diff(t, o.outcome(t, m, reply), tt.want)
			o.wantLog(t, since, tt.log)
			must(t, c.Quit())
		})
	}
}

// formsOfFrom sends forms on which programs disagree, and those that are everyday mail.
func (o *office) formsOfFrom(t *testing.T) {
	o.configure(t, "from: {check: enforce, actions: {fail: reject, permerror: reject}}\n")
	const missing = "550 5.7.1 Sender address not authenticated: AuthKey missing"
	c := dialSMTP(t, o.mta)
	for _, author := range []string{
		"boss(hi)@req.test", "Boss <boss @ req.test>", "a@n b@n c@n d@n <boss@req.test>", "=?utf-8?q?Boss_=3Cboss=40req.test=3E?=",
		"<boss@req.test\u00a0>", "<boss+" + strings.Repeat("a", 900) + "@req.test>", "<boss+" + strings.Repeat("a", 1100) + "@req.test>",
		`"bo"."ss"@req.test`, `boss@"req.test"`, `boss@req\.test`, "<@x.test:boss@req.test>", "boss@req.test@none.test", "Boss <boss@req.test",
		"=?utf-8?q?boss=40req.test?= <alice@pass.test>", "boss@req.test <alice@pass.test>", `"boss@req.test" <alice@pass.test>`, "boss@re\u200bq.test",
		"alice@pass.test, boss@req.test", "boss%req.test", "req.test!boss", "boss＠req.test <alice@pass.test>",
	} {
		t.Run("shows "+cutAt(author, 40), func(t *testing.T) {
			m := o.letter(t, fromCase{from: "alice@" + withAS, author: author, key: "alice@" + withAS})
			diff(t, o.send(t, c, m), outcome{Reply: missing})
		})
	}
	for name, fields := range map[string]string{
		"a fifth field": strings.Repeat("From: alice@pass.test\r\n", 4) + "From: boss@req.test\r\n",
		"much before":   "From: (" + strings.Repeat("\r\n "+strings.Repeat("x", 900), 19) + ") boss@req.test\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			m := o.letter(t, fromCase{from: "alice@" + withAS, author: "alice@pass.test", key: "alice@" + withAS, fields: fields})
			diff(t, o.send(t, c, m), outcome{Reply: refusal})
			o.wantLog(t, 0, "from_reason=from-limit")
		})
	}
	for _, author := range []string{
		"alice@pass.test <alice@pass.test>", "Doe, Alice <alice@pass.test>", "[ACME] Support <alice@pass.test>", "ACME: Support <alice@pass.test>",
		"M\xfcller <alice@pass.test>", "<alice@pass.test >", "Alice <alice@pass.test>;", "'alice@pass.test' <alice@pass.test>",
	} {
		t.Run("everyday "+author, func(t *testing.T) {
			m := o.letter(t, fromCase{from: "alice@" + withAS, author: author, key: "alice@" + withAS})
			diff(t, o.send(t, c, m), outcome{Reply: "250", Boxes: at("bob")})
			if got := fromRes(delivered(t, o.mta, m)); !strings.HasPrefix(got, "mx.test; x-authkey=pass header.from=alice@pass.test") {
				t.Errorf("Authentication-Results %q", got)
			}
		})
	}
	t.Run("an envelope sender that is too long", func(t *testing.T) {
		if o.mta.Name() == "sendmail" {
			return // it refuses such an address itself
		}
		m := o.letter(t, fromCase{from: "ceo+" + strings.Repeat("a", 1100) + "@" + requiring, author: "alice@pass.test"})
		o.configure(t, "policy: {fail: reject}\n")
		diff(t, o.send(t, c, m), outcome{Reply: missing})
	})
	must(t, c.Quit())
}

func cutAt(s string, n int) string { return s[:min(len(s), n)] }

// A spy is an Authentication Server that notes every key it is shown, and says
// that it is valid.
type spy struct {
	port int

	mu   sync.Mutex
	seen []string
}

func startSpy(t *testing.T) *spy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &spy{port: l.Addr().(*net.TCPAddr).Port}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			all.Go(func() { s.answer(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s
}

func (s *spy) answer(c net.Conn) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		request, err := wire.ParseRequest(lines.Text())
		s.mu.Lock()
		if err != nil {
			s.seen = append(s.seen, "something else: "+lines.Text())
		} else {
			s.seen = append(s.seen, request.Key.Reveal())
		}
		s.mu.Unlock()
		fmt.Fprintf(c, "VERIFY_REPLY %d %s VALIDKEY ttl=0\r\n", request.Seq, request.Address)
	}
}

// keys is what it has been shown so far.
func (s *spy) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}
