package selftest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"
	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/loopback"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWorld(t *testing.T) *World {
	t.Helper()
	w, err := NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// newEngine makes a configuration in force for a milter in the world.
func newEngine(t *testing.T, w *World, opts policy.Options) *milter.Engine {
	t.Helper()
	certificate, err := os.ReadFile(w.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificate) {
		t.Fatalf("%s: no certificate", w.CAFile())
	}
	v := verifier.New(verifier.Options{
		Resolvers: []netip.AddrPort{w.DNS()}, AllowNetworks: []netip.Prefix{w.Network()}, Roots: roots,
		// What answers answers in time, however busy the machine is.
		DNSTimeout: 20 * time.Second, Timeout: 45 * time.Second, ConnectTimeout: 20 * time.Second, ReplyTimeout: 20 * time.Second,
		DefaultTTL: time.Minute, MaxTTL: time.Hour,
	})
	t.Cleanup(v.Close)
	return &milter.Engine{
		Settings: milter.Settings{HostName: "host.test", MarkHeader: "X-Spam-Flag", MarkValue: "YES",
			From: milter.FromReport, FromTimeout: 45 * time.Second},
		Limits:   milter.Limits{Connections: 10, IdleTimeout: time.Minute, Recipients: 10},
		Verifier: v, Policy: policy.New(opts),
	}
}

// startMilter serves an engine and returns its socket.
func startMilter(t *testing.T, w *World, e *milter.Engine) string {
	t.Helper()
	log := slog.New(slog.NewJSONHandler(w.Log(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	path := filepath.Join(w.Dir(), "sock")
	ln, err := milter.Listen("unix", path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	srv := milter.New(log, e)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond) // one test has a stuck one
		defer cancel()
		srv.Shutdown(ctx)
		_ = ln.Close()
		<-served
	})
	return path
}

func run(t *testing.T, w *World, e *milter.Engine, socket string) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	report, err := w.Run(ctx, Subject{Socket: socket, Engine: e, Recipients: []string{"bob@rcpt.test"}})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// faults lists every fault with its message's name.
func faults(r *Report) []string {
	list := append([]string(nil), r.Faults...)
	for _, row := range r.Messages {
		for _, f := range row.Faults {
			list = append(list, row.Message+": "+f)
		}
	}
	return list
}

func TestSoundMilter(t *testing.T) {
	w := newWorld(t)
	e := newEngine(t, w, policy.Options{Defaults: policy.Actions{Fail: policy.Reject, NoKey: policy.Quarantine, PermError: policy.Discard}})
	report := run(t, w, e, startMilter(t, w, e))
	if !report.OK() {
		t.Errorf("faults of a sound milter: %q", faults(report))
	}
	want := map[string][3]string{ // result, action, what became of it
		"valid key":                    {"pass", "accept", "delivered"},
		"valid key again":              {"pass", "accept", "delivered"},
		"wrong key":                    {"fail", "reject", "550 5.7.1 Sender address not authenticated: AuthKey invalid"},
		"no key where one is required": {"fail", "reject", "550 5.7.1 Sender address not authenticated: AuthKey missing"},
		"no key":                       {"nokey", "quarantine", "held: authkey: nokey"},
		"domain without AS":            {"none", "accept", "delivered"},
		"AS is down":                   {"temperror", "accept", "delivered"},
		"AS is down, key required":     {"temperror", "tempfail", "451 4.7.1 AuthKey cannot be verified now, try again later"},
		"unusable record":              {"permerror", "discard", "discarded"},
		"null sender":                  {"skipped", "accept", "delivered"},
		"forged From":                  {"pass", "accept", "delivered"},
		"forged results":               {"nokey", "quarantine", "held: authkey: nokey"},
	}
	if len(report.Messages) != len(want) {
		t.Errorf("%d messages, want %d", len(report.Messages), len(want))
	}
	for _, row := range report.Messages {
		if got := [3]string{row.Result, row.Action, row.Became}; got != want[row.Message] {
			t.Errorf("%s: %q, want %q", row.Message, got, want[row.Message])
		}
		if row.Cached != (row.Message == "valid key again") {
			t.Errorf("%s: cached %v", row.Message, row.Cached)
		}
		if wantFrom := map[bool]string{true: "fail", false: row.Result}[row.Message == "forged From"]; row.From != wantFrom {
			t.Errorf("%s: From result %q, want %q", row.Message, row.From, wantFrom)
		}
	}
}

// A tamperer is a verifier that something is wrong with.
type tamperer struct {
	milter.Verifier
	verify func(context.Context, milter.Verifier, verifier.Query) verifier.Result
}

func (v tamperer) Verify(ctx context.Context, q verifier.Query) verifier.Result {
	return v.verify(ctx, v.Verifier, q)
}

// A postman is a notifier that something is wrong with.
type postman func(milter.Original, []milter.Notice)

func (postman) AllowDSN(milter.Original) bool { return true }

func (p postman) Deliver(_ context.Context, o milter.Original, _ []milter.Failure, notices []milter.Notice) error {
	p(o, notices)
	return nil
}

// TestBrokenMilter has milters that do what they must not, each in one way.
func TestBrokenMilter(t *testing.T) {
	opts := policy.Options{Defaults: policy.Actions{Fail: policy.RejectNotify, NoKey: policy.Mark}}
	own := func(w *World, address string) string {
		key, err := w.server.key(address)
		if err != nil {
			t.Error(err)
		}
		return key
	}
	for _, tt := range []struct {
		name   string
		tamper func(*World, *milter.Engine)
		wants  []string // faults, each a part of one
	}{
		{"another policy", func(_ *World, e *milter.Engine) {
			e.Policy = policy.New(policy.Options{Defaults: policy.Actions{Fail: policy.Reject}})
		}, []string{`wrong key: action is "reject", must be "reject-notify"`, `no key: action is "accept", must be "mark"`,
			"no key: it lacks a field: X-Spam-Flag: YES", "no key: it has a field that it must not have: X-Spam-Flag: NO, says the sender",
			"wrong key: number of notices is 0, must be 1"}},
		{"test mode", func(_ *World, e *milter.Engine) {
			test := opts
			test.Test = true
			e.Policy = policy.New(test)
		}, []string{`wrong key: the message is "delivered", must be "refused"`, `valid key: would= in the log is "accept", must be ""`}},
		{"other texts", func(_ *World, e *milter.Engine) {
			other := opts
			other.Texts.Fail = "go away"
			e.Policy = policy.New(other)
		}, []string{`wrong key: the reply is "550 5.7.1 go away", must be "550 5.7.1 Sender address not authenticated: AuthKey invalid"`}},
		{"everything passes", func(_ *World, e *milter.Engine) {
			e.Verifier = tamperer{e.Verifier, func(context.Context, milter.Verifier, verifier.Query) verifier.Result {
				return verifier.Result{Status: verifier.Pass}
			}}
		}, []string{`wrong key: result is "pass", must be "fail"`, `forged From: from_result= in the log is "pass", must be "fail"`,
			"valid key: number of questions to the Authentication Server is 0, must be 1"}},
		{"asks twice", func(_ *World, e *milter.Engine) {
			e.Verifier = tamperer{e.Verifier, func(ctx context.Context, v milter.Verifier, q verifier.Query) verifier.Result {
				v.Verify(ctx, q)
				return v.Verify(ctx, q)
			}}
		}, []string{"wrong key: number of questions to the Authentication Server is 2, must be 1"}},
		{"logs keys", func(w *World, e *milter.Engine) {
			e.Verifier = tamperer{e.Verifier, func(ctx context.Context, v milter.Verifier, q verifier.Query) verifier.Result {
				slog.New(slog.NewJSONHandler(w.Log(), nil)).Info("asking", "key", q.Key.Reveal()[4:20])
				return v.Verify(ctx, q)
			}}
		}, []string{"valid key: a key is in the log"}},
		{"logs an error", func(w *World, e *milter.Engine) {
			e.Verifier = tamperer{e.Verifier, func(ctx context.Context, v milter.Verifier, q verifier.Query) verifier.Result {
				slog.New(slog.NewJSONHandler(w.Log(), nil)).Error("ouch")
				return v.Verify(ctx, q)
			}}
		}, []string{"valid key: the log has an error: ouch"}},
		{"panics", func(w *World, e *milter.Engine) {
			e.Verifier = tamperer{e.Verifier, func(context.Context, milter.Verifier, verifier.Query) verifier.Result { panic("ouch") }}
		}, []string{`valid key: the message is "deferred", must be "delivered"`, "valid key: the log has an error: panic in a milter callback"}},
		{"sends no notices", func(_ *World, e *milter.Engine) {
			e.Notifier = postman(func(milter.Original, []milter.Notice) {})
		}, []string{"wrong key: number of notices is 0, must be 1"}},
		{"sends keys in notices, to somebody else", func(w *World, e *milter.Engine) {
			e.Notifier = postman(func(o milter.Original, notices []milter.Notice) {
				w.notices.add(loopback.Mail{Sender: o.Sender, Recipient: "eve@rcpt.test", Raw: []byte("Your key: " + own(w, o.Sender) + "\r\n")})
			})
		}, []string{`wrong key: a notice goes to "eve@rcpt.test", must go to "bob@rcpt.test"`, `wrong key: the notice's sender is "alice1@sender.test", must be ""`,
			"wrong key: a key is in a notice"}},
		{"checks nobody's mail", func(_ *World, e *milter.Engine) {
			e.Settings.ExemptNetworks, e.Settings.KeepResults = milter.Networks{netip.MustParsePrefix("0.0.0.0/0")}, true
		}, []string{`valid key: result is "skipped", must be "pass"`, "valid key: it lacks a field: Authentication-Results: mx.selftest.test; x-authkey=pass",
			"forged results: it has a field that it must not have: Authentication-Results: host.test; x-authkey=pass"}},
		{"takes all mail for its own users'", func(_ *World, e *milter.Engine) {
			e.Settings.Submission.Networks = milter.Networks{netip.MustParsePrefix("0.0.0.0/0")}
		}, []string{"valid key: it has a field that it must not have: X-Auth-Key", "valid key: a key is in what is delivered",
			"valid key: removed= in the log is 0, must be 2"}},
		{"another name", func(_ *World, e *milter.Engine) {
			e.Settings.AuthservID = "mx.example.com"
		}, []string{"valid key: it lacks a field: Authentication-Results: mx.selftest.test; x-authkey=pass smtp.mailfrom=alice1@sender.test; x-authkey=pass header.from=alice1@sender.test"}},
		{"does not look at From", func(_ *World, e *milter.Engine) {
			e.Settings.From = milter.FromOff
		}, []string{`forged From: from_result= in the log is "", must be "fail"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			e := newEngine(t, w, opts)
			e.Notifier = postman(func(o milter.Original, notices []milter.Notice) {
				w.notices.add(loopback.Mail{Recipient: notices[0].Recipient, Raw: []byte("something was refused\r\n")})
			})
			served := *e
			tt.tamper(w, &served)
			report := run(t, w, e, startMilter(t, w, &served))
			if report.OK() {
				t.Error("report is OK")
			}
			wantFaults(t, faults(report), tt.wants)
		})
	}
}

func wantFaults(t *testing.T, got, wants []string) {
	t.Helper()
	all := strings.Join(got, "\n")
	for _, want := range wants {
		if !strings.Contains(all, want) {
			t.Errorf("no fault %q among\n%s", want, all)
		}
	}
}

// TestNoMilter has a milter that is none: it accepts everything as it is.
func TestNoMilter(t *testing.T) {
	w := newWorld(t)
	e := newEngine(t, w, policy.Options{})
	path := filepath.Join(w.Dir(), "sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := gomilter.NewServer(gomilter.WithMilter(func() gomilter.Milter { return gomilter.NoOpMilter{} }))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	defer func() {
		_ = server.Close()
		<-served
	}()
	report := run(t, w, e, path)
	for _, row := range report.Messages {
		if len(row.Faults) == 0 {
			t.Errorf("%s: no fault", row.Message)
		}
		if keys := row.Message != "no key" && row.Message != "no key where one is required"; row.KeyGone == keys {
			t.Errorf("%s: key gone: %v", row.Message, row.KeyGone)
		}
	}
	wantFaults(t, faults(report), []string{
		"valid key: number of log lines about the message is 0, must be 1",
		"forged results: it has a field that it must not have: X-Authkey-Quarantine",
		"forged results: it has a field that it must not have: X-New-Auth-Key",
	})
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); !strings.Contains(got, "NOT AS IT MUST BE: valid key: a key is in what is delivered\n") || strings.Contains(got, "as they must be") {
		t.Errorf("text for people:\n%s", got)
	}
	var view struct {
		OK       bool
		Messages []Row
	}
	var out bytes.Buffer
	if err := report.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &view); err != nil || view.OK || len(view.Messages) != len(report.Messages) {
		t.Errorf("JSON: ok %v, %d messages, %v", view.OK, len(view.Messages), err)
	}
	// Not even a report of leaks may leak.
	r := runner{keys: allKeys(t, w)}
	if r.leaks(text.String()) || r.leaks(out.String()) {
		t.Error("the report has a key in it")
	}
}

// allKeys are the keys that the Authentication Server would call valid.
func allKeys(t *testing.T, w *World) []string {
	t.Helper()
	var keys []string
	for _, address := range []string{"alice1@" + senderDomain, "mallory1@" + otherDomain} {
		key, err := w.server.key(address)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

func TestCannotTell(t *testing.T) {
	w := newWorld(t)
	e := newEngine(t, w, policy.Options{})
	if _, err := w.Run(t.Context(), Subject{Socket: filepath.Join(w.Dir(), "nobody"), Engine: e, Recipients: []string{"b@rcpt.test"}}); err == nil {
		t.Error("Run without a milter succeeds")
	}
	late := errors.New("too late")
	ctx, end := context.WithCancelCause(t.Context())
	stuck := *e
	stuck.Verifier = tamperer{e.Verifier, func(ctx context.Context, _ milter.Verifier, _ verifier.Query) verifier.Result {
		end(late)
		<-ctx.Done()
		return verifier.Result{Status: verifier.TempError}
	}}
	stuck.Settings.FromTimeout = time.Minute
	socket := startMilter(t, w, &stuck)
	if _, err := w.Run(ctx, Subject{Socket: socket, Engine: e, Recipients: []string{"b@rcpt.test"}}); !errors.Is(err, late) {
		t.Errorf("Run with a milter that is stuck: %v, want %v", err, late)
	}
}

func TestChooseClient(t *testing.T) {
	networks := func(texts ...string) (n milter.Networks) {
		for _, text := range texts {
			n = append(n, netip.MustParsePrefix(text))
		}
		return n
	}
	for _, tt := range []struct {
		name                        string
		exempt, submission, trusted milter.Networks
		want                        string // "": there is none
	}{
		{name: "nothing", want: "192.0.2.25"},
		{name: "one exempt, one our own, one trusted", exempt: networks("192.0.2.0/24"), submission: networks("198.51.100.0/24"),
			trusted: networks("203.0.113.25/32"), want: "2001:db8::25"},
		{name: "all trusted", trusted: networks("0.0.0.0/0", "::/0"), want: "192.0.2.25"},
		{name: "all but a trusted one exempt", exempt: networks("192.0.0.0/8", "2001:db8::/32", "203.0.113.0/24"),
			trusted: networks("198.51.100.0/24"), want: "198.51.100.25"},
		{name: "all exempt", exempt: networks("0.0.0.0/0"), submission: networks("::/0")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := chooseClient(&milter.Settings{ExemptNetworks: tt.exempt,
				Submission: milter.Submission{Networks: tt.submission}, FromTrusted: milter.Trusted{Clients: tt.trusted}})
			if ok != (tt.want != "") || ok && got.String() != tt.want {
				t.Errorf("chooseClient = %v, %v; want %q", got, ok, tt.want)
			}
		})
	}
}

// TestTrustedClient has From fields that are not checked, and none is written.
func TestTrustedClient(t *testing.T) {
	w := newWorld(t)
	e := newEngine(t, w, policy.Options{})
	e.Settings.FromTrusted.Clients = milter.Networks{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	report := run(t, w, e, startMilter(t, w, e))
	if !report.OK() {
		t.Errorf("faults: %q", faults(report))
	}
	for _, row := range report.Messages {
		if row.From != "skipped" {
			t.Errorf("%s: From result %q, want skipped", row.Message, row.From)
		}
	}
}

func TestLeaks(t *testing.T) {
	const key = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	r := runner{keys: []string{key}}
	for text, want := range map[string]bool{
		"":                                    false,
		"nothing here":                        false,
		"X-Auth-Key: " + key:                  true,
		strings.ToLower(key):                  true,
		"the end of it: UVWXYZ234567.":        true,
		"too little: VWXYZ234567.":            false,
		"ABCDEF\r\n\tGHIJKLMN":                true,
		"quoted-printable: ABCDEFG=\r\nHIJKL": true,
	} {
		if got := r.leaks(text); got != want {
			t.Errorf("leaks(%q) = %v, want %v", text, got, want)
		}
	}
}

// TestResolver asks what the verifier asks, and nonsense.
func TestResolver(t *testing.T) {
	w := newWorld(t)
	v := newEngine(t, w, policy.Options{}).Verifier
	for domain, want := range map[string]verifier.Result{
		senderDomain:     {Status: verifier.NoKey},
		"SENDER.test":    {Status: verifier.NoKey},
		strictDomain:     {Status: verifier.Fail, Reason: verifier.ReasonRequired},
		plainDomain:      {Status: verifier.None, Reason: verifier.ReasonNoAS},
		"unknown.test":   {Status: verifier.None, Reason: verifier.ReasonNoAS},
		brokenDomain:     {Status: verifier.PermError, Reason: verifier.ReasonASRecord},
		"as.sender.test": {Status: verifier.None, Reason: verifier.ReasonNoAS},
	} {
		address, err := wire.ParseAddress("a@" + domain)
		if err != nil {
			t.Fatal(err)
		}
		got := v.Verify(t.Context(), verifier.Query{Address: address})
		if got.Status != want.Status || got.Reason != want.Reason {
			t.Errorf("%s: %s (%s), want %s (%s)", domain, got.Status, got.Reason, want.Status, want.Reason)
		}
	}
	for _, packet := range []string{"", "x", strings.Repeat("\x00", 12)} {
		if answer, err := w.dns.answer([]byte(packet)); err == nil {
			t.Errorf("answer(%q) = %q, want an error", packet, answer)
		}
	}
}
