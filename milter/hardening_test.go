package milter

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// handled is the outcome of a message of alice@a.test from a stranger, after everybody was
// told.
func handled(ctx context.Context, e *Engine, progress func(), fields ...field) outcome {
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
	msg.addRecipient("bob@rcpt.test", "bob@rcpt.test", "")
	for _, f := range fields {
		msg.addField([]byte(f.name), []byte(f.value))
	}
	h := handler{progress: progress}
	out := h.decide(ctx, msg)
	h.tell(ctx, msg, &out)
	return out
}

// slowNotifier takes its time.
type slowNotifier struct{ fakeNotifier }

func (*slowNotifier) Deliver(ctx context.Context, _ Original, _ []Failure, _ []Notice) error {
	select {
	case <-time.After(30 * time.Second):
	case <-ctx.Done():
	}
	return nil
}

// TestMTAIsKeptWaitingForNotices: Sendmail gives up after 10 s without a word.
func TestMTAIsKeptWaitingForNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Notifier: &slowNotifier{},
			Policy: policy.New(policy.Options{Defaults: policy.Actions{Fail: policy.RejectNotify}})}
		signs := 0
		handled(t.Context(), e, func() { signs++ }, field{"X-Auth-Key", "wrong"})
		if signs < 9 {
			t.Errorf("%d signs of life in 30 s", signs)
		}
	})
}

func enforcing(answer func(context.Context, verifier.Query) verifier.Result) *Engine {
	e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{answer: answer},
		Policy: policy.New(policy.Options{EnforceFrom: true})}
	e.Settings.From, e.Settings.FromTimeout = FromEnforce, time.Minute
	return e
}

// TestShutdownDuringTheFromCheck: what we break off is no result.
func TestShutdownDuringTheFromCheck(t *testing.T) {
	ctx, shutdown := context.WithCancel(t.Context())
	e := enforcing(func(ctx context.Context, q verifier.Query) verifier.Result {
		if q.Address.Domain() == "a.test" {
			return verifier.Result{Status: verifier.None}
		}
		shutdown()
		<-ctx.Done()
		return verifier.Result{Status: verifier.TempError, Reason: verifier.ReasonCancelled}
	})
	if out := handled(ctx, e, nil, field{"From", "ceo@bank.test"}, field{"X-Auth-Key", "wrong"}); out.own != shuttingDown {
		t.Errorf("the message is answered %v %+v", out.plan.Action, out.own)
	}
}

// TestUnreadableFromOfARequiringDomain: mail programs show such fields all the same.
func TestUnreadableFromOfARequiringDomain(t *testing.T) {
	e := enforcing(func(_ context.Context, q verifier.Query) verifier.Result {
		if q.Address.Domain() == "bank.test" && q.Key.IsZero() {
			return verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonRequired, Required: true}
		}
		return verifier.Result{Status: verifier.None}
	})
	for _, from := range []string{
		"ceo@bank.test <ceo@bank.test>", "ceo@bank.test <x@far.test>", "CEO [x] <ceo@bank.test>", `"CEO" ceo@bank.test`,
		"\xe9 <ceo@bank.test>", "ceo@bank.test, a@x,b@x,c@x,d@x", "CEO : <ceo@bank.test>", "<@x:ceo@bank.test>",
	} {
		if out := handled(t.Context(), e, nil, field{"From", from}); out.from.Status != verifier.Fail || out.plan.Action != policy.Mark {
			t.Errorf("%q: %s, %v", from, out.from.Status, out.plan.Action)
		}
	}
}

// TestUnknownClient: a client of whom the MTA knows nothing is a stranger.
func TestUnknownClient(t *testing.T) {
	for _, connect := range []string{"unknown\x00U", "unknown\x00U\x00\x00unknown\x00", "unknown\x004\x00\x19unknown\x00", "x.test\x006\x00\x19fe80::1%eth0\x00"} {
		r := newRig(t, defaultSettings(), policy.Options{})
		c := r.dialRaw()
		for _, f := range [][]byte{optNeg(), frame('C', connect), frame('M', "<alice@a.test>\x00"), frame('R', "<b@rcpt.test>\x00"), frame('E', "")} {
			if _, err := c.Write(f); err != nil {
				t.Fatal(err)
			}
		}
		for code := byte(0); code != 'a'; {
			var err error
			if code, _, err = readFrame(c); err != nil {
				t.Fatalf("CONNECT %q: %v", connect, err)
			}
		}
		r.waitFor("the log line", func() bool { return len(r.log.String()) > 0 })
		if got := r.fake.questions(); len(got) != 1 {
			t.Errorf("CONNECT %q: asked %d times, want 1", connect, len(got))
		}
	}
}
