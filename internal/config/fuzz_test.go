package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Any file is either refused with faults that print, or is a configuration
// whose effective settings are a file that comes to the same.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"testdata/milter.yaml", "testdata/attach.yaml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		full, "", "---\n", "mode: test\n---\n", "a: &a [*a]", "policy: &p {floor: *p}", "? [a]\n: b", "<<: {mode: test}",
		"mode: !!binary dGVzdA==", "limits: {connections: !!int '5'}", "verify: {require_tls: !!bool 'true'}",
		"policy: {rules: [{recipient: a@b.example, fail: mark}]}", "dns: {timeout: 1}", "dns: null", "authserv_id: !!str 5",
		"preferences: {source: 'postgres://u:p@h/d?password=x'}", "\xef\xbb\xbfmode: test", "reply: {fail: \"\\u2028\"}",
		"attach: {domains: [{domain: a, source: 'secret:s', addresses: any, to: all}]}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second Config
		s, faults := load(milterSchema(&first), "f", data, nil)
		if len(faults) > 0 {
			if n := strings.Count(faults.Error(), "\n") + 1; n != len(faults) {
				t.Fatalf("%d faults on %d lines: %s", len(faults), n, faults)
			}
			return
		}
		again := nested(t, s.Effective())
		if _, faults := load(milterSchema(&second), "again", again, nil); len(faults) > 0 {
			t.Fatalf("%s\nof\n%s", faults, again)
		}
		first.Preferences.Source = DSN(first.Preferences.Source.String())
		if diff := cmp.Diff(first, second, prefixes); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	})
}
