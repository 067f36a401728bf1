package notify

import (
	"bytes"
	netmail "net/mail"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-message/mail"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
)

func TestRules(t *testing.T) {
	null := honest()
	null.Sender = ""
	forged := honest()
	forged.SenderAuthenticated = false
	large := honest()
	large.Truncated = true
	odd := honest()
	odd.Sender = "a\x01b@sender.example"
	tests := []struct {
		name   string
		o      *original
		dsn    Suppression // with notify.dsn authenticated
		notice Suppression
	}{
		{"honest mail", honest(), Allowed, Allowed},
		{"null sender", null, NullSender, NullSender},
		{"forged", forged, Unauthenticated, Allowed},
		{"half a header", large, Header, Header},
		{"sender that cannot be written to", odd, BadAddress, Allowed},
		{"ours", with(" x-authkey-REPORT", "notice"), OwnMessage, OwnMessage},
		{"auto-submitted", with("Auto-Submitted", "auto-replied"), AutoSubmitted, AutoSubmitted},
		{"with parameters", with("auto-submitted", " (no) auto-generated; owner-email=\"a\""), AutoSubmitted, AutoSubmitted},
		{"not automatic", with("Auto-Submitted", "(a \\) (nested) comment)\r\n\tNo (really); x=y"), Allowed, Allowed},
		{"empty Auto-Submitted", with("Auto-Submitted", ""), AutoSubmitted, AutoSubmitted},
		{"unknown Auto-Submitted", with("Auto-Submitted", "nope"), AutoSubmitted, AutoSubmitted},
		{"bulk", with("Precedence", "Bulk"), Precedence, Allowed},
		{"list", with("PRECEDENCE", " list (members)"), Precedence, Allowed},
		{"junk", with("Precedence", "junk"), Precedence, Allowed},
		{"first-class", with("Precedence", "first-class"), Allowed, Allowed},
		{"mailing list", with("List-ID", "<dev.lists.example>"), List, Allowed},
		{"empty List-Id", with("List-Id", ""), List, Allowed},
	}
	for _, tt := range tests {
		if got := mayDSN(tt.o, Authenticated); got != tt.dsn {
			t.Errorf("%s: DSN %q, want %q", tt.name, got, tt.dsn)
		}
		if got := mayNotice(tt.o, "bob@rcpt.example"); got != tt.notice {
			t.Errorf("%s: notice %q, want %q", tt.name, got, tt.notice)
		}
		if got := mayDSN(tt.o, Never); got != ByMode {
			t.Errorf("%s: DSN %q although never", tt.name, got)
		}
		want := tt.dsn
		if want == Unauthenticated {
			want = Allowed
		}
		if got := mayDSN(tt.o, Always); got != want {
			t.Errorf("%s: DSN %q where every sender gets one, want %q", tt.name, got, want)
		}
	}
	// A second field counts as much as the first.
	two := with("Auto-Submitted", "no")
	two.Header = append(two.Header, field("Auto-Submitted", "auto-generated"))
	if got := mayNotice(two, "bob@rcpt.example"); got != AutoSubmitted {
		t.Errorf("two Auto-Submitted fields: %q", got)
	}
	if got := mayNotice(honest(), "bob\r\n@rcpt.example"); got != BadAddress {
		t.Errorf("notice to an address with a line break: %q", got)
	}
}

func TestMailbox(t *testing.T) {
	tests := []struct{ in, want string }{ // "": refused
		{"bob@example.com", "bob@example.com"},
		{"bob@example.com.", "bob@example.com"},
		{"@a.example,@b.example:bob@example.com", "bob@example.com"},
		{`@a.example:"a b"@example.com`, `"a b"@example.com`},
		{"@[IPv6:2001:db8::1]:bob@example.com", "bob@example.com"},
		{"bob@Example.COM", "bob@Example.COM"},
		{"bob@example.com\u3002", "bob@example.com"},
		{"postmaster", "postmaster"},
		{`"a b"@example.com`, `"a b"@example.com`},
		{`"a>\" b@c"@example.com`, `"a>\" b@c"@example.com`},
		{"zoë@bücher.example", "zoë@xn--bcher-kva.example"},
		{"bob@[192.0.2.1]", "bob@[192.0.2.1]"},
		{"bob@[IPv6:2001:db8::1]", "bob@[IPv6:2001:db8::1]"},
		{"under_score@a_b.example", "under_score@a_b.example"},
		{"", ""}, {"@", ""}, {"@example.com", ""}, {"bob@", ""}, {"bob@.", ""}, {"bob@[", ""}, {"bob@[]", ""},
		{"a@b@example.com", ""}, {`a\@b@example.com`, ""}, {`a"@"b@c@example.com`, ""}, {`bob@"x"@example.com`, ""}, {"bob@a..", ""},
		{"bob@xn--bcher-kva-", ""}, {"bob@[é.example]", ""}, {"bob@" + strings.Repeat("a", 64) + ".example", ""},
		{"a@b..example", ""}, {"a@.example", ""},
		{"a@b\uff1eX.example", ""}, // a wide ">", which IDNA maps to the narrow one
		{"a@b>x@example.com", ""},
		{"a> NOTIFY=SUCCESS@example.com", ""},
		{"a@example.com> X=Y", ""},
		{"a@[192.0.2.1> X=Y]", ""},
		{"a b@example.com", ""},
		{`"open@example.com`, ""}, {`"open\`, ""},
		{"a\r\nRCPT TO:<b@example.com", ""},
		{"\"a\tb\"@example.com", ""},
		{"\xff@example.com", ""},
		{"a\u202e@example.com", ""},
		{strings.Repeat("a", maxPath) + "@example.com", ""},
	}
	for _, tt := range tests {
		got, err := mailbox(tt.in)
		if got != tt.want && err == nil || (err != nil) != (tt.want == "") {
			t.Errorf("mailbox(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

// FuzzMailbox: what is accepted can stand in a command and in a field.
func FuzzMailbox(f *testing.F) {
	for _, s := range []string{"a@b.example", `"a\"b"@[IPv6:::1]`, "@x:y@z", "a>b@c", "zoë@ü.example", "a\r\n@b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := mailbox(s)
		if err != nil {
			return
		}
		if strings.ContainsFunc(got, esmtp.IsControl) || got == "" {
			t.Fatalf("mailbox(%q) = %q", s, got)
		}
		quoted := false
		for i := 0; i < len(got); i++ {
			switch c := got[i]; {
			case quoted && c == '\\':
				i++
			case c == '"':
				quoted = !quoted
			case !quoted && (c == '>' || c == '<' || c == ' '):
				t.Fatalf("mailbox(%q) = %q ends its brackets", s, got)
			}
		}
		if again, err := mailbox(got); err != nil || again != got {
			t.Fatalf("mailbox(%q) = %q, and of that %q, %v", s, got, again, err)
		}
	})
}

func TestTypedAddress(t *testing.T) {
	for args, want := range map[string]string{
		"ORCPT=rfc822;Bob+2BHome@Example.com":  "rfc822; Bob+Home@Example.com",
		`ORCPT=UTF-8;zo\x{EB}\x{2B}@a.example`: `utf-8; zo\x{EB}\x{2B}@a.example`,
		"ORCPT=utf-8;zoë@a.example":            `utf-8; zo\x{EB}@a.example`,
		"ORCPT=x400;a":                         "x400; a",
	} {
		got := ""
		if kind, addr := esmtp.OriginalRecipient(args); addr != "" {
			got = typedAddress(kind, addr, false)
		}
		if got != want {
			t.Errorf("ORCPT of %q: %q, want %q", args, got, want)
		}
	}
}

// A line has room for 998 octets (RFC 5322 section 2.1.1).
func TestLongTypedAddress(t *testing.T) {
	for kind, addr := range map[string]string{"rfc822": "a@b.example", "utf-8": "zo\u00eb@b.example"} {
		for _, wide := range []bool{false, true} {
			got := "Original-Recipient: " + typedAddress(kind, strings.Repeat(addr, 200), wide)
			if len(got) < maxTyped || len(got) > 998 || !utf8.ValidString(got) {
				t.Errorf("%s, wide %v: %d octets: %q", kind, wide, len(got), got)
			}
		}
	}
}

// FuzzTypedAddress: whatever recipient a client gives makes one line of a report. Package
// esmtp tests the parameters by themselves.
func FuzzTypedAddress(f *testing.F) {
	f.Add(`ORCPT=utf-8;zo\x{EB}@a.example NOTIFY=NEVER`)
	f.Add("ORCPT=rfc822;a+0D+0A")
	f.Add("ORCPT=utf-8;" + strings.Repeat("ë", 250))
	f.Add("ORCPT=" + strings.Repeat("x", 500) + ";" + strings.Repeat("a", 500))
	f.Fuzz(func(t *testing.T, args string) {
		kind, addr := esmtp.OriginalRecipient(args)
		if addr == "" {
			return
		}
		if line := typedAddress(kind, addr, false); printable(line) != line || len("Original-Recipient: "+line) > 998 {
			t.Errorf("%q of %q", line, args)
		}
	})
}

func TestMessageID(t *testing.T) {
	for in, want := range map[string]bool{
		"<1@a.example>": true, " <1@a.example>\t": true, "1@a.example": false, "<a b@c>": false, "<a@b>\r\nX: y": false,
		"<a@b> <c@d>": false, "<@b>": false, "": false, "<" + strings.Repeat("a", maxMessageID) + "@b>": false,
	} {
		o := &original{milter.Original{Header: []milter.Field{field("Message-ID", in)}}}
		if got := o.messageID() != ""; got != want {
			t.Errorf("%q is taken: %v", in, got)
		}
	}
}

func TestFromName(t *testing.T) {
	for _, name := range []string{"Mail Delivery System", `Post "Office" \ Ltd.`, "Poststelle für Grüße und sehr viele andere Dinge, die man im Namen führen kann"} {
		var header bytes.Buffer
		c := composer{n: newNotifier(t, "", memoryLedger(t), func(o *Options) { o.FromName = name }), o: honest(), to: "a@b.example"}
		c.writeHeader(&header, mail.Header{}, "subject: "+strings.Repeat(name+" ", 3))
		for line := range strings.SplitSeq(header.String(), "\r\n") {
			if strings.Count(line, "=?utf-8?") > 1 {
				t.Errorf("%q is not folded: %q", name, line)
			}
		}
		m, err := netmail.ReadMessage(&header)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netmail.ParseAddress(m.Header.Get("From"))
		if err != nil || a.Name != name {
			t.Errorf("%q came back as %v, %v", name, a, err)
		}
	}
}
