package milter

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/fromfield"
	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// domainVerifier answers by domain: as.* and req.* have an AS, of which "good" is
// the key; req.* requires one; down.* cannot be asked; others have none.
func domainVerifier(_ context.Context, q verifier.Query) verifier.Result {
	kind, _, _ := strings.Cut(q.Address.Domain(), ".")
	has := kind == "as" || kind == "req"
	switch {
	case kind == "down":
		return verifier.Result{Status: verifier.TempError, Reason: verifier.ReasonDNSTimeout}
	case kind == "broken":
		return verifier.Result{Status: verifier.PermError, Reason: verifier.ReasonASRecord}
	case !has:
		return verifier.Result{Status: verifier.None, Reason: verifier.ReasonNoAS}
	case q.Key.Bad():
		return verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonBadKey}
	case q.Key.IsZero() && kind == "req":
		return verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonRequired, Required: true}
	case q.Key.IsZero():
		return verifier.Result{Status: verifier.NoKey}
	case q.Key.Reveal() == "good":
		return verifier.Result{Status: verifier.Pass, Required: kind == "req"}
	}
	return verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey, Required: kind == "req"}
}

func TestFromCheck(t *testing.T) {
	tests := []struct {
		name, sender, key string
		from              []string
		want              string // of header.from, with reason and address; "" for none
		neverAsked        string // address that must not be asked about with the key
	}{
		{name: "the sender itself", sender: "alice@as.test", key: "good", from: []string{"Alice <alice@as.test>"},
			want: "pass header.from=alice@as.test"},
		{name: "the sender in other words", sender: "alice@as.test", key: "good", from: []string{`"alice"@AS.test (Alice)`},
			want: "pass header.from=alice@as.test"},
		{name: "the sender, wrong key", sender: "alice@as.test", key: "wrong", from: []string{"alice@as.test"},
			want: `fail reason="invalid-key" header.from=alice@as.test`},
		{name: "another address of the domain: its AS knows", sender: "alice+x@as.test", key: "good", from: []string{"Alice@as.test"},
			want: "pass header.from=Alice@as.test"},
		{name: "a colleague is somebody else", sender: "mallory@as.test", key: "mallorys", from: []string{"boss@as.test"},
			want: `fail reason="invalid-key" header.from=boss@as.test`},
		{name: "several domains: the key is nobody's", sender: "bounce@none.test", key: "good", from: []string{"alice@as.test, x@as.evil.test"},
			want: `none reason="no AuthKey" header.from=alice@as.test`, neverAsked: "x@as.evil.test"},
		{name: "the same where one requires keys", sender: "bounce@none.test", key: "good", from: []string{"x@as.evil.test", "x@req.test"},
			want: `fail reason="key-is-ambiguous" header.from=x@req.test`, neverAsked: "x@req.test"},
		{name: "several addresses of one domain", sender: "bounce@none.test", key: "good", from: []string{"alice@as.test, bob@as.test"},
			want: "pass header.from=alice@as.test"},
		{name: "shown, of a domain that requires keys", sender: "alice@as.test", key: "good", from: []string{"boss@req.test <alice@as.test>"},
			want: `fail reason="required" header.from=boss@req.test`, neverAsked: "boss@req.test"},
		{name: "shown, of a domain that does not", sender: "alice@as.test", key: "good", from: []string{"boss@as.evil.test <alice@as.test>"},
			want: "pass header.from=alice@as.test", neverAsked: "boss@as.evil.test"},
		{name: "shown, of nobody who takes part", sender: "alice@as.test", key: "good", from: []string{"boss@none.test <alice@as.test>"},
			want: "pass header.from=alice@as.test"},
		{name: "shown, cannot be looked up", sender: "alice@as.test", key: "good", from: []string{"boss@down.test <alice@as.test>"},
			want: "pass header.from=alice@as.test"},
		{name: "shown, the sender in another spelling: its AS knows", sender: "alice@req.test", key: "good", from: []string{"Alice@req.test <alice@req.test>"},
			want: "pass header.from=alice@req.test"},
		{name: "shown, nothing else there", sender: "alice@as.test", key: "good", from: []string{"boss%req.test"},
			want: `fail reason="required" header.from=boss@req.test`},
		{name: "shown, nothing else there, of a domain that does not", sender: "alice@as.test", key: "good", from: []string{"boss%none.test"},
			want: `permerror reason="bad-from"`},
		{name: "shown, the sender itself, whose result counts by itself", sender: "alice@req.test", key: "wrong", from: []string{"alice@req.test <x@none.test>"},
			want: `none reason="no-as" header.from=x@none.test`},
		{name: "a domain alone", sender: "alice@as.test", key: "good", from: []string{"<@req.test>"},
			want: `fail reason="key-is-envelope-senders" header.from=@req.test`},
		{name: "another domain's AS is never shown the key", sender: "alice@as.test", key: "good", from: []string{"x@as.evil.test"},
			want: `none reason="no AuthKey" header.from=x@as.evil.test`, neverAsked: "x@as.evil.test"},
		{name: "the same where it requires keys", sender: "alice@as.test", key: "good", from: []string{"x@req.evil.test"},
			want: `fail reason="key-is-envelope-senders" header.from=x@req.evil.test`, neverAsked: "x@req.evil.test"},
		{name: "not even a wrong key", sender: "alice@as.test", key: "wrong", from: []string{"x@as.evil.test"},
			want: `none reason="no AuthKey" header.from=x@as.evil.test`, neverAsked: "x@as.evil.test"},
		{name: "nor while the sender's AS is down", sender: "alice@down.test", key: "good", from: []string{"x@as.evil.test"},
			want: `none reason="no AuthKey" header.from=x@as.evil.test`, neverAsked: "x@as.evil.test"},
		{name: "no AS", sender: "alice@as.test", key: "good", from: []string{"x@none.test"},
			want: `none reason="no-as" header.from=x@none.test`},
		{name: "no key", sender: "bounce@none.test", from: []string{"alice@as.test"},
			want: `none reason="no AuthKey" header.from=alice@as.test`},
		{name: "no key, required", sender: "bounce@none.test", from: []string{"alice@req.test"},
			want: `fail reason="required" header.from=alice@req.test`},
		{name: "a mailing service's bounce address", sender: "bounce@none.test", key: "good", from: []string{"alice@as.test"},
			want: "pass header.from=alice@as.test"},
		{name: "the same, wrong key", sender: "bounce@none.test", key: "wrong", from: []string{"alice@as.test"},
			want: `fail reason="invalid-key" header.from=alice@as.test`},
		{name: "null sender", key: "good", from: []string{"alice@as.test"}, want: "pass header.from=alice@as.test"},
		{name: "null sender, a mail system", from: []string{"Mail <MAILER-DAEMON@as.test>"}},
		{name: "null sender, a postmaster", from: []string{"postmaster@as.test"}},
		{name: "a mail system with a sender", sender: "alice@none.test", from: []string{"mailer-daemon@as.test"},
			want: `none reason="no AuthKey" header.from=mailer-daemon@as.test`},
		{name: "several: the worst counts", sender: "alice@as.test", key: "good", from: []string{"alice@as.test, x@req.evil.test, y@none.test"},
			want: `fail reason="key-is-ambiguous" header.from=x@req.evil.test`},
		{name: "several fields", sender: "alice@as.test", key: "good", from: []string{"alice@as.test", "x@broken.test"},
			want: `permerror reason="as-record" header.from=x@broken.test`},
		{name: "the same one five times", sender: "alice@as.test", key: "good", from: []string{strings.Repeat("alice@as.test, ", 4) + "alice@as.test"},
			want: "pass header.from=alice@as.test"},
		{name: "more than honest mail has", sender: "alice@as.test", key: "good", from: []string{"alice@as.test", "a@as.test", "b@as.test", "c@as.test", "d@as.test"},
			want: `fail reason="from-limit"`},
		{name: "none", sender: "alice@as.test", key: "good", want: `permerror reason="bad-from"`},
		{name: "not to be read", sender: "alice@as.test", key: "good", from: []string{"alice"}, want: `permerror reason="bad-from"`},
		{name: "no domain that could be one", sender: "alice@as.test", key: "good", from: []string{"alice@as..test"}, want: `permerror reason="bad-from"`},
		{name: "an empty group", sender: "alice@as.test", key: "good", from: []string{"undisclosed:;"}, want: `permerror reason="bad-from"`},
		{name: "a group, folded, with comments", sender: "alice@as.test", key: "good", from: []string{"Us:\n alice@as.test (me)\n\t;"},
			want: "pass header.from=alice@as.test"},
		{name: "encoded words in any charset", sender: "alice@as.test", key: "good", from: []string{"=?x-klingon?q?Alice?= <alice@as.test>"},
			want: "pass header.from=alice@as.test"},
		{name: "a quoted address in a display name", sender: "alice@as.test", key: "good", from: []string{`"ceo@bank.test" <alice@as.test>`},
			want: "pass header.from=alice@as.test"},
		{name: "an address literal", sender: "alice@as.test", key: "good", from: []string{"x@[192.0.2.1]"},
			want: `none reason="domain-literal"`},
		{name: "too long", sender: "alice@as.test", key: "good", from: []string{strings.Repeat("a", fromfield.MaxOctets) + "@as.test"},
			want: `fail reason="from-limit"`},
		{name: "a local part that is too long", sender: "alice@as.test", key: "good", from: []string{strings.Repeat("a", wire.MaxAddress) + "@req.test"},
			want: `fail reason="key-is-envelope-senders" header.from=@req.test`},
	}
	settings := defaultSettings()
	settings.From = FromReport
	settings.FromTimeout = testLimits.IdleTimeout
	for _, cached := range []bool{false, true} {
		r := newRig(t, settings, policy.Options{})
		r.fake.answer = domainVerifier
		if cached {
			r.fake.cached = func(q verifier.Query) (verifier.Result, bool) {
				res := domainVerifier(context.Background(), q)
				return res, res.Status == verifier.Pass
			}
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r.fake.mu.Lock()
				r.fake.asked = nil
				r.fake.mu.Unlock()
				in := sent{from: tt.sender}
				for _, f := range tt.from {
					in.fields = append(in.fields, field{"From", f})
				}
				if tt.key != "" {
					in.fields = append(in.fields, field{"X-Auth-Key", tt.key})
				}
				c := r.connect()
				defer c.Close()
				got, err := send(c, in)
				if err != nil {
					t.Fatal(err)
				}
				if got.action != gomilter.ActionAccept {
					t.Errorf("from.check: report changed the verdict: %v %q", got.action, got.reply)
				}
				results := strings.Split(got.fields[0].value, ";\n\tx-authkey=")
				from := results[len(results)-1]
				if tt.want == "" {
					if strings.Contains(got.fields[0].value, "header.from") || len(results) > 2 {
						t.Errorf("Authentication-Results %q, want nothing of the From field", got.fields[0].value)
					}
				} else if from != tt.want {
					t.Errorf("From result %q, want %q", oplog.Cut(from, 200), tt.want)
				}
				for _, q := range r.fake.questions() {
					if q.Address.String() == tt.neverAsked && !q.Key.IsZero() {
						t.Errorf("%s's AS was shown the key", tt.neverAsked)
					}
				}
			})
		}
		for _, reason := range []verifier.Reason{verifier.ReasonKeyIsEnvelopes, verifier.ReasonKeyIsAmbiguous} {
			if want := "from_result=nokey from_reason=" + string(reason); !strings.Contains(r.log.String(), want) {
				t.Errorf("no log line has %q", want)
			}
		}
	}
}

func TestFromTrusted(t *testing.T) {
	settings := defaultSettings()
	settings.From = FromEnforce
	settings.FromTimeout = testLimits.IdleTimeout
	settings.FromTrusted = Trusted{Senders: policy.NewMatcher([]string{"lists.as.test"}), Clients: Networks{netip.MustParsePrefix("198.51.100.0/24")}}
	opts := policy.Options{EnforceFrom: true, From: policy.Actions{Fail: policy.Reject}}
	tests := []struct {
		name, client, sender, key string
		code                      uint16
	}{
		{"a list that passed", "192.0.2.1", "news@lists.as.test", "good", 250},
		{"a list that did not", "192.0.2.1", "news@lists.as.test", "wrong", 550},
		{"not that list", "192.0.2.1", "news@as.test", "good", 550},
		{"a client", "198.51.100.9", "news@none.test", "", 250},
		{"another client", "192.0.2.1", "news@none.test", "", 550},
	}
	r := newRig(t, settings, opts)
	r.fake.answer = domainVerifier
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bag := gomilter.NewMacroBag()
			in := sent{from: tt.sender, fields: []field{{"From", "victim@req.test"}}}
			if tt.key != "" {
				in.fields = append(in.fields, field{"X-Auth-Key", tt.key})
			}
			got, err := send(r.connectAs(tt.client, bag), in)
			if err != nil {
				t.Fatal(err)
			}
			if got.code != tt.code {
				t.Errorf("%d %q, want %d", got.code, got.reply, tt.code)
			}
		})
	}
	if !strings.Contains(r.log.String(), "by=from") || !strings.Contains(r.log.String(), "from_result=fail") {
		t.Errorf("log: %s", r.log)
	}
}

// TestPanicInTheFromCheck: nothing may be concluded from half of what was to be found out.
func TestPanicInTheFromCheck(t *testing.T) {
	settings := defaultSettings()
	settings.From, settings.FromTimeout = FromReport, time.Minute
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
		if got := r.mustSend(r.connect(), in); got.reply != filterErrorText {
			t.Errorf("%v: %v %q, want %q", in.fields, got.action, got.reply, filterErrorText)
		}
	}
	// One that the verifier has recovered from.
	r.fake.answer = func(_ context.Context, q verifier.Query) verifier.Result {
		if q.Address.Domain() == "bank.test" {
			return verifier.Result{Status: verifier.TempError, Reason: verifier.ReasonBroken}
		}
		return verifier.Result{Status: verifier.None}
	}
	if got := r.mustSend(r.connect(), in); got.reply != filterErrorText {
		t.Errorf("in the verifier: %v %q, want %q", got.action, got.reply, filterErrorText)
	}
}
