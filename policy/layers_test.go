package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/authkey/authkey/verifier"
)

// rules for TestWhoDecides, so that each row adds one thing to what is known.
var layerRules = []Rule{
	0:  {Recipient: "bob@x.test", Actions: Actions{Fail: Reject}},
	1:  {Recipient: "x.test", Actions: Actions{Fail: Quarantine, NoKey: Mark}},
	2:  {Recipient: ".x.test", Actions: Actions{Fail: Discard}},
	3:  {Recipient: ".sub.x.test", Actions: Actions{Fail: DiscardNotify}},
	4:  {Recipient: ".test", Actions: Actions{Fail: RejectNotify, None: Mark}},
	5:  {Sender: "bank.test", Actions: Actions{Fail: Reject, PermError: Mark}},
	6:  {Sender: "good@bank.test", Actions: Actions{Fail: Accept}},
	7:  {Sender: ".bank.test", Actions: Actions{Fail: Discard}},
	8:  {Recipient: "both@y.org", Sender: "bank.test", Actions: Actions{Fail: DiscardNotify}},
	9:  {Recipient: "both@y.org", Actions: Actions{Fail: Mark, NoKey: Mark}},
	10: {Recipient: "both@y.org", Sender: "good@bank.test", Actions: Actions{NoKey: Discard}},
	11: {Recipient: "y.org", Sender: "bank.test", Actions: Actions{Fail: Quarantine}},
	12: {Recipient: "bob@x.test", Actions: Actions{Fail: Accept, NoKey: Reject}},
	13: {Recipient: "tag+a@y.org", Actions: Actions{Fail: Discard}},
	14: {Recipient: "tag@y.org", Actions: Actions{Fail: Reject, NoKey: Mark}},
	15: {Recipient: "bob@[192.0.2.1]", Actions: Actions{Fail: Reject}},
	16: {Recipient: "postmaster@", Actions: Actions{Fail: Accept}}, // as RCPT TO:<postmaster> would be, were it written with an @
}

func TestWhoDecides(t *testing.T) {
	pref := func(w Actions) Preference { return Preference{Actions: w} }
	tests := []struct {
		name   string
		rcpt   Recipient
		sender string
		status verifier.Status
		want   Action
		by     Layer
		rule   int
	}{
		{"preference before everything", Recipient{Address: "bob@x.test", Preference: pref(Actions{Fail: Discard})}, "a@bank.test", verifier.Fail, Discard, ByPreference, -1},
		{"unset preference asks the next", Recipient{Address: "bob@x.test", Preference: pref(Actions{NoKey: Discard})}, "a@bank.test", verifier.Fail, Reject, ByRecipientRule, 0},
		{"address before domain and sender", Recipient{Address: "bob@x.test"}, "a@bank.test", verifier.Fail, Reject, ByRecipientRule, 0},
		{"equals: the first that says something", Recipient{Address: "bob@x.test"}, "", verifier.NoKey, Reject, ByRecipientRule, 12},
		{"case of domain and local part", Recipient{Address: "BOB@X.Test"}, "", verifier.Fail, Reject, ByRecipientRule, 0},
		{"folded form counts where there is one", Recipient{Address: `"bob"@x.test`, Folded: "bob@x.test"}, "", verifier.Fail, Reject, ByRecipientRule, 0},
		{"domain", Recipient{Address: "eve@x.test"}, "", verifier.Fail, Quarantine, ByDomainRule, 1},
		{"domain is not its subdomain", Recipient{Address: "eve@sub.x.test"}, "", verifier.Fail, Discard, ByDomainRule, 2},
		{"longer suffix first", Recipient{Address: "eve@deep.sub.x.test"}, "", verifier.Fail, DiscardNotify, ByDomainRule, 3},
		{"many labels down", Recipient{Address: "eve@a.b.c.sub.x.test"}, "", verifier.Fail, DiscardNotify, ByDomainRule, 3},
		{"suffix begins at a label", Recipient{Address: "eve@notx.test"}, "", verifier.Fail, RejectNotify, ByDomainRule, 4},
		{"suffix that is unset asks a shorter one", Recipient{Address: "eve@deep.sub.x.test"}, "", verifier.None, Mark, ByDomainRule, 4},
		{"sender's domain", Recipient{Address: "z@z.org"}, "a@bank.test", verifier.Fail, Reject, BySenderRule, 5},
		{"sender's address before its domain", Recipient{Address: "z@z.org"}, "good@bank.test", verifier.Fail, Accept, BySenderRule, 6},
		{"sender's sub-address", Recipient{Address: "z@z.org"}, "good+1@bank.test", verifier.Fail, Accept, BySenderRule, 6},
		{"sender's case", Recipient{Address: "z@z.org"}, "good@bank.test", verifier.PermError, Mark, BySenderRule, 5},
		{"sender's subdomain", Recipient{Address: "z@z.org"}, "good@mail.bank.test", verifier.Fail, Discard, BySenderRule, 7},
		{"both, the first in the list", Recipient{Address: "both@y.org"}, "a@bank.test", verifier.Fail, DiscardNotify, ByRecipientRule, 8},
		{"both, but only one matches", Recipient{Address: "both@y.org"}, "a@other.test", verifier.Fail, Mark, ByRecipientRule, 9},
		{"both, later in the list than recipient only", Recipient{Address: "both@y.org"}, "good@bank.test", verifier.NoKey, Mark, ByRecipientRule, 9},
		{"both ranks with its recipient", Recipient{Address: "z@y.org"}, "good@bank.test", verifier.Fail, Quarantine, ByDomainRule, 11},
		{"null sender matches no sender", Recipient{Address: "z@z.org"}, "", verifier.Fail, Mark, ByDefault, -1},
		{"sub-address of its own", Recipient{Address: "tag+a@y.org"}, "", verifier.Fail, Discard, ByRecipientRule, 13},
		{"sub-address, unset, asks its user", Recipient{Address: "tag+a@y.org"}, "", verifier.NoKey, Mark, ByRecipientRule, 14},
		{"sub-address falls back to its user", Recipient{Address: "tag+b+c@y.org"}, "", verifier.Fail, Reject, ByRecipientRule, 14},
		{"user is not its sub-address", Recipient{Address: "tag@y.org"}, "", verifier.Fail, Reject, ByRecipientRule, 14},
		{"a plus in front begins no tag", Recipient{Address: "+tag@y.org"}, "", verifier.Fail, Mark, ByDefault, -1},
		{"domain literal", Recipient{Address: "bob@[192.0.2.1]"}, "", verifier.Fail, Reject, ByRecipientRule, 15},
		{"no domain", Recipient{Address: "Postmaster"}, "", verifier.Fail, Accept, ByRecipientRule, 16},
		{"nobody says anything", Recipient{Address: "z@z.org"}, "a@b.org", verifier.Fail, Mark, ByDefault, -1},
		{"skipped asks nobody", Recipient{Address: "bob@x.test", Preference: pref(Actions{Pass: Discard, Fail: Discard})}, "", verifier.Skipped, Accept, ByDefault, -1},
	}
	p := New(Options{Rules: layerRules})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := Envelope{Sender: tt.sender, Recipients: []Recipient{tt.rcpt}}
			plan, _ := p.Explain(env, result(tt.status))
			got := plan.Recipients[0]
			if got.Chosen != tt.want || got.By != tt.by || got.Rule != tt.rule {
				t.Errorf("%v by %v, rule %d; want %v by %v, rule %d", got.Chosen, got.By, got.Rule, tt.want, tt.by, tt.rule)
			}
		})
	}
}

func TestAllowedFloorAndUnknown(t *testing.T) {
	all := func(a Action) Preference { return Preference{Actions: Actions{a, a, a, a, a, a}} }
	rule := []Rule{{Recipient: "x.test", Actions: Actions{Fail: Quarantine}}}
	tests := []struct {
		name string
		opts Options
		rcpt Recipient
		want Action
		by   Layer
		note string
	}{
		{"tempfail is not for recipients", Options{Rules: rule}, Recipient{Preference: all(TempFail)}, Quarantine, ByDomainRule, "preference-not-allowed"},
		{"unless the administrator says so", Options{Rules: rule, Allowed: []Action{TempFail}}, Recipient{Preference: all(TempFail)}, TempFail, ByPreference, ""},
		{"all else is, by default", Options{}, Recipient{Preference: all(RejectNotify)}, RejectNotify, ByPreference, ""},
		{"not allowed asks the next layer", Options{Rules: rule, Allowed: []Action{Accept}}, Recipient{Preference: all(Reject)}, Quarantine, ByDomainRule, "preference-not-allowed"},
		{"nothing is allowed", Options{Allowed: []Action{}}, Recipient{Preference: all(Accept)}, Mark, ByDefault, "preference-not-allowed"},
		{"one that there is not", Options{Rules: rule}, Recipient{Preference: all(RejectNotify + 1)}, Quarantine, ByDomainRule, "preference-not-allowed"},
		{"rules may do what recipients may not", Options{Rules: rule, Allowed: []Action{}}, Recipient{}, Quarantine, ByDomainRule, ""},
		{"floor raises a preference", Options{Floor: Actions{Fail: Mark}}, Recipient{Preference: all(Accept)}, Mark, ByFloor, ""},
		{"floor leaves what is stricter", Options{Floor: Actions{Fail: Mark}}, Recipient{Preference: all(Discard)}, Discard, ByPreference, ""},
		{"floor leaves its equal", Options{Floor: Actions{Fail: Mark}}, Recipient{Preference: all(Mark)}, Mark, ByPreference, ""},
		{"floor raises a rule", Options{Rules: rule, Floor: Actions{Fail: Reject}}, Recipient{}, Reject, ByFloor, ""},
		{"floor raises the default", Options{Floor: Actions{Fail: Discard}}, Recipient{}, Discard, ByFloor, ""},
		{"floor of another result", Options{Floor: Actions{Pass: Reject}}, Recipient{}, Mark, ByDefault, ""},
		{"unknown preference asks the next layer", Options{Rules: rule}, Recipient{PreferenceFailed: true}, Quarantine, ByDomainRule, "preference-failed"},
		{"or defers", Options{Rules: rule, DeferUnknown: true}, Recipient{PreferenceFailed: true}, TempFail, ByPreference, "preference-failed"},
		{"and the floor does not lose what is deferred", Options{DeferUnknown: true, Floor: Actions{Fail: Discard}}, Recipient{PreferenceFailed: true}, TempFail, ByPreference, "preference-failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.rcpt.Address = "bob@x.test"
			env := Envelope{Recipients: []Recipient{tt.rcpt}, Abilities: Abilities{true, true, true}}
			got := New(tt.opts).Decide(env, result(verifier.Fail))
			if got.Action != tt.want || got.By != tt.by || got.Notes.String() != tt.note {
				t.Errorf("%v by %v, note %q; want %v by %v, note %q", got.Action, got.By, got.Notes, tt.want, tt.by, tt.note)
			}
		})
	}
}

func TestFromResult(t *testing.T) {
	foreign := verifier.Result{Status: verifier.Fail, Reason: "key-is-envelope-senders"}
	tests := []struct {
		name     string
		opts     Options
		envelope verifier.Result
		from     verifier.Result
		want     Action
		by       Layer
		text     string
	}{
		{"reported only", Options{}, result(verifier.Pass), result(verifier.Fail), Accept, ByDefault, ""},
		{"fail marks", Options{EnforceFrom: true}, result(verifier.Pass), result(verifier.Fail), Mark, ByFrom, ""},
		{"all else is accepted", Options{EnforceFrom: true}, result(verifier.Pass), result(verifier.NoKey), Accept, ByDefault, ""},
		{"also what cannot be told now", Options{EnforceFrom: true}, result(verifier.None),
			verifier.Result{Status: verifier.TempError, Required: true}, Accept, ByDefault, ""},
		{"not checked", Options{EnforceFrom: true, From: Actions{Fail: Reject}}, result(verifier.Pass), verifier.Result{}, Accept, ByDefault, ""},
		{"skipped", Options{EnforceFrom: true, From: Actions{Fail: Reject}}, result(verifier.Pass), result(verifier.Skipped), Accept, ByDefault, ""},
		{"the stricter wins", Options{EnforceFrom: true, From: Actions{Fail: Reject}}, result(verifier.NoKey), result(verifier.Fail), Reject, ByFrom, textFail},
		{"whichever it is", Options{EnforceFrom: true, From: Actions{Fail: Mark}, Defaults: Actions{NoKey: Reject}},
			result(verifier.NoKey), result(verifier.Fail), Reject, ByDefault, textNoKey},
		{"equals: the envelope's", Options{EnforceFrom: true, From: Actions{Fail: Reject}, Defaults: Actions{NoKey: Reject}},
			result(verifier.NoKey), result(verifier.Fail), Reject, ByDefault, textNoKey},
		{"bounces have a From too", Options{EnforceFrom: true, From: Actions{Fail: Reject}}, result(verifier.Skipped), result(verifier.Fail), Reject, ByFrom, textFail},
		{"another's key is none", Options{EnforceFrom: true, From: Actions{Fail: Reject}}, result(verifier.Pass), foreign, Reject, ByFrom, textNoKey},
		{"deferred", Options{EnforceFrom: true, From: Actions{TempError: TempFail}}, result(verifier.None), result(verifier.TempError), TempFail, ByFrom, textTempFail},
		{"over a preference", Options{EnforceFrom: true, From: Actions{Fail: Discard}, Rules: []Rule{{Recipient: "bob@x.test", Actions: Actions{Pass: Accept}}}},
			result(verifier.Pass), result(verifier.Fail), Discard, ByFrom, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := Envelope{Recipients: []Recipient{{Address: "bob@x.test"}}, From: tt.from}
			got := New(tt.opts).Decide(env, tt.envelope)
			if got.Action != tt.want || got.By != tt.by || got.Reply.Text != tt.text {
				t.Errorf("%v by %v, %q; want %v by %v, %q", got.Action, got.By, got.Reply.Text, tt.want, tt.by, tt.text)
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	p := New(Options{Separate: true, DeferUnknown: true, Rules: []Rule{
		{Recipient: "strict@x.test", Actions: Actions{Fail: Reject}},
		{Recipient: "same@y.test", Actions: Actions{Fail: Mark}}, // what the default says too
		{Recipient: "patient@x.test", Actions: Actions{TempError: Accept}},
		{Recipient: "banker@x.test", Sender: "bank.test", Actions: Actions{NoKey: Reject}},
	}})
	first := Recipient{Address: "bob@x.test"}
	tests := []struct {
		rcpt   Recipient
		sender string
		equal  bool
	}{
		{Recipient{Address: "eve@x.test"}, "", true},
		{Recipient{Address: "strict@x.test"}, "", false},
		{Recipient{Address: "Strict+tag@X.test"}, "", false},
		{Recipient{Address: "same@y.test"}, "", true},
		{Recipient{Address: "patient@x.test"}, "", false}, // of a domain that says req=yes
		{Recipient{Address: "banker@x.test"}, "a@b.test", true},
		{Recipient{Address: "banker@x.test"}, "a@bank.test", false},
		{Recipient{Address: "eve@x.test", Preference: Preference{Actions: Actions{PermError: Mark}}}, "", false},
		{Recipient{Address: "eve@x.test", Preference: Preference{Language: "de"}}, "", true},
		{Recipient{Address: "eve@x.test", PreferenceFailed: true}, "", false},
	}
	for _, tt := range tests {
		if got := p.Profile(tt.sender, tt.rcpt) == p.Profile(tt.sender, first); got != tt.equal {
			t.Errorf("%+v of %q: equal %v, want %v", tt.rcpt, tt.sender, got, tt.equal)
		}
	}
	for _, opts := range []Options{{}, {Separate: true, Test: true}} {
		if New(opts).Separates() {
			t.Errorf("%+v separates recipients", opts)
		}
	}
	if !p.Separates() {
		t.Error("recipients: separate does not separate them")
	}
}

func TestMatcher(t *testing.T) {
	m := NewMatcher([]string{"list@x.test", "Y.test", ".z.test"})
	for address, want := range map[string]bool{
		"list@x.test": true, "list+bounce=a@x.test": true, "other@x.test": false, "a@y.test": true, "a@s.y.test": false,
		"a@z.test": false, "a@s.z.test": true, "a@t.s.z.test": true, "a@.z.test": true, "a@s..z.test": true, "": false, "list": false,
	} {
		if m.Match(address) != want {
			t.Errorf("%s: %v, want %v", address, !want, want)
		}
	}
	if m.Match("a@" + strings.Repeat("a.", 125) + "z.test") { // 256 octets: no domain, and its suffixes would be many
		t.Error("a domain longer than a domain can be matches")
	}
	if NewMatcher(nil).Match("a@y.test") {
		t.Error("no pattern, and a match")
	}
}

func TestPreferenceOver(t *testing.T) {
	below := Preference{Actions{Mark, Mark, Mark, Mark, Mark, Mark}, "en"}
	tests := []struct{ p, want Preference }{
		{Preference{}, below},
		{Preference{Language: "de"}, Preference{below.Actions, "de"}},
		{Preference{Actions: Actions{Fail: Reject, TempError: Accept}}, Preference{Actions{Mark, Reject, Mark, Mark, Accept, Mark}, "en"}},
		{Preference{Actions: Actions{Pass: Reject, NoKey: Reject, None: Reject, PermError: Reject}}, Preference{Actions{Reject, Mark, Reject, Reject, Mark, Reject}, "en"}},
	}
	for _, tt := range tests {
		if got := tt.p.Over(below); got != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.p, got, tt.want)
		}
	}
}

// TestExplainListsEveryLayer checks the trace of one recipient whom everybody has
// something to say about.
func TestExplainListsEveryLayer(t *testing.T) {
	p := New(Options{
		Rules: []Rule{
			{Recipient: "x.test", Actions: Actions{Fail: Discard}},
			{Recipient: "bob@x.test", Actions: Actions{NoKey: Reject}},
			{Recipient: "bob@x.test", Sender: "a.test", Actions: Actions{Fail: Quarantine}},
			{Recipient: "bob@x.test", Sender: "b.test", Actions: Actions{Fail: Accept}},
			{Sender: "a.test", Actions: Actions{Fail: Accept}},
			{Sender: "b.test", Actions: Actions{Fail: Accept}},
		},
		Floor:       Actions{Fail: Discard},
		EnforceFrom: true,
		From:        Actions{Fail: Reject, NoKey: Accept},
	})
	env := Envelope{Sender: "al@a.test", From: result(verifier.Fail), Recipients: []Recipient{
		{Address: "bob@x.test", Preference: Preference{Actions: Actions{Fail: TempFail}}}, {Address: "eve@y.test", PreferenceFailed: true}}}
	text := func(plan Plan, steps [][]Step) (lines []string) {
		for i, r := range plan.Recipients {
			for _, s := range steps[i] {
				lines = append(lines, fmt.Sprintf("%s %s %d %s %s", r.Address, s.Layer, s.Rule, s.Action, s.Outcome))
			}
		}
		return lines
	}
	want := []string{
		"bob@x.test pref -1 tempfail not-allowed",
		"bob@x.test rule-rcpt 1  unset",
		"bob@x.test rule-rcpt 2 quarantine decides",
		"bob@x.test rule-rcpt-domain 0 discard overruled",
		"bob@x.test rule-sender 4 accept overruled",
		"bob@x.test default -1 mark overruled",
		"bob@x.test floor -1 discard raises",
		"bob@x.test from -1 reject raises",
		"eve@y.test pref -1  failed",
		"eve@y.test rule-sender 4 accept decides",
		"eve@y.test default -1 mark overruled",
		"eve@y.test floor -1 discard raises",
		"eve@y.test from -1 reject raises",
	}
	if got := text(p.Explain(env, result(verifier.Fail))); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("trace\n%q\nwant\n%q", got, want)
	}
	env.From = result(verifier.NoKey)
	env.Recipients = env.Recipients[1:]
	want = []string{
		"eve@y.test default -1 accept decides",
		"eve@y.test from -1 accept milder",
	}
	if got := text(p.Explain(env, result(verifier.Skipped))); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("trace of a skipped message\n%q\nwant\n%q", got, want)
	}
}
