package milter

import (
	"strings"
	"testing"

	"github.com/authkey/authkey/policy"
)

func TestAsMTA(t *testing.T) {
	tests := []struct{ written, understood, want string }{
		{"alice@a.test", "alice@a.test", "alice@a.test"},
		{"alice@A.test.", "alice@A.test", "alice@A.test."},
		{`"alice"@a.test`, "alice@a.test", `"alice"@a.test`},
		{"@r.test:alice@a.test", "alice@a.test", "@r.test:alice@a.test"},
		{"\"a\rb\"@a.test", "a b@a.test", "\"a\rb\"@a.test"},
		{"SRS0=Ab=cD=b.test=x@A.test", "srs0=ab=cd=b.test=x@a.test", "SRS0=Ab=cD=b.test=x@A.test"}, // Postfix folds case
		{"alice", "alice@mx.test", "alice"},
		{"alice@a.test", "", "alice@a.test"},
		{"", "MAILER-DAEMON", ""},
		{"alice@a.test", "alice", "alice@a.test"}, // Sendmail, a user of its own

		{"alice@a.test (x@b.test", "alice@a.test", "alice@a.test"},
		{"<alice@a.test> x@b.test", "alice@a.test", "alice@a.test"},
		{"alice%a.test", "alice@a.test", "alice@a.test"},
		{"a.test!alice", "alice@a.test", "alice@a.test"},
		{"x@b.test@a.test", "x@b.test", "x@b.test"},
		{" alice@a.test", "alice@a.test", "alice@a.test"},
	}
	for _, tt := range tests {
		if got := asMTA(tt.written, tt.understood); got != tt.want {
			t.Errorf("asMTA(%q, %q) = %q, want %q", tt.written, tt.understood, got, tt.want)
		}
	}
}

func TestSenderAsMTA(t *testing.T) {
	tests := []struct{ written, sender, resolved, want string }{
		// Sendmail, which says both.
		{`"mallory@evil.test"`, `"mallory@evil.test"`, "mallory@evil.test", `"mallory@evil.test"`},
		{`(x)"mallory@evil.test"`, `"mallory@evil.test"`, "mallory@evil.test", `"mallory@evil.test"`},
		{`@mx.test:"mallory@evil.test"`, `"mallory@evil.test"`, "mallory@evil.test", `"mallory@evil.test"`},
		{`"mallory%evil.test"`, `"mallory%evil.test"`, "mallory@evil.test", `"mallory%evil.test"`},
		{"mallory%evil.test@mx.test", "mallory%evil.test@mx.test", "mallory@evil.test", "mallory%evil.test@mx.test"},
		{`"mallory@evil.test"%mx.test`, `"mallory@evil.test"@mx.test`, "mallory@evil.test", `"mallory@evil.test"@mx.test`},
		{"mallory%evil.test", "mallory@evil.test", "mallory@evil.test", "mallory@evil.test"},
		{"x <mallory@evil.test>", "mallory@evil.test", "mallory@evil.test", "mallory@evil.test"},
		{`mallory@"evil.test"`, `mallory@"evil.test"`, `mallory@"evil.test"`, "mallory@evil.test"},
		{`mallory@ev\il.test`, `mallory@ev\il.test`, `mallory@ev\il.test`, "mallory@evil.test"},
		{"Mallory@EVIL.test.", "Mallory@EVIL.test", "Mallory@EVIL.test", "Mallory@EVIL.test."},
		{"alice", "alice", "alice", "alice"},
		{"alice@mx.test", "alice@mx.test", "alice", "alice@mx.test"},
		{"alice@localhost", "alice@mx.test", "alice", "alice@mx.test"},
		{"alice@[127.0.0.1]", "alice@mx.test", "alice", "alice@[127.0.0.1]"},
		{"", "MAILER-DAEMON", "", ""},

		// Postfix, which says one; the first is what stands on its envelope, too.
		{`"mallory@evil.test"`, "", "mallory@evil.test", "mallory@evil.test"},
		{`"mallory@evil.test"@`, "", "mallory@evil.test", `"mallory@evil.test"@`},
		{"mallory%evil.test@mx.test", "", "mallory@evil.test", "mallory%evil.test@mx.test"},
		{`"mallory@evil.test"@mx.test`, "", "mallory@evil.test", `"mallory@evil.test"@mx.test`},
		{"evil.test!mallory@mx.test", "", "mallory@evil.test", "evil.test!mallory@mx.test"},
		{"mallory%evil.test%mx.test", "", "mallory@evil.test", "mallory%evil.test@mx.test"},
		{"mx.test!evil.test!mallory", "", "mallory@evil.test", "evil.test!mallory@mx.test"},
		{"@mx.test:mallory%evil.test@mx.test", "", "mallory@evil.test", "mallory%evil.test@mx.test"},
		{"mallory%evil.test", "", "mallory@evil.test", "mallory@evil.test"},
		{"<alice@a.test> x@b.test", "", "alice@a.test", "alice@a.test"},
		{"x@b.test@a.test", "", "x@b.test", "x@b.test"},
		{"alice@b.test", "", "alice@a.test", "alice@a.test"}, // it has another name for the host
		{"alice", "", "alice@mx.test", "alice"},
		{"", "", "", ""},
	}
	for _, tt := range tests {
		if got := senderAsMTA(tt.written, tt.sender, tt.resolved); got != tt.want {
			t.Errorf("senderAsMTA(%q, %q, %q) = %q, want %q", tt.written, tt.sender, tt.resolved, got, tt.want)
		}
	}
}

// FuzzSenderAsMTA: a sender is never made up: it is what was written or what the MTA
// said, but for the form of a domain.
func FuzzSenderAsMTA(f *testing.F) {
	f.Add(`"mallory@evil.test"`, `"mallory@evil.test"`, "mallory@evil.test")
	f.Add("a%b@c", "", "a@b")
	f.Add(`"@`, `x@"y"`, "@")
	f.Fuzz(func(t *testing.T, written, sender, resolved string) {
		got := senderAsMTA(written, sender, resolved)
		if got != written && got != withDomain(written) && got != sender && got != resolved && withoutQuoting.Replace(got) != withoutQuoting.Replace(sender) {
			t.Errorf("%q of %q, %q, %q", got, written, sender, resolved)
		}
		// Where the MTA says the same, the session does not even look.
		if got := senderAsMTA(written, "", written); got != written {
			t.Errorf("%q of %q, which the MTA reads alike", got, written)
		}
	})
}

// A MAIL FROM whose domain is none, though people see one in it, is its domain's.
func TestSenderWhoseDomainIsNone(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.fake.answer = domainVerifier
	for sender, want := range map[string]string{
		"boss@req.test\u00a0":  `x-authkey=fail reason="required" smtp.mailfrom=@req.test`,
		"boss@re\u2028q.test":  `x-authkey=fail reason="required" smtp.mailfrom=@req.test`,
		"boss@req\uff0etest%":  `x-authkey=fail reason="required" smtp.mailfrom=@req.test`,
		`boss@req."te\st"`:     `x-authkey=fail reason="required" smtp.mailfrom=@req.test`,
		"boss@none..test":      `x-authkey=none reason="bad-domain"`,
		"boss@none.test\u00a0": `x-authkey=none reason="no-as" smtp.mailfrom=@none.test`,
		"boss@]":               `x-authkey=none reason="bad-domain"`,
		"boss@[192.0.2.1]":     `x-authkey=none reason="domain-literal"`,
	} {
		c := r.connect()
		got, err := send(c, sent{from: sender})
		if err != nil {
			t.Fatal(err)
		}
		if _, result, _ := strings.Cut(got.fields[0].value, ";\n\t"); result != want {
			t.Errorf("%q: %q, want %q", sender, result, want)
		}
		c.Close()
	}
}
