package milter

import (
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/authkey/authkey/policy"
)

// settlingHandler keeps lines back until somebody wants them written.
type settlingHandler struct {
	slog.Handler
	settled *atomic.Int32
}

func (h settlingHandler) Settle() { h.settled.Add(1) }

// TestLogListIsBounded: neither many recipients nor long ones make a line long.
func TestLogListIsBounded(t *testing.T) {
	const last = "…"
	long := policy.RecipientPlan{Address: strings.Repeat("ä", maxLogValue), Action: policy.Reject}
	one := recipientActions([]policy.RecipientPlan{long}, false)
	if want := strings.Repeat("ä", maxLogValue/2) + last + "=reject"; one != want {
		t.Errorf("%q, want %q", one, want)
	}
	many := recipientActions(slices.Repeat([]policy.RecipientPlan{long}, 1000), false)
	if len(many) > maxLogActions+len(one)+len(","+last) || !strings.HasSuffix(many, "=reject,"+last) {
		t.Errorf("%d octets, which end in %q", len(many), many[len(many)-20:])
	}
}

// TestLinesOfWhatEndsHereAreWritten before the MTA is answered: nothing else is left of
// such a message.
func TestLinesOfWhatEndsHereAreWritten(t *testing.T) {
	for action, settles := range map[policy.Action]int32{
		policy.Accept: 0, policy.Mark: 0, policy.Quarantine: 0, policy.TempFail: 0,
		policy.Reject: 1, policy.RejectNotify: 1, policy.Discard: 1, policy.DiscardNotify: 1,
	} {
		for _, alone := range []bool{true, false} {
			r := newRig(t, defaultSettings(), policy.Options{Defaults: policy.Actions{Fail: action}})
			var settled atomic.Int32
			r.srv.log = slog.New(settlingHandler{r.srv.log.Handler(), &settled})
			r.swap(policy.Options{Defaults: policy.Actions{Fail: action}}, everyAction)
			in := forged("one")
			if !alone {
				in = forged("one", "accept")
			}
			r.mustSend(r.connect(), in)
			if got := settled.Load(); got != settles {
				t.Errorf("%v, alone %v: written at once %d times, want %d", action, alone, got, settles)
			}
		}
	}
}
