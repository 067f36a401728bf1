package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
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
		if got := s.localRecipient(rcpt); got != want {
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

// TestDeletionsAreBounded in mail of every class, whatever it is that goes.
func TestDeletionsAreBounded(t *testing.T) {
	settings := defaultSettings()
	settings.ExemptNetworks = Networks{netip.MustParsePrefix("192.0.2.200/32")}
	const refusal = "550 5.7.1 Too many authentication header fields"
	for _, origin := range []struct{ class, client, auth string }{{"inbound", "192.0.2.1", ""}, {"exempt", "192.0.2.200", ""}, {"submission", "192.0.2.1", "alice"}} {
		for _, f := range []field{{"X-New-Auth-Key", "x"}, {"X-Authkey-Quarantine", "x"}, {"Authentication-Results", "mx.test; x-authkey=pass"}, {"X-Auth-Key", "good"}} {
			for _, test := range []bool{false, true} {
				r := newRig(t, settings, policy.Options{Test: test})
				bag := gomilter.NewMacroBag()
				if origin.auth != "" {
					bag.Set(gomilter.MacroAuthAuthen, origin.auth)
				}
				s := r.connectAs(origin.client, bag)
				for n, refused := range map[int]bool{maxDeletions: false, maxDeletions + 1: true} {
					got := r.mustSend(s, sent{from: "alice@a.test", fields: slices.Repeat([]field{f}, n)})
					if (got.reply == refusal) != refused || !refused && hasField(got.fields, f.name) && got.fields[0].value == f.value {
						t.Errorf("%s, %d %s, test mode %v: %v %q, %d fields left", origin.class, n, f.name, test, got.action, got.reply, len(got.fields))
					}
				}
			}
		}
	}
}

// fixedAttacher says the same to all.
type fixedAttacher Attachment

func (a fixedAttacher) Attach(OwnMail) Attachment { return Attachment(a) }

// TestStrippedKeysAreBounded: those of a submission too, which its sender may keep
// unless we attach one or none may stand in for it.
func TestStrippedKeysAreBounded(t *testing.T) {
	key := fixedAttacher{Agent: "smtp; authkey/1.0"}
	key.Key = key.Key.Join("ours")
	for name, a := range map[string]fixedAttacher{"attached": key, "stripped": {Strip: true}, "neither": {}} {
		for _, n := range []int{maxDeletions, maxDeletions + 1} {
			e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Attacher: a, Policy: policy.New(policy.Options{})}
			e.prepare()
			msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1"), login: "alice"}, "", "", "alice@a.test", "")
			msg.addRecipient("x@far.test", "x@far.test", "")
			for range n {
				msg.addField("X-Auth-Key", "brought")
			}
			out := judge{guard: func(*message, string) {}}.decide(t.Context(), msg)
			if refused := out.own == policy.TooManyFields; refused != (n > maxDeletions && name != "neither") {
				t.Errorf("%s, %d keys: %s", name, n, fmt.Sprintf("%+v", out.own))
			}
		}
	}
}

// TestPanicInTheFromCheck: nothing may be concluded from half of what was to be found out.
func TestPanicInTheFromCheck(t *testing.T) {
	settings := defaultSettings()
	settings.From, settings.VerifyTimeout = FromReport, time.Minute
	r := newRig(t, settings, policy.Options{})
	r.fake.answer = func(_ context.Context, q verifier.Query) verifier.Result {
		if q.Address.Domain() == "bank.test" {
			panic("SECRETKEY")
		}
		return verifier.Result{Status: verifier.None}
	}
	in := sent{from: "alice@a.test", fields: []field{{"From", "ceo@bank.test"}, {"X-Auth-Key", "good"}}}
	several := in // each is asked about in a goroutine of its own
	several.fields = []field{{"From", "ceo@bank.test, alice@a.test"}}
	for _, in := range []sent{in, several} {
		if got := r.mustSend(r.connect(), in); got.reply != filterError {
			t.Errorf("%v: %v %q, want %q", in.fields, got.action, got.reply, filterError)
		}
	}
	// One that the verifier has recovered from.
	r.fake.answer = func(_ context.Context, q verifier.Query) verifier.Result {
		if q.Address.Domain() == "bank.test" {
			return verifier.Result{Status: verifier.TempError, Reason: verifier.ReasonBroken}
		}
		return verifier.Result{Status: verifier.None}
	}
	if got := r.mustSend(r.connect(), in); got.reply != filterError {
		t.Errorf("in the verifier: %v %q, want %q", got.action, got.reply, filterError)
	}
}

// TestKeptHeader: what DSNs and notices are written from lacks what is removed from
// the message.
func TestKeptHeader(t *testing.T) {
	e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Notifier: &fakeNotifier{}, Policy: policy.New(policy.Options{})}
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
	for _, f := range []field{{"x-auth-KEY", "k"}, {"Subject", "x"}, {"x-new-auth-KEY", "k"}, {"X-Authkey-Quarantine", "q"},
		{"Authentication-Results", "mx.test; x-authkey=pass"}, {"Authentication-Results", "mx.test; spf=pass"}, {"X-Auth-Keys", "no key"}} {
		msg.takeField([]byte(f.name), []byte(f.value))
	}
	want := []Field{{"Subject", "x"}, {"Authentication-Results", "mx.test; spf=pass"}, {"X-Auth-Keys", "no key"}}
	if got := msg.header(); !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}

// TestKeyOfASubmissionWithoutRecipients: nothing says that it stays at home.
func TestKeyOfASubmissionWithoutRecipients(t *testing.T) {
	e := testEngine()
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1"), login: "alice"}, "", "", "alice@a.test", "")
	if msg.losesKeys() {
		t.Error("the key goes")
	}
	msg.addRecipient("bob@rcpt.test", "bob@rcpt.test", "")
	if !msg.losesKeys() {
		t.Error("the key of a message that stays at home does not go")
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
	if out := (judge{guard: func(*message, string) {}}).decide(t.Context(), msg); out.plan.Action != policy.Reject {
		t.Errorf("%v, want what RCPT found out: %v", out.plan.Action, policy.Reject)
	}
}

// TestOriginal is what DSNs and notices are told of a message.
func TestOriginal(t *testing.T) {
	e := testEngine()
	e.Notifier, e.Settings.NotifyTrust = &fakeNotifier{}, []Voucher{{ID: "mx.test", Method: "spf"}}
	e.prepare()
	fresh := func(fields ...field) *message {
		msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
		for _, f := range fields {
			msg.takeField([]byte(f.name), []byte(f.value))
		}
		return msg
	}
	out := outcome{results: results{envelope: verifier.Result{Status: verifier.NoKey}}}
	if o := fresh().original(&out); o.SenderAuthenticated || o.Truncated || o.Checked != "alice@a.test" || o.Result != out.envelope {
		t.Errorf("%+v", o)
	}
	if o := fresh(field{"Authentication-Results", "mx.test; spf=pass smtp.mailfrom=a.test"}).original(&out); !o.SenderAuthenticated {
		t.Error("nobody vouches for the sender")
	}
	great := fresh(field{"X", strings.Repeat("x", maxKeptHeader-20)}, field{"Y", strings.Repeat("y", 20)}, field{"Z", "z"})
	if o := great.original(&out); !o.Truncated || len(o.Header) != 2 || len(great.kept) > maxKeptHeader {
		t.Errorf("of a great header %d octets, %d fields; truncated %v", len(great.kept), len(o.Header), o.Truncated)
	}
	boss, err := wire.ParseAddress(`"the boss"@b.test`)
	if err != nil {
		t.Fatal(err)
	}
	out.plan.By = policy.ByFrom
	out.from = fromResult{verifier.Result{Status: verifier.Fail}, boss}
	if o := fresh().original(&out); o.Checked != "the boss@b.test" || o.Result != out.from.Result {
		t.Errorf("where the From field decided: %+v", o)
	}
}

// TestConnect: who the client is, as the MTA says.
func TestConnect(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	for _, tt := range []struct {
		host, family, addr string
		client             string // "": none
		local              bool
	}{
		{"x.test", "tcp4", "192.0.2.1", "192.0.2.1", false},
		{"x.test", "tcp6", "::ffff:192.0.2.1", "192.0.2.1", false},
		{"x.test", "tcp6", "2001:db8::1", "2001:db8::1", false},
		{"x.test", "tcp6", "fe80::1%eth0", "fe80::1", false},
		{"x.test", "tcp4", "0.0.0.0", "", false},
		{"x.test", "tcp6", "::", "", false},
		{"x.test", "tcp4", "nonsense", "", false},
		{"localhost", "unix", "/run/x", "", true},
		{"localhost", "unknown", "", "", true},
		{"unknown", "unknown", "", "", false},
	} {
		s := &session{srv: r.srv}
		if _, err := s.Connect(tt.host, tt.family, 0, tt.addr, nil); err != nil {
			t.Fatal(err)
		}
		client := ""
		if s.origin.client.IsValid() {
			client = s.origin.client.String()
		}
		if client != tt.client || s.origin.local != tt.local {
			t.Errorf("%+v: client %q, local %v", tt, client, s.origin.local)
		}
	}
}

// TestAnotherClientOnTheConnection (SMFIC_QUIT_NC): a message begun for the last one is
// not this one's.
func TestAnotherClientOnTheConnection(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	s := &session{srv: r.srv, origin: origin{login: "alice", local: true}}
	s.begin(newMessage(r.srv.acquire(), s.origin, "", "", "alice@a.test", ""))
	if err := s.NewConnection(nil); err != nil {
		t.Fatal(err)
	}
	if s.msg != nil || s.origin != (origin{}) || r.srv.inFlight.Load() != 0 {
		t.Errorf("left: %+v, %+v, %d messages", s.msg, s.origin, r.srv.inFlight.Load())
	}
}

// brokenModifier is of an MTA that is gone.
type brokenModifier struct{ gomilter.Modifier }

func (brokenModifier) Get(gomilter.MacroName) string { return "" }
func (brokenModifier) Quarantine(string) error       { return errors.New("connection reset") }
func (brokenModifier) Progress() error               { return nil }

// TestHalfOfTheChanges: breaking off is what makes the MTA drop those that it has.
func TestHalfOfTheChanges(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{Defaults: policy.Actions{NoKey: policy.Quarantine}})
	s := &session{srv: r.srv, conn: new(conn), abilities: policy.Abilities{Quarantine: true}}
	s.begin(newMessage(r.srv.acquire(), origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", ""))
	if resp, err := s.EndOfMessage(brokenModifier{}); err == nil || resp != nil {
		t.Errorf("answered %v, %v; want nothing but an error", resp, err)
	}
}

// TestQuarantineReason is that of the result which decided.
func TestQuarantineReason(t *testing.T) {
	out := outcome{results: results{
		envelope: verifier.Result{Status: verifier.Pass},
		from:     fromResult{Result: verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonRequired}},
	}}
	for by, want := range map[policy.Layer]string{policy.ByDefault: "authkey: pass", policy.ByFrom: "authkey: fail (required)"} {
		out.plan.By = by
		if got := out.quarantineReason(); got != want {
			t.Errorf("by %s: %q, want %q", by, got, want)
		}
	}
}

// recipientChanges keeps what is done to the envelope.
type recipientChanges struct {
	gomilter.Modifier
	deleted, added []string
}

func (c *recipientChanges) DeleteRecipient(r string) error {
	c.deleted = append(c.deleted, r)
	return nil
}

func (c *recipientChanges) AddRecipient(r, _ string) error {
	c.added = append(c.added, r)
	return nil
}

// TestBothFormsOfARecipientAreDeleted: the MTA knows a recipient by one of them.
func TestBothFormsOfARecipientAreDeleted(t *testing.T) {
	e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Policy: policy.New(policy.Options{}),
		Preferences: fakePreferences{"bob@rcpt.test": {Actions: policy.Actions{NoKey: policy.Discard}}}}
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
	msg.addRecipient("@r.test:bob@rcpt.test", "bob@rcpt.test", "")
	msg.addRecipient("carol@rcpt.test", "carol@rcpt.test", "")
	out := judge{abilities: policy.Abilities{DeleteRecipient: true}, guard: func(*message, string) {}}.decide(t.Context(), msg)
	var changes recipientChanges
	if err := out.applyRecipients(msg, &changes); err != nil {
		t.Fatal(err)
	}
	if want := []string{"@r.test:bob@rcpt.test", "bob@rcpt.test"}; !slices.Equal(changes.deleted, want) || len(changes.added) != 0 {
		t.Errorf("deleted %q, added %q; want %q deleted", changes.deleted, changes.added, want)
	}
}

// settlingHandler keeps lines back until somebody wants them written.
type settlingHandler struct {
	slog.Handler
	settled *atomic.Int32
}

func (h settlingHandler) Settle() { h.settled.Add(1) }

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
			r.swap(policy.Options{Defaults: policy.Actions{Fail: action}}, everyWish)
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
