package milter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
)

// TestExamineIsTheSession feeds both with the same messages and compares.
func TestExamineIsTheSession(t *testing.T) {
	settings := defaultSettings()
	settings.From, settings.FromTimeout = FromEnforce, testLimits.IdleTimeout
	settings.ExemptNetworks = Networks{netip.MustParsePrefix("198.51.100.0/24")}
	opts := policy.Options{
		EnforceFrom: true, From: policy.Actions{Fail: policy.Quarantine},
		Rules:    []policy.Rule{{Sender: "none.test", Actions: policy.Actions{None: policy.Reject}}},
		Defaults: policy.Actions{NoKey: policy.Mark},
	}
	r := newRig(t, settings, opts)
	engine := func() *Engine {
		return &Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(opts), Notifier: r.told, Preferences: everyAction}
	}
	r.srv.Swap(engine())
	r.fake.answer = domainVerifier
	s := r.connect()
	for _, sender := range []string{"alice@as.test", "x@none.test", "x@req.test", "x@down.test", "", "alice"} {
		for _, key := range []string{"", "good", "wrong", "b a d"} {
			for _, rcpts := range [][]string{{"bob@rcpt.test"}, {"accept@rcpt.test", "reject@rcpt.test", "mark@rcpt.test"}, {"discard@rcpt.test"}} {
				in := sent{from: sender, rcpts: rcpts, fields: []field{{"From", "alice@as.test"}, {"Authentication-Results", "mx.test; x-authkey=pass"}}}
				if key != "" {
					in.fields = append(in.fields, field{"X-Auth-Key", key})
				}
				name := fmt.Sprintf("%s,%s,%d", sender, key, len(rcpts))
				got := r.mustSend(s, in)
				sample := Sample{Client: netip.MustParseAddr("192.0.2.1"), Sender: in.from, Recipients: in.rcpts}
				for _, f := range in.fields {
					sample.Header = append(sample.Header, Field{f.name, f.value})
				}
				e := Examine(context.Background(), engine(), sample)
				reply := ""
				if e.Reply.Code != 0 {
					reply = fmt.Sprintf("%d %s %s", e.Reply.Code, e.Reply.Enhanced, e.Reply.Text)
				}
				if got.code >= 400 && got.reply != reply || got.code < 400 && reply != "" {
					t.Errorf("%s: the session says %q, the examination %q", name, got.reply, reply)
				}
				if discards := e.Plan.Action == policy.Discard || e.Plan.Action == policy.DiscardNotify; discards != (got.action == gomilter.ActionDiscard) {
					t.Errorf("%s: the session %v, the examination %v", name, got.action, e.Plan.Action)
				}
				if got.action == gomilter.ActionAccept && got.fields[0].value != e.AuthRes && e.AuthRes != "" {
					t.Errorf("%s: the session writes %q, the examination %q", name, got.fields[0].value, e.AuthRes)
				}
				if got.action == gomilter.ActionAccept && (got.held != "") != e.Plan.Hold {
					t.Errorf("%s: held %q and %v", name, got.held, e.Plan.Hold)
				}
				line := r.log.String()
				line = line[strings.LastIndex(strings.TrimSuffix(line, "\n"), "\n")+1:]
				for _, want := range []string{"result=" + string(e.Envelope.Status) + " ", "action=" + e.Plan.Action.String() + " "} {
					if e.Plan.Action != policy.Unset && !strings.Contains(line, want) {
						t.Errorf("%s: the session logs %q, the examination says %s", name, line, want)
					}
				}
			}
		}
	}
	exempt := Examine(context.Background(), engine(), Sample{Client: netip.MustParseAddr("198.51.100.1"), Sender: "a@as.test", Recipients: []string{"bob@rcpt.test"}})
	if exempt.Class != "exempt" || exempt.Plan.Action != policy.Accept {
		t.Errorf("an exempt client: %+v", exempt)
	}
}

// TestExamineTellsNobody: it asks whether a DSN may be sent, and sends none.
func TestExamineTellsNobody(t *testing.T) {
	told := &fakeNotifier{allow: true, fail: errors.New("handed over")}
	e := Examine(t.Context(), &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Notifier: told, Preferences: everyAction,
		Policy: policy.New(policy.Options{})}, Sample{Client: netip.MustParseAddr("192.0.2.1"), Sender: "alice@a.test",
		Recipients: []string{"accept@rcpt.test", "reject-notify@rcpt.test"}, Header: []Field{{"X-Auth-Key", "wrong"}}})
	if got := e.Plan.Recipients; !e.Reply.IsZero() || len(got) != 2 || !got[1].DSN || !got[1].Notice || len(told.asked) != 1 {
		t.Errorf("%+v; asked %d times", e, len(told.asked))
	}
}
