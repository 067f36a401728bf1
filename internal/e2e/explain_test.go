package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/lab"
)

// TestExplain runs the command on messages, and looks for what it must say and for
// what it must not.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	key := mustKey(t, w, "alice@"+withAS)
	conf := writeConfig(t, w.MilterConfig("unix:/run/authkey/never.sock")+`
policy:
  nokey: tempfail
  floor: {fail: mark}
  rules:
    - {recipient: "ceo@rcpt.test", fail: reject-notify}
    - {recipient: "rcpt.test", fail: quarantine}
    - {sender: "pass.test", fail: discard}
exempt: {networks: ["192.0.2.0/24"]}
`)
	message := func(fields string) string {
		path := filepath.Join(t.TempDir(), "m.eml")
		must(t, os.WriteFile(path, []byte("Return-Path: <alice@pass.test>\r\n"+fields+"From: Alice <alice@pass.test>\r\nSubject: hello\r\n\r\nX-Auth-Key: body\r\n"), 0o600))
		return path
	}
	valid, wrong, without := message("X-Auth-Key: "+key+"\r\n"), message("X-Auth-Key:\r\n wrongkey\r\n"), message("")
	rewritten := func(change func(string) string) string {
		text, err := os.ReadFile(valid)
		must(t, err)
		path := filepath.Join(t.TempDir(), "m.eml")
		must(t, os.WriteFile(path, []byte(change(string(text))), 0o600))
		return path
	}
	noPath := rewritten(func(text string) string { return strings.TrimPrefix(text, "Return-Path: <alice@pass.test>\r\n") })
	marked := rewritten(func(text string) string { return "\ufeff" + text })
	tests := []struct {
		name   string
		args   []string
		code   int
		output []string
	}{
		{"valid", []string{valid, "--rcpt", "bob@rcpt.test"}, 0,
			[]string{"result      pass for alice@pass.test, asked 127.0.0.1:", "From field  pass", "accept by default: delivered", "removed: 1 key; not marked, not held"}},
		{"held", []string{wrong, "--rcpt", "bob@rcpt.test"}, 1,
			[]string{"policy.rules[1]: recipient rcpt.test", "quarantine by rule-rcpt-domain: held", "rule-sender       discard         overruled"}},
		{"several", []string{wrong, "--rcpt", "<ceo@rcpt.test>", "--rcpt", "x@far.test"}, 1,
			[]string{"policy.rules[0]: recipient ceo@rcpt.test", "the client hears  550 5.7.1 Sender address not authenticated: AuthKey invalid"}},
		{"deferred", []string{without, "--rcpt", "bob@rcpt.test"}, 75, []string{"the client hears  451 4.7.1"}},
		{"another sender", []string{valid, "--from", "bob@none.test", "--rcpt", "bob@rcpt.test"}, 0,
			[]string{"result      none (no-as) for bob@none.test", "From field  pass for alice@pass.test"}},
		{"null sender", []string{valid, "--from", "<>", "--rcpt", "bob@rcpt.test"}, 0, []string{"result      skipped (null-sender)", "From field  pass"}},
		{"exempt", []string{wrong, "--client", "192.0.2.7", "--rcpt", "bob@rcpt.test"}, 0, []string{"a relay of ours, not checked"}},
		{"no recipient", []string{wrong}, 2, []string{"--rcpt is needed"}},
		{"an empty recipient", []string{wrong, "--rcpt", "<>"}, 2, []string{"--rcpt is empty"}},
		{"no file", []string{"/nonexistent.eml", "--rcpt", "bob@rcpt.test"}, 2, []string{"/nonexistent.eml"}},
		{"bad client", []string{wrong, "--client", "here", "--rcpt", "bob@rcpt.test"}, 2, []string{`--client "here" is no IP address`}},
		{"a folder", []string{filepath.Dir(wrong), "--rcpt", "bob@rcpt.test"}, 2, []string{"is a folder, and a message is wanted"}},
		{"an empty file", []string{"/dev/null", "--rcpt", "bob@rcpt.test"}, 2, []string{"/dev/null is empty, and a message is wanted"}},
		{"no file named", []string{"--rcpt", "bob@rcpt.test"}, 2, []string{"explain: which file?"}},
		{"no Return-Path", []string{noPath, "--rcpt", "bob@rcpt.test"}, 0,
			[]string{"sender      <> (the null sender, since the file has no Return-Path: name another one with --from), X-Auth-Key fields: 1", "skipped (null-sender)"}},
		{"byte order mark", []string{marked, "--rcpt", "bob@rcpt.test"}, 0, []string{"sender      <alice@pass.test> (Return-Path)", "result      pass for alice@pass.test"}},
		{"said sender", []string{noPath, "--from", "alice@pass.test", "--rcpt", "bob@rcpt.test"}, 0, []string{"sender      <alice@pass.test> (--from)", "result      pass"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runMilter(t, "", append([]string{"explain", "--config", conf}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, part := range tt.output {
				if !strings.Contains(out, part) {
					t.Errorf("output lacks %q", part)
				}
			}
			if strings.Contains(out, key) || strings.Contains(out, "wrongkey") {
				t.Error("a key is in the output")
			}
			if t.Failed() {
				t.Logf("output:\n%s", out)
			}
			if tt.code == 2 {
				return
			}
			asJSON, _ := runMilter(t, "", append([]string{"explain", "--json", "--config", conf}, tt.args...)...)
			var v struct {
				Class, Action string
				Envelope      struct{ Result string }
			}
			if err := json.Unmarshal([]byte(asJSON), &v); err != nil || v.Class == "" || v.Action == "" || v.Envelope.Result == "" {
				t.Errorf("JSON %v: %s", err, asJSON)
			}
		})
	}
	if n := len(mustTold(t, w)); n != 0 {
		t.Errorf("%d notices were sent by a dry run", n)
	}
}

func mustTold(t *testing.T, w *lab.World) []string {
	t.Helper()
	told, err := w.Told.Deliveries()
	must(t, err)
	var all []string
	for _, m := range told {
		all = append(all, fmt.Sprintf("%s %s", m.Recipient, m.Get("Subject")))
	}
	return all
}
