package fromfield

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outline writes a Reading in one line: mailboxes, "|", what else is shown.
func outline(r Reading) string {
	if r.Excess {
		return "excess"
	}
	var parts []string
	for _, m := range r.Mailboxes {
		if m.Address.IsZero() {
			parts = append(parts, m.Local+"@[]")
			continue
		}
		parts = append(parts, m.Address.String())
	}
	if r.Unreadable {
		parts = append(parts, "unreadable")
	}
	if len(r.Shown) > 0 {
		parts = append(parts, "|")
	}
	for _, a := range r.Shown {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, " ")
}

func read(values ...string) Reading {
	var f Fields
	for _, v := range values {
		f.Add(v)
	}
	return f.Read()
}

func TestRead(t *testing.T) {
	for _, tt := range []struct{ name, field, want string }{
		// Everyday mail.
		{"an address", "alice@ok.test", "alice@ok.test"},
		{"with a name", "Alice Adams <alice@ok.test>", "alice@ok.test"},
		{"with a quoted name", `"Adams, Alice" <alice@ok.test>`, "alice@ok.test"},
		{"with a comment", "alice@ok.test (Alice Adams)", "alice@ok.test"},
		{"its own address for a name", "alice@ok.test <alice@ok.test>", "alice@ok.test"},
		{"the same, quoted", `"alice@ok.test" <Alice@OK.test>`, "Alice@ok.test | alice@ok.test"},
		{"a comma", "Doe, Alice <alice@ok.test>", "alice@ok.test"},
		{"brackets", "[ACME] Support <help@ok.test>", "help@ok.test"},
		{"a colon", "ACME: Support <help@ok.test>", "help@ok.test"},
		{"a semicolon", "ACME; Support <help@ok.test>", "help@ok.test"},
		{"a stray semicolon", "Alice <alice@ok.test>;", "alice@ok.test"},
		{"dots and dashes", "A. B. Adams - Sales <alice@ok.test>", "alice@ok.test"},
		{"Latin-1", "Andr\xe9 M\xfcller <andre@ok.test>", "andre@ok.test"},
		{"UTF-8", "André Müller <andre@ok.test>", "andre@ok.test"},
		{"ISO-2022-JP", "\x1b$B;3ED<@\"(B\x1b(B <yamada@ok.test>", "yamada@ok.test"},
		{"encoded words", "=?utf-8?q?Andr=C3=A9?= =?utf-8?b?TcO8bGxlcg==?= <andre@ok.test>", "andre@ok.test"},
		{"specials in encoded words", "=?utf-8?q?Doe,_(Al<ice?= <alice@ok.test>", "alice@ok.test"},
		{"blanks in an encoded word", "=?utf-8?q?Alice Adams?= <alice@ok.test>", "alice@ok.test"},
		{"blank before >", "Alice <alice@ok.test >", "alice@ok.test"},
		{"dot after the domain", "Alice <alice@ok.test.>", "alice@ok.test"},
		{"text after >", "Alice <alice@ok.test> Adams", "alice@ok.test"},
		{"no >", "Alice <alice@ok.test", "alice@ok.test"},
		{"comment first", "(Sales) Alice <alice@ok.test>", "alice@ok.test"},
		{"a parenthesis that never closes", "Alice (Sales <alice@ok.test>", "alice@ok.test"},
		{"a quote that never closes", `Alice "Al <alice@ok.test>`, "alice@ok.test"},
		{"an apostrophe", "O'Brien <ob@ok.test>", "ob@ok.test"},
		{"at a company", "Alice @ Acme, Inc. <alice@ok.test>", "alice@ok.test | Alice@acme"},
		{"a domain without a dot before an address", "boss@bank, <alice@ok.test>", "alice@ok.test | boss@bank"},
		{"folded", "Alice\r\n <alice@ok.test>", "alice@ok.test"},
		{"several", "alice@ok.test, Bob <bob@b.test>", "bob@b.test alice@ok.test"},
		{"a group", "Us: alice@ok.test (me), Bob <bob@b.test>;", "bob@b.test alice@ok.test"},
		{"an empty group", "undisclosed-recipients:;", ""},
		{"a local user", "root", ""},
		{"a local user at a host", "root@localhost", "root@localhost"},
		{"a literal", "x@[192.0.2.1]", "x@[]"},
		{"a parenthesis in a comment", `alice@ok.test (Adams \) \( "Al")`, "alice@ok.test"},
		{"a parenthesis in a comment before the @", `alice(\)@bank.test)@ok.test`, "alice@ok.test | @bank.test"},
		{"a link", "<MailTo:alice@ok.test>", "alice@ok.test"},
		{"another address in a quoted name", `"ceo@bank.test" <alice@ok.test>`, "alice@ok.test | ceo@bank.test"},
		{"quoted local part", `"alice adams"@ok.test`, `"alice%20adams"@ok.test`},
		{"an international domain", "Jürg <jürg@müller.test>", "j%C3%BCrg@xn--mller-kva.test"},

		{"a Cyrillic domain", "alice@почта.test", "alice@xn--80a1acny.test"},
		{"a Latin domain in other letters", "alice@müllеr.test", "alice@xn--mllr-0ra660c.test | alice@xn--mller-kva.test"},

		// Forms on which programs disagree.
		{"a comment inside", "boss(hi)@bank.test", "boss@bank.test"},
		{"blanks around @", "Boss <boss @ bank.test>", "boss@bank.test"},
		{"addresses before", "a@n.test b@n.test <boss@bank.test>", "boss@bank.test | a@n.test a@n.testb b@n.test n.testb@n.test"},
		{"one encoded word", "=?utf-8?q?Boss_=3Cboss=40bank.test=3E?=", "boss@bank.test"},
		{"an encoded word in the name", "=?utf-8?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"base64", "=?utf-8?b?Ym9zc0BiYW5rLnRlc3Q=?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"UTF-7", "=?utf-7?q?boss+AEA-bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"EBCDIC", "=?cp037?b?gpaionyCgZWSS6OFoqM=?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"no-break space", "<ceo@bank.test\u00a0>", "ceo@bank.test"},
		{"zero width", "<ceo@ba\u200bnk.test>", "ceo@bank.test"},
		{"full width", "ceo＠bank．test <x@evil.test>", "x@evil.test | ceo@bank.test"},
		{"an encoded word in the domain", "boss@=?utf-8?q?bank?=.test", "boss@bank.test"},
		{"text behind it", "boss@bank.=?utf-8?q?test?=Boss", "boss@bank.test | boss@bank.testboss"},
		{"several of them", "boss@=?utf-8?q?bank?==?utf-8?q?.test?=", "boss@bank.test"},
		{"a quoted domain", `boss@"bank.test"`, "boss@bank.test"},
		{"a backslash in the domain", `boss@bank\.test`, "boss@bank.test"},
		{"pieces of a quoted local part", `"bo"."ss"@bank.test`, "bo.ss@bank.test"},
		{"behind a route", "<@relay.test,@x.test:boss@bank.test>", "boss@bank.test | @relay.test @x.test"},
		{"a dot before the domain", "x <x@evil.test>, boss@.bank.test", "x@evil.test unreadable | boss@bank.test"},
		{"two @", "boss@bank.test@evil.test", "bank.test@evil.test | boss@bank.test"},
		{"blanks in the domain", "boss@ba nk.test", "boss@ba | boss@bank.test"},
		{"a backslash before @", `boss\@bank.test`, "boss@bank.test"},
		{"a backslash at the end", `<boss@bank.test\>`, "boss@bank.test"},
		{"all in quotes", `"boss@bank.test"`, "boss@bank.test"},
		{"a bracket after it", "boss@bank.test] Boss", "boss@bank.test"},
		{"an address in what looks like an encoded word", "=?utf-8?q?a <boss@bank.test>?= <x@evil.test>", "boss@bank.test x@evil.test"},
		{"a comment in a comment", "x@evil.test (boss@(hi)bank.test)", "x@evil.test | boss@bank.test"},
		{"upper and lower hex", "=?utf-8?q?boss=40b=61=6E=6b.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"hex that is none", "=?utf-8?q?boss=4g=40bank.test?= <x@evil.test>", "x@evil.test | boss=4g@bank.test"},
		{"base64 with a slash and a plus", "=?utf-8?b?Pz8/fj4+Ym9zc0BiYW5rLnRlc3Q?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"utf8 without a hyphen", "=?utf8?q?boss=EF=BC=A0bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"UTF-16", "=?utf-16be?b?AGIAbwBzAHMAQABiAGEAbgBrAC4AdABlAHMAdA==?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"Windows-1252", "=?windows-1252?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"a charset with a language", "=?utf-8*en?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"an unknown charset", "=?x-klingon?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"decoded twice", "=?utf-8?q?=3D=3Futf-8=3Fq=3Fboss=3D40bank.test=3F=3D?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"two words that make one address", "=?utf-8?q?boss=40ba?= =?utf-8?q?nk.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"a tab as a blank", "boss@\tbank.test", "boss@bank.test"},
		{"a Braille blank", "<boss@ba\u2800nk.test>", "boss@xn--bank-wj5b.test | boss@bank.test"},
		{"a Hangul filler", "<boss@ba\u3164nk.test>", "boss@bank.test"},
		{"a half-width filler", "<boss@ba\uffa0nk.test>", "boss@bank.test"},
		{"a Hangul initial filler", "<boss@ba\u115fnk.test>", "boss@bank.test"},
		{"a Hangul vowel filler", "<boss@ba\u1160nk.test>", "boss@bank.test"},
		{"an em space", "<boss@ba\u2003nk.test>", "boss@bank.test"},
		{"a variation selector", "<boss@ba\ufe0fnk.test>", "boss@bank.test"},
		{"a bracket at once", "boss@[]", "boss@[]"},
		{"what looks like an encoded word", "=?utf-8?q?boss@bank.test <x@evil.test>", "x@evil.test | =?utf-8?q?boss@bank.test"},
		{"no charset", "=??q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"full width in an encoded word as it is", "=?utf-8?q?boss＠bank.test?= <x@evil.test>", "x@evil.test | =?utf-8?q?boss@bank.test boss@bank.test"},
		{"a character in two words", "=?utf-8?q?boss=EF=BC?= =?utf-8?q?=A0bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"an octet in two words", "=?utf-8?q?boss=4?= =?utf-8?Q?0bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"an octet cut after =", "=?utf-8?q?boss=?= =?utf-8?q?40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"base64 cut anywhere", "=?utf-8?b?Ym9zc0BiY?= =?utf-8?b?W5rLnRlc3Q=?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"words of other charsets", "=?utf-8?q?boss=4?= =?us-ascii?q?0bank.test?= <x@evil.test>", "x@evil.test"},
		{"an encoded word of two", "=?utf-8?q?=3D?= =?utf-8?q?=3Futf-8=3Fq=3Fboss=3D40bank.test=3F=3D?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"an encoded word begun by one", "=?utf-8?q?=3D?=?utf-8?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"base64 that begins anew", "=?utf-8?b?Ym9zcw==QGJhbmsudGVzdA==?= <x@evil.test>", "x@evil.test | boss@bank.test boss@bank.testboss"},
		{"base64 that ends", "=?utf-8?b?Ym9zc0BiYW5rLnRlc3Q=Zm9v?= <x@evil.test>", "x@evil.test | boss@bank.test boss@bank.testboss boss@bank.testfoo boss@bank.testfooboss bank.testboss@bank.testfooboss bank.testfooboss@bank.test"},
		{"base64 with = in the middle", "=?utf-8?b?Ym9zc=0BiYW5rLnRlc3Q=?= <x@evil.test>", "x@evil.test | boss@bank.test boss@bank.testbos"},
		{"a question mark in an encoded word", "=?utf-8?q?Who?_boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test Who?boss@bank.test"},
		{"a long language", "=?utf-8*" + strings.Repeat("a", 100) + "?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"octets of UTF-16 that are ASCII", "=?utf-16?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test %E6%BD%A2%E7%8D%B3%E6%89%80%E6%B9%A1%E2%B9%AB%E6%95%B4%E7%91%B3boss@bank.test"},
		{"UTF-7 by another name", "=?unicode-1-1-utf_7?q?boss+AEA-bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"a charset that browsers refuse", "=?hz-gb-2312?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"the same, Korean", "=?iso-2022-kr?q?boss=40bank.test?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"another EBCDIC", "=?ibm500?b?gpaionyCgZWSS6OFoqM=?= <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"UTF-32", "=?utf-32be?b?AAAAYgAAAG8AAABzAAAAcwAAAEAAAABiAAAAYQAAAG4AAABrAAAALgAAAHQAAABlAAAAcwAAAHQ=?= <x@evil.test>", "x@evil.test | @bank.test boss@bank.test"},
		{"within Chinese", "来自boss@bank.test的邮件 <x@evil.test>", "x@evil.test | %E6%9D%A5%E8%87%AAboss@bank.test %E6%9D%A5%E8%87%AAboss@bank.xn--test-t85f380svjxb"},
		{"before a sign", "boss@bank.test™ <x@evil.test>", "x@evil.test | boss@bank.test boss@bank.testtm"},
		{"before a dash", "boss@bank.test–Boss <x@evil.test>", "x@evil.test | boss@bank.test boss@bank.xn--testboss-vn3d boss@bank.test-boss"},
		{"before a mark", "boss@bank.test\u0301 <x@evil.test>", "x@evil.test | boss@bank.test boss@bank.xn--test-yvc"},
		{"a longer domain in Latin letters", "boss@bank.testé <x@evil.test>", "x@evil.test | boss@bank.xn--test-epa"},
		{"underscores around", "boss@_bank.test_ <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"two dots", "boss@bank..test <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"a raised dot", "boss@bank·test <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"a domain that programs show in Unicode", "boss@xn--bnk-6cd.test", "boss@xn--bnk-6cd.test | boss@bank.test"},
		{"the same with a name", "Boss <boss@XN--bnk-6cd.test>", "boss@xn--bnk-6cd.test | boss@bank.test"},
		{"a dash in a domain", "boss@my–bank.test <x@evil.test>", "x@evil.test | boss@xn--mybank-xg0c.test boss@my-bank.test"},
		{"written backwards behind something else", "\u202ea\u202c \u202etset.knab@ssob\u202c <x@evil.test>", "x@evil.test | boss@bank.test aboss@bank.test"},
		{"another mailbox of the domain", "boss=x@ok.test <alice@ok.test>", "alice@ok.test | boss=x@ok.test"},
		{"another one, with a blank in its domain", "boss@o k.test <alice@ok.test>", "alice@ok.test | boss@ok.test"},
		{"another one, with a control character", "boss@ok.te\x01st alice@ok.test", "alice@ok.test | boss@ok.te boss@ok.test boss@ok.testalice"},
		{"another one, its domain in two parts", "boss@o =?utf-8?q?k.test?= <alice@ok.test>", "alice@ok.test | boss@ok.test"},
		{"another one in quotes", "\"boss\"@ok.test <alice@ok.test>", "alice@ok.test | boss@ok.test"},
		{"a name before @ and blanks", "Support @ ok.test <alice@ok.test>", "alice@ok.test"},
		{"another one that ends so", "malice@ok.test <alice@ok.test>", "alice@ok.test | malice@ok.test"},
		{"a sub-address that ends so", "boss+alice@ok.test <alice@ok.test>", "alice@ok.test | boss+alice@ok.test"},
		{"Latin letters before it", "öalice@ok.test <alice@ok.test>", "alice@ok.test | %C3%B6alice@ok.test"},
		{"of another domain", "客服alice@bank.test <alice@ok.test>", "alice@ok.test | %E5%AE%A2%E6%9C%8Dalice@bank.test"},
		{"Cyrillic", "b\u043ess@b\u0430nk.test", "b%D0%BEss@xn--bnk-6cd.test | boss@bank.test"},
		{"Cyrillic that only looks alike", "boss@ваnк.тest <x@evil.test>", "x@evil.test | boss@xn--n-7sbf8a.xn--est-7ed boss@bank.test"},
		{"Greek that only looks alike", "boss@banκ.tesτ <x@evil.test>", "x@evil.test | boss@xn--ban-ryc.xn--tes-wzc boss@bank.test"},
		{"a sign after the domain", "boss@bank.test-", "boss@bank.test- | boss@bank.test"},
		{"a sign before the domain", "Boss <boss@_bank.test>", "boss@_bank.test | boss@bank.test"},
		{"written backwards", "\u202etset.knab@ssob\u202c <x@evil.test>", "x@evil.test | boss@bank.test"},
		{"percent", "boss%bank.test", "| boss@bank.test"},
		{"bang", "bank.test!boss", "| boss@bank.test"},
		{"no local part", "<@bank.test>", "@bank.test"},
		{"too long", "<ceo+" + strings.Repeat("a", 1100) + "@bank.test>", "@bank.test"},
		{"a longer domain", "boss@bank.test.evil.test", "boss@bank.test.evil.test"},
		{"nothing", "", ""},
		{"a domain that is none", "alice@ok..test", "unreadable | alice@ok.test"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, strings.TrimSpace(outline(read(tt.field)))); diff != "" {
				t.Errorf("%q (-want +got):\n%s", tt.field, diff)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	many := func(n int, format string) string {
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf(format, i))
		}
		return strings.Join(parts, ", ")
	}
	for _, tt := range []struct {
		name   string
		fields []string
		excess bool
	}{
		{"as many fields", strings.Split(many(MaxFields, "a%d@ok.test"), ", "), false},
		{"more fields", strings.Split(many(MaxFields+1, "a%d@ok.test"), ", "), true},
		{"as many octets", []string{"<" + strings.Repeat(" ", MaxOctets-len("<a@ok.test>")) + "a@ok.test>"}, false},
		{"more octets", []string{"<" + strings.Repeat(" ", MaxOctets-len("<a@ok.test>")) + " a@ok.test>"}, true},
		{"more octets in several", []string{strings.Repeat(" ", MaxOctets/2), strings.Repeat(" ", MaxOctets/2), "a@ok.test"}, true},
		{"as many words", []string{"(x) " + strings.Repeat("a ", MaxTokens-7) + "<a@ok.test>"}, false},
		{"more words", []string{"(x) " + strings.Repeat("a ", MaxTokens-6) + "<a@ok.test>"}, true},
		{"as many mailboxes", []string{many(MaxMailboxes, "a%d@ok.test")}, false},
		{"more mailboxes", []string{many(MaxMailboxes+1, "a%d@ok.test")}, true},
		{"as many domains shown", []string{strings.ReplaceAll(many(MaxDomains/2, "a@ok%d.test"), ",", "") + " <a@ok.test>"}, false},
		{"more domains shown", []string{strings.ReplaceAll(many(MaxDomains+1, "a@ok%d.test"), ",", "") + " <a@ok.test>"}, true},
		{"more addresses shown", []string{strings.ReplaceAll(many(MaxShown+1, "a%d@ok1.test"), ",", "") + " <a@ok.test>"}, true},
		{"the same again and again", []string{strings.Repeat("a@ok.test ", 300) + " <a@ok.test>"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := read(tt.fields...); got.Excess != tt.excess {
				t.Errorf("excess %v, want %v: %s", got.Excess, tt.excess, outline(got))
			}
		})
	}
}

// An everydayValue is a value of a From field as honest mail has it.
type everydayValue struct{ field, address, shown string }

// everydayValues reads testdata/everyday.txt: a Go string, the mailbox that it names,
// and what else is shown, between tabs.
func everydayValues(t *testing.T) (values []everydayValue) {
	t.Helper()
	text, err := os.ReadFile("testdata/everyday.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		parts := append(strings.Split(strings.TrimSuffix(line, "\n"), "\t"), "", "")
		field, err := strconv.Unquote(parts[0])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		values = append(values, everydayValue{field, parts[1], parts[2]})
	}
	return values
}

func TestEveryday(t *testing.T) {
	for _, v := range everydayValues(t) {
		want := v.address
		if v.shown != "" {
			want += " | " + v.shown
		}
		if got := outline(read(v.field)); got != want {
			t.Errorf("%q: %s, want %s", v.field, got, want)
		}
	}
}

func TestIsDaemon(t *testing.T) {
	for local, want := range map[string]bool{
		"mailer-daemon": true, "MAILER-DAEMON": true, "postmaster": true, "PostMaster": true, "postmasters": false, "": false,
	} {
		if got := (Mailbox{Local: local}).IsDaemon(); got != want {
			t.Errorf("%q: %v", local, got)
		}
	}
}

// TestDecodeWords: blanks between two encoded words go, and no other ones.
func TestDecodeWords(t *testing.T) {
	for in, want := range map[string]string{
		"=?utf-8?q?a?= \t=?utf-8?Q?b?=": "ab", "=?utf-8?q?a?==?utf-8?q?b?=": "ab", "=?utf-8?q?a?= x =?utf-8?q?b?=": "a x b",
		" =?utf-8?q?a?= ": " a ", "x =?utf-8?q?a?=": "x a", "=?utf-8?q?a_b?=": "a b", "a =?= b": "a =?= b",
	} {
		if got := DecodeWords(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
