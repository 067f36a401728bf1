package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/program"
)

// check says what is set and has no effect, also in the files that are named.
func TestCheckIdle(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	prefs := write("prefs.yaml", "- {recipient: a@b.test, fail: reject}\n- {recipient: c@b.test, fail: tempfail}\n- {recipient: d@b.test, nokey: discard}\n")
	bad := write("bad.yaml", "- {recipient: '*@b.test', fail: reject}\n- {recipient: c@b.test, fial: mark}\n")
	large := write("large.pem", "")
	if err := os.Truncate(large, maxCAFile+1); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, yaml string
		code       int
		out        []string // parts
	}{
		{"nothing", "mode: test\n", 0, []string{" is right: 1 key set\n"}},
		{"an action that recipients cannot choose", "preferences: {source: 'file:" + prefs + "'}\n", 0,
			[]string{"warning: " + prefs + ": line 2: tempfail: has no effect: policy.allowed does not have it\n", "right: 1 key set"}},
		{"actions that they may not choose here", "preferences: {source: 'file:" + prefs + "'}\npolicy: {allowed: [accept]}\n", 0,
			[]string{"line 1: reject: has no effect", "line 2: tempfail: has no effect", "line 3: discard: has no effect"}},
		{"no such group", "socket: {group: authkey-no-such-group}\n", 78, []string{`milter.yaml:1: socket.group: "authkey-no-such-group" is no group of this machine; want `}},
		{"certificates without end", "verify: {ca_file: /dev/zero}\n", 78, []string{"verify.ca_file: /dev/zero: not a regular file"}},
		{"certificates of more octets than are read", "verify: {ca_file: " + large + "}\n", 78, []string{"verify.ca_file: " + large + ": longer than 16777216 octets"}},
		{"no certificate in the file", "verify: {ca_file: " + prefs + "}\n", 78, []string{"verify.ca_file: " + prefs + ": no certificate in it"}},
		{"a state folder that is a file", "notify: {state_dir: " + prefs + "}\n", 0, []string{"warning: notify.state_dir: " + prefs + " is no folder: what was sent is forgotten when the milter ends\n"}},
		{"no state folder", "notify: {state_dir: " + filepath.Join(dir, "none") + "}\n", 0, []string{"warning: notify.state_dir: stat " + filepath.Join(dir, "none") + ": no such file or directory"}},
		{"a file with several faults, each on a line", "mode: test\npreferences: {source: 'file:" + bad + "'}\n", 78,
			[]string{"milter.yaml:2: preferences.source: preferences: " + bad + ": line 1: ", "\n" + filepath.Join(dir, "milter.yaml") + ":2: preferences.source: " + bad + ": line 2: "}},
		{"a group by number", "socket: {group: '7'}\n", 0, nil},
		{"preferences that are not acted on", "preferences: {source: 'file:" + prefs + "', timeout: 1s, cache: 5m}\n", 0,
			[]string{"preferences.timeout: no effect yet\n", "preferences.cache: no effect yet\n"}},
		{"a rule that is there before", "policy:\n  rules:\n    - {sender: a.test, fail: reject}\n    - {sender: a.test, fail: mark}\n", 0,
			[]string{"warning: ", "milter.yaml:4: policy.rules[1].fail: has no effect: policy.rules[0] is for the same, and comes first\n"}},
		{"files that are not there", "mode: test\nverify:\n  ca_file: /none/ca\npreferences: {source: 'file:/none/prefs'}\n" +
			"attach:\n  domains: [{domain: a.test, source: 'secret:/none/s', addresses: any}]\nnotify: {template_dir: /none/t}\n", 78,
			[]string{"milter.yaml:3: verify.ca_file: open /none/ca: ", "milter.yaml:4: preferences.source: ", "milter.yaml:5: attach: domain a.test: ", "milter.yaml:7: notify: "}},
	} {
		config := write("milter.yaml", tc.yaml)
		var out bytes.Buffer
		code := self().Run(t.Context(), []string{"check", "--config", config}, nil, &out, &out, commands()...)
		ok := code == tc.code
		for _, part := range tc.out {
			ok = ok && strings.Contains(out.String(), part)
		}
		if !ok {
			t.Errorf("%s: exit %d\n%s\nwant %q", tc.name, code, out.String(), tc.out)
		}
	}
	var out bytes.Buffer
	if _, err := os.Stat(self().DefaultConfig); err == nil {
		return // this machine has one, and check reads it
	}
	if code := self().Run(t.Context(), []string{"check"}, nil, &out, &out, commands()...); code != program.Config || out.String() != "/etc/authkey/milter.yaml: does not exist\n" {
		t.Errorf("the default file is missing: exit %d, %s", code, out.String())
	}
}
