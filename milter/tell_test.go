package milter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// TestOriginal is what DSNs and notices are told of a message.
func TestOriginal(t *testing.T) {
	e := testEngine()
	e.Notifier, e.Settings.DSNVouchers = &fakeNotifier{}, []Voucher{{ID: "mx.test", Method: "spf"}}
	e.prepare()
	fresh := func(fields ...field) *message {
		msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
		for _, f := range fields {
			msg.addField([]byte(f.name), []byte(f.value))
		}
		return msg
	}
	out := outcome{results: results{envelope: verifier.Result{Status: verifier.NoKey}}}
	if o := originalOf(fresh(), &out); o.SenderAuthenticated || o.Truncated || o.Checked != "alice@a.test" || o.Result != out.envelope {
		t.Errorf("%+v", o)
	}
	if o := originalOf(fresh(field{"Authentication-Results", "mx.test; spf=pass smtp.mailfrom=a.test"}), &out); !o.SenderAuthenticated {
		t.Error("nobody vouches for the sender")
	}
	great := fresh(field{"X", strings.Repeat("x", maxKeptHeader-20)}, field{"Y", strings.Repeat("y", 20)}, field{"Z", "z"})
	if o := originalOf(great, &out); !o.Truncated || len(o.Header) != 2 || len(great.kept) > maxKeptHeader {
		t.Errorf("of a great header %d octets, %d fields; truncated %v", len(great.kept), len(o.Header), o.Truncated)
	}
	boss, err := wire.ParseAddress(`"the boss"@b.test`)
	if err != nil {
		t.Fatal(err)
	}
	out.plan.By = policy.ByFrom
	out.from = fromResult{verifier.Result{Status: verifier.Fail}, boss}
	if o := originalOf(fresh(), &out); o.Checked != "the boss@b.test" || o.Result != out.from.Result {
		t.Errorf("where the From field decided: %+v", o)
	}
}
