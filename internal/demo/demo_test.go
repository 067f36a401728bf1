package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/internal/testmta"
)

// TestDemo plays both parts, on Postfix and where none can be installed.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "github.com/authkey/authkey/cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := programs{filepath.Join(dir, "authkey-milter"), filepath.Join(dir, "authkey-server")}
	for name, builtin := range map[string]bool{"Postfix at": false, "built-in": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := run(t.Context(), &out, p, builtin); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range []string{name, "All 14 messages as they should be", "All 10 steps as they should be, and none of the 4 keys survived"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
		})
	}
}

const result = "Authentication-Results: mx.b.example;\r\n\tx-authkey=pass\r\n smtp.mailfrom=" + alice + "\r\n"

// TestCompare finds each thing that may be wrong with a message.
func TestCompare(t *testing.T) {
	const agent = "X-Auth-Agent: smtp; authkey/1\r\n"
	good := trial{home: &site{}, from: alice, note: "key-attached", verdict: "pass", outcome: isDelivered}
	direct := good
	direct.home, direct.note = nil, ""
	refused := trial{from: alice, verdict: "fail required", outcome: keyMissing}
	for _, tt := range []struct {
		name    string
		trial   trial
		event   event
		bytes   string
		want    int
		because string
	}{
		{"as it should be", good, event{gotNote: "key-attached", gotVerdict: "pass", gotOutcome: isDelivered}, agent + result, 0, ""},
		{"refused as it should be", refused, event{gotVerdict: "fail required", gotOutcome: keyMissing}, "", 0, ""},
		{"no key attached", good, event{gotNote: "no-login", gotVerdict: "pass", gotOutcome: isDelivered}, agent + result, 1, "sender's milter"},
		{"another verdict", refused, event{gotVerdict: "nokey", gotOutcome: keyMissing}, "", 1, "recipient's milter"},
		{"got through", refused, event{gotVerdict: "fail required", gotOutcome: isDelivered}, "", 1, "outcome"},
		{"no result in the mailbox", direct, event{gotVerdict: "pass", gotOutcome: isDelivered}, "Subject: x\r\n", 1, "result"},
		{"an agent for a stranger", direct, event{gotVerdict: "pass", gotOutcome: isDelivered}, agent + result, 1, "X-Auth-Agent"},
		{"a key field", direct, event{gotVerdict: "pass", gotOutcome: isDelivered}, "x-auth-key: old\r\n" + result, 1, "a key was delivered"},
		{"a key elsewhere", direct, event{gotVerdict: "pass", gotOutcome: isDelivered}, result + "\r\nSECRET", 1, "a key was delivered"},
	} {
		e := tt.event
		e.trial = tt.trial
		e.compare(found{bytes: []byte(tt.bytes)}, []string{"SECRET"})
		if len(e.faults) != tt.want || !strings.Contains(strings.Join(e.faults, "\n"), tt.because) {
			t.Errorf("%s: %q", tt.name, e.faults)
		}
	}
}

func TestWithKey(t *testing.T) {
	left := leftovers{texts: map[string]string{"a log": "from=x", "message 2": "… ONE …", "message 1": "TWO"}}
	if diff := cmp.Diff([]string{"a key is in message 1", "a key is in message 2"}, left.withKey([]string{"ONE", "TWO"})); diff != "" {
		t.Error(diff)
	}
	if faults := left.withKey([]string{"THREE"}); faults != nil {
		t.Error(faults)
	}
}

func TestVerdictOf(t *testing.T) {
	for line, want := range map[string]string{
		`result=pass reason="" from_result=pass`:                        "pass",
		`result=fail reason=required from_result=fail`:                  "fail required",
		`result=pass reason="" as=127.0.0.1:7425 from_result=fail`:      "pass, From fail",
		`result=skipped reason=submission action=accept note=x rcpts=1`: "skipped submission",
	} {
		if got := verdictOf(logfmt(line)); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestFieldOf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Other: Name: x\r\nName: a\r\n\tb\r\n c\r\nNext: d\r\n", "a b c"},
		{"Name: a\n b", "a b"},
		{"Name: a\n", "a"},
		{"X-Name: a\n", ""},
	} {
		if got := fieldOf(tt.text, "Name"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestBounceOf(t *testing.T) {
	const bounce = "Subject: Undelivered Mail\n\nDiagnostic-Code: smtp; 550 5.7.1 Sender address not authenticated:\n    AuthKey missing\n\nFrom: x\nSubject: letter 7\n\n"
	all := []testmta.Message{
		{Raw: []byte(bounce), Sender: mallory, Recipient: bob}, // somebody's quotation
		{Raw: []byte(bounce), Recipient: alice},
	}
	if got := bounceOf("letter 7", all); got.outcome != keyMissing || got.bounce != alice {
		t.Errorf("%+v", got)
	}
	if got := bounceOf("letter", all); got.outcome != "" {
		t.Errorf("%+v", got)
	}
}

// TestParse: a message that went through the built-in front can go through it again.
func TestParse(t *testing.T) {
	const message = "Authentication-Results: mx;\r\n\tx-authkey=pass\r\nSubject: a: b\r\n\r\nHello.\r\n\r\nBye.\r\n"
	fields, body := parse(message)
	if got := string(front.Outcome{Header: fields, Body: body}.Bytes()); got != message || len(fields) != 2 {
		t.Errorf("%q: %d fields, %q", message, len(fields), got)
	}
}
