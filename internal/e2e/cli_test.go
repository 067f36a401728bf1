package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testdns"
)

// TestCommands runs every command of authkey-milter with its exit codes.
func TestCommands(t *testing.T) {
	w := newWorld(t)
	key := w.mustKey(t, "alice@"+withAS)
	w.DNS.Behave("lame.test", testdns.Rcode(2 /* SERVFAIL */))
	must(t, w.Publish("mixed.test", "AS=as.mixed.test:7425; tls=yes", "AS=as.mixed.test:7426", "AS=nonsense", "v=spf1 -all"))
	good := writeConfig(t, w.MilterConfig("unix:/run/authkey/never.sock"))
	bad := writeConfig(t, "mode: perhaps\nverify:\n  timeout: 300\n  allow_networks: [10.0.0.0/33]\npolicy: {fail: drop, rules: [{recipient: x@y.test, fial: mark}]}\nlistne: []\n")
	later := writeConfig(t, "metrics: {listen: '127.0.0.1:9796'}\npreferences: {source: 'sqlite:/var/lib/p.db'}\n")
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(keyFile, []byte(key+"\n"), 0o600))

	tests := []struct {
		name   string
		stdin  string
		args   []string
		code   int
		output []string // parts of it
	}{
		{name: "version", args: []string{"version"}, output: []string{"authkey-milter ", "go1."}},
		{name: "--version", args: []string{"--version"}, output: []string{"authkey-milter ", "go1."}},
		{name: "help", args: []string{"--help"}, output: []string{"serve", "lookup", "verify"}},
		{name: "no command", code: 2, output: []string{"which command?"}},
		{name: "unknown command", args: []string{"sevre"}, code: 2, output: []string{`unknown command "sevre"`}},
		{name: "unknown flag", args: []string{"check", "--conf", good}, code: 2, output: []string{"unknown flag: --conf"}},
		{name: "too many arguments", args: []string{"lookup", "a.test", "b.test"}, code: 2},

		{name: "check good", args: []string{"check", "--config", good}},
		{name: "check bad", args: []string{"check", "--config", bad}, code: 78,
			output: []string{"mode", "verify.timeout", "allow_networks", "policy.fail", "fial", "listne"}},
		{name: "check missing", args: []string{"check", "--config", "/nonexistent/milter.yaml"}, code: 78, output: []string{"/nonexistent/milter.yaml"}},
		{name: "check what is not acted on yet", args: []string{"check", "--config", later}, output: []string{"metrics.listen: not acted on yet", "preferences.source: preferences in SQL"}},
		{name: "serve bad", args: []string{"serve", "--config", bad}, code: 78, output: []string{"policy.fail"}},

		{name: "config", args: []string{"config", "--config", good}, output: []string{"dns.timeout", "1s", "file", "default"}},
		{name: "config describe", args: []string{"config", "--describe"}, output: []string{"verify.timeout", "cache.max_ttl"}},

		{name: "lookup usable", args: []string{"lookup", "--config", good, withAS},
			output: []string{"domain    pass.test", `TXT       "v=spf1 -all"`, "used      1. 127.0.0.1:", "verdict   takes part"}},
		{name: "lookup required", args: []string{"lookup", "--config", good, requiring}, output: []string{"required "}},
		{name: "lookup mixed", args: []string{"lookup", "--config", good, "mixed.test"},
			output: []string{"used      1. tls:as.mixed.test:7425", "tls=yes", "nonsense", "refused"}},
		{name: "lookup none", args: []string{"lookup", "--config", good, withoutAS}, code: 1, output: []string{"publishes no AS record"}},
		{name: "lookup malformed", args: []string{"lookup", "--config", good, brokenAS}, code: 1, output: []string{"none of which can be used"}},
		{name: "lookup lame", args: []string{"lookup", "--config", good, "lame.test"}, code: 75},
		{name: "lookup no domain", args: []string{"lookup", "--config", good, "no domain"}, code: 1},

		{name: "verify pass", stdin: key, args: []string{"verify", "--config", good, "alice@" + withAS}, output: []string{"result    pass", "address   alice@pass.test", "asked     127.0.0.1:"}},
		{name: "verify from file", args: []string{"verify", "--config", good, "--key-file", keyFile, "alice@" + withAS}, output: []string{"result    pass"}},
		{name: "verify wrong key", stdin: "wrong", args: []string{"verify", "--config", good, "alice@" + withAS}, code: 1, output: []string{"result    fail (invalid-key)"}},
		{name: "verify bad key", stdin: "a b", args: []string{"verify", "--config", good, "alice@" + withAS}, code: 1, output: []string{"result    fail (bad-key)"}},
		{name: "verify no key", args: []string{"verify", "--config", good, "alice@" + withAS}, code: 1, output: []string{"result    nokey"}},
		{name: "verify required", args: []string{"verify", "--config", good, "alice@" + requiring}, code: 1, output: []string{"result    fail (required)"}},
		{name: "verify none", stdin: key, args: []string{"verify", "--config", good, "alice@" + withoutAS}, code: 1, output: []string{"result    none (no-as)"}},
		{name: "verify down", stdin: key, args: []string{"verify", "--config", good, "alice@" + downAS}, code: 75, output: []string{"result    temperror (as-refused)"}},
		{name: "verify broken", stdin: key, args: []string{"verify", "--config", good, "alice@" + brokenAS}, code: 1, output: []string{"result    permerror (as-record)"}},
		{name: "verify no domain", stdin: key, args: []string{"verify", "--config", good, "alice"}, code: 1, output: []string{"result    none (no-domain)"}},
		{name: "verify missing key file", args: []string{"verify", "--config", good, "--key-file", "/nonexistent/key", "alice@" + withAS}, code: 2, output: []string{"/nonexistent/key"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runMilter(t, tt.stdin, tt.args...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, part := range tt.output {
				if !strings.Contains(out, part) {
					t.Errorf("output lacks %q", part)
				}
			}
			if strings.Contains(out, key) {
				t.Error("the key is in the output")
			}
			if strings.Contains(out, "goroutine ") {
				t.Error("a stack trace")
			}
			if t.Failed() {
				t.Logf("output:\n%s", out)
			}
		})
	}
}

// TestJSON reads what the commands print for programs.
func TestJSON(t *testing.T) {
	w := newWorld(t)
	conf := writeConfig(t, w.MilterConfig("unix:/run/authkey/never.sock"))
	for _, tt := range []struct {
		args []string
		want string // a part, as JSON is written
	}{
		{[]string{"lookup", "--json", "--config", conf, requiring}, `"required":true`},
		{[]string{"verify", "--json", "--config", conf, "alice@" + requiring}, `"reason":"required"`},
		{[]string{"config", "--json", "--config", conf}, `"dns.timeout"`},
		{[]string{"config", "--describe", "--json"}, `"dns.timeout"`},
	} {
		out, _ := runMilter(t, "", tt.args...)
		var v any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Errorf("%s: %v\n%s", tt.args[0], err, out)
		}
		if !strings.Contains(out, tt.want) {
			t.Errorf("%s lacks %s:\n%s", tt.args[0], tt.want, out)
		}
	}
}

// TestEnvironment overrides the file.
func TestEnvironment(t *testing.T) {
	t.Setenv("AUTHKEY_MILTER_DNS_TIMEOUT", "2s")
	out, code := runMilter(t, "", "config")
	if code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), "dns.timeout 2s environment") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	t.Setenv("AUTHKEY_MILTER_DNS_TIMOUT", "2s")
	if out, code := runMilter(t, "", "config"); code != 78 || !strings.Contains(out, "AUTHKEY_MILTER_DNS_TIMOUT") {
		t.Errorf("an unknown name: exit %d:\n%s", code, fmt.Sprint(out))
	}
}
