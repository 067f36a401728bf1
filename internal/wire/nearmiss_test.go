package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestNearMisses: what people publish by mistake is none of ours to recipients, and
// told to whoever looks, with what is right.
func TestNearMisses(t *testing.T) {
	const right = "AS=as.a.test:7425"
	const secure = right + "; tls=yes"
	tests := []struct{ text, why, right string }{
		{`"AS=as.a.test:7425"`, "quotation marks", right},
		{`'AS=as.a.test:7425'`, "quotation marks", right},
		{`\"AS=as.a.test:7425; tls=yes\"`, "quotation marks", secure},
		{"\u201cAS=as.a.test:7425; tls=yes\u201d", "U+201C", secure},
		{"\u00abAS=as.a.test:7425\u00bb", "U+00AB", right},
		{"\x93AS=as.a.test:7425\x94", "0x93", right},
		{" AS=as.a.test:7425", "begins with a blank", right},
		{"\tAS=as.a.test:7425", "begins with a blank", right},
		{"\ufeffAS=as.a.test:7425", "U+FEFF", right},
		{"\u200bAS=as.a.test:7425", "U+200B", right},
		{"AS\u00a0=as.a.test:7425", "U+00A0", right},
		{"AS = as.a.test:7425", "blank beside the =", right},
		{"AS =as.a.test:7425", "blank beside the =", right},
		{"AS= as.a.test:7425", "blank beside the =", right},
		{"v=AS1; AS=as.a.test:7425; tls=yes", "does not come first", secure},
		{"v=AS1 AS=as.a.test:7425", "does not come first", right},
		{"v=1;AS=as.a.test:7425", "does not come first", right},
		{"v=AS1; as.a.test:7425", "does not come first", right},
		{"v=AS1", "does not come first", "AS=HOST:PORT"},
		{"v=ASVS1; x=y", "", ""},
		{"as:as.a.test:7425", "colon", right},
		{"AS: as.a.test:7425", "colon", right},
		{"AS:as.a.test", "no port", "AS=as.a.test:PORT"},
		{"AS as.a.test:7425", "no = after AS", right},
		{"AS=as.a.test", "no port", "AS=as.a.test:PORT"},
		{"AS=as.a.test; tls=yes; req=yes", "no port", "AS=as.a.test:PORT; tls=yes; req=yes"},
		{"AS=as.a.test 7425", "port follows the host", right},
		{"AS=as.a.test; port=7425; tls=yes", "port follows the host", secure},
		{"AS=https://as.a.test:7425/", "no URL", right},
		{"AS=as.a.test:7425, tls=yes", "", secure},
		{"AS=as.a.test:7425 tls=yes", "", secure},
		{"AS=as.a.test:7425; tls = yes", "", secure},
		{"AS=as.a.test:7425; tls=true", "", secure},
		{"AS=as.a.test:7425; tls=0; req=1", "", right + "; req=yes"},
		{"AS=as.a.test:7425; tls=yes; req=off", "", secure},
		{"AS=as.a.test:7425;; tls=yes", "", secure},
		{"AS=as.a.test:7425; v=AS1", "version is not 1", right},
		{"AS=as.a.test:7425; v=01", "version is not 1", right},
		{"AS=as..test:7425; v=2", "version is not 1", "AS=HOST:PORT"},
		{"AS=as.a.test:70000", "port", "AS=HOST:PORT"},
		{"AS=", "", "AS=HOST:PORT"},
		{"AS", "", ""},
		{`a.test. 3600 IN TXT "AS=as.a.test:7425"`, "zone file", right},
		{"v=spf1 mx -all AS=as.a.test:7425", "within another record", right},
		{"\uff21\uff33=as.a.test:7425", "U+FF21", right},
		{"\u0410S=as.a.test:7425", "U+0410", right},
		// None of ours by any reading.
		{"v=spf1 mx -all", "", ""},
		{"v=DKIM1; p=abc", "", ""},
		{"v=spf1 include:as.test -all", "", ""},
		{"MS=ms12345678", "", ""},
		{"google-site-verification=AS=x", "", ""},
		{"alias=as.a.test:7425", "", ""},
		{"as: we said before, nothing", "", ""},
		{"as we said", "", ""},
		{"ASN 64496", "", ""},
		{"", "", ""},
		// Right.
		{"AS=as.a.test:7425", "", ""},
		{"as=AS.A.test:7425; x=y;", "", ""},
	}
	for _, tt := range tests {
		miss, ok := LooksLikeRecord(tt.text)
		if ok != (tt.right != "") || !strings.Contains(miss.Why, tt.why) || miss.Right != tt.right {
			t.Errorf("%q: %v, %q, right %q; want %q, right %q", tt.text, ok, miss.Why, miss.Right, tt.why, tt.right)
		}
		if ok && (miss.Why == "" || miss.Text != tt.text) {
			t.Errorf("%q: %+v", tt.text, miss)
		}
	}
}

// FuzzLooksLikeRecord: what is said to be right is right, unless it has a placeholder,
// and a right record is no near miss.
func FuzzLooksLikeRecord(f *testing.F) {
	for _, seed := range []string{
		"AS=as.a.test:7425; tls=yes", `"AS = as.a.test:7425"`, "\ufeffv=AS1; AS=[2001:db8::1]:1, req=1", "as:h:1", "\x93AS=h\x94",
		"v=spf1 -all AS=h:7425; tls=yes", "AS=tcp://h.test/ 7425; v=2", `h. 1 IN TXT AS=h.test:7425:7425`, "AS=7425:7425",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		miss, ok := LooksLikeRecord(text)
		_, err := ParseRecord(text)
		if !ok {
			return
		}
		if err == nil {
			t.Errorf("a right record: %+v", miss)
		}
		if miss.Why == "" || !utf8.ValidString(miss.Right) || len(miss.Text) > maxRefusal {
			t.Errorf("%+v", miss)
		}
		if !strings.Contains(miss.Right, "PORT") {
			if rec, err := ParseRecord(miss.Right); err != nil || rec.String() != miss.Right {
				t.Errorf("%q is said to be right: %v", miss.Right, err)
			}
		}
	})
}
