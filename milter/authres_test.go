package milter

import (
	"strings"
	"testing"

	"github.com/authkey/authkey/verifier"
)

func TestClaimsAuthKey(t *testing.T) {
	ids := []string{"mx.test", "old.mx.test"}
	tests := []struct {
		value string
		want  bool
	}{
		{"mx.test; x-authkey=pass", true},
		{" mx.test ; x-authkey = pass smtp.mailfrom=a@b.test", true},
		{"MX.Test; X-AUTHKEY=PASS", true},
		{"mx.test 1; x-authkey=pass", true},
		{"mx.test/1; x-authkey=pass", true},
		{"mx.test(x); x-authkey=pass", true},
		{"(a (nested \\) one) b)mx.test; x-authkey=pass", true},
		{`"mx.test"; x-authkey=pass`, true},
		{`"mx\.test"; x-authkey=pass`, true},
		{"mx.test.; x-authkey=pass", true},
		{"mx.test; x-authkey(c)=pass", true},
		{"mx.test; x-authkey/1=pass", true},
		{"mx.test; x-authkey (c) / (d) 1 (e) = pass", true},
		{"mx.test;\r\n\tdkim=pass header.d=b.test;\r\n\tx-authkey=pass", true},
		{"mx.test;\n dkim=pass;x-authkey=fail", true},
		{"mx.test; ;; x-authkey=pass", true},
		{"mx.test x-authkey=pass", true},
		{"mx.test; dkim=pass x-authkey=pass", true},
		{`mx.test; "x-authkey"=pass`, true},
		{`mx.test; "x-auth\key"=pass`, true},
		{"old.mx.test; x-authkey=pass", true},
		{"mx.test; dkim=pass (unfinished; x-authkey=pass", true},
		{`mx.test; dkim=pass reason="unfinished; x-authkey=pass`, true},
		{`"mx.test; x-authkey=pass`, true},
		{"(mx.test; x-authkey=pass", true},

		{"", false},
		{"mx.test", false},
		{"mx.test; none", false},
		{"mx.test; dkim=pass", false},
		{"mx.test; dkim=pass header.d=x-authkey.test", false},
		{"mx.test; dkim=pass reason=x-authkey header.d=b.test", false},
		{`mx.test; dkim=pass reason="x-authkey=pass"`, false},
		{"mx.test; dkim=pass (x-authkey=pass)", false},
		{"mx.test; x-authkeys=pass", false},
		{"mx.test; my-x-authkey=pass", false},
		{"other.test; x-authkey=pass", false},
		{"mx.test.evil; x-authkey=pass", false},
		{"other.test; x-authkey=pass (unfinished", false},
		{"mx.test; dkim=pass (unfinished", false},
	}
	for _, tt := range tests {
		if got := claimsAuthKey(tt.value, ids); got != tt.want {
			t.Errorf("claimsAuthKey(%q) = %v, want %v", tt.value, got, tt.want)
		}
	}
}

func TestFormatAuthRes(t *testing.T) {
	tests := []struct {
		name, id, address string
		result            verifier.Result
		want              string
	}{
		{"pass", "mx.test", "alice@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=alice@a.test"},
		{"fail", "mx.test", "alice@a.test", verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey},
			"mx.test;\n\tx-authkey=fail reason=\"invalid-key\" smtp.mailfrom=alice@a.test"},
		{"nokey is none", "mx.test", "alice@a.test", verifier.Result{Status: verifier.NoKey},
			"mx.test;\n\tx-authkey=none reason=\"no AuthKey\" smtp.mailfrom=alice@a.test"},
		{"skipped is omitted", "mx.test", "", verifier.Result{Status: verifier.Skipped}, ""},
		{"no address", "mx.test", "", verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoDomain},
			"mx.test;\n\tx-authkey=none reason=\"no-domain\""},
		{"quoted local part", "mx.test", `"a%20b"@a.test`, verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=\"a%20b\"@a.test"},
		{"domain that is no host name", "mx.test", `"a%20b"@a_b.test`, verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=\"\\\"a%20b\\\"@a_b.test\""},
		{"id that is no token", "mx test", "alice@a.test", verifier.Result{Status: verifier.Pass},
			"\"mx test\";\n\tx-authkey=pass smtp.mailfrom=alice@a.test"},
		{"address too long for a line", "mx.test", strings.Repeat("a", maxPropValue) + "@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := formatAuthRes(tt.id, authResult{Result: tt.result, property: "smtp.mailfrom", address: tt.address})
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			// What we write is what we recognise when somebody else writes it.
			if got != "" && !claimsAuthKey(got, []string{tt.id}) {
				t.Errorf("claimsAuthKey does not recognise %q", got)
			}
		})
	}
}

func FuzzClaimsAuthKey(f *testing.F) {
	for _, s := range []string{
		"mx.test; x-authkey=pass", `"mx.test"; x-authkey/1 = pass`, "(c)mx.test(d)1;x-authkey(e)=fail",
		"mx.test; dkim=pass (unfinished", "mx.test;\n\tx-authkey=none reason=\"no AuthKey\"", "\\", "(", `"`, "(((((", "=;=;/",
	} {
		f.Add(s)
	}
	ids := []string{"mx.test"}
	f.Fuzz(func(t *testing.T, value string) {
		got := claimsAuthKey(value, ids)
		if got && !strings.Contains(strings.ToLower(strings.ReplaceAll(value, `\`, "")), authMethod) {
			t.Errorf("claims a method that is not there: %q", value)
		}
		// Nothing that stands in front of a plain forgery may hide it, unless it
		// makes it another id's.
		if strings.HasPrefix(value, "mx.test;") {
			if _, whole := authTokens(value); whole && !claimsAuthKey(value+"; x-authkey=pass", ids) {
				t.Errorf("a forgery is hidden behind %q", value)
			}
		}
		// Comments and folding change nothing.
		if claimsAuthKey(" (c)\n\t"+value, ids) != got {
			t.Errorf("a comment in front changes the answer for %q", value)
		}
	})
}
