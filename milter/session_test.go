package milter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

func TestMain(m *testing.M) {
	if os.Getenv(bareLibrary) != "" {
		serveBareLibrary()
	}
	goleak.VerifyTestMain(m)
}

// fakeVerifier answers by key, and can do what no real one does on demand.
type fakeVerifier struct {
	mu     sync.Mutex
	asked  []verifier.Query
	answer func(context.Context, verifier.Query) verifier.Result
	cached func(verifier.Query) (verifier.Result, bool)
}

func (f *fakeVerifier) Cached(q verifier.Query) (verifier.Result, bool) {
	if f.cached == nil {
		return verifier.Result{}, false
	}
	return f.cached(q)
}

func (f *fakeVerifier) Verify(ctx context.Context, q verifier.Query) verifier.Result {
	f.mu.Lock()
	f.asked = append(f.asked, q)
	f.mu.Unlock()
	if f.answer != nil {
		return f.answer(ctx, q)
	}
	switch {
	case q.Key.Bad():
		return verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonBadKey}
	case q.Key.IsZero():
		return verifier.Result{Status: verifier.NoKey}
	case q.Key.Reveal() == "good":
		return verifier.Result{Status: verifier.Pass, Server: "as.test:7425"}
	}
	return verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey}
}

func (f *fakeVerifier) Prefetch(wire.Address) {}

func (f *fakeVerifier) questions() []verifier.Query {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// fakeNotifier takes notes of what it is asked, and can fail.
type fakeNotifier struct {
	mu       sync.Mutex
	allow    bool
	fail     error
	asked    []Original
	failures []Failure
	notices  []Notice
}

func (f *fakeNotifier) AllowDSN(o Original) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, o)
	return f.allow
}

func (f *fakeNotifier) Deliver(_ context.Context, o Original, failures []Failure, notices []Notice) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.asked = append(f.asked, o)
	f.failures = append(f.failures, failures...)
	f.notices = append(f.notices, notices...)
	return nil
}

// fakePreferences knows recipients by address, and can fail.
type fakePreferences map[string]policy.Preference

func (f fakePreferences) Known([]policy.Recipient) bool { return false }

func (f fakePreferences) Fill(_ context.Context, recipients []policy.Recipient) (failed int, err error) {
	for i := range recipients {
		r := &recipients[i]
		if strings.HasPrefix(r.Address, "unknowable") {
			r.PreferenceFailed = true
			failed, err = failed+1, errors.New("the directory is on fire")
			continue
		}
		r.Preference = f[r.Folded]
	}
	return failed, err
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// rig is a Server on a unix socket with its log.
type rig struct {
	t      *testing.T
	srv    *Server
	fake   *fakeVerifier
	told   *fakeNotifier
	log    *syncBuffer
	socket string
	served chan error
}

// patience is how long a test waits for what must come: longer than the busiest machine
// takes.
const patience = time.Minute

var testLimits = Limits{Connections: 20, IdleTimeout: patience, Recipients: 50}

func defaultSettings() Settings {
	return Settings{
		HostName:   "mx.test",
		MarkHeader: "X-Spam-Flag", MarkValue: "YES",
		LocalDomains: []string{"rcpt.test"},
		Submission:   Submission{Authenticated: true, Daemons: []string{"ORIGINATING"}},
	}
}

func newRig(t *testing.T, settings Settings, opts policy.Options) *rig {
	t.Helper()
	r := &rig{t: t, fake: &fakeVerifier{}, told: &fakeNotifier{allow: true}, log: &syncBuffer{}, served: make(chan error, 1)}
	r.srv = New(slog.New(slog.NewTextHandler(r.log, nil)),
		&Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(opts), Notifier: r.told})
	r.socket = filepath.Join(t.TempDir(), "m.sock")
	ln, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { r.served <- r.srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.srv.Shutdown(ctx)
		if err := <-r.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// waitFor waits until cond holds.
func (r *rig) waitFor(what string, cond func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !poll(ctx, cond) {
		r.t.Fatalf("waited in vain for %s", what)
	}
}

// connect opens a milter connection as an MTA would.
func (r *rig) connect(opts ...gomilter.Option) *gomilter.ClientSession {
	r.t.Helper()
	bag := gomilter.NewMacroBag()
	bag.Set(gomilter.MacroMTAFQDN, "mx.test")
	bag.Set(gomilter.MacroQueueId, "QID1")
	return r.connectAs("192.0.2.1", bag, opts...)
}

func (r *rig) connectAs(client string, bag *gomilter.MacroBag, opts ...gomilter.Option) *gomilter.ClientSession {
	r.t.Helper()
	opts = append([]gomilter.Option{gomilter.WithActions(gomilter.AllClientSupportedActionMasks),
		gomilter.WithReadTimeout(patience), gomilter.WithWriteTimeout(patience)}, opts...)
	s, err := gomilter.NewClient("unix", r.socket, opts...).Session(bag)
	if err != nil {
		r.t.Fatalf("milter session: %v", err)
	}
	r.t.Cleanup(func() { _ = s.Close() })
	family := gomilter.FamilyInet
	if client == "" {
		family = gomilter.FamilyUnknown
	}
	if _, err := s.Conn("client.test", family, 25, client); err != nil {
		r.t.Fatalf("connect: %v", err)
	}
	if _, err := s.Helo("client.test"); err != nil {
		r.t.Fatalf("helo: %v", err)
	}
	return s
}

type field struct{ name, value string }

// sent is a message on its way, and received what an MTA makes of the answer.
type sent struct {
	from   string
	rcpts  []string
	fields []field
}

type received struct {
	action gomilter.ActionType
	code   uint16
	reply  string
	fields []field
	held   string
	rcpts  []string // the envelope afterwards
}

// send passes one message and applies the changes as Postfix does.
func send(s *gomilter.ClientSession, in sent) (received, error) {
	if len(in.rcpts) == 0 {
		in.rcpts = []string{"bob@rcpt.test"}
	}
	if _, err := s.Mail(in.from, ""); err != nil {
		return received{}, fmt.Errorf("mail: %w", err)
	}
	for _, rcpt := range in.rcpts {
		if _, err := s.Rcpt(rcpt, ""); err != nil {
			return received{}, fmt.Errorf("rcpt: %w", err)
		}
	}
	if err := content(s, in.fields...); err != nil {
		return received{}, err
	}
	mods, act, err := s.End()
	if err != nil {
		return received{}, fmt.Errorf("end: %w", err)
	}
	out := received{action: act.Type, code: act.SMTPCode, reply: act.SMTPReply, fields: slices.Clone(in.fields), rcpts: slices.Clone(in.rcpts)}
	for _, mod := range mods {
		out.change(mod)
	}
	return out, nil
}

// content passes what follows the recipients of a message, up to its end.
func content(s *gomilter.ClientSession, fields ...field) error {
	if _, err := s.DataStart(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	for _, f := range fields {
		if _, err := s.HeaderField(f.name, f.value, nil); err != nil {
			return fmt.Errorf("header: %w", err)
		}
	}
	if _, err := s.HeaderEnd(); err != nil {
		return fmt.Errorf("end of header: %w", err)
	}
	if _, err := s.BodyChunk([]byte("body\r\n")); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

func (r *received) change(mod gomilter.ModifyAction) {
	switch mod.Type {
	case gomilter.ActionInsertHeader:
		at := min(int(mod.HeaderIndex), len(r.fields))
		r.fields = slices.Insert(r.fields, at, field{mod.HeaderName, mod.HeaderValue})
	case gomilter.ActionChangeHeader:
		n := 0
		for i, f := range r.fields {
			if isField(f.name, mod.HeaderName) {
				if n++; n == int(mod.HeaderIndex) {
					if mod.HeaderValue == "" {
						r.fields = slices.Delete(r.fields, i, i+1)
					} else {
						r.fields[i].value = mod.HeaderValue
					}
					return
				}
			}
		}
	case gomilter.ActionQuarantine:
		r.held = mod.Reason
	case gomilter.ActionDelRcpt:
		r.rcpts = slices.DeleteFunc(r.rcpts, func(a string) bool { return gomilter.AddAngle(a) == mod.Rcpt })
	case gomilter.ActionAddRcpt:
		r.rcpts = append(r.rcpts, gomilter.RemoveAngle(mod.Rcpt))
	}
}

func (r *rig) mustSend(s *gomilter.ClientSession, in sent) received {
	r.t.Helper()
	out, err := send(s, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

const aliceAuthRes = "mx.test;\n\tx-authkey="

func TestHeaderOfWhatIsDelivered(t *testing.T) {
	tests := []struct {
		name   string
		fields []field
		want   []field
	}{
		{"valid key is removed", []field{{"From", "alice@a.test"}, {"X-Auth-Key", "good"}},
			[]field{{"Authentication-Results", aliceAuthRes + "pass smtp.mailfrom=alice@a.test"}, {"From", "alice@a.test"}}},
		{"every key goes, whatever its case and folding",
			[]field{{"x-auth-KEY", "\n good"}, {"Subject", "x"}, {"X-Auth-Key", ""}, {"X-AUTH-KEY", "good"}, {"X-Auth-Key", "  "}},
			[]field{{"Authentication-Results", aliceAuthRes + "pass smtp.mailfrom=alice@a.test"}, {"Subject", "x"}}},
		{"two different keys", []field{{"X-Auth-Key", "good"}, {"X-Auth-Key", "other"}},
			[]field{{"Authentication-Results", aliceAuthRes + `fail reason="bad-key" smtp.mailfrom=alice@a.test`},
				{"X-Spam-Flag", "YES"}}},
		{"strangers' spam flags go where we mark",
			[]field{{"X-Spam-Flag", "NO"}, {"X-Auth-Key", "wrong"}, {"x-spam-flag", "no"}},
			[]field{{"Authentication-Results", aliceAuthRes + `fail reason="invalid-key" smtp.mailfrom=alice@a.test`},
				{"X-Spam-Flag", "YES"}}},
		{"spam flags stay where we do not", []field{{"X-Spam-Flag", "NO"}, {"X-Auth-Key", "good"}},
			[]field{{"Authentication-Results", aliceAuthRes + "pass smtp.mailfrom=alice@a.test"}, {"X-Spam-Flag", "NO"}}},
		{"names that fold to ours in Unicode only", []field{{"X-Auth-\u212aey", "good"}, {"X-Auth-Key", "good"}},
			[]field{{"Authentication-Results", aliceAuthRes + "pass smtp.mailfrom=alice@a.test"}, {"X-Auth-\u212aey", "good"}}},
		{"no key", []field{{"Subject", "x"}},
			[]field{{"Authentication-Results", aliceAuthRes + `none reason="no AuthKey" smtp.mailfrom=alice@a.test`}, {"Subject", "x"}}},
		{"forged results go, others stay",
			[]field{{"Authentication-Results", " mx.test; dkim=pass"},
				{"Authentication-Results", " MX.test (x) 1; X-AuthKey = pass"},
				{"Authentication-Results", " other.test; x-authkey=pass"},
				{"authentication-results", ` "mx.test"; spf=pass; x-authkey/1=pass`}},
			[]field{{"Authentication-Results", aliceAuthRes + `none reason="no AuthKey" smtp.mailfrom=alice@a.test`},
				{"Authentication-Results", " mx.test; dkim=pass"}}},
		{"new keys and quarantine marks of strangers go",
			[]field{{"X-New-Auth-Key", "planted"}, {"X-Authkey-Quarantine", "x"}, {"Subject", "x"}, {"X-New-Auth-Key", "planted"}},
			[]field{{"Authentication-Results", aliceAuthRes + `none reason="no AuthKey" smtp.mailfrom=alice@a.test`}, {"Subject", "x"}}},
	}
	r := newRig(t, defaultSettings(), policy.Options{})
	s := r.connect()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := send(s, sent{from: "alice@a.test", fields: tt.fields})
			if err != nil {
				t.Fatal(err)
			}
			if got.action != gomilter.ActionAccept {
				t.Errorf("action %v, want accept", got.action)
			}
			if diff := cmp.Diff(tt.want, got.fields, cmp.AllowUnexported(field{})); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

func TestActions(t *testing.T) {
	tests := []struct {
		action     policy.Action
		wantAction gomilter.ActionType
		wantCode   uint16
		wantReply  string
		held       bool
		marked     bool
	}{
		{action: policy.Accept, wantAction: gomilter.ActionAccept},
		{action: policy.Mark, wantAction: gomilter.ActionAccept, marked: true},
		{action: policy.Quarantine, wantAction: gomilter.ActionAccept, held: true},
		{action: policy.TempFail, wantAction: gomilter.ActionRejectWithCode, wantCode: 451,
			wantReply: "451 4.7.1 AuthKey cannot be verified now, try again later"},
		{action: policy.Discard, wantAction: gomilter.ActionDiscard},
		{action: policy.DiscardNotify, wantAction: gomilter.ActionDiscard},
		{action: policy.Reject, wantAction: gomilter.ActionRejectWithCode, wantCode: 550,
			wantReply: "550 5.7.1 Sender address not authenticated: AuthKey invalid"},
		{action: policy.RejectNotify, wantAction: gomilter.ActionRejectWithCode, wantCode: 550,
			wantReply: "550 5.7.1 Sender address not authenticated: AuthKey invalid"},
	}
	for _, tt := range tests {
		for _, test := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,test=%v", tt.action, test), func(t *testing.T) {
				r := newRig(t, defaultSettings(), policy.Options{Test: test, Defaults: policy.Actions{Fail: tt.action}})
				got := r.mustSend(r.connect(), sent{from: "alice@a.test", fields: []field{{"X-Auth-Key", "wrong"}}})
				want := tt
				if test {
					want.wantAction, want.wantCode, want.wantReply, want.held, want.marked = gomilter.ActionAccept, 0, "", false, false
				}
				if want.wantCode == 0 { // what the library's client makes of an answer without a code
					want.wantCode, want.wantReply = 250, "250 accept"
				}
				if got.action != want.wantAction || got.code != want.wantCode || got.reply != want.wantReply {
					t.Errorf("answer %v %d %q, want %v %d %q", got.action, got.code, got.reply, want.wantAction, want.wantCode, want.wantReply)
				}
				if (got.held != "") != want.held {
					t.Errorf("held %q, want held %v", got.held, want.held)
				}
				if marked := slices.Contains(got.fields, field{"X-Spam-Flag", "YES"}); marked != want.marked {
					t.Errorf("marked %v, want %v", marked, want.marked)
				}
				if got.action == gomilter.ActionAccept && hasField(got.fields, "X-Auth-Key") {
					t.Error("the key survived")
				}
				logged := r.log.String()
				if test && !strings.Contains(logged, "action=accept would="+tt.action.String()+" ") {
					t.Errorf("log lacks action=accept would=%s:\n%s", tt.action, logged)
				}
				if !test && !strings.Contains(logged, "action="+tt.action.String()+" by=default") {
					t.Errorf("log lacks action=%s:\n%s", tt.action, logged)
				}
				if strings.Contains(logged, "wrong") {
					t.Errorf("the key is in the log:\n%s", logged)
				}
			})
		}
	}
}

func hasField(fields []field, name string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return isField(f.name, name) })
}

func TestWhoseMail(t *testing.T) {
	settings := defaultSettings()
	settings.ExemptNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}
	settings.Submission.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	tests := []struct {
		name, client, auth, daemon string
		rcpts                      []string
		keyStays                   bool
		reason                     string
	}{
		{name: "inbound", client: "192.0.2.1", reason: `reason=""`},
		{name: "exempt relay", client: "192.0.2.200", reason: "reason=exempt"},
		{name: "login, leaving us", client: "192.0.2.1", auth: "alice", rcpts: []string{"x@far.test"}, keyStays: true, reason: "reason=submission"},
		{name: "login, staying here", client: "192.0.2.1", auth: "alice", reason: "reason=submission"},
		{name: "login, both", client: "192.0.2.1", auth: "alice", rcpts: []string{"bob@RCPT.test", "x@far.test"}, keyStays: true, reason: "reason=submission"},
		{name: "login from an exempt network", client: "192.0.2.200", auth: "alice", rcpts: []string{"x@far.test"}, keyStays: true, reason: "reason=submission"},
		{name: "submission network", client: "198.51.100.7", rcpts: []string{"x@far.test"}, keyStays: true, reason: "reason=submission"},
		{name: "daemon name", client: "192.0.2.1", daemon: "originating", rcpts: []string{"x@far.test"}, keyStays: true, reason: "reason=submission"},
		{name: "another daemon", client: "192.0.2.1", daemon: "MTA", reason: `reason=""`},
		{name: "login that ends in a local domain", client: "192.0.2.1", auth: "alice", rcpts: []string{"x@notrcpt.test", "y@sub.rcpt.test"}, keyStays: true, reason: "reason=submission"},
		{name: "no client address", client: "", rcpts: []string{"x@far.test"}, keyStays: true, reason: "reason=submission"},
	}
	r := newRig(t, settings, policy.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bag := gomilter.NewMacroBag()
			bag.Set(gomilter.MacroMTAFQDN, "mx.test")
			if tt.auth != "" {
				bag.Set(gomilter.MacroAuthAuthen, tt.auth)
			}
			if tt.daemon != "" {
				bag.Set(gomilter.MacroDaemonName, tt.daemon)
			}
			before := len(r.log.String())
			got, err := send(r.connectAs(tt.client, bag), sent{from: "alice@a.test", rcpts: tt.rcpts, fields: []field{
				{"X-Auth-Key", "good"}, {"Authentication-Results", "mx.test; x-authkey=pass header.from=forged@a.test"},
				{"Authentication-Results", "mx.test; spf=pass"}, {"Authentication-Results", "far.test; x-authkey=pass header.from=forged@a.test"},
				{"X-New-Auth-Key", "forged"}, {"x-authkey-quarantine", "forged"}}})
			if err != nil {
				t.Fatal(err)
			}
			if stays := hasField(got.fields, "X-Auth-Key"); stays != tt.keyStays {
				t.Errorf("key stays: %v, want %v", stays, tt.keyStays)
			}
			if slices.ContainsFunc(got.fields, func(f field) bool { return strings.Contains(f.value, "forged") }) {
				t.Errorf("what only we write stays: %q", got.fields)
			}
			if !slices.Contains(got.fields, field{"Authentication-Results", "mx.test; spf=pass"}) {
				t.Errorf("another filter's result is gone: %q", got.fields)
			}
			if line := r.log.String()[before:]; !strings.Contains(line, tt.reason) {
				t.Errorf("log line %q lacks %s", line, tt.reason)
			}
		})
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
