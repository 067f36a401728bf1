package front

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gomilter "github.com/d--j/go-milter"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A script is a milter that does as a test says.
type script struct {
	gomilter.NoOpMilter
	rcpt func(to string) (*gomilter.Response, error)
	end  func(gomilter.Modifier) (*gomilter.Response, error)
	heard
}

// heard is what the milter was told.
type heard struct{ client, login, sender, name, queueID string }

func (s *script) Connect(_, _ string, _ uint16, addr string, m gomilter.Modifier) (*gomilter.Response, error) {
	s.client, s.name = addr, m.Get(gomilter.MacroMTAFQDN)
	return gomilter.RespContinue, nil
}

func (s *script) MailFrom(from, _ string, m gomilter.Modifier) (*gomilter.Response, error) {
	s.sender, s.login = from, m.Get(gomilter.MacroAuthAuthen)
	return gomilter.RespContinue, nil
}

func (s *script) RcptTo(to, _ string, _ gomilter.Modifier) (*gomilter.Response, error) {
	if s.rcpt == nil {
		return gomilter.RespContinue, nil
	}
	return s.rcpt(to)
}

func (s *script) EndOfMessage(m gomilter.Modifier) (*gomilter.Response, error) {
	s.queueID = m.Get(gomilter.MacroQueueId)
	if s.end == nil {
		return gomilter.RespAccept, nil
	}
	return s.end(m)
}

// dial serves a milter and connects to it.
func dial(t *testing.T, s *script) *Front {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := gomilter.NewServer(gomilter.WithMilter(func() gomilter.Milter { return s }),
		gomilter.WithActions(gomilter.AllClientSupportedActionMasks))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	f, err := Dial(t.Context(), "unix", path, "mx.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.Close() // some tests break the connection
		_ = server.Close()
		<-served
	})
	return f
}

func message() Message {
	return Message{
		QueueID: "Q1", Client: netip.MustParseAddr("192.0.2.1"), Sender: "a@sender.test",
		Recipients: []string{"b@rcpt.test", "c@rcpt.test"},
		Header:     []Field{{"X-K", "1"}, {"Subject", "s"}, {"x-k", "2"}, {"X-K", "3\r\n\tfolded"}},
		Body:       "hello\r\n",
	}
}

func TestOutcome(t *testing.T) {
	sent := message()
	delivered := Outcome{Verdict: Delivered, Recipients: sent.Recipients, Header: sent.Header, Body: sent.Body}
	// with is what is delivered, changed.
	with := func(change func(*Outcome)) Outcome {
		out := delivered
		change(&out)
		return out
	}
	reply := func(code uint16, text string) func(gomilter.Modifier) (*gomilter.Response, error) {
		return func(gomilter.Modifier) (*gomilter.Response, error) {
			return gomilter.RejectWithCodeAndReason(code, text)
		}
	}
	// does makes a milter that asks for changes.
	does := func(steps ...func(gomilter.Modifier) error) func(gomilter.Modifier) (*gomilter.Response, error) {
		return func(m gomilter.Modifier) (*gomilter.Response, error) {
			for _, step := range steps {
				if err := step(m); err != nil {
					return nil, err
				}
			}
			return gomilter.RespAccept, nil
		}
	}
	deletes := func(i int) func(gomilter.Modifier) error {
		return func(m gomilter.Modifier) error { return m.ChangeHeader(i, "X-K", "") }
	}
	for _, tt := range []struct {
		name string
		rcpt func(string) (*gomilter.Response, error)
		end  func(gomilter.Modifier) (*gomilter.Response, error)
		want Outcome
	}{
		{name: "unchanged", want: delivered},
		{name: "deleted from the last to the first", end: does(deletes(3), deletes(2), deletes(1)),
			want: with(func(o *Outcome) { o.Header = []Field{{"Subject", "s"}} })},
		{name: "a deletion renumbers", end: does(deletes(1), deletes(2)),
			want: with(func(o *Outcome) { o.Header = []Field{{"Subject", "s"}, {"x-k", "2"}} })},
		{name: "replaced", end: does(func(m gomilter.Modifier) error { return m.ChangeHeader(2, "x-K", "new") }),
			want: with(func(o *Outcome) {
				o.Header = []Field{{"X-K", "1"}, {"Subject", "s"}, {"x-k", "new"}, {"X-K", "3\r\n\tfolded"}}
			})},
		{name: "inserted and added", end: does(
			func(m gomilter.Modifier) error { return m.InsertHeader(0, "Top", "a;\n\tb") },
			func(m gomilter.Modifier) error { return m.AddHeader("Bottom", "z") }),
			want: with(func(o *Outcome) {
				o.Header = append(append([]Field{{"Top", "a;\r\n\tb"}}, sent.Header...), Field{"Bottom", "z"})
			})},
		{name: "recipients", end: does(
			func(m gomilter.Modifier) error { return m.DeleteRecipient("b@rcpt.test") },
			func(m gomilter.Modifier) error { return m.AddRecipient("d@rcpt.test", "") }),
			want: with(func(o *Outcome) { o.Recipients = []string{"c@rcpt.test", "d@rcpt.test"} })},
		{name: "held", end: does(func(m gomilter.Modifier) error { return m.Quarantine("why") }),
			want: with(func(o *Outcome) { o.Verdict, o.Reason = Held, "why" })},
		{name: "refused", end: reply(550, "5.7.1 100% no"), want: Outcome{Verdict: Refused, Reply: "550 5.7.1 100% no"}},
		{name: "deferred", end: reply(451, "4.7.1 later"), want: Outcome{Verdict: Deferred, Reply: "451 4.7.1 later"}},
		{name: "discarded", end: func(gomilter.Modifier) (*gomilter.Response, error) { return gomilter.RespDiscard, nil },
			want: Outcome{Verdict: Discarded}},
		{name: "one recipient refused", rcpt: func(to string) (*gomilter.Response, error) {
			if strings.HasPrefix(to, "b@") {
				return gomilter.RespReject, nil
			}
			return gomilter.RespContinue, nil
		}, want: with(func(o *Outcome) { o.Recipients = []string{"c@rcpt.test"} })},
		{name: "every recipient refused", rcpt: func(string) (*gomilter.Response, error) { return gomilter.RespTempFail, nil },
			want: Outcome{Verdict: Deferred, Reply: "451 4.7.1 Service unavailable - try again later"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{rcpt: tt.rcpt, end: tt.end}
			f := dial(t, s)
			for range 2 { // the second is another client on the same connection
				got, err := f.Send(message())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("outcome (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestMilterHears(t *testing.T) {
	s := new(script)
	f := dial(t, s)
	first := message()
	second := message()
	first.Login = "a@sender.test"
	second.QueueID, second.Sender, second.Client = "Q2", "", netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		send Message
		want heard
	}{
		{first, heard{"192.0.2.1", "a@sender.test", "a@sender.test", "mx.test", "Q1"}},
		{second, heard{"2001:db8::1", "", "", "mx.test", "Q2"}},
	} {
		if _, err := f.Send(tt.send); err != nil {
			t.Fatal(err)
		}
		if s.heard != tt.want {
			t.Errorf("milter heard %+v, want %+v", s.heard, tt.want)
		}
	}
}

func TestBytes(t *testing.T) {
	out := Outcome{Header: []Field{{"A", "1\r\n\t2"}, {"B", "3"}}, Body: "body\r\n"}
	if got, want := string(out.Bytes()), "A: 1\r\n\t2\r\nB: 3\r\n\r\nbody\r\n"; got != want {
		t.Errorf("Bytes() = %q, want %q", got, want)
	}
}

func TestMilterBreaksRules(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(gomilter.Modifier) error
		want string
	}{
		{"deletes what is not there", func(m gomilter.Modifier) error { return m.ChangeHeader(4, "X-K", "") }, "X-K that is not there"},
		{"deletes a stranger", func(m gomilter.Modifier) error { return m.DeleteRecipient("x@y.test") }, "x@y.test, who is no recipient"},
		{"changes the sender", func(m gomilter.Modifier) error { return m.ChangeFrom("x@y.test", "") }, "does not know"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := dial(t, &script{end: func(m gomilter.Modifier) (*gomilter.Response, error) { return gomilter.RespAccept, tt.end(m) }})
			if out, err := f.Send(message()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Send = %+v, %v; want an error with %q", out, err, tt.want)
			}
		})
	}
}

func TestMilterGone(t *testing.T) {
	f := dial(t, &script{end: func(gomilter.Modifier) (*gomilter.Response, error) { return nil, errors.New("broken") }})
	if out, err := f.Send(message()); err == nil {
		t.Errorf("Send = %+v, want an error", out)
	}
	if _, err := Dial(t.Context(), "unix", filepath.Join(t.TempDir(), "nobody"), "mx.test"); err == nil {
		t.Error("Dial of a socket that is not there succeeds")
	}
}

// TestContextEnds has a milter that never answers.
func TestContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, "unix", path, "mx.test"); err == nil {
		t.Error("Dial succeeds with a milter that does not negotiate")
	}
}
