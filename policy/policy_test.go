package policy

import (
	"fmt"
	"testing"

	"github.com/authkey/authkey/verifier"
)

func result(s verifier.Status) verifier.Result { return verifier.Result{Status: s} }

func TestDefaults(t *testing.T) {
	required := verifier.Result{Status: verifier.TempError, Required: true}
	stale := verifier.Result{Status: verifier.TempError, Required: true, Stale: true}
	missing := verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonRequired}
	tests := []struct {
		result verifier.Result
		want   Action
	}{
		{result(verifier.Pass), Accept},
		{result(verifier.None), Accept},
		{result(verifier.NoKey), Accept},
		{result(verifier.Fail), Mark},
		{missing, Mark},
		{result(verifier.PermError), Accept},
		{result(verifier.TempError), Accept},
		{required, TempFail},
		{stale, TempFail},
		{result(verifier.Skipped), Accept},
	}
	p := New(Options{})
	for _, tt := range tests {
		got := p.Decide(Envelope{Abilities: Abilities{Quarantine: true}}, tt.result)
		if got.Action != tt.want || got.By != ByDefault {
			t.Errorf("%+v: %v by %v, want %v by default", tt.result, got.Action, got.By, tt.want)
		}
	}
	// An explicit choice for temperror is for every domain.
	p = New(Options{Defaults: Actions{TempError: Accept}})
	if got := p.Decide(Envelope{}, required); got.Action != Accept {
		t.Errorf("temperror: accept for a req=yes domain: %v", got.Action)
	}
}

// TestEveryResultAndAction checks all of them against what may be said of any.
func TestEveryResultAndAction(t *testing.T) {
	for _, status := range verifier.Statuses() {
		if status == verifier.Skipped {
			continue // nothing of the configuration is asked about it
		}
		for _, action := range AllActions() {
			for _, can := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s,%s,quarantine=%v", status, action, can), func(t *testing.T) {
					actions := Actions{action, action, action, action, action, action}
					env := Envelope{Abilities: Abilities{Quarantine: can}}
					got := New(Options{Defaults: actions}).Decide(env, result(status))
					want, note := action, Notes(0)
					if action == Quarantine && !can {
						want, note = Mark, NoteNoQuarantine
					}
					if got.Action != want || got.Notes != note || got.Would != Unset {
						t.Errorf("plan %+v, want %v, note %q", got, want, note)
					}
					switch wantCode := map[Action]int{TempFail: 451, Reject: 550, RejectNotify: 550}[action]; {
					case got.Reply.Code != wantCode:
						t.Errorf("reply %+v, want code %d", got.Reply, wantCode)
					case wantCode == 0 && !got.Reply.IsZero():
						t.Errorf("reply %+v, want none", got.Reply)
					}
					test := New(Options{Defaults: actions, Test: true}).Decide(env, result(status))
					if test.Action != Accept || test.Would != want || !test.Reply.IsZero() {
						t.Errorf("in test mode %+v, want accept, would %v", test, want)
					}
				})
			}
		}
	}
}

func TestReplies(t *testing.T) {
	failed := func(why verifier.Reason) verifier.Result {
		return verifier.Result{Status: verifier.Fail, Reason: why}
	}
	tests := []struct {
		action Action
		result verifier.Result
		want   string
	}{
		{Reject, result(verifier.Fail), "550 5.7.1 Sender address not authenticated: AuthKey invalid"},
		{Reject, failed(verifier.ReasonInvalidKey), "550 5.7.1 Sender address not authenticated: AuthKey invalid"},
		{Reject, failed(verifier.ReasonRequired), "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		{Reject, failed(verifier.ReasonKeyIsEnvelopes), "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		{Reject, failed(verifier.ReasonKeyIsAmbiguous), "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		{RejectNotify, result(verifier.NoKey), "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		{Reject, result(verifier.None), "550 5.7.1 Sender address not authenticated: no usable Authentication Server"},
		{Reject, result(verifier.PermError), "550 5.7.1 Sender address not authenticated: no usable Authentication Server"},
		{Reject, result(verifier.TempError), "550 5.7.1 Sender address not authenticated: no usable Authentication Server"},
		{Reject, result(verifier.Pass), "550 5.7.1 Message refused by policy"},
		{TempFail, result(verifier.Fail), "451 4.7.1 AuthKey cannot be verified now, try again later"},
		{TempFail, result(verifier.TempError), "451 4.7.1 AuthKey cannot be verified now, try again later"},
	}
	own := Texts{Fail: "own fail", NoKey: "own nokey", None: "own none", PermError: "own permerror", TempError: "own temperror"}
	wantOwn := []string{"550 5.7.1 own fail", "550 5.7.1 own fail", "550 5.7.1 own nokey", "550 5.7.1 own nokey",
		"550 5.7.1 own nokey", "550 5.7.1 own nokey", "550 5.7.1 own none",
		"550 5.7.1 own permerror", "550 5.7.1 own none", "550 5.7.1 Message refused by policy",
		"451 4.7.1 own temperror", "451 4.7.1 own temperror"}
	for i, tt := range tests {
		a := tt.action
		actions := Actions{a, a, a, a, a, a}
		text := func(texts Texts) string {
			r := New(Options{Defaults: actions, Texts: texts}).Decide(Envelope{}, tt.result).Reply
			return fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text)
		}
		if got := text(Texts{}); got != tt.want {
			t.Errorf("%v of %+v: %q, want %q", a, tt.result, got, tt.want)
		}
		if got := text(own); got != wantOwn[i] {
			t.Errorf("%v of %+v with own texts: %q, want %q", a, tt.result, got, wantOwn[i])
		}
	}
}

func TestActionNames(t *testing.T) {
	for _, a := range AllActions() {
		if got, err := ParseAction(a.String()); err != nil || got != a {
			t.Errorf("ParseAction(%q) = %v, %v", a, got, err)
		}
	}
	if a, err := ParseAction(""); err != nil || a != Unset {
		t.Errorf(`ParseAction("") = %v, %v`, a, err)
	}
	for _, s := range []string{"Accept", "drop", "reject ", "unset"} {
		if _, err := ParseAction(s); err == nil {
			t.Errorf("ParseAction(%q) took it", s)
		}
	}
	// Severity is the order which merging and floors rely on.
	order := []Action{Accept, Mark, Quarantine, TempFail, Discard, DiscardNotify, Reject, RejectNotify}
	for i := 1; i < len(order); i++ {
		if order[i-1] >= order[i] {
			t.Errorf("%v is not more lenient than %v", order[i-1], order[i])
		}
	}
}
