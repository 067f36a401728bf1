package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testmta"
)

// TestDKIM lets a real OpenDKIM sign behind our milter, and another one verify behind
// the milter of a site that has removed the key.
func TestDKIM(t *testing.T) {
	t.Parallel()
	must(t, testmta.EnsureOpenDKIM(t.Context(), t.Logf))
	w := newWorld(t)
	a, b := foundSite(t, w, "a.test", []string{"alice"}), foundSite(t, w, "b.test", []string{"bob"})
	a.milter, b.milter = a.startMilter(t, ""), b.startMilter(t, "")
	verifier, err := testmta.StartDKIMVerifier(t.Context(), w.DNS.Addr(), dkimVerifier)
	must(t, err)
	stopLater(t, verifier)
	b.startPostfix(t, testmta.PostfixOptions{
		Milters: []string{b.milter.Socket, verifier.Milter()},
		// This one shows what the signature is worth as long as the key is there.
		Listeners: []testmta.Listener{{Name: "untouched", Options: []string{"smtpd_milters=" + verifier.Milter()}}},
	})

	tests := []struct {
		name      string
		signer    []string // lines of its opendkim.conf
		signs     []string // the fields of ours in h=
		untouched string   // what the signature is worth to who does not know the key
		arrived   string   // and at b.test, once the key is gone
	}{
		{"as it is", nil, nil, "pass", "pass"},
		{"omitted", []string{"OmitHeaders *,+X-Auth-Key", "SignHeaders *,+X-Auth-Key,+X-Auth-Agent"}, []string{agentField}, "pass", "pass"},
		{"signed", []string{"SignHeaders *,+X-Auth-Key"}, []string{keyField}, "pass", "fail"},
		{"signed and oversigned", []string{"SignHeaders *,+X-Auth-Key", "OversignHeaders From,X-Auth-Key"}, []string{keyField}, "pass", "fail"},
		// What is only oversigned is signed as not being there, and nothing omits that.
		{"oversigned", []string{"OmitHeaders *,+X-Auth-Key", "OversignHeaders From,X-Auth-Key"}, []string{keyField}, "fail", "pass"},
	}
	options := testmta.PostfixOptions{RecipientDomains: []string{"kept.test"}, Main: relayTo(b.mta.SMTPAddr())}
	for i, tt := range tests {
		selector := fmt.Sprintf("s%d", i)
		signer, err := testmta.StartSigner(t.Context(), "a.test", selector, tt.signer...)
		must(t, err)
		stopLater(t, signer)
		must(t, w.DNS.Set(signer.Record))
		options.Listeners = append(options.Listeners, testmta.Listener{Name: selector,
			Options: []string{"smtpd_milters=" + a.milter.Socket + "," + signer.Milter()}})
	}
	a.startPostfix(t, options)

	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := testmta.DialFrom("127.0.0.2", a.mta.Listener(fmt.Sprintf("s%d", i)))
			must(t, err)
			defer c.Close()
			m := &mail{from: "alice@a.test", author: "alice@a.test", rcpts: []string{"bob@b.test", "spy@kept.test"}}
			submission := m.transaction()
			submission.XClient = "LOGIN=alice@a.test"
			out, err := c.Send(submission)
			must(t, err)
			if !out.Accepted {
				t.Fatalf("the answer is %s", out.Final)
			}
			sent := delivered(t, a.mta, m)
			if got := sent.Values(keyField); !slices.Equal(got, []string{mustKey(t, w, "alice@a.test")}) {
				t.Errorf("it leaves with the keys %q", got)
			}
			signed := signedFields(sent.Get("DKIM-Signature"))
			for _, field := range []string{keyField, agentField} {
				if slices.Contains(signed, strings.ToLower(field)) != slices.Contains(tt.signs, field) {
					t.Errorf("the signature covers %q", signed)
				}
			}
			got := delivered(t, b.mta, m)
			if res := resultBy(got, "mx.b.test"); !strings.HasPrefix(res, "x-authkey=pass smtp.mailfrom=alice@a.test;") || len(got.Values(keyField)) != 0 {
				t.Errorf("it arrives with %q and the keys %q", res, got.Values(keyField))
			}
			if res := resultBy(got, dkimVerifier); !strings.HasPrefix(res, "dkim="+tt.arrived+" ") {
				t.Errorf("OpenDKIM says %q, want %s:\n%s", res, tt.arrived, got.Raw)
			}
			if res := resultUntouched(t, b, sent); !strings.HasPrefix(res, "dkim="+tt.untouched+" ") {
				t.Errorf("OpenDKIM says %q of what left, want %s", res, tt.untouched)
			}
		})
	}
}

const (
	dkimVerifier = "dkim.b.test" // its authserv-id
	// The fields of ours that a signature may cover, or not.
	keyField   = "X-Auth-Key"
	agentField = "X-Auth-Agent"
)

func stopLater(t *testing.T, d *testmta.OpenDKIM) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("OpenDKIM's log:\n%s", d.Log())
		}
		must(t, d.Stop())
	})
}

// signedFields are the names in h= of a DKIM-Signature, in lower case.
func signedFields(signature string) []string {
	for tag := range strings.SplitSeq(signature, ";") {
		if list, ok := strings.CutPrefix(strings.TrimSpace(tag), "h="); ok {
			return strings.Split(strings.ToLower(strings.Join(strings.Fields(list), "")), ":")
		}
	}
	return nil
}

// resultBy is what that verifier wrote on top of a message.
func resultBy(d testmta.Message, verifier string) string {
	for _, f := range d.Above() {
		if id, result, _ := strings.Cut(f.Value, ";"); f.Name == "Authentication-Results" && id == verifier {
			return strings.Join(strings.Fields(result), " ")
		}
	}
	return ""
}

// resultUntouched sends a message, as it left, to OpenDKIM alone.
func resultUntouched(t *testing.T, b *site, sent testmta.Message) string {
	t.Helper()
	c, err := testmta.Dial(b.mta.Listener("untouched"))
	must(t, err)
	defer c.Close()
	raw := sent.Raw
	for _, name := range []string{"Return-Path", "X-Original-To", "Delivered-To"} { // by delivery
		i := slices.IndexFunc(sent.Fields, func(f testmta.Field) bool { return f.Name == name })
		raw = bytes.TrimPrefix(raw, []byte(sent.Fields[i].Raw))
	}
	const sender = "copy@a.test"
	out, err := c.Send(testmta.Transaction{MailFrom: sender, Rcpts: []string{"bob@b.test"}, Data: bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))})
	must(t, err)
	if !out.Accepted {
		t.Fatalf("the copy: %s", out.Final)
	}
	got, err := b.mta.WaitDelivered(t.Context(), func(d testmta.Message) bool {
		return d.Sender == sender && d.Get("Subject") == sent.Get("Subject")
	})
	must(t, err)
	return resultBy(got, dkimVerifier)
}
