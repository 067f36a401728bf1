package milter

import (
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/esmtp"
)

var testVouchers = []Voucher{{"mx.test", "spf"}, {"mx.test", "dkim"}, {"sign.test", "dkim"}}

func TestVouches(t *testing.T) {
	seven := strings.Repeat("dkim=none; ", 7)[:len("dkim=none; ")*7-len("; ")]
	tests := []struct {
		value string
		want  bool
	}{
		{"mx.test; spf=pass smtp.mailfrom=alice@sender.example", true},
		{"mx.test; spf=pass smtp.mailfrom=Sender.Example.", true},
		{"mx.test; spf=pass (good) reason=\"a; b=c\" smtp.mailfrom=\"alice@sender.example\"", true},
		{"mx.test; spf=pass (client-ip=192.0.2.1; envelope-from=alice@sender.example) smtp.mailfrom=sender.example", true},
		{"mx.test;\n\tdkim=fail reason=\"signature verification failed\" (2048-bit key; unprotected) header.d=sender.example;\r\n\tdkim=pass (1024-bit key) header.d=sender.example header.i=@sender.example header.b=\"ab/c+d\"", true},
		{"mx.test; dkim=pass header.d=sender.example header.i=x.y+z@sub.Sender.Example header.s=sel header.a=rsa-sha256", true},
		{"mx.test; dmarc=pass header.from=sender.example; spf=pass smtp.helo=h.example smtp.mailfrom=sender.example", true},
		{"mx.test;spf=pass smtp.mailfrom=sender.example;dkim=none", true},
		{"sign.test; dkim=pass header.d=sender.example", true},

		{"other.test; spf=pass smtp.mailfrom=alice@sender.example", false},
		{"sign.test; spf=pass smtp.mailfrom=sender.example", false}, // not trusted for that
		{"mx.test; spf=fail smtp.mailfrom=alice@sender.example", false},
		{"mx.test; spf=softfail smtp.mailfrom=sender.example; dkim=none header.d=sender.example", false},
		{"mx.test; spf=pass smtp.mailfrom=alice@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=a@sub.sender.example", false},
		{"mx.test; spf=pass smtp.helo=sender.example", false},
		{"mx.test; spf=pass header.d=sender.example", false},
		{"mx.test; dkim=pass smtp.mailfrom=sender.example", false},
		{"mx.test; dkim=pass header.i=@sender.example", false}, // who signed is header.d
		{"mx.test; dmarc=pass header.d=sender.example header.from=sender.example", false},
		{"mx.test; x-spf=pass smtp.mailfrom=sender.example", false},

		// The id not to the letter.
		{" mx.test; spf=pass smtp.mailfrom=sender.example", false},
		{"MX.test; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test ; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test.; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test(x); spf=pass smtp.mailfrom=sender.example", false},
		{"(x)mx.test; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test 1; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test/1; spf=pass smtp.mailfrom=sender.example", false},
		{"\"mx.test\"; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test\u00a0; spf=pass smtp.mailfrom=sender.example", false},
		{"\ufeffmx.test; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test x.test; spf=pass smtp.mailfrom=sender.example", false},

		// What a filter that deletes forgeries may not be able to read.
		{"mx.test; SPF=pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf=PASS smtp.mailfrom=sender.example", false},
		{"mx.test; spf = pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf/1=pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf(c)=pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf=(c)pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass(c) smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass (c)smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass (a (b)) smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass smtp . mailfrom = sender.example", false},
		{"mx.test; spf=pass Smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass foo.bar=x smtp.mailfrom=sender.example", false},
		{"mx.test; foo=pass bar.baz=x; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test; \"spf\"=pass smtp.mailfrom=sender.example", false},
		{"mx.test; s\\pf=pass smtp.mailfrom=sender.example", false},
		{"mx.test;; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test; ; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example;", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example\u00a0", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example (open", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example \x01", false},
		{"mx.test; dkim=pass header.d=sender.example " + strings.Repeat("(c) ", 500), false},
		{"mx.test; dkim=pass header.d=sender.example header.x=" + strings.Repeat("a.", 200), false},
		{"mx.test; " + seven + "; spf=pass smtp.mailfrom=sender.example", true}, // the eighth
		{"mx.test; " + seven + "; a=none; spf=pass smtp.mailfrom=sender.example", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example; " + seven + "; a=none", false},

		// What a signer or client can have a filter repeat.
		{"mx.test; dkim=pass header.d=evil.example header.i=x header.d=sender.example header.i=@evil.example", false},
		{"mx.test; dkim=pass header.i=x header.d=sender.example header.z=@evil.example", false},
		{"mx.test; dkim=pass header.d=evil.example header.i=@evil.example; dkim=pass header.d=sender.example header.i=@evil.example", false},
		{"mx.test; dkim=pass header.d=evil.example header.i=x; dkim=pass header.d=sender.example header.z=@evil.example", false},
		{"mx.test; dkim=pass header.d=evil.example header.i=x; dkim=pass header.d=sender.example (@evil.example)", false},
		{"mx.test; dkim=pass header.d=sender.example@evil.example", false},
		{`mx.test; dkim=pass header.d=sender.example header.i="x y@sender.example"`, true},
		{`mx.test; dkim=pass header.d=sender.example header.i="x=y@sender.example"`, false},
		{"mx.test; dkim=pass header.d=sender.example header.i=@sub.sender.example", true},
		{"mx.test; dkim=pass header.d=sender.example header.i=@evilsender.example", false},
		{"mx.test; dkim=pass header.d=sender.example header.1=a header.2=a header.3=a header.4=a header.5=a header.6=a header.7=a", true},
		{"mx.test; dkim=pass header.d=sender.example header.1=a header.2=a header.3=a header.4=a header.5=a header.6=a header.7=a header.8=a", false},
		{"mx.test; spf=pass smtp.mailfrom=a@b@sender.example", true},
		{"mx.test; spf=fail smtp.mailfrom=sender.example smtp.helo=x; spf=pass smtp.mailfrom=sender.example", false},

		// Local parts with "=" (VERP, SRS, BATV), and others.
		{"mx.test; spf=pass smtp.mailfrom=x=smtp.mailfrom=sender.example=y@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=smtp.mailfrom=sender.example@other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=other=x@sender.example", false},
		{"mx.test; spf=pass smtp.mailfrom=\"other=x@sender.example\"", false},
		{"mx.test; spf=pass smtp.mailfrom=\"x smtp.mailfrom=sender.example\"@other.example", false},
		{"mx.test; spf=pass (smtp.mailfrom=sender.example) smtp.mailfrom=other.example", false},
		{"mx.test; spf=pass smtp.mailfrom=sender.example@", false},
		{"mx.test; spf=pass smtp.mailfrom=", false},
		{"mx.test; spf=pass smtp.mailfrom", false},
		{"mx.test; spf=pass", false},
		{"mx.test; none", false},
		{"mx.test;", false},
		{"\"mx.test", false},
		{"", false},
	}
	for _, tt := range tests {
		if got := vouches(tt.value, testVouchers, "sender.example"); got != tt.want {
			t.Errorf("vouches(%q) = %v", tt.value, got)
		}
	}
	if vouches("mx.test; spf=pass smtp.mailfrom=\"@\"", testVouchers, "") {
		t.Error("a sender without domain is vouched for")
	}
}

func FuzzVouches(f *testing.F) {
	f.Add("mx.test; spf=pass smtp.mailfrom=a=b@sender.example")
	f.Add("mx.test; dkim=pass (c) header.d=\"sender.example\" header.b=x")
	f.Add("mx.test;\n\tspf=pass smtp.mailfrom=sender.example; dkim=none (no signature)")
	f.Fuzz(func(t *testing.T, value string) {
		if !vouches(value, testVouchers, "sender.example") {
			return
		}
		if !strings.HasPrefix(value, "mx.test;") && !strings.HasPrefix(value, "sign.test;") || !strings.Contains(value, "=pass") ||
			!strings.Contains(strings.ToLower(value), "sender.example") || strings.Count(value, ";") > 200 || !esmtp.IsASCII(value) {
			t.Errorf("%q vouches", value)
		}
		// What is added unseparated is part of the last value, or nothing that can be read.
		if vouches(value+"\\", testVouchers, "sender.example") || vouches(value+"; ;", testVouchers, "sender.example") {
			t.Errorf("%q vouches with an escape or an empty result behind it", value)
		}
	})
}
