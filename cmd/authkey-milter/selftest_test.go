package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/internal/selftest"
)

// selftestCommand runs the command with a configuration's text.
func selftestCommand(t *testing.T, yaml string, args ...string) (code int, out, errOut string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "milter.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return selftestWith(t, append([]string{"--config", path}, args...)...)
}

func selftestWith(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	// Nothing may be left of it, neither in the process nor on the disk.
	t.Setenv("TMPDIR", shortTempDir(t))
	running := goleak.IgnoreCurrent()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var o, e bytes.Buffer
	code = self().Run(ctx, append([]string{"selftest"}, args...), strings.NewReader(""), &o, &e, commands()...)
	goleak.VerifyNone(t, running)
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return code, o.String(), e.String()
}

// shortTempDir is a folder whose path leaves room for a socket's name.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

const (
	invalid = "550 5.7.1 Sender address not authenticated: AuthKey invalid"
	missing = "550 5.7.1 Sender address not authenticated: AuthKey missing"
	noAS    = "550 5.7.1 Sender address not authenticated: no usable Authentication Server"
	later   = "451 4.7.1 AuthKey cannot be verified now, try again later"
)

// TestSelftest has what must become of each message written down, so that a policy
// that is wrong everywhere in the same way is found too.
func TestSelftest(t *testing.T) {
	const prefs = "prefs.yaml"
	preferences := filepath.Join(t.TempDir(), prefs)
	if err := os.WriteFile(preferences, []byte("- {recipient: bob@example.com, fail: discard, nokey: tempfail}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, yaml, rcpt string
		// What is done, or in test mode would be; who decided; what became of it.
		want map[string][3]string
	}{
		{name: "default", want: map[string][3]string{
			"valid key":                    {"accept", "default", "delivered"},
			"valid key again":              {"accept", "default", "delivered"},
			"wrong key":                    {"mark", "default", "delivered, marked"},
			"no key where one is required": {"mark", "default", "delivered, marked"},
			"no key":                       {"accept", "default", "delivered"},
			"domain without AS":            {"accept", "default", "delivered"},
			"AS is down":                   {"accept", "default", "delivered"},
			"AS is down, key required":     {"tempfail", "default", later},
			"unusable record":              {"accept", "default", "delivered"},
			"null sender":                  {"accept", "default", "delivered"},
			"forged From":                  {"accept", "default", "delivered"},
			"forged results":               {"accept", "default", "delivered"},
		}},
		{name: "test mode", yaml: "mode: test\npolicy: {pass: reject, fail: discard-notify, nokey: quarantine, temperror: tempfail}\nfrom: {check: enforce}", want: map[string][3]string{
			"valid key":                    {"reject", "default", "delivered"},
			"valid key again":              {"reject", "default", "delivered"},
			"wrong key":                    {"discard-notify", "default", "delivered"},
			"no key where one is required": {"discard-notify", "default", "delivered"},
			"no key":                       {"quarantine", "default", "delivered"},
			"domain without AS":            {"accept", "default", "delivered"},
			"AS is down":                   {"tempfail", "default", "delivered"},
			"AS is down, key required":     {"tempfail", "default", "delivered"},
			"unusable record":              {"mark", "from", "delivered"},
			"null sender":                  {"accept", "default", "delivered"},
			"forged From":                  {"reject", "default", "delivered"},
			"forged results":               {"quarantine", "default", "delivered"},
		}},
		{name: "all reject", yaml: "policy: {pass: reject, fail: reject, nokey: reject, none: reject, temperror: reject, permerror: reject}\nreply: {permerror: 100% broken}", want: map[string][3]string{
			"valid key":                    {"reject", "default", "550 5.7.1 Message refused by policy"},
			"valid key again":              {"reject", "default", "550 5.7.1 Message refused by policy"},
			"wrong key":                    {"reject", "default", invalid},
			"no key where one is required": {"reject", "default", missing},
			"no key":                       {"reject", "default", missing},
			"domain without AS":            {"reject", "default", noAS},
			"AS is down":                   {"reject", "default", noAS},
			"AS is down, key required":     {"reject", "default", noAS},
			"unusable record":              {"reject", "default", "550 5.7.1 100% broken"},
			"null sender":                  {"accept", "default", "delivered"},
			"forged From":                  {"reject", "default", "550 5.7.1 Message refused by policy"},
			"forged results":               {"reject", "default", missing},
		}},
		{name: "quarantine mailbox", yaml: "authserv_id: mx.example.com\ntrusted_authserv_ids: [old.example.com]\nlocal_domains: [example.com]\n" +
			"policy: {fail: quarantine, nokey: quarantine, none: mark}\nquarantine: {mailbox: \"held+{local}@{domain}\"}\nmark: {header: X-Doubt, readdress: \"{local}+spam@{domain}\"}\nfrom: {check: \"off\"}", want: map[string][3]string{
			"valid key":                    {"accept", "default", "delivered"},
			"valid key again":              {"accept", "default", "delivered"},
			"wrong key":                    {"quarantine", "default", "delivered to held+selftest@example.com"},
			"no key where one is required": {"quarantine", "default", "delivered to held+selftest@example.com"},
			"no key":                       {"quarantine", "default", "delivered to held+selftest@example.com"},
			"domain without AS":            {"mark", "default", "delivered to selftest+spam@example.com, marked"},
			"AS is down":                   {"accept", "default", "delivered"},
			"AS is down, key required":     {"tempfail", "default", later},
			"unusable record":              {"accept", "default", "delivered"},
			"null sender":                  {"accept", "default", "delivered"},
			"forged From":                  {"accept", "default", "delivered"},
			"forged results":               {"quarantine", "default", "delivered to held+selftest@example.com"},
		}},
		{name: "rules, preferences and floor", rcpt: "bob@example.com", yaml: "preferences: {source: \"file:" + preferences + "\"}\n" +
			"policy: {recipients: separate, permerror: quarantine, floor: {pass: mark}, rules: [{recipient: example.com, fail: accept, none: reject-notify}, " +
			"{recipient: bob@example.com, nokey: reject}, {sender: .test, temperror: discard-notify}]}", want: map[string][3]string{
			"valid key":                    {"mark", "floor", "delivered, marked"},
			"valid key again":              {"mark", "floor", "delivered, marked"},
			"wrong key":                    {"discard", "pref", "discarded"},
			"no key where one is required": {"discard", "pref", "discarded"},
			"no key":                       {"reject", "rule-rcpt", missing},
			"domain without AS":            {"reject-notify", "rule-rcpt-domain", noAS + ", notice to bob@example.com"},
			"AS is down":                   {"discard-notify", "rule-sender", "discarded, notice to bob@example.com"},
			"AS is down, key required":     {"discard-notify", "rule-sender", "discarded, notice to bob@example.com"},
			"unusable record":              {"quarantine", "default", "held: authkey: permerror (as-record)"},
			"null sender":                  {"accept", "default", "delivered"},
			"forged From":                  {"mark", "floor", "delivered, marked"},
			"forged results":               {"reject", "rule-rcpt", missing},
		}},
		{name: "From enforced, TLS required", yaml: "from: {check: enforce, actions: {fail: reject}}\nverify: {require_tls: true}\nlog: {level: error, format: json}\nlimits: {connections: 1, recipients: 1}", want: map[string][3]string{
			"valid key":                    {"accept", "default", "delivered"},
			"valid key again":              {"accept", "default", "delivered"},
			"wrong key":                    {"reject", "from", invalid},
			"no key where one is required": {"reject", "from", missing},
			"no key":                       {"accept", "default", "delivered"},
			"domain without AS":            {"accept", "default", "delivered"},
			"AS is down":                   {"accept", "default", "delivered"},
			"AS is down, key required":     {"tempfail", "default", later},
			"unusable record":              {"mark", "from", "delivered, marked"},
			"null sender":                  {"accept", "default", "delivered"},
			"forged From":                  {"reject", "from", missing},
			"forged results":               {"accept", "default", "delivered"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"--json"}
			if tt.rcpt != "" {
				args = append(args, "--rcpt", tt.rcpt)
			}
			code, out, errOut := selftestCommand(t, tt.yaml, args...)
			var report struct {
				OK bool `json:"ok"`
				selftest.Report
			}
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatalf("exit %d, %v\n%s%s", code, err, out, errOut)
			}
			if code != program.OK || !report.OK || errOut != "" {
				t.Errorf("exit %d\n%s%s", code, out, errOut)
			}
			got := make(map[string][3]string)
			for _, row := range report.Messages {
				action := row.Action
				if strings.HasPrefix(tt.yaml, "mode: test") {
					if action != "accept" {
						t.Errorf("%s: action %s in test mode", row.Message, action)
					}
					action = row.Would
				}
				got[row.Message] = [3]string{action, row.By, row.Became}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSelftestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name, yaml string
		args       []string
		code       int
		out        string // a part of what is printed, on either
	}{
		{name: "all well", code: program.OK, out: "All 12 messages as they must be"},
		{name: "two recipients", args: []string{"--rcpt", "bob@example.com", "--rcpt", "<eve@example.com>"}, code: program.OK, out: "To eve@example.com, from a client at 192.0.2.25:"},
		{name: "our own users' and exempt networks", yaml: "exempt: {networks: [192.0.2.0/24]}\nsubmission: {networks: [198.51.100.0/24]}", code: program.OK, out: "from a client at 203.0.113.25:"},
		{name: "everybody is exempt", yaml: "exempt: {networks: [0.0.0.0/0, \"::/0\"]}", code: program.Negative,
			out: "NOT AS IT MUST BE: the configuration verifies nobody's mail"},
		{name: "nothing can be verified in time", yaml: "verify: {timeout: 1ns}", code: program.Negative, out: `NOT AS IT MUST BE: valid key: result is "temperror", must be "pass"`},
		{name: "unknown key", yaml: "polizy: {}", code: program.Config, out: "polizy"},
		{name: "no such certificates", yaml: "verify: {ca_file: /nonexistent/ca.pem}", code: program.Config, out: "verify.ca_file"},
		{name: "no such preferences", yaml: "preferences: {source: \"file:/nonexistent/p.yaml\"}", code: program.Config, out: "preferences.source"},
		{name: "no such templates", yaml: "policy: {fail: reject-notify}\nnotify: {template_dir: /nonexistent}", code: program.Config, out: "templates"},
		{name: "a secret that only the service can read", yaml: "attach: {domains: [{domain: example.com, source: \"secret:/nonexistent/key\", addresses: any}]}",
			code: program.OK, out: "as they must be"},
		{name: "not a recipient", args: []string{"--rcpt", "bob"}, code: program.Usage, out: `--rcpt "bob"`},
		{name: "arguments", args: []string{"x"}, code: program.Usage, out: "selftest takes no argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errOut := selftestCommand(t, tt.yaml, tt.args...)
			if code != tt.code || !strings.Contains(out+errOut, tt.out) {
				t.Errorf("exit %d, want %d and %q\n%s%s", code, tt.code, tt.out, out, errOut)
			}
		})
	}
	if code, _, errOut := selftestWith(t, "--config", filepath.Join(t.TempDir(), "missing.yaml")); code != program.Config {
		t.Errorf("missing configuration: exit %d, want %d\n%s", code, program.Config, errOut)
	}
}

// TestSelftestBesideService: a running milter holds the memory of notices, and
// selftest must not touch it.
func TestSelftestBesideService(t *testing.T) {
	state := t.TempDir()
	t.Setenv("STATE_DIRECTORY", state)
	code, out, errOut := selftestCommand(t, "policy: {fail: discard-notify}\nnotify: {state_dir: "+state+"}")
	if code != program.OK {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
}
