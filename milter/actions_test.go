package milter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

var everyAction = fakePreferences{
	"accept@rcpt.test":         {Actions: policy.Actions{Fail: policy.Accept}},
	"mark@rcpt.test":           {Actions: policy.Actions{Fail: policy.Mark}},
	"quarantine@rcpt.test":     {Actions: policy.Actions{Fail: policy.Quarantine}},
	"discard@rcpt.test":        {Actions: policy.Actions{Fail: policy.Discard}},
	"discard-notify@rcpt.test": {Actions: policy.Actions{Fail: policy.DiscardNotify}, Language: "de"},
	"reject@rcpt.test":         {Actions: policy.Actions{Fail: policy.Reject}},
	"reject-notify@rcpt.test":  {Actions: policy.Actions{Fail: policy.RejectNotify}},
}

// swap puts an Engine with preferences and other options in force.
func (r *rig) swap(opts policy.Options, prefs Preferences) {
	settings := defaultSettings()
	r.srv.Swap(&Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(opts),
		Notifier: r.told, Preferences: prefs})
}

func forged(rcpts ...string) sent {
	for i := range rcpts {
		rcpts[i] += "@rcpt.test"
	}
	return sent{from: "alice@a.test", rcpts: rcpts, fields: []field{{"From", "alice@a.test"}, {"X-Auth-Key", "wrong"}}}
}

// TestActionPerRecipient: one message, and each recipient gets what it wants.
func TestActionPerRecipient(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{Readdress: "{local}+spam@{domain}", QuarantineMailbox: "q@rcpt.test"}, everyAction)
	got := r.mustSend(r.connect(), forged("accept", "mark", "quarantine", "discard", "discard-notify", "reject", "reject-notify"))
	if got.action != gomilter.ActionAccept {
		t.Fatalf("%v %q", got.action, got.reply)
	}
	slices.Sort(got.rcpts)
	if want := []string{"accept@rcpt.test", "mark+spam@rcpt.test", "q@rcpt.test"}; !slices.Equal(got.rcpts, want) {
		t.Errorf("recipients afterwards %q, want %q", got.rcpts, want)
	}
	var dsn, notices []string
	for _, f := range r.told.failures {
		dsn = append(dsn, f.Recipient)
		if f.Reply.Text != "Sender address not authenticated: AuthKey invalid" {
			t.Errorf("DSN about %s says %q", f.Recipient, f.Reply.Text)
		}
	}
	for _, n := range r.told.notices {
		notices = append(notices, fmt.Sprintf("%s %s %v", n.Recipient, n.Language, n.Refused))
	}
	if want := []string{"reject@rcpt.test", "reject-notify@rcpt.test"}; !slices.Equal(dsn, want) {
		t.Errorf("DSNs about %q, want %q", dsn, want)
	}
	if want := []string{"discard-notify@rcpt.test de false", "reject-notify@rcpt.test  true"}; !slices.Equal(notices, want) {
		t.Errorf("notices to %q, want %q", notices, want)
	}
	for _, o := range r.told.asked {
		if text := fmt.Sprintf("%+v", o); strings.Contains(text, "wrong") {
			t.Errorf("the notifier was shown the key: %s", text)
		}
		if o.MTA != "mx.test" || o.QueueID != "QID1" {
			t.Errorf("told about message %s of MTA %q", o.QueueID, o.MTA)
		}
	}
	for _, want := range []string{"actions=", "discard@rcpt.test=discard", "by=pref"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, r.log)
		}
	}
}

// TestNoticesGoBeforeTheVerdict: what cannot be handed over makes the message come
// again, changed in nothing.
func TestNoticesGoBeforeTheVerdict(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{}, everyAction)
	s := r.connect()
	r.told.fail = errors.New("disk full")
	got := r.mustSend(s, forged("accept", "discard-notify"))
	if got.reply != filterErrorText || len(got.rcpts) != 2 {
		t.Errorf("%q, recipients %q; want %q and nothing changed", got.reply, got.rcpts, filterErrorText)
	}
	if !strings.Contains(r.log.String(), "reason=not-handed-over") || !strings.Contains(r.log.String(), "disk full") {
		t.Errorf("log: %s", r.log)
	}
	r.told.fail = nil
	if got := r.mustSend(s, forged("accept", "discard-notify")); got.action != gomilter.ActionAccept || len(r.told.notices) != 1 {
		t.Errorf("the next time: %v %q, %d notices", got.action, got.reply, len(r.told.notices))
	}
}

// TestQuarantineMailbox: who looks there is told for whom the message was, and why.
func TestQuarantineMailbox(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{QuarantineMailbox: "q@rcpt.test"}, everyAction)
	in := forged("quarantine")
	in.fields = append(in.fields, field{"X-Authkey-Quarantine", "forged@rcpt.test; pass"})
	got := r.mustSend(r.connect(), in)
	if !slices.Equal(got.rcpts, []string{"q@rcpt.test"}) || got.held != "" {
		t.Errorf("recipients %q, held %q", got.rcpts, got.held)
	}
	got.fields = slices.DeleteFunc(got.fields, func(f field) bool { return f.name != "X-Authkey-Quarantine" })
	if want := []field{{"X-Authkey-Quarantine", "quarantine@rcpt.test; fail (invalid-key)"}}; !slices.Equal(got.fields, want) {
		t.Errorf("%q, want %q", got.fields, want)
	}
}

// TestTestModePerRecipient: nothing is changed, and the log says what each one would get.
func TestTestModePerRecipient(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{Test: true}, everyAction)
	got := r.mustSend(r.connect(), forged("accept", "reject"))
	if got.action != gomilter.ActionAccept || len(got.rcpts) != 2 || len(r.told.failures) != 0 {
		t.Errorf("%v, recipients %q, %d DSNs", got.action, got.rcpts, len(r.told.failures))
	}
	if want := `would="accept@rcpt.test=accept,reject@rcpt.test=reject"`; !strings.Contains(r.log.String(), want) ||
		strings.Contains(r.log.String(), "actions=") {
		t.Errorf("log: %s", r.log)
	}
}

// TestDSNHasTheParameters of its recipient's RCPT, also where those before had none.
func TestDSNHasTheParameters(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{}, everyAction)
	s := r.connect()
	if _, err := s.Mail("alice@a.test", ""); err != nil {
		t.Fatal(err)
	}
	const args = "NOTIFY=FAILURE ORCPT=rfc822;r@rcpt.test"
	for _, rcpt := range []struct{ address, args string }{{"accept@rcpt.test", ""}, {"reject@rcpt.test", args}, {"reject-notify@rcpt.test", ""}} {
		if _, err := s.Rcpt(rcpt.address, rcpt.args); err != nil {
			t.Fatal(err)
		}
	}
	if err := content(s, field{"X-Auth-Key", "wrong"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.End(); err != nil {
		t.Fatal(err)
	}
	got := r.told.failures
	if len(got) != 2 || got[0].RcptArgs != args || got[1].RcptArgs != "" {
		t.Errorf("%+v", got)
	}
}

// TestNoDSNNoSilence: a refusing recipient whose sender may not be told gets the
// message marked, unless the sender asked not to be told.
func TestNoDSNNoSilence(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{}, everyAction)
	r.told.allow = false
	s := r.connect()
	got := r.mustSend(s, forged("accept", "reject"))
	if len(got.rcpts) != 2 || !hasField(got.fields, "X-Spam-Flag") || !strings.Contains(r.log.String(), "no-dsn") {
		t.Errorf("recipients %q, header %q\n%s", got.rcpts, got.fields, r.log)
	}
	if _, err := s.Mail("alice@a.test", ""); err != nil {
		t.Fatal(err)
	}
	for _, rcpt := range []struct{ address, args string }{{"accept@rcpt.test", ""}, {"reject@rcpt.test", "NOTIFY=NEVER"}} {
		if _, err := s.Rcpt(rcpt.address, rcpt.args); err != nil {
			t.Fatal(err)
		}
	}
	if err := content(s, field{"X-Auth-Key", "wrong"}); err != nil {
		t.Fatal(err)
	}
	mods, _, err := s.End()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(mods, func(m gomilter.ModifyAction) bool {
		return m.Type == gomilter.ActionDelRcpt && m.Rcpt == "<reject@rcpt.test>"
	}) || len(r.told.failures) != 0 {
		t.Errorf("NOTIFY=NEVER: %v, %d DSNs", mods, len(r.told.failures))
	}
	// Nor is there anybody who could tell the sender.
	e := testEngine()
	e.Preferences = fakePreferences{"reject@rcpt.test": {Actions: policy.Actions{NoKey: policy.Reject}}}
	e.prepare()
	msg := newMessage(e, origin{}, "", "", "alice@a.test", "")
	msg.addRecipient("accept@rcpt.test", "accept@rcpt.test", "")
	msg.addRecipient("reject@rcpt.test", "reject@rcpt.test", "")
	out := handler{abilities: policy.Abilities{DeleteRecipient: true}}.decide(t.Context(), msg)
	if !out.delivers() || !out.plan.Mark || out.plan.Notes&policy.NoteNoDSN == 0 {
		t.Errorf("without a notifier: %+v, %+v", out.own, out.plan)
	}
}

// TestSeparateTransactions: who differs from the first recipient hears 452.
func TestSeparateTransactions(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	r.swap(policy.Options{Separate: true}, everyAction)
	s := r.connect()
	if _, err := s.Mail("alice@a.test", ""); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rcpt string
		code uint16
	}{{"reject@rcpt.test", 0}, {"accept@rcpt.test", 452}, {"REJECT@rcpt.test", 0}, {"nobody@rcpt.test", 452}} {
		act, err := s.Rcpt(tt.rcpt, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := act.SMTPCode; got != tt.code && !(tt.code == 0 && got < 300) {
			t.Errorf("RCPT %s: %d %s, want %d", tt.rcpt, got, act.SMTPReply, tt.code)
		}
	}
	if err := s.Abort(nil); err != nil {
		t.Fatal(err)
	}
	// Two in one transaction that agree share its verdict.
	if got := r.mustSend(s, forged("reject", "reject+tag")); got.code != 250 && got.code != 550 {
		t.Errorf("%d %q", got.code, got.reply)
	}
	// Our own users' mail is not checked, and nobody's preference counts for it.
	e := testEngine()
	e.Preferences = everyAction
	e.prepare()
	for login, want := range map[string]bool{"": true, "alice": false} {
		msg := newMessage(e, origin{login: login}, "", "", "alice@a.test", "")
		msg.addRecipient("reject@rcpt.test", "reject@rcpt.test", "")
		first := msg.needsOwnTransaction(t.Context())
		msg.addRecipient("accept@rcpt.test", "accept@rcpt.test", "")
		if second := msg.needsOwnTransaction(t.Context()); first || second != want {
			t.Errorf("login %q: 452 to the first %v, to the second %v, want %v", login, first, second, want)
		}
	}
	// Without the option the MTA is not made to wait at RCPT.
	r.swap(policy.Options{}, everyAction)
	plain := r.connect()
	if plain.ProtocolOption(gomilter.OptNoRcptReply) == false {
		t.Error("replies to RCPT are asked for without need")
	}
}

func TestPreferencesThatFail(t *testing.T) {
	for _, deferring := range []bool{false, true} {
		r := newRig(t, defaultSettings(), policy.Options{})
		r.swap(policy.Options{DeferUnknown: deferring}, everyAction)
		got := r.mustSend(r.connect(), forged("unknowable"))
		if deferring && got.code != 451 || !deferring && got.action != gomilter.ActionAccept {
			t.Errorf("on_error tempfail %v: %d %q", deferring, got.code, got.reply)
		}
		if !strings.Contains(r.log.String(), "preference-failed") || !strings.Contains(r.log.String(), "the directory is on fire") {
			t.Errorf("log: %s", r.log)
		}
	}
}
