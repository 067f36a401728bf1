package milter

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestClaimsAuthKey(t *testing.T) {
	tests := []struct {
		value string
		want  bool
	}{
		{"mx.test; x-authkey=pass", true},
		{" mx.test ; x-authkey = pass smtp.mailfrom=a@b.test", true},
		{"MX.Test; X-AUTHKEY=PASS", true},
		{"mx.test 1; x-authkey=pass", true},
		{"mx.test(x); x-authkey=pass", true},
		{"(a (nested \\) one) b)mx.test; x-authkey=pass", true},
		{`"mx.test"; x-authkey=pass`, true},
		{"mx.test; x-authkey(c)=pass", true},
		{"mx.test; x-authkey((c)d)=pass", true},
		{"mx.test; x-authkey/1=pass", true},
		{"mx.test; x-authkey (c) / (d) 1.0 (e) = pass", true},
		{"mx.test;\r\n\tdkim=pass header.d=b.test;\r\n\tx-authkey=pass", true},
		{"mx.test;\n dkim=pass;x-authkey\n =fail", true},
		{"mx.test x-authkey=pass", true},
		{"x-authkey=pass", true},
		{`mx.test; "x-authkey"=pass`, true},
		{`mx.test; "x-auth\key"=pass`, true},
		{`mx.test; x-auth\key=pass`, true},
		{`mx.test; x-"auth"key=pass`, true},
		{`mx.test; x-auth(c)key=pass`, true},

		// Whoever's name it is under, and under none.
		{"other.test; x-authkey=pass", true},
		{"mx.test.evil; x-authkey=pass", true},
		{"; x-authkey=pass", true},
		{`""; x-authkey=pass`, true},
		{"\u00a0mx.test; x-authkey=pass", true},
		{"\ufeffmx.test; x-authkey=pass", true},
		{"\xa0mx.test; x-authkey=pass", true},
		{"mx.test; x-\u200bauthkey=pass", true},
		{"mx.test; x-authkey\u00a0=pass", true},
		{"mx.test; x-authkey\xa0=pass", true},
		{"mx.test; x\u2011authkey=pass", true},
		{"mx.test; \uff58-\uff41uthkey=pass", true},
		{"mx.test; x-auth\u212aey=pass", true},
		{"=?utf-8?q?mx.test=3B_x-authkey=3Dpass?=", true},
		{"=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte("mx.test; x-authkey=pass")) + "?=", true},
		{"=?us-ascii*en?q?mx.test?=; =?ISO-8859-1?Q?x-auth?= =?utf-8?q?key?= =pass", true},
		{"mx.test; x-auth=?utf-8?q?key=3Dpass", false}, // no encoded word
		{"=?utf-8?b?bXgudGVzdDsgeC1hdXRoa2V5PXBhc3M?=", true},
		{"=?utf-8?b?bXgudG VzdDsgeC1hdXRoa2V5PXBhc3M=!?=", true},
		{"=?utf-8?b?bXg7IHgtY?= =?utf-8?b?XV0aGtleT1wYXNz?=", true},
		{"=?utf-8?b?bXg7IHg=LWF1dGhrZXk9cGFzcw==?=", true},
		{"mx.test; =?utf-8?q?x-authke=?=\r\n\t=?utf-8?q?79=3Dpass?=", true},
		{"mx.test; =?utf-8?q?who?_x-authkey=3Dpass?=", true},
		{"mx.test; x\u2212authkey=pass", true},
		{"=?utf-16le?b?eAAtAGEAdQB0AGgAawBlAHkAPQA=?=", true},
		{"=?utf-7?q?mx.test; x+AC0-authkey+AD0-pass?=", true},
		{"=?utf-8?q?mx.test; x-authke=79?= =pass", true},
		{"mx.test; x-authkey=?utf-8?q??=pass", true},
		{"mx.test; x-authkey=?=", true},

		// Who searches the field finds it here too.
		{"mx.test; dkim=pass (x-authkey=pass)", true},
		{`mx.test; dkim=pass reason="x-authkey=pass"`, true},
		{`mx.test; spf=pass smtp.mailfrom="x;x-authkey=pass"@evil.test`, true},
		{"mx.test; spf=pass smtp.mailfrom=x-authkey=pass@evil.test", true},
		{"mx.test; my-x-authkey=pass", true},
		{"mx.test; dkim=pass header.d=x-authkey.test; x-authkey=pass", true},
		{`mx.test; dkim=pass reason="("; x-authkey(c)=pass; a=")"`, true},

		// It breaks off.
		{"mx.test; dkim=pass (unfinished; x-authkey=pass", true},
		{`"mx.test; x-authkey=pass`, true},
		{"(mx.test; x-authkey=pass", true},
		{"(; x-authkey", true},
		{`mx.test; x-authkey(=pass`, true},

		{"", false},
		{"mx.test", false},
		{"mx.test; none", false},
		{"mx.test; dkim=pass", false},
		{"mx.test; dkim=pass header.d=x-authkey.test", false},
		{"mx.test; dkim=pass reason=x-authkey header.d=b.test", false},
		{"mx.test; x-authkeys=pass", false},
		{"mx.test; x-auth-key=pass", false},
		{"mx.test; dkim=pass (unfinished", false},
		{"other.test; spf=pass (=?utf-8?q?f=C3=BCr_Sie?=) smtp.mailfrom=b.test", false},
		{"other.test; spf=pass (=?UTF-8?Q?f=C3=BCr_Sie?=) smtp.mailfrom=b.test", false},
		{"mx.test; x-authkey=none-of-it"[:18], false},
		{"mx.test; spf=pass smtp.mailfrom=x-authkey%3Dpass@b.test", false},
	}
	for _, tt := range tests {
		if got := claimsAuthKey(tt.value); got != tt.want {
			t.Errorf("claimsAuthKey(%q) = %v, want %v", tt.value, got, tt.want)
		}
	}
}

func TestSpeaksAs(t *testing.T) {
	ids := []string{"mx.test", "old.test"}
	for value, want := range map[string]bool{
		"mx.test; x-authkey=pass":       true,
		"MX.test;x-authkey=pass":        true,
		"\n\told.test ;\n x-authkey":    true,
		"mx.test 1; x-authkey=pass":     false,
		"mx.test(c); x-authkey=pass":    false,
		"elsewhere.test; x-authkey=a;b": false,
		"mx.test":                       false,
		"":                              false,
	} {
		if got := speaksAs(value, ids); got != want {
			t.Errorf("speaksAs(%q) = %v", value, got)
		}
	}
}

func FuzzClaimsAuthKey(f *testing.F) {
	for _, s := range []string{
		"mx.test; x-authkey=pass", `"mx.test"; x-authkey/1 = pass`, "(c)mx.test(d)1;x-authkey(e)=fail",
		"mx.test; dkim=pass (unfinished", "mx.test;\n\tx-authkey=none reason=\"no AuthKey\"", "\\", "(", `"`, "(((((", "=;=;/",
		"=?utf-8?q?mx.test=3B_x-authkey=3Dpass?=", "=?utf-16?b?eAA?=", "=?utf-8?b?=?=", "\ufeff\u00a0x\u2010", "=?a?", "=?utf-8?q?=?",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		// Nothing that stands around a plain forgery may hide it.
		for _, forged := range []string{value + "; x-authkey=pass", "mx.test; x-authkey=pass " + value} {
			if !claimsAuthKey(forged) {
				t.Errorf("a forgery is hidden in %q", forged)
			}
		}
		// Folding changes nothing.
		got := claimsAuthKey(value)
		if claimsAuthKey("\n\t"+value) != got {
			t.Errorf("a fold in front changes the answer for %q", value)
		}
		if !strings.ContainsAny(value, "=(\"\\") && got {
			t.Errorf("%q claims nothing", value)
		}
	})
}
