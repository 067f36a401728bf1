package milter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
)

func TestClassify(t *testing.T) {
	const client = "192.0.2.1"
	tests := []struct {
		name   string
		change func(*Settings)
		origin origin
		want   class
	}{
		{"a stranger", nil, origin{}, inbound},
		{"a login", nil, origin{login: "alice"}, submission},
		{"a login that does not count", func(s *Settings) { s.Submission.Authenticated = false }, origin{login: "alice"}, inbound},
		{"the same of an exempt client", func(s *Settings) {
			s.Submission.Authenticated = false
			s.ExemptNetworks = Networks{netip.MustParsePrefix(client + "/32")}
		}, origin{login: "alice"}, exempt},
		{"a login of an exempt client", func(s *Settings) { s.ExemptNetworks = Networks{netip.MustParsePrefix(client + "/32")} }, origin{login: "alice"}, submission},
		{"an exempt client in our own network", func(s *Settings) {
			s.ExemptNetworks = Networks{netip.MustParsePrefix(client + "/32")}
			s.Submission.Networks = Networks{netip.MustParsePrefix("192.0.2.0/24")}
		}, origin{}, exempt},
		{"a daemon", nil, origin{daemon: "originating"}, submission},
		{"part of a daemon's name", nil, origin{daemon: "ORIGINATING2"}, inbound},
		{"local", nil, origin{local: true}, submission},
	}
	for _, tt := range tests {
		s := defaultSettings()
		if tt.change != nil {
			tt.change(&s)
		}
		tt.origin.client = netip.MustParseAddr(client)
		if got := s.classify(tt.origin); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestLocalRecipient(t *testing.T) {
	s := defaultSettings()
	for rcpt, want := range map[string]bool{
		"bob@rcpt.test": true, "bob@RCPT.test.": true, "\"a@b\"@rcpt.test": true,
		"bob@sub.rcpt.test": false, "bob@notrcpt.test": false, "bob@rcpt.test.example": false, "bob@test": false, "bob": false, "": false,
	} {
		if got := s.isLocal(rcpt); got != want {
			t.Errorf("localRecipient(%q) = %v", rcpt, got)
		}
	}
}

// TestExemptResults: of an exempt client that may, results under our own ids stay,
// and nothing else that only we write.
func TestExemptResults(t *testing.T) {
	results := []field{
		{"Authentication-Results", "mx.test; x-authkey=pass"},
		{"Authentication-Results", "MX2.test;\n\tx-authkey=fail"},
		{"Authentication-Results", "relay.test; spf=pass"},
	}
	others := []field{
		{"Authentication-Results", "far.test; x-authkey=pass"},
		{"Authentication-Results", "mx.test(c); x-authkey=pass"},
		{"X-New-Auth-Key", "planted"}, {"X-Authkey-Quarantine", "x"}, {"X-Auth-Key", "good"},
	}
	for _, keeps := range []bool{true, false} {
		for _, client := range []string{"192.0.2.200", "192.0.2.1"} {
			settings := defaultSettings()
			settings.ExemptNetworks, settings.KeepResults = Networks{netip.MustParsePrefix("192.0.2.200/32")}, keeps
			settings.TrustedIDs = []string{"mx2.test"}
			bag := gomilter.NewMacroBag()
			bag.Set(gomilter.MacroMTAFQDN, "mx.test")
			r := newRig(t, settings, policy.Options{})
			got := r.mustSend(r.connectAs(client, bag), sent{from: "alice@a.test", fields: slices.Concat(results, others)})
			want := results[2:]
			if keeps && client == "192.0.2.200" {
				want = results
			}
			left := slices.DeleteFunc(got.fields, func(f field) bool {
				return f.name == "Authentication-Results" && f.value == aliceAuthRes+"pass smtp.mailfrom=alice@a.test"
			})
			if !slices.Equal(left, want) {
				t.Errorf("keep_results %v, client %s: %q stay, want %q", keeps, client, left, want)
			}
		}
	}
}

// TestResultsOfOurUsers are nobody's, whatever exempt clients may keep.
func TestResultsOfOurUsers(t *testing.T) {
	e := testEngine()
	e.Settings.KeepResults, e.Settings.AuthservID = true, "mx.test"
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1"), login: "alice"}, "", "", "alice@a.test", "")
	if !msg.losesResult("mx.test; x-authkey=pass") {
		t.Error("a submission keeps a result under our id")
	}
}

// testEngine is an Engine that has not been prepared.
func testEngine() *Engine {
	return &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Policy: policy.New(policy.Options{})}
}

// TestKeptHeader: what DSNs and notices are written from lacks what is removed from
// the message.
func TestKeptHeader(t *testing.T) {
	e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Notifier: &fakeNotifier{}, Policy: policy.New(policy.Options{})}
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
	for _, f := range []field{{"x-auth-KEY", "k"}, {"Subject", "x"}, {"x-new-auth-KEY", "k"}, {"X-Authkey-Quarantine", "q"},
		{"Authentication-Results", "mx.test; x-authkey=pass"}, {"Authentication-Results", "mx.test; spf=pass"}, {"X-Auth-Keys", "no key"}} {
		msg.addField([]byte(f.name), []byte(f.value))
	}
	want := []Field{{"Subject", "x"}, {"Authentication-Results", "mx.test; spf=pass"}, {"X-Auth-Keys", "no key"}}
	if got := msg.header(); !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}

// TestSenderWithoutLocalPart can have no key, but is of a domain that may require one.
func TestSenderWithoutLocalPart(t *testing.T) {
	e := testEngine()
	e.prepare()
	for _, sender := range []string{"@a.test", strings.Repeat("a", wire.MaxAddress) + "@a.test"} {
		msg := newMessage(e, origin{}, "", "", sender, "")
		if msg.addrErr != nil || !msg.address.IsDomain() || msg.address.Domain() != "a.test" {
			t.Errorf("%.20q: %v, %v; want the domain alone", sender, msg.address, msg.addrErr)
		}
	}
}

// TestRecipientSentAway (policy.recipients: separate) leaves nothing behind, and what was
// found out at RCPT is what counts in the end.
func TestRecipientSentAway(t *testing.T) {
	prefs := fakePreferences{"bob@rcpt.test": {Actions: policy.Actions{NoKey: policy.Reject}}, "carol@rcpt.test": {Actions: policy.Actions{NoKey: policy.Reject}}}
	e := testEngine()
	e.Preferences = prefs
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
	msg.separate = true
	for _, rcpt := range []struct {
		address, args string
		away          bool
	}{{"bob@rcpt.test", "", false}, {"accept@rcpt.test", "NOTIFY=NEVER", true}, {"carol@rcpt.test", "", false}} {
		msg.addRecipient(rcpt.address, rcpt.address, rcpt.args)
		if away := msg.needsOwnTransaction(t.Context()); away != rcpt.away {
			t.Errorf("%s: sent away %v, want %v", rcpt.address, away, rcpt.away)
		}
	}
	if args := msg.rcptArg(1); args != "" {
		t.Errorf("the second recipient has the parameters %q of one sent away", args)
	}
	clear(prefs)
	if out := (handler{}).decide(t.Context(), msg); out.plan.Action != policy.Reject {
		t.Errorf("%v, want what RCPT found out: %v", out.plan.Action, policy.Reject)
	}
}
