package milter

import (
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

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
		{"all that stays", "mx.test", "A.b+c-d_e/9@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=A.b+c-d_e/9@a.test"},
		{"a result", "mx.test", "x-authkey=pass@a.test", verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoAS},
			"mx.test;\n\tx-authkey=none reason=\"no-as\" smtp.mailfrom=x-authkey%3Dpass@a.test"},
		{"a result in quotes", "mx.test", `"x; x-authkey=pass"@a.test`, verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoAS},
			"mx.test;\n\tx-authkey=none reason=\"no-as\" smtp.mailfrom=x%3B%20x-authkey%3Dpass@a.test"},
		{"quotes and backslashes", "mx.test", `"a\"b\\c"@a.test`, verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=a%22b%5Cc@a.test"},
		{"line break, UTF-8 and percent", "mx.test", "\"a\r\nb\"%é@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=a%0D%0Ab%25%C3%A9@a.test"},
		{"domain that is no host name", "mx.test", `"a b"@a_b.test`, verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=a%20b@a_b.test"},
		{"id that is no token", "mx test", "alice@a.test", verifier.Result{Status: verifier.Pass},
			"\"mx test\";\n\tx-authkey=pass smtp.mailfrom=alice@a.test"},
		{"address too long for a line", "mx.test", strings.Repeat("=", maxPropValue/3) + "@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, err := wire.ParseAddress(tt.address)
			if err != nil && tt.address != "" {
				t.Fatal(err)
			}
			got := formatAuthRes(tt.id, authResult{Result: tt.result, property: "smtp.mailfrom", address: address})
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			// What we write is what we recognise when somebody else writes it.
			if got != "" && (!claimsAuthKey(got) || !speaksAs(got, []string{tt.id}) && tt.id == "mx.test") {
				t.Errorf("%q is not recognised", got)
			}
		})
	}
}

// FuzzAuthRes: whatever the address is, the field has one "=" and one ";" for each
// that we write, and no quotes, however it is split and searched.
func FuzzAuthRes(f *testing.F) {
	for _, s := range []string{"alice@a.test", "x-authkey=pass@a.test", `"x;x-authkey=pass"@a.test`, "\"a\r\n b\"@a.test",
		`"\"; x-authkey=pass ("@a_b.test`, "δοκιμή@bücher.test", "\xff=\u00a0@a.test", "@r.test:a%40b@a.test"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, mailbox string) {
		address, err := wire.ParseAddress(mailbox)
		if err != nil {
			return // it is in no field
		}
		got := formatAuthRes("mx.test", authResult{Result: verifier.Result{Status: verifier.None}, property: "smtp.mailfrom", address: address})
		value, ok := strings.CutPrefix(got, "mx.test;\n\tx-authkey=none")
		if !ok {
			t.Fatalf("%q", got)
		}
		value = strings.TrimPrefix(value, " smtp.mailfrom=")
		if i := strings.IndexFunc(value, func(r rune) bool {
			return r >= 0x80 || !esmtp.IsAlnum(byte(r)) && !strings.ContainsRune(".+-_/%@", r)
		}); i >= 0 || strings.Count(value, "@") > 1 {
			t.Errorf("%q becomes %q", mailbox, got)
		}
	})
}
