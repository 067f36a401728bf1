package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDigest(t *testing.T) {
	load := func(yaml string, environ ...string) *Loaded {
		t.Helper()
		path := filepath.Join(t.TempDir(), "milter.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(path, environ)
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	const yaml = "mode: test\nlocal_domains: [a.test]\ndns: {timeout: 2s}\npolicy: {rules: [{recipient: b@a.test, fail: reject}]}\n"
	base := load(yaml).Digest(nil)
	for name, tc := range map[string]struct {
		yaml string
		same bool
	}{
		"comments, order and form": {"# other\npolicy:\n  rules:\n    - {fail: reject, recipient: b@a.test}\ndns:\n  timeout: 2s\nlocal_domains: [a.test]\nmode: test\n", true},
		"a default, written":       {yaml + "authserv_id: \"\"\n", true},
		"another mode":             {"mode: enforce\nlocal_domains: [a.test]\ndns: {timeout: 2s}\npolicy: {rules: [{recipient: b@a.test, fail: reject}]}\n", false},
		"cut off":                  {"mode: test\nlocal_domains: [a.test]\n", false},
		"another rule":             {"mode: test\nlocal_domains: [a.test]\ndns: {timeout: 2s}\npolicy: {rules: [{recipient: b@a.test, fail: mark}]}\n", false},
	} {
		if got := load(tc.yaml).Digest(nil) == base; got != tc.same {
			t.Errorf("%s: the same: %v", name, got)
		}
	}
	env := load(yaml, "AUTHKEY_MILTER_DNS_TIMEOUT=1s")
	names := env.FromEnvironment()
	if len(names) != 1 || names[0] != "dns.timeout" {
		t.Fatalf("%q", names)
	}
	if env.Digest(names) != load(yaml).Digest(names) || env.Digest(nil) == base {
		t.Error("what comes from the environment counts")
	}
}
