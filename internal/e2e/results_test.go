package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// oneOfEach is a message for each result, and what is said of it.
type oneOfEach struct {
	name, from, key string // key: "" none, "right" the address's own, else as it is
	result, reason  string
	authRes         string // behind "mx.test; "
	rejected        string // the reply where the action is reject
}

var everyResult = []oneOfEach{
	{"pass", "alice@" + withAS, "right", "pass", "", "x-authkey=pass smtp.mailfrom=alice@pass.test",
		"Message refused by policy"},
	{"fail", "alice@" + withAS, "wrongkey", "fail", "invalid-key", `x-authkey=fail reason="invalid-key" smtp.mailfrom=alice@pass.test`,
		"Sender address not authenticated: AuthKey invalid"},
	{"required", "alice@" + requiring, "", "fail", "required", `x-authkey=fail reason="required" smtp.mailfrom=alice@req.test`,
		"Sender address not authenticated: AuthKey missing"},
	{"nokey", "alice@" + withAS, "", "nokey", "", `x-authkey=none reason="no AuthKey" smtp.mailfrom=alice@pass.test`,
		"Sender address not authenticated: AuthKey missing"},
	{"none", "alice@" + withoutAS, "whatever", "none", "no-as", `x-authkey=none reason="no-as" smtp.mailfrom=alice@none.test`,
		"Sender address not authenticated: no usable Authentication Server"},
	{"temperror", "alice@" + downAS, "right", "temperror", "as-", `x-authkey=temperror reason="as-`,
		"Sender address not authenticated: no usable Authentication Server"},
	{"permerror", "alice@" + brokenAS, "whatever", "permerror", "as-record", `x-authkey=permerror reason="as-record" smtp.mailfrom=alice@broken.test`,
		"Sender address not authenticated: no usable Authentication Server"},
}

const everyAction = "accept mark quarantine tempfail discard discard-notify reject reject-notify"

// TestEveryResultAndAction sends every result under every action through real
// MTAs, and reads what became of it. An MTA and its milter stay for all actions.
func TestEveryResultAndAction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mtaKind := range mtas {
		t.Run(mtaKind.name, func(t *testing.T) {
			t.Parallel()
			milter := startMilter(t, w, "")
			mta := startMTA(t, mtaKind.start, milter.Socket)
			for action := range strings.FieldsSeq(everyAction) {
				t.Run(action, func(t *testing.T) {
					var yaml strings.Builder
					yaml.WriteString("policy:\n")
					for _, result := range []string{"pass", "fail", "nokey", "none", "temperror", "permerror"} {
						fmt.Fprintf(&yaml, "  %s: %s\n", result, action)
					}
					must(t, milter.Configure(yaml.String()))
					(&office{milter: milter}).reload(t)
					c := dialSMTP(t, mta)
					for _, each := range everyResult {
						t.Run(each.name, func(t *testing.T) {
							checkOne(t, w, milter, mta, c, each, action)
						})
					}
				})
			}
		})
	}
}

func checkOne(t *testing.T, w *lab.World, milter *lab.Milter, mta testmta.MTA, c *testmta.Client, each oneOfEach, action string) {
	key := each.key
	if key == "right" {
		key = mustKey(t, w, each.from)
	}
	m := &mail{from: each.from}
	var removed []string
	if key != "" {
		m.fields = "X-Auth-Key: " + key + "\r\n"
		removed = []string{m.fields}
	}
	before := len(milter.Log())
	out := sendMail(t, c, m)
	final := fmt.Sprintf("%d %s", out.Final.Code, out.Final.Text)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var line string
	must(t, testdaemon.Poll(ctx, func() (bool, error) { // its own line, not one of the messages before
		_, line, _ = strings.Cut(milter.Log()[before:], "msg=message ")
		return strings.Contains(line, "\n"), nil
	}))
	for _, want := range []string{"from=" + each.from, "result=" + each.result, "action=" + action, "qid=", " client=127.0.0.1 ", " reason=" + each.reason, " by=default ", " rcpts=1 "} {
		if !strings.Contains(line, want) && !(each.reason == "" && strings.Contains(line, `reason=""`)) {
			t.Errorf("log line lacks %q:\n%s", want, line)
		}
	}
	if strings.Contains(line, ` qid="" `) {
		t.Errorf("log line without queue id:\n%s", line)
	}
	if key != "" && strings.Contains(line, key) {
		t.Errorf("the key is in the log:\n%s", line)
	}

	switch action {
	case "reject", "reject-notify":
		if want := "550 5.7.1 " + each.rejected; final != want {
			t.Errorf("reply %q, want %q", final, want)
		}
		notDelivered(t, mta, m)
	case "tempfail":
		if want := "451 4.7.1 AuthKey cannot be verified now, try again later"; final != want {
			t.Errorf("reply %q, want %q", final, want)
		}
		notDelivered(t, mta, m)
	case "discard", "discard-notify":
		if out.Final.Code != 250 {
			t.Errorf("reply %q, want 250", final)
		}
		notDelivered(t, mta, m)
	case "quarantine":
		checkHeld(t, mta, m, out, key)
	default:
		if out.Final.Code != 250 {
			t.Fatalf("reply %q, want 250", final)
		}
		got := delivered(t, mta, m)
		checkContent(t, got, m, removed...)
		if got := authRes(got); !strings.HasPrefix(got, "mx.test; "+each.authRes) {
			t.Errorf("Authentication-Results %q, want mx.test; %s", got, each.authRes)
		}
		wantAbove := 1
		if action == "mark" {
			wantAbove = 2
			if got.Get("X-Spam-Flag") != "YES" {
				t.Errorf("not marked:\n%s", got.Raw)
			}
		}
		if n := len(got.Above()); n != wantAbove {
			t.Errorf("%d fields above Received, want %d:\n%s", n, wantAbove, got.Raw)
		}
	}
}

// checkHeld looks for m in the MTA's quarantine, without its key.
func checkHeld(t *testing.T, mta testmta.MTA, m *mail, out testmta.Outcome, key string) {
	t.Helper()
	if out.Final.Code != 250 {
		t.Fatalf("reply %d %s, want 250", out.Final.Code, out.Final.Text)
	}
	held, err := mta.Held()
	must(t, err)
	for _, entry := range held {
		content, err := mta.Cat(entry.ID)
		must(t, err)
		if !strings.Contains(string(content), "Subject: "+m.subject+"\n") {
			continue
		}
		header, _, _ := strings.Cut(string(content), "\n\n")
		if strings.Contains(strings.ToLower(header), "x-auth-key:") || key != "" && strings.Contains(header, key) {
			t.Errorf("the key is in the held copy:\n%s", content)
		}
		if !strings.Contains(header, "x-authkey=") {
			t.Errorf("no result in the held copy:\n%s", content)
		}
		return
	}
	t.Errorf("not held; held are %+v", held)
}

// TestDefaults runs the milter as it is without a policy of its own, and in test
// mode.
func TestDefaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	enforcing := startMilter(t, w, "")
	testing_ := startMilter(t, w, "mode: test\npolicy: {fail: reject, nokey: discard}\n")
	postfix := mtas[0].start
	t.Run("enforce", func(t *testing.T) {
		mta := startMTA(t, postfix, enforcing.Socket)
		c := dialSMTP(t, mta)
		for _, each := range everyResult {
			action := "accept"
			if each.result == "fail" {
				action = "mark"
			}
			checkOne(t, w, enforcing, mta, c, each, action)
		}
		// A domain that says req=yes and cannot be asked is not waved through.
		m := &mail{from: "alice@" + strictly, fields: "X-Auth-Key: " + mustKey(t, w, "alice@"+strictly) + "\r\n"}
		if out := sendMail(t, c, m); out.Final.Code != 451 {
			t.Errorf("req=yes, AS down: %d %s, want 451", out.Final.Code, out.Final.Text)
		}
	})
	t.Run("test", func(t *testing.T) {
		mta := startMTA(t, postfix, testing_.Socket)
		c := dialSMTP(t, mta)
		for _, each := range everyResult {
			m := &mail{from: each.from}
			var removed []string
			if each.key != "" {
				m.fields = "X-Auth-Key: wrongkey\r\n"
				removed = []string{m.fields}
			}
			if out := sendMail(t, c, m); out.Final.Code != 250 {
				t.Errorf("%s: %d %s, want 250", each.name, out.Final.Code, out.Final.Text)
			}
			checkContent(t, delivered(t, mta, m), m, removed...)
		}
		for _, would := range []string{"would=reject", "would=discard", "would=accept"} {
			_, err := testing_.WaitLog(t.Context(), "action=accept", would)
			must(t, err)
		}
	})
}
