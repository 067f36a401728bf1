package esmtp

import (
	"strings"
	"testing"
)

func TestCut(t *testing.T) {
	tests := []struct {
		mailbox             string
		local, domain       string // by Cut
		localUnq, domainUnq string // by CutUnquoted
		found, closed       bool
	}{
		{"", "", "", "", "", false, true},
		{"bob", "bob", "", "bob", "", false, true},
		{"bob@a.test", "bob", "a.test", "bob", "a.test", true, true},
		{"a@b@c.test", "a@b", "c.test", "a@b", "c.test", true, true},
		{`"a@b"@c.test`, `"a@b"`, "c.test", `"a@b"`, "c.test", true, true},
		{`bob@"c.test`, "bob", `"c.test`, `bob@"c.test`, "", true, false},
		{`a@"b@c"`, `a@"b`, `c"`, "a", `"b@c"`, true, true},
		{`"a\"@b"@c.test`, `"a\"@b"`, "c.test", `"a\"@b"`, "c.test", true, true},
		{`a\@b`, `a\`, "b", `a\@b`, "", true, true},
		{"@c.test", "", "c.test", "", "c.test", true, true},
		{"bob@", "bob", "", "bob", "", true, true},
	}
	for _, tt := range tests {
		if local, domain, found := Cut(tt.mailbox); local != tt.local || domain != tt.domain || found != tt.found {
			t.Errorf("Cut(%q) = %q, %q, %v", tt.mailbox, local, domain, found)
		}
		if local, domain, ok := CutUnquoted(tt.mailbox); local != tt.localUnq || domain != tt.domainUnq || ok != tt.closed {
			t.Errorf("CutUnquoted(%q) = %q, %q, %v", tt.mailbox, local, domain, ok)
		}
	}
}

func TestUnquoted(t *testing.T) {
	for s, want := range map[string]string{
		"":               "",
		"ab c":           "ab c",
		`a"b c"d`:        "ad",
		`a"b\"c"d`:       "ad",
		`a\"b`:           `a\b`,
		`a"b`:            "a",
		`"a" "b"`:        " ",
		`ends in \`:      `ends in \`,
		`"ends quoted \`: "",
	} {
		got := ""
		for i, c := range Unquoted(s) {
			if s[i] != c {
				t.Errorf("Unquoted(%q): %q at %d", s, c, i)
			}
			got += string(c)
		}
		if got != want {
			t.Errorf("Unquoted(%q) = %q, want %q", s, got, want)
		}
	}
	if got := IndexUnquoted(`"a b" c`, " \t"); got != 5 {
		t.Errorf("IndexUnquoted: %d", got)
	}
	if got := IndexUnquoted(`"a b"`, " \t"); got != -1 {
		t.Errorf("IndexUnquoted where all is quoted: %d", got)
	}
}

func TestDropSourceRoute(t *testing.T) {
	for path, want := range map[string]string{
		"":                               "",
		"bob@a.test":                     "bob@a.test",
		"@r.test:bob@a.test":             "bob@a.test",
		"@r.test,@s.test:bob@a.test":     "bob@a.test",
		"@[IPv6:2001:db8::1]:bob@a.test": "bob@a.test",
		`@r.test:"a:b"@a.test`:           `"a:b"@a.test`,
		`@"r:s":bob@a.test`:              `@"r:s":bob@a.test`,
		"@a.test":                        "@a.test",
		"bob:x@a.test":                   "bob:x@a.test",
	} {
		if got := DropSourceRoute(path); got != want {
			t.Errorf("DropSourceRoute(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestCutSubaddress(t *testing.T) {
	for local, want := range map[string]string{"": "", "bob": "", "bob+tag": "bob", "bob+a+b": "bob", "bob+": "bob", "+tag": "", "+a+b": "", "a@b+c": "a@b"} {
		if user, ok := CutSubaddress(local); user != want || ok != (want != "") {
			t.Errorf("CutSubaddress(%q) = %q, %v", local, user, ok)
		}
	}
}

func TestQuoteLocal(t *testing.T) {
	for local, want := range map[string]string{
		"bob":                 "bob",
		"bob.smith+tag":       "bob.smith+tag",
		"zoë":                 "zoë",
		"!#$%&'*+-/=?^_`{|}~": "!#$%&'*+-/=?^_`{|}~",
		"":                    `""`,
		"a b":                 `"a b"`,
		`a"b\c`:               `"a\"b\\c"`,
		".bob":                `".bob"`,
		"bob.":                `"bob."`,
		"a..b":                `"a..b"`,
		"a@b":                 `"a@b"`,
		"a\tb":                "\"a\tb\"",
	} {
		if got := QuoteLocal(local); got != want {
			t.Errorf("QuoteLocal(%q) = %q, want %q", local, got, want)
		}
	}
}

func TestLowerASCII(t *testing.T) {
	if got := LowerASCII("aZ@[`{\u00c9\u0130\u212a\xff"); got != "az@[`{\u00c9\u0130\u212a\xff" {
		t.Errorf("%q", got)
	}
}

func TestUnseen(t *testing.T) {
	for r, want := range map[rune][2]bool{ // a blank, invisible
		' ': {true, false}, '\t': {true, true}, '\u00a0': {true, false}, '\u3000': {true, false}, '\u2800': {true, false}, '\u3164': {true, true},
		'\n': {false, true}, 0: {false, true}, '\u0085': {false, true}, '\u200b': {false, true}, '\u2028': {false, true}, '\ufe0f': {false, true}, '\u202e': {false, true},
		'a': {}, '\u00e9': {}, '-': {}, '\u4e00': {}, '\ufffd': {},
	} {
		if got := [2]bool{IsBlank(r), IsInvisible(r)}; got != want {
			t.Errorf("U+%04X: blank, invisible %v, want %v", r, got, want)
		}
	}
}

// FuzzQuoteLocal: what quotes are put around is found again, and no "@" in it is taken for
// the one before the domain.
func FuzzQuoteLocal(f *testing.F) {
	for _, local := range []string{"", "bob", `a"b\`, "a@b", ".", "ë ", "\x00\xff"} {
		f.Add(local)
	}
	f.Fuzz(func(t *testing.T, local string) {
		quoted := QuoteLocal(local)
		if got := UnquoteLocal(quoted); got != local {
			t.Errorf("UnquoteLocal(%q) = %q, want %q", quoted, got, local)
		}
		if IndexUnquoted(quoted, " ()<>[]:;,@\\") >= 0 {
			t.Errorf("QuoteLocal(%q) = %q", local, quoted)
		}
		if got, domain, ok := CutUnquoted(quoted + "@a.test"); got != quoted || domain != "a.test" || !ok {
			t.Errorf("CutUnquoted(%q) = %q, %q, %v", quoted+"@a.test", got, domain, ok)
		}
		if strings.HasPrefix(quoted, "@") {
			t.Errorf("QuoteLocal(%q) = %q", local, quoted)
		}
	})
}

func TestHasWildcard(t *testing.T) {
	for local, want := range map[string]bool{"": false, "bob": false, "*": true, "bob*": true, "%": true, "%bob": true, "100%": false, `"*"`: false, `"%"`: false} {
		if got := HasWildcard(local); got != want {
			t.Errorf("HasWildcard(%q) = %v", local, got)
		}
	}
}

func TestIsASCII(t *testing.T) {
	for s, want := range map[string]bool{"": true, "bob\x00\x7f": true, "bob\x80": false, "zo\u00eb": false} {
		if got := IsASCII(s); got != want {
			t.Errorf("IsASCII(%q) = %v", s, got)
		}
	}
}
