package milter

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// authResOf is the field of a message whose From field is not checked.
func authResOf(id string, envelope verifier.Result, sender wire.Address) string {
	o := outcome{results: results{envelope, skipped}}
	return o.authRes(&message{authID: id, address: sender})
}

func TestAuthRes(t *testing.T) {
	tests := []struct {
		name, id, address string
		result            verifier.Result
		want              string
	}{
		{"pass", "mx.test", "alice@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=alice@a.test"},
		{"fail", "mx.test", "alice@a.test", verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey},
			"mx.test;\n\tx-authkey=fail reason=\"invalid-key\" smtp.mailfrom=alice@a.test"},
		{"nokey is none", "mx.test", "alice@a.test", verifier.Result{Status: verifier.NoKey},
			"mx.test;\n\tx-authkey=none reason=\"no AuthKey\" smtp.mailfrom=alice@a.test"},
		{"skipped is omitted", "mx.test", "", verifier.Result{Status: verifier.Skipped}, ""},
		{"no address", "mx.test", "", verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoDomain},
			"mx.test;\n\tx-authkey=none reason=\"no-domain\""},
		{"all that stays", "mx.test", "A.b+c-d_e/9@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=A.b+c-d_e/9@a.test"},
		{"a result", "mx.test", "x-authkey=pass@a.test", verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoAS},
			"mx.test;\n\tx-authkey=none reason=\"no-as\" smtp.mailfrom=x-authkey%3Dpass@a.test"},
		{"a result in quotes", "mx.test", `"x; x-authkey=pass"@a.test`, verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoAS},
			"mx.test;\n\tx-authkey=none reason=\"no-as\" smtp.mailfrom=x%3B%20x-authkey%3Dpass@a.test"},
		{"quotes and backslashes", "mx.test", `"a\"b\\c"@a.test`, verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=a%22b%5Cc@a.test"},
		{"line break, UTF-8 and percent", "mx.test", "\"a\r\nb\"%é@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=a%0D%0Ab%25%C3%A9@a.test"},
		{"domain that is no host name", "mx.test", `"a b"@a_b.test`, verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass smtp.mailfrom=a%20b@a_b.test"},
		{"id that is no token", "mx test", "alice@a.test", verifier.Result{Status: verifier.Pass},
			"\"mx test\";\n\tx-authkey=pass smtp.mailfrom=alice@a.test"},
		{"id that would begin another field", "mx\"\\\r\nX: é", "alice@a.test", verifier.Result{Status: verifier.Pass},
			"\"mx\\\"\\\\??X: ??\";\n\tx-authkey=pass smtp.mailfrom=alice@a.test"},
		{"address too long for a line", "mx.test", strings.Repeat("=", maxPropValue/3) + "@a.test", verifier.Result{Status: verifier.Pass},
			"mx.test;\n\tx-authkey=pass"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, err := wire.ParseAddress(tt.address)
			if err != nil && tt.address != "" {
				t.Fatal(err)
			}
			got := authResOf(tt.id, tt.result, address)
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			// What we write is what we recognise when somebody else writes it.
			if got != "" && (!claimsAuthKey(got) || !speaksAs(got, []string{tt.id}) && tt.id == "mx.test") {
				t.Errorf("%q is not recognised", got)
			}
		})
	}
}

// FuzzAuthRes: whatever the address is, the field has one "=" and one ";" for each
// that we write, and no quotes, however it is split and searched.
func FuzzAuthRes(f *testing.F) {
	for _, s := range []string{"alice@a.test", "x-authkey=pass@a.test", `"x;x-authkey=pass"@a.test`, "\"a\r\n b\"@a.test",
		`"\"; x-authkey=pass ("@a_b.test`, "δοκιμή@bücher.test", "\xff=\u00a0@a.test", "@r.test:a%40b@a.test"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, mailbox string) {
		address, err := wire.ParseAddress(mailbox)
		if err != nil {
			return // it is in no field
		}
		got := authResOf("mx.test", verifier.Result{Status: verifier.None}, address)
		value, ok := strings.CutPrefix(got, "mx.test;\n\tx-authkey=none")
		if !ok {
			t.Fatalf("%q", got)
		}
		value = strings.TrimPrefix(value, " smtp.mailfrom=")
		if i := strings.IndexFunc(value, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-_/%@", r)
		}); i >= 0 || strings.Count(value, "@") > 1 {
			t.Errorf("%q becomes %q", mailbox, got)
		}
	})
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
				msg.addField([]byte("X-Auth-Key"), []byte("brought"))
			}
			out := handler{}.decide(t.Context(), msg)
			if refused := out.own == tooManyFields; refused != (n > maxDeletions && name != "neither") {
				t.Errorf("%s, %d keys: %s", name, n, fmt.Sprintf("%+v", out.own))
			}
		}
	}
}

// TestKeyOfASubmissionWithoutRecipients: nothing says that it stays at home.
func TestKeyOfASubmissionWithoutRecipients(t *testing.T) {
	e := testEngine()
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1"), login: "alice"}, "", "", "alice@a.test", "")
	if new(outcome).removesKeys(msg) {
		t.Error("the key goes")
	}
	msg.addRecipient("bob@rcpt.test", "bob@rcpt.test", "")
	if !new(outcome).removesKeys(msg) {
		t.Error("the key of a message that stays at home does not go")
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

// TestReplyThatCannotBeSent keeps its meaning.
func TestReplyThatCannotBeSent(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	if got := response(policy.Reply{Code: 451, Enhanced: "4.7.1", Text: long}); got != gomilter.RespTempFail {
		t.Errorf("451: %v", got)
	}
	if got := response(policy.Reply{Code: 550, Enhanced: "5.7.1", Text: long}); got != gomilter.RespReject {
		t.Errorf("550: %v", got)
	}
}

// TestBothFormsOfARecipientAreDeleted: the MTA knows a recipient by one of them.
func TestBothFormsOfARecipientAreDeleted(t *testing.T) {
	e := &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Policy: policy.New(policy.Options{}),
		Preferences: fakePreferences{"bob@rcpt.test": {Actions: policy.Actions{NoKey: policy.Discard}}}}
	e.prepare()
	msg := newMessage(e, origin{client: netip.MustParseAddr("192.0.2.1")}, "", "", "alice@a.test", "")
	msg.addRecipient("@r.test:bob@rcpt.test", "bob@rcpt.test", "")
	msg.addRecipient("carol@rcpt.test", "carol@rcpt.test", "")
	out := handler{abilities: policy.Abilities{DeleteRecipient: true}}.decide(t.Context(), msg)
	var done recipientChanges
	c := changes{library: &done}
	if out.changeRecipients(msg, &c); c.err != nil {
		t.Fatal(c.err)
	}
	if want := []string{"@r.test:bob@rcpt.test", "bob@rcpt.test"}; !slices.Equal(done.deleted, want) || len(done.added) != 0 {
		t.Errorf("deleted %q, added %q; want %q deleted", done.deleted, done.added, want)
	}
}
