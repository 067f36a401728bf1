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
	key := mustKey(t, w, "alice@"+withAS)
	w.DNS.Behave("lame.test", testdns.Rcode(2 /* SERVFAIL */))
	must(t, w.Publish("mixed.test", "AS=as.mixed.test:7425; tls=yes", "AS=as.mixed.test:7426", "AS=nonsense", "v=spf1 -all"))
	asPort, stopAS, err := w.ServeAS(withAS)
	must(t, err)
	defer func() { must(t, stopAS()) }()
	must(t, w.Publish("named.test", fmt.Sprintf("AS=as.named.test:%d", asPort)))
	must(t, w.DNS.Set("as.named.test. 60 IN A 127.0.0.1", "private.private.test. 60 IN A 10.0.0.1"))
	must(t, w.Publish("private.test", "AS=private.private.test:7425"))
	must(t, w.Publish("lamehost.test", "AS=lame.test:7425"))
	must(t, w.Publish("three.test", "AS=a.three.test:7425; pri=1", "AS=b.three.test:7425; pri=2", "AS=as.named.test:7425; pri=3"))
	must(t, w.Publish("near.test", " AS = as.near.test:7425"))
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
		{name: "unknown command", args: []string{"sevre"}, code: 2, output: []string{`unknown command "sevre"; perhaps serve`}},
		{name: "unknown flag", args: []string{"check", "--conf", good}, code: 2, output: []string{"unknown flag: --conf; perhaps --config"}},
		{name: "too many arguments", args: []string{"lookup", "a.test", "b.test"}, code: 2},

		{name: "check good", args: []string{"check", "--config", good}, output: []string{good + " is right: ", " keys set\n"}},
		{name: "check bad", args: []string{"check", "--config", bad}, code: 78,
			output: []string{"mode", "verify.timeout", "allow_networks", "policy.fail", "fial", "listne"}},
		{name: "check missing", args: []string{"check", "--config", "/nonexistent/milter.yaml"}, code: 78, output: []string{"/nonexistent/milter.yaml"}},
		{name: "check what is no effect yet", args: []string{"check", "--config", later}, output: []string{"metrics.listen: no effect yet", "preferences.source: preferences in SQL"}},
		{name: "serve bad", args: []string{"serve", "--config", bad}, code: 78, output: []string{"policy.fail"}},

		{name: "config", args: []string{"config", "--config", good}, output: []string{"dns.timeout", "1s", "file", "default"}},
		{name: "config describe", args: []string{"config", "--describe"}, output: []string{"verify.timeout", "cache.max_ttl"}},

		{name: "lookup usable", args: []string{"lookup", "--config", good, withAS},
			output: []string{"domain    pass.test", `TXT       "v=spf1 -all"`, "used      1. 127.0.0.1:", "verdict   takes part"}},
		{name: "lookup required", args: []string{"lookup", "--config", good, requiring}, output: []string{"required "}},
		{name: "lookup mixed", args: []string{"lookup", "--config", good, "mixed.test"}, code: 1,
			output: []string{"used      1. tls:as.mixed.test:7425", "the name has no address", "tls=yes", "nonsense", "refused",
				`looks like an AS record, but there is no port; right would be`, `"AS=nonsense:PORT"`}},
		{name: "lookup resolved", args: []string{"lookup", "--config", good, "named.test"},
			output: []string{"used      1. as.named.test:", "            127.0.0.1\n", "verdict   takes part"}},
		{name: "lookup connected", args: []string{"lookup", "--config", good, "--connect", "named.test"}, output: []string{"127.0.0.1, connected in ", "clear text"}},
		{name: "lookup of what is down", args: []string{"lookup", "--config", good, "--connect", downAS}, code: 1, output: []string{"127.0.0.1, no connection: ", "refused"}},
		{name: "lookup of forbidden", args: []string{"lookup", "--config", good, "private.test"}, code: 1,
			output: []string{"10.0.0.1, not used: address 10.0.0.1 is not globally reachable", "none of their servers can be reached"}},
		{name: "lookup of a lame name", args: []string{"lookup", "--config", good, "lamehost.test"}, code: 75, output: []string{"used      1. lame.test:7425"}},
		{name: "lookup behind two", args: []string{"lookup", "--config", good, "three.test"}, code: 1, output: []string{"not looked up: two names before it lead to no address"}},
		{name: "lookup of a near miss", args: []string{"lookup", "--config", good, "near.test"}, code: 1,
			output: []string{"near miss \" AS = as.near.test:7425\"", "looks like an AS record, but it begins with a blank; there is a blank beside the = of AS=; right would be", `"AS=as.near.test:7425"`}},
		{name: "lookup none", args: []string{"lookup", "--config", good, withoutAS}, code: 1, output: []string{"publishes no AS record"}},
		{name: "lookup malformed", args: []string{"lookup", "--config", good, brokenAS}, code: 1, output: []string{"none of which can be used"}},
		{name: "lookup lame", args: []string{"lookup", "--config", good, "lame.test"}, code: 75},
		{name: "lookup no domain", args: []string{"lookup", "--config", good, "no domain"}, code: 1},

		{name: "verify pass", stdin: key, args: []string{"verify", "--config", good, "alice@" + withAS}, output: []string{"result    pass", "address   alice@pass.test", "asked     127.0.0.1:"}},
		{name: "verify from file", args: []string{"verify", "--config", good, "--key-file", keyFile, "alice@" + withAS}, output: []string{"result    pass"}},
		{name: "verify wrong key", stdin: "wrong", args: []string{"verify", "--config", good, "alice@" + withAS}, code: 1, output: []string{"result    fail (invalid-key)"}},
		{name: "verify bad key", stdin: "a b", args: []string{"verify", "--config", good, "alice@" + withAS}, code: 1, output: []string{"result    fail (bad-key)"}},
		{name: "verify no input", args: []string{"verify", "--config", good, "alice@" + withAS}, code: 2, output: []string{"no key: give one on standard input, or ask with --no-key"}},
		{name: "verify empty file", args: []string{"verify", "--config", good, "--key-file", "/dev/null", "alice@" + withAS}, code: 2, output: []string{"/dev/null has no key in it"}},
		{name: "verify no key", args: []string{"verify", "--no-key", "--config", good, "alice@" + withAS}, code: 1, output: []string{"result    nokey"}},
		{name: "verify required", args: []string{"verify", "--no-key", "--config", good, "alice@" + requiring}, code: 1, output: []string{"result    fail (required)"}},
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
		{[]string{"verify", "--no-key", "--json", "--config", conf, "alice@" + requiring}, `"reason":"required"`},
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
