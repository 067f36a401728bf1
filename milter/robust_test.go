package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

const filterErrorText = "451 4.3.0 Filter error, try again later"

// TestChangeThatCannotBeMade: the MTA, which has some of the changes then, gets no answer
// that would let the message pass.
func TestChangeThatCannotBeMade(t *testing.T) {
	settings := defaultSettings()
	settings.MarkValue = "YES\r\nX-Forged: y"
	r := newRig(t, settings, policy.Options{})
	if got, err := send(r.connect(), forged("accept")); err == nil {
		t.Errorf("%v %q %q", got.action, got.reply, got.fields)
	}
	r.waitFor("the line", func() bool { return strings.Contains(r.log.String(), "reason=filter-error") })
	if !strings.Contains(r.log.String(), "action=tempfail") {
		t.Errorf("log: %s", r.log)
	}
}

// panicking is all that an Engine asks, and panics where its name says so.
type panicking struct {
	*fakeVerifier
	*fakeNotifier
	where string
}

func (p panicking) at(where string) {
	if p.where == where {
		panic("SECRETKEY")
	}
}

func (p panicking) Prefetch(verifier.Address)       { p.at("prefetch") }
func (p panicking) Known(_ []policy.Recipient) bool { return false }

func (p panicking) Fill(context.Context, []policy.Recipient) (int, error) {
	p.at("preferences")
	return 0, nil
}

func (p panicking) Deliver(context.Context, Original, []Failure, []Notice) error {
	p.at("notify")
	return nil
}

// TestPanicsOfParts: a message of which something was not done is deferred, also where
// that was not at its end.
func TestPanicsOfParts(t *testing.T) {
	for _, where := range []string{"", "prefetch", "preferences", "notify"} {
		r := newRig(t, defaultSettings(), policy.Options{})
		parts := panicking{r.fake, r.told, where}
		r.srv.Swap(&Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: parts, Preferences: parts, Notifier: parts,
			Policy: policy.New(policy.Options{Defaults: policy.Actions{Fail: policy.RejectNotify}})})
		want := filterErrorText
		if where == "" {
			want = "550 5.7.1 Sender address not authenticated: AuthKey invalid"
		}
		if got := r.mustSend(r.connect(), forged("bob")); got.reply != want {
			t.Errorf("%q: %q, want %q", where, got.reply, want)
		}
		if got := strings.Contains(r.log.String(), "reason=filter-error"); got != (where != "") || strings.Contains(r.log.String(), "SECRETKEY") {
			t.Errorf("%q: log: %s", where, r.log)
		}
	}
}

// TestNothingIsLeftOfTheLastMessage sends pairs of messages on one connection.
func TestNothingIsLeftOfTheLastMessage(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	s := r.connect()
	withKey := sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}, {"Authentication-Results", "mx.test; x-authkey=pass"}}}
	without := sent{from: "alice@a.test", fields: []field{{"Subject", "x"}}}
	wantWithout := []field{{"Authentication-Results", aliceAuthRes + `none reason="no AuthKey" smtp.mailfrom=alice@a.test`}, {"Subject", "x"}}

	check := func(step string) {
		t.Helper()
		if got := r.mustSend(s, without); !slices.Equal(got.fields, wantWithout) {
			t.Errorf("%s: header %q, want %q", step, got.fields, wantWithout)
		}
	}
	r.mustSend(s, withKey)
	check("after a whole message")

	if _, err := s.Mail("mallory@m.test", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rcpt("x@far.test", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DataStart(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.HeaderField("X-Auth-Key", "good", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Abort(nil); err != nil {
		t.Fatal(err)
	}
	check("after an aborted message")
	if n := strings.Count(r.log.String(), "action=aborted"); n != 1 {
		t.Errorf("%d lines say action=aborted, want 1:\n%s", n, r.log)
	}

	// SMFIC_QUIT_NC: another client on the same connection, this one a stranger.
	bag := gomilter.NewMacroBag()
	if err := s.Reset(bag); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Conn("other.test", gomilter.FamilyInet, 25, "203.0.113.9"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Helo("other.test"); err != nil {
		t.Fatal(err)
	}
	before := len(r.log.String())
	got := r.mustSend(s, without)
	if line := r.log.String()[before:]; !strings.Contains(line, "client=203.0.113.9 ") {
		t.Errorf("after QUIT_NC the line is %q", line)
	}
	if !slices.Equal(got.fields, wantWithout) {
		t.Errorf("after QUIT_NC: header %q", got.fields)
	}
}

// TestLoginEndsWithTheMessage: {auth_authen} of one client must not make the next
// one on the same milter connection a user of ours.
func TestLoginEndsWithTheMessage(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	bag := gomilter.NewMacroBag()
	bag.Set(gomilter.MacroAuthAuthen, "alice")
	s := r.connectAs("192.0.2.1", bag)
	forged := sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "wrong"}}}
	r.mustSend(s, forged)
	if err := s.Reset(gomilter.NewMacroBag()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Conn("other.test", gomilter.FamilyInet, 25, "203.0.113.9"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Helo("other.test"); err != nil {
		t.Fatal(err)
	}
	r.mustSend(s, forged)
	if n := len(r.fake.questions()); n != 1 {
		t.Errorf("%d questions, want 1: the second message is a stranger's", n)
	}
}

func TestPanicsAre451(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	boom := sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "SECRETKEY"}}}
	panics := func(context.Context, verifier.Query) verifier.Result { panic("SECRETKEY") }
	s := r.connect()
	r.fake.answer = panics
	if got := r.mustSend(s, boom); got.reply != filterErrorText {
		t.Errorf("a panic while asking: %q, want %q", got.reply, filterErrorText)
	}
	r.fake.answer = nil
	r.fake.cached = func(verifier.Query) (verifier.Result, bool) { panic(errors.New("SECRETKEY")) }
	if got := r.mustSend(s, boom); got.reply != filterErrorText {
		t.Errorf("a panic in the session: %q, want %q", got.reply, filterErrorText)
	}
	r.fake.cached = nil
	if got := r.mustSend(s, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}}); got.action != gomilter.ActionAccept {
		t.Errorf("the message after: %v", got.action)
	}
	logged := r.log.String()
	if n := strings.Count(logged, "panic in a milter callback"); n != 2 {
		t.Errorf("%d panics logged, want 2", n)
	}
	if n := strings.Count(logged, "action=tempfail"); n != 2 || !strings.Contains(logged, "reason=filter-error") {
		t.Errorf("the messages' own lines are missing:\n%s", logged)
	}
	if strings.Contains(logged, "SECRETKEY") {
		t.Errorf("the key is in the log:\n%s", logged)
	}
}

func TestDeletionLimit(t *testing.T) {
	const tooMany = "550 5.7.1 Too many authentication header fields"
	repeat := func(n int, f field) []field { return slices.Repeat([]field{f}, n) }
	tests := []struct {
		name   string
		fields []field
		want   string
	}{
		{"256 keys", repeat(256, field{"X-Auth-Key", "good"}), ""},
		{"257 keys", repeat(257, field{"X-Auth-Key", "good"}), tooMany},
		{"12000 keys", repeat(12000, field{"X-Auth-Key", "good"}), tooMany},
		{"12000 forged results", repeat(12000, field{"Authentication-Results", "mx.test; x-authkey=pass"}), tooMany},
		{"of several kinds", slices.Concat(repeat(100, field{"X-Auth-Key", "good"}), repeat(100, field{"X-New-Auth-Key", "x"}),
			repeat(57, field{"X-Authkey-Quarantine", "x"})), tooMany},
		{"spam flags of a message that is marked", append(repeat(256, field{"X-Spam-Flag", "NO"}), field{"X-Auth-Key", "wrong"}), tooMany},
		{"spam flags of one that is not", append(repeat(300, field{"X-Spam-Flag", "NO"}), field{"X-Auth-Key", "good"}), ""},
	}
	for _, test := range []bool{false, true} {
		r := newRig(t, defaultSettings(), policy.Options{Test: test})
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s,test=%v", tt.name, test), func(t *testing.T) {
				if test && tt.name == "spam flags of a message that is marked" {
					tt.want = "" // it is not marked
				}
				got, err := send(r.connect(), sent{from: "alice@a.test", fields: tt.fields})
				if err != nil {
					t.Fatal(err)
				}
				if tt.want != "" && (got.reply != tt.want || len(got.fields) != len(tt.fields)) {
					t.Errorf("%q, %d fields of %d left; want %q and nothing deleted", got.reply, len(got.fields), len(tt.fields), tt.want)
				}
				if tt.want == "" && (got.action != gomilter.ActionAccept || hasField(got.fields, "X-Auth-Key")) {
					t.Errorf("%v %q, want accept without a key", got.action, got.reply)
				}
			})
		}
	}
}

func TestTooManyRecipients(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	s := r.connect()
	in := sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}}
	for i := range 51 {
		in.rcpts = append(in.rcpts, fmt.Sprintf("r%d@rcpt.test", i))
	}
	if got := r.mustSend(s, in); got.reply != "451 4.5.3 Too many recipients" {
		t.Errorf("51 recipients: %q", got.reply)
	}
	in.rcpts = in.rcpts[:50]
	if got := r.mustSend(s, in); got.action != gomilter.ActionAccept {
		t.Errorf("50 recipients: %v %q", got.action, got.reply)
	}
}

// TestLesserMTAs negotiates with MTAs that offer less.
func TestLesserMTAs(t *testing.T) {
	const all = gomilter.AllClientSupportedActionMasks
	tests := []struct {
		name string
		opts []gomilter.Option
	}{
		{"protocol 2", []gomilter.Option{gomilter.WithMaximumVersion(2), gomilter.WithProtocols(0x7f), gomilter.WithActions(0x3f)}},
		{"protocol 3", []gomilter.Option{gomilter.WithMaximumVersion(3), gomilter.WithProtocols(0x7f), gomilter.WithActions(0x3f)}},
		{"protocol 4", []gomilter.Option{gomilter.WithMaximumVersion(4), gomilter.WithProtocols(0x7f), gomilter.WithActions(0x3f)}},
		{"no options at all", []gomilter.Option{gomilter.WithProtocols(0)}},
		{"no macro requests", []gomilter.Option{gomilter.WithoutAction(gomilter.OptSetMacros)}},
		{"no quarantine", []gomilter.Option{gomilter.WithActions(all &^ gomilter.OptQuarantine)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, defaultSettings(), policy.Options{Defaults: policy.Actions{Fail: policy.Quarantine}})
			s := r.connect(tt.opts...)
			got := r.mustSend(s, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "wrong"}, {"X-Auth-Key", ""}}})
			if got.action != gomilter.ActionAccept || hasField(got.fields, "X-Auth-Key") {
				t.Errorf("%v %q", got.action, got.fields)
			}
			if tt.name == "no quarantine" {
				if got.held != "" || !hasField(got.fields, "X-Spam-Flag") {
					t.Errorf("held %q, header %q; want it marked", got.held, got.fields)
				}
				if !strings.Contains(r.log.String(), "note=no-quarantine") || strings.Count(r.log.String(), "the MTA lacks actions") != 1 {
					t.Errorf("log: %s", r.log)
				}
			} else if got.held == "" {
				t.Error("not held")
			}
		})
	}
	t.Run("no header changes", func(t *testing.T) {
		r := newRig(t, defaultSettings(), policy.Options{})
		_, err := gomilter.NewClient("unix", r.socket, gomilter.WithActions(gomilter.OptAddHeader)).Session(gomilter.NewMacroBag())
		if err == nil {
			t.Error("a filter that cannot remove keys was let in")
		}
	})
}

// TestShutdown has one message waiting for its AS, and one that begins too late.
func TestShutdown(t *testing.T) {
	for _, finish := range []bool{true, false} {
		t.Run(fmt.Sprintf("finish=%v", finish), func(t *testing.T) {
			r := newRig(t, defaultSettings(), policy.Options{Defaults: policy.Actions{TempError: policy.Accept}})
			asked, release := make(chan struct{}), make(chan struct{})
			r.fake.answer = func(ctx context.Context, q verifier.Query) verifier.Result {
				close(asked)
				select {
				case <-release:
					return verifier.Result{Status: verifier.Pass}
				case <-ctx.Done():
					return verifier.Result{Status: verifier.TempError, Reason: verifier.ReasonCancelled}
				}
			}
			waiting, late := r.connect(), r.connect()
			answer := make(chan received, 1)
			go func() {
				got, err := send(waiting, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}})
				if err != nil {
					t.Error(err)
				}
				answer <- got
			}()
			<-asked
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				r.srv.Shutdown(ctx)
			}()
			r.waitFor("shutdown to begin", r.srv.stopping.Load)
			got := r.mustSend(late, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "good"}}})
			if got.reply != filterErrorText {
				t.Errorf("a message that began too late: %q, want %q", got.reply, filterErrorText)
			}
			if finish {
				close(release)
			} else {
				cancel()
			}
			if got := <-answer; finish && got.action != gomilter.ActionAccept || !finish && got.reply != filterErrorText {
				t.Errorf("the message in flight: %v %q", got.action, got.reply)
			}
			<-stopped
			if n := r.srv.Connections(); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

// TestSwap: a message ends under the configuration under which it began, which is released
// then.
func TestSwap(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{})
	var released atomic.Int32
	r.srv.Swap(&Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: r.fake, Release: func() { released.Add(1) },
		Policy: policy.New(policy.Options{Defaults: policy.Actions{Fail: policy.Reject}})})
	s := r.connect()
	if _, err := s.Mail("alice@a.test", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rcpt("bob@rcpt.test", ""); err != nil {
		t.Fatal(err)
	}
	// The MTA need not wait for answers to these, so the message has begun for
	// certain only when the server says so.
	r.waitFor("the message to begin", func() bool { return r.srv.inFlight.Load() > 0 })
	settings := defaultSettings()
	settings.AuthservID = "new.test"
	r.srv.Swap(&Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(policy.Options{})})
	if n := released.Load(); n != 0 {
		t.Errorf("released %d times while a message is under way", n)
	}
	if err := content(s, field{"X-Auth-Key", "wrong"}); err != nil {
		t.Fatal(err)
	}
	_, act, err := s.End()
	if err != nil || act.SMTPCode != 550 {
		t.Errorf("the message that began before: %v, %v", act, err)
	}
	r.waitFor("the release", func() bool { return released.Load() > 0 })
	got := r.mustSend(s, sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "wrong"}}})
	if got.action != gomilter.ActionAccept || !strings.HasPrefix(got.fields[0].value, "new.test;") {
		t.Errorf("the message that began after: %v %q", got.action, got.fields)
	}
	if n := released.Load(); n != 1 {
		t.Errorf("released %d times", n)
	}
	unused := testEngine()
	unused.Release = func() { released.Add(1) }
	r.srv.Swap(unused)
	r.srv.Swap(testEngine())
	if n := released.Load(); n != 2 {
		t.Errorf("one under which no message began: released %d times", n-1)
	}
}

// TestServeAfterShutdown: it was told to stop before it had begun.
func TestServeAfterShutdown(t *testing.T) {
	srv := New(slog.New(slog.DiscardHandler), &Engine{Settings: defaultSettings(), Limits: testLimits, Verifier: &fakeVerifier{}, Policy: policy.New(policy.Options{})})
	srv.Shutdown(t.Context())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Serve(ln); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket stays open: %v", err)
	}
}

// TestBrokenVerifier: a fault of ours in a verification says nothing of the message,
// whatever is to become of a temperror.
func TestBrokenVerifier(t *testing.T) {
	r := newRig(t, defaultSettings(), policy.Options{Defaults: policy.Actions{TempError: policy.Accept}})
	reason := verifier.ReasonBroken
	r.fake.answer = func(context.Context, verifier.Query) verifier.Result {
		return verifier.Result{Status: verifier.TempError, Reason: reason}
	}
	s := r.connect()
	if got := r.mustSend(s, forged("accept")); got.reply != filterErrorText {
		t.Errorf("%q, want %q", got.reply, filterErrorText)
	}
	reason = verifier.ReasonDNSTimeout
	if got := r.mustSend(s, forged("accept")); got.action != gomilter.ActionAccept {
		t.Errorf("temperror of another's making: %v %q", got.action, got.reply)
	}
}
