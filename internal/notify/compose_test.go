package notify

import (
	"bytes"
	"encoding/base64"
	"flag"
	"io"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-message/textproto"
	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/verifier"
)

var update = flag.Bool("update", false, "write the golden files anew")

// parsed is a mail as somebody else's parser sees it.
type parsed struct {
	fields []milter.Field
	header message.Header
	body   string   // of a mail with one part
	types  []string // of the parts, in their order
	parts  []string
}

// readMail reads a mail with emersion/go-message and checks what holds for all of ours.
func readMail(t testing.TB, data string) parsed {
	t.Helper()
	head, _, ok := strings.Cut(data, "\r\n\r\n")
	if !ok {
		t.Fatalf("no end of the header:\n%s", data)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(data, "\r\n"), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") {
			t.Errorf("a line that may not be sent: %.80q", line)
		}
	}
	e, err := message.Read(strings.NewReader(data))
	if err != nil {
		t.Fatalf("unreadable: %v\n%s", err, head)
	}
	p := parsed{header: e.Header}
	for f := e.Header.Fields(); f.Next(); {
		p.fields = append(p.fields, field(f.Key(), f.Value()))
	}
	for _, name := range []string{"Date", "From", "To", "Subject", "Message-Id", "Auto-Submitted", "Mime-Version", reportField} {
		if n := len(e.Header.Values(name)); n != 1 {
			t.Errorf("%d fields %s", n, name)
		}
	}
	if _, err := netmail.ParseAddress(e.Header.Get("From")); err != nil {
		t.Errorf("From: %v", err)
	}
	if mr := e.MultipartReader(); mr != nil {
		for {
			part, err := mr.NextPart()
			if err == io.EOF {
				return p
			}
			if err != nil {
				t.Fatal(err)
			}
			kind, _, err := part.Header.ContentType()
			if err != nil {
				t.Error(err)
			}
			body, err := io.ReadAll(part.Body)
			if err != nil {
				t.Error(err)
			}
			p.types, p.parts = append(p.types, kind), append(p.parts, string(body))
		}
	}
	body, err := io.ReadAll(e.Body)
	if err != nil {
		t.Error(err)
	}
	p.body = string(body)
	return p
}

// nasty is a message whose every text tries to be more than it is.
func nasty() *original {
	o := honest()
	o.Sender = `"a\" b"@sender.example`
	o.QueueID = "Q\r\nX-Evil: 1"
	o.Client = "192.0.2.7\nX-Evil: 1"
	o.MailArgs = "SIZE=100 RET=FULL ENVID=id+2Bone BODY=8BITMIME"
	o.Header = []milter.Field{
		field("From", "=?utf-8?q?J=C3=BCrgen=0D=0AX-Evil:_1?= <ceo@bank.example>"),
		field("Subject", "=?iso-8859-1?q?Gr=FC=DFe?=\r\n\t=?utf-8?q?=E2=80=AEgnp.exe=0A--boundary?="),
		field("Message-ID", "<2@sender.example>\r\nX-Evil: 1"),
		field("X-Folded", "one\n\ttwo\r\n three\nX-Evil: 1"),
		field("X-Long", strings.Repeat("x", 3000)),
		field("X-8bit", "gr\xfc\xdfe"),
		field("X-Utf8", "grüße"),
		field("--boundary--", "closes"),
		field("Bad Name", "left out"),
		field("X-Nul", "a\x00b"),
		field(" x-AUTH-key\t", theKey[:9]+"\r\n\t"+theKey[9:]),
		field("X-New-Auth-Key", theKey),
	}
	return o
}

// TestGolden compares whole mails with files that a person has read.
func TestGolden(t *testing.T) {
	german := honest()
	german.Header = append(german.Header, field("Accept-Language", "x-klingon, de-CH;q=0.9, en"))
	german.Result.Reason, german.MailArgs = "required", "ENVID=QQ314159"
	wide := nasty()
	wide.Sender = "jürgen@bücher.example"
	dsn := func(o *original, list ...milter.Failure) func(*Notifier) []byte {
		return func(n *Notifier) []byte {
			to, err := mailbox(o.Sender)
			if err != nil {
				t.Fatal(err)
			}
			return composer{n: n, o: o, kind: kindDSN, to: to}.dsn(list)
		}
	}
	notice := func(o *original, notice milter.Notice) func(*Notifier) []byte {
		return func(n *Notifier) []byte {
			return composer{n: n, o: o, kind: kindNotice, to: notice.Recipient}.notice(notice)
		}
	}
	rich := milter.Failure{Recipient: "bob@rcpt.example", RcptArgs: "NOTIFY=FAILURE,DELAY ORCPT=rfc822;Bob+2BHome@Example.com", Reply: refusedReply}
	eai := milter.Failure{Recipient: "zoë+=\\@rcpt.example", RcptArgs: `ORCPT=utf-8;zo\x{EB}@old.example`, Reply: refusedReply}
	other := honest()
	other.Checked, other.Result = "ceo@bank.example", verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoAS}
	tests := []struct {
		name  string
		write func(*Notifier) []byte
		types []string
	}{
		{"dsn-english", dsn(honest(), failures("bob@rcpt.example", "carol@rcpt.example")...), plainTypes},
		{"dsn-german", dsn(german, rich), plainTypes},
		{"dsn-nasty", dsn(nasty(), rich, eai, milter.Failure{Recipient: "\"x\ny\"@rcpt.example"}), plainTypes},
		{"dsn-utf8", dsn(wide, rich, eai), wideTypes},
		{"notice-english", notice(honest(), milter.Notice{Recipient: "bob@rcpt.example", Refused: true}), nil},
		{"notice-german", notice(other, milter.Notice{Recipient: "bob@rcpt.example", Language: "de_AT"}), nil},
		{"notice-nasty", notice(nasty(), milter.Notice{Recipient: "bob@rcpt.example", Language: "tlh"}), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNotifier(t, "", memoryLedger(t))
			n.now = func() time.Time { return arrived.Add(time.Second) }
			n.boundary = func(w *textproto.MultipartWriter) string {
				if err := w.SetBoundary("boundary"); err != nil {
					t.Fatal(err)
				}
				return "boundary"
			}
			got := tt.write(n)
			p := readMail(t, string(got))
			if diff := cmp.Diff(tt.types, p.types); diff != "" {
				t.Errorf("parts: %s", diff)
			}
			for _, f := range p.fields {
				if f.Name == "X-Evil" {
					t.Error("a value became a field of its own")
				}
			}
			file := filepath.Join("testdata", tt.name+".eml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("not as in %s: %s", file, diff)
			}
		})
	}
}

var (
	plainTypes = []string{"text/plain", "message/delivery-status", "text/rfc822-headers"}
	wideTypes  = []string{"text/plain", "message/global-delivery-status", "message/global-headers"}
)

// TestHost: our mail speaks for the MTA that it is about, where that has a name.
func TestHost(t *testing.T) {
	n := newNotifier(t, "", memoryLedger(t))
	for mta, want := range map[string]string{
		"": "mx.example.com", "mail.other.example": "mail.other.example",
		"two words": "mx.example.com", "m\u00fc.example": "xn--m-eha.example", "a@b.example": "mx.example.com", "x\r\nBcc: eve@x.test": "mx.example.com",
	} {
		mail := string(composer{n: n, o: &original{milter.Original{MTA: mta}}, kind: kindDSN, to: "alice@sender.example"}.dsn([]milter.Failure{{Recipient: "bob@rcpt.example"}}))
		for _, line := range []string{"Reporting-MTA: dns; " + want + "\r\n", "<MAILER-DAEMON@" + want + ">\r\n"} {
			if !strings.Contains(mail, line) {
				t.Errorf("MTA %q: no %q in\n%s", mta, line, mail)
			}
		}
	}
}

// TestDeliveryStatus reads the report as a bounce processor would.
func TestDeliveryStatus(t *testing.T) {
	o := nasty()
	n := newNotifier(t, "", memoryLedger(t))
	list := []milter.Failure{
		{Recipient: "bob@rcpt.example", RcptArgs: "ORCPT=rfc822;Bob+2BHome@Example.com", Reply: refusedReply},
		{Recipient: "zoë@rcpt.example", RcptArgs: "ORCPT=rfc822;bad+", Reply: refusedReply},
	}
	p := readMail(t, string(composer{n: n, o: o, kind: kindDSN, to: "alice@sender.example"}.dsn(list)))
	kind, params, err := p.header.ContentType()
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Errorf("Content-Type %s %v, %v", kind, params, err)
	}
	if got := p.header.Get("Auto-Submitted"); got != "auto-replied" {
		t.Errorf("Auto-Submitted: %s", got)
	}
	var groups []netmail.Header
	for _, text := range strings.Split(p.parts[1], "\r\n\r\n") {
		m, err := netmail.ReadMessage(strings.NewReader(strings.TrimSuffix(text, "\r\n") + "\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, m.Header)
	}
	if len(groups) != 3 {
		t.Fatalf("%d groups of fields for two recipients:\n%s", len(groups), p.parts[1])
	}
	want := []map[string]string{
		{"Reporting-Mta": "dns; mx.example.com", "Original-Envelope-Id": "id+one", "Arrival-Date": "Sun, 01 Mar 2026 12:30:15 +0100", "X-Authkey-Queue-Id": "Q??X-Evil: 1"},
		{"Original-Recipient": "rfc822; Bob+Home@Example.com", "Final-Recipient": "rfc822; bob@rcpt.example", "Action": "failed", "Status": "5.7.1",
			"Diagnostic-Code": "smtp; 550 5.7.1 Sender address not authenticated: AuthKey invalid"},
		{"Final-Recipient": `utf-8; zo\x{EB}@rcpt.example`, "Action": "failed", "Status": "5.7.1",
			"Diagnostic-Code": "smtp; 550 5.7.1 Sender address not authenticated: AuthKey invalid"},
	}
	for i, group := range groups {
		got := make(map[string]string)
		for name := range group {
			got[name] = group.Get(name)
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("group %d: %s", i, diff)
		}
	}
}

// TestNoKey looks for the key, and pieces of it, in every octet that is sent or
// logged, as they are and decoded.
func TestNoKey(t *testing.T) {
	m := startMTA(t)
	log, logged := newLog()
	n, err := New(Options{SMTP: m.addr, DSN: Always, Rates: plenty, Hostname: "mx.example.com"}, memoryLedger(t), log)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range []*original{honest(), nasty(), with("x-auth-key", "\r\n\t"+theKey), {milter.Original{
		// Without a Message-ID the header is what it is known by.
		Sender: "alice@sender.example", Arrived: arrived, Result: verifier.Result{Status: verifier.Fail}, Header: []milter.Field{field("X-Auth-Key", theKey), field("Subject", "s")},
	}}} {
		if i == 1 {
			o.Sender = "jürgen@sender.example"
		}
		n.suppressDSN(with("Precedence", "bulk"))
		if err := n.deliver(t.Context(), o, failures("bob@rcpt.example"), notices("dave@rcpt.example")); err != nil {
			t.Fatal(err)
		}
	}
	mails := m.taken()
	if len(mails) != 6 { // the third is the first once more
		t.Fatalf("%d mails", len(mails))
	}
	texts := []string{logged.String()}
	for _, mail := range mails {
		p := readMail(t, mail.data)
		texts = append(texts, mail.data, strings.ReplaceAll(mail.data, "=\r\n", ""), p.body)
		texts = append(texts, p.parts...)
	}
	const piece = 6
	for _, text := range texts {
		for i := 0; i+piece <= len(theKey); i++ {
			part := theKey[i : i+piece]
			encoded := base64.StdEncoding.EncodeToString([]byte(part))[:piece]
			for _, form := range []string{part, strings.ToLower(part), encoded} {
				if strings.Contains(text, form) {
					t.Fatalf("%q of the key is in:\n%s", form, text)
				}
			}
		}
		if strings.Contains(strings.ToLower(text), "auth-key:") {
			t.Errorf("the field of the key is in:\n%s", text)
		}
	}
}

// TestSameMessageID: a mail that had to be sent again is known to be the same by
// whoever looks.
func TestSameMessageID(t *testing.T) {
	id := func(o *original) string {
		m := startMTA(t)
		if err := newNotifier(t, m.addr, memoryLedger(t)).deliver(t.Context(), o, nil, notices("dave@rcpt.example")); err != nil {
			t.Fatal(err)
		}
		p := readMail(t, m.taken()[0].data)
		return p.header.Get("Message-Id")
	}
	other := honest()
	other.Sender = "mallory@sender.example"
	first := id(honest())
	if again := id(honest()); again != first {
		t.Errorf("the same notice has the Message-IDs %s and %s", first, again)
	}
	if id(other) == first {
		t.Error("notices about different messages have the same Message-ID")
	}
}

// FuzzQuote: whatever a header holds, quoted it is a header of as many fields.
func FuzzQuote(f *testing.F) {
	f.Add("Subject", "hello\r\n\tworld")
	f.Add("X-A", "\n\n\r\r\nX-B: c")
	f.Add("X-Auth-Key", theKey)
	f.Add("--b", strings.Repeat("ü", 1200))
	f.Add("X", "\xff\xfe\x00")
	f.Fuzz(func(t *testing.T, name, value string) {
		for _, wide := range []bool{false, true} {
			quoted := quoteFields([]milter.Field{field("First", "1"), field(name, value), field("Last", "2")}, wide)
			want := 2
			if isFieldName(strings.TrimSpace(name)) && !isField(milter.Field{Name: name}, keyField) && !isField(milter.Field{Name: name}, newKeyField) {
				want++
			}
			if len(name)+len(value) > maxQuoted/4 {
				return
			}
			got := 0
			for line := range bytes.SplitSeq(bytes.TrimSuffix(quoted, []byte("\r\n")), []byte("\r\n")) {
				if len(line) == 0 || len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
					t.Fatalf("line %q of %q", line, quoted)
				}
				if line[0] != ' ' && line[0] != '\t' {
					got++
				}
			}
			if got != want {
				t.Fatalf("%d fields instead of %d: %q", got, want, quoted)
			}
		}
		if line := oneLine(value, 50); strings.ContainsFunc(line, esmtp.IsControl) || len([]rune(line)) > 51 {
			t.Fatalf("oneLine: %q", line)
		}
		o := &original{milter.Original{Header: []milter.Field{field("Subject", value), field("Message-ID", value)}}}
		var header bytes.Buffer
		composer{n: &Notifier{now: time.Now, opts: Options{FromName: oneLine(value, maxValue), Hostname: "mx.example.com"}}, o: o, to: "a@b.example"}.
			writeHeader(&header, mail.Header{}, o.text("Subject"))
		m, err := netmail.ReadMessage(bytes.NewReader(header.Bytes()))
		if n := len(m.Header); err != nil || n != 8 && n != 10 {
			t.Fatalf("header: %q, %v", header.String(), err)
		}
	})
}

// TestQuoteFields: nothing in a value ends its field or the header, and there is an end to it.
func TestQuoteFields(t *testing.T) {
	for value, want := range map[string]string{
		"a\r\n\r\nb":     "X: a\r\n b\r\n",
		"a\r\n \t\r\n b": "X: a\r\n b\r\n",
		"":               "X:\r\n",
		"\n\n":           "X:\r\n",
		"a\x00\x7fb\tc":  "X: a??b\tc\r\n",
		// Octets that are no UTF-8 are cut anywhere.
		strings.Repeat("\x80", 2*maxLine): "X: " + strings.Repeat("\x80", maxLine-3) + "\r\n " + strings.Repeat("\x80", maxLine-1) + "\r\n " + strings.Repeat("\x80", 4) + "\r\n",
	} {
		if got := string(quoteFields([]milter.Field{field("X", value)}, false)); got != want {
			t.Errorf("%q is quoted as %q, want %q", value, got, want)
		}
	}
	var many []milter.Field
	for range 2 * maxQuoted / 1000 {
		many = append(many, field("X", strings.Repeat("y", 1000-len("X: \r\n")-len("\r\n "))))
	}
	got := string(quoteFields(many, false))
	if one := string(quoteFields(many[:1], false)); got != strings.Repeat(one, maxQuoted/len(one)) {
		t.Errorf("of %d fields %d octets are quoted, want whole fields of at most %d", len(many), len(got), maxQuoted)
	}
}
