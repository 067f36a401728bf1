package testmta

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/testdaemon"
)

func startTestPostfix(t *testing.T, o PostfixOptions) *Postfix {
	t.Helper()
	if err := EnsurePostfix(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	p, err := StartPostfix(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	return p
}

func TestPostfixClients(t *testing.T) {
	filter := startFilter(t)
	defer filter.stop(t)
	p := startTestPostfix(t, PostfixOptions{
		Milters:   []string{filter.addr},
		Listeners: []Listener{RelayListener("relay")},
	})
	for _, tt := range []struct {
		name      string
		listener  string // default: the one with the milter
		from      string // local address
		t         Transaction
		code      int
		seen      string // X-Seen of what is delivered
		recipient string // default: the envelope's
	}{
		{name: "plain", t: Transaction{MailFrom: "a@b.test", Rcpts: []string{"x@rcpt.test"}}, code: 250, seen: "client=127.0.0.1 auth="},
		{name: "source address", from: "127.0.0.3", t: Transaction{MailFrom: "a@b.test", Rcpts: []string{"x@rcpt.test"}},
			code: 250, seen: "client=127.0.0.3 auth="},
		{name: "relaying refused", t: Transaction{MailFrom: "a@b.test", Rcpts: []string{"x@elsewhere.test"}}, code: 554},
		{name: "relaying allowed", from: "127.0.0.2", t: Transaction{MailFrom: "a@b.test", Rcpts: []string{"x@elsewhere.test"}},
			code: 250, seen: "client=127.0.0.2 auth="},
		{name: "relay listener", listener: "relay", t: Transaction{Rcpts: []string{"x@elsewhere.test"}}, code: 250},
		{name: "xclient", t: Transaction{XClient: "ADDR=192.0.2.1 NAME=out.example LOGIN=alice", MailFrom: "a@b.test", Rcpts: []string{"x@rcpt.test"}},
			code: 250, seen: "client=192.0.2.1 auth=alice"},
		{name: "xclient refused", t: Transaction{XClient: "NONSENSE=1", MailFrom: "a@b.test", Rcpts: []string{"x@rcpt.test"}}, code: 501},
		{name: "smtputf8", t: Transaction{MailFrom: "jürgen@bücher.test", MailArgs: "SMTPUTF8", Rcpts: []string{"empfänger@rcpt.test"}},
			code: 250, seen: "client=127.0.0.1 auth="},
		{name: "quoted local part", t: Transaction{MailFrom: `"a b"@b.test`, Rcpts: []string{`"x y"@rcpt.test`}},
			code: 250, seen: "client=127.0.0.1 auth="},
		{name: "subaddress", t: Transaction{MailFrom: "a@b.test", Rcpts: []string{"x+spam@rcpt.test"}, RcptArgs: []string{"NOTIFY=NEVER"}},
			code: 250, seen: "client=127.0.0.1 auth="},
		{name: "bad argument", t: Transaction{MailFrom: "a@b.test", MailArgs: "NONSENSE", Rcpts: []string{"x@rcpt.test"}}, code: 555},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := p.SMTPAddr()
			if tt.listener != "" {
				addr = p.Listener(tt.listener)
			}
			c, err := DialFrom(tt.from, addr)
			if err != nil {
				t.Fatal(err)
			}
			tt.t.Data = content(tt.name, "")
			o, err := c.Send(tt.t)
			if err != nil || o.Final.Code != tt.code || o.Accepted != (tt.code == 250) {
				t.Fatalf("Send = %+v, %v", o, err)
			}
			if err := c.Quit(); err != nil {
				t.Error(err)
			}
			if filter.saw(tt.name) != (tt.seen != "") {
				t.Errorf("the filter saw the message: %v", filter.saw(tt.name))
			}
			if !o.Accepted {
				return
			}
			m, err := p.WaitDelivered(t.Context(), subject(tt.name))
			if err != nil {
				t.Fatal(err)
			}
			if m.Get("X-Seen") != tt.seen || m.Sender != tt.t.MailFrom || m.Recipient != tt.t.Rcpts[0] {
				t.Errorf("delivered from %q to %q, X-Seen %q", m.Sender, m.Recipient, m.Get("X-Seen"))
			}
			if string(m.Content()) != string(tt.t.Data) {
				t.Errorf("Content() = %q", m.Content())
			}
			if tt.seen != "" && filter.lastSender() != tt.t.MailFrom {
				t.Errorf("the filter was told %q", filter.lastSender())
			}
		})
	}
}

func TestPostfixReloadAndRelease(t *testing.T) {
	filter := startFilter(t)
	defer filter.stop(t)
	p := startTestPostfix(t, PostfixOptions{Hostname: "other.test", RecipientDomains: []string{"one.test", "two.test"}})
	send := func(subject, rcpt string) Outcome {
		t.Helper()
		c := dial(t, p.SMTPAddr())
		if !strings.HasPrefix(c.Greeting.Text, "other.test ") || c.Supports("XCLIENT") {
			t.Errorf("greeting %q", c.Greeting)
		}
		o, err := c.Send(Transaction{MailFrom: "a@b.test", Rcpts: []string{rcpt}, Data: content(subject, "")})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		return o
	}
	if o := send("quarantine early", "x@two.test"); !o.Accepted || filter.saw("quarantine early") {
		t.Errorf("before reload: %+v", o)
	}
	if err := p.Reload(t.Context(), map[string]string{"smtpd_milters": filter.addr}); err != nil {
		t.Fatal(err)
	}
	o := send("quarantine late", "x@one.test")
	if !o.Accepted || !filter.saw("quarantine late") {
		t.Errorf("after reload: %+v", o)
	}
	if err := p.Release(o.QueueID()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitDelivered(t.Context(), subject("quarantine late")); err != nil {
		t.Error(err)
	}
	if err := p.WaitIdle(t.Context()); err != nil {
		t.Error(err)
	}
	messages, err := p.Deliveries()
	if err != nil || len(messages) != 2 || messages[0].Get("Subject") != "quarantine early" {
		t.Errorf("Deliveries = %v, %v", messages, err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := p.WaitDelivered(ctx, subject("never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitDelivered = %v", err)
	}
	if err := p.Reload(t.Context(), map[string]string{"two\nlines": "x"}); err == nil {
		t.Error("Reload took a malformed parameter")
	}
}

func TestPostfixDiscard(t *testing.T) {
	p := startTestPostfix(t, PostfixOptions{Discard: true, Main: map[string]string{"message_size_limit": "1000"}})
	c := dial(t, p.SMTPAddr())
	defer c.Close()
	tr := Transaction{MailFrom: "a@b.test", Rcpts: []string{"x@rcpt.test"}, Data: content("small", "")}
	if o, err := c.Send(tr); err != nil || !o.Accepted {
		t.Errorf("Send = %+v, %v", o, err)
	}
	tr.Data = append(tr.Data, strings.Repeat("too much\r\n", 200)...)
	if o, err := c.Send(tr); err != nil || o.Accepted || o.Final.Code != 552 {
		t.Errorf("Send = %+v, %v", o, err)
	}
	if err := p.WaitIdle(t.Context()); err != nil {
		t.Error(err)
	}
	if m, err := p.Deliveries(); err != nil || len(m) != 0 {
		t.Errorf("Deliveries = %v, %v", m, err)
	}
	if !strings.Contains(p.Log(), "relay=none") {
		t.Error("discard(8) did not run")
	}
}

// A Postfix that cannot start is an error that says what was tried, and leaves nothing.
func TestPostfixBroken(t *testing.T) {
	if err := EnsurePostfix(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	folders := regexp.MustCompile("/tmp/authkey-postfix-[0-9]+")
	for name, tt := range map[string]struct {
		options PostfixOptions
		says    string
	}{
		"main.cf":    {PostfixOptions{Main: map[string]string{"default_process_limit": "nonsense"}}, "start: exit status 1"},
		"line break": {PostfixOptions{Main: map[string]string{"x": "a\nb"}}, "line break"},
		"listener":   {PostfixOptions{Listeners: []Listener{{Name: "smtp"}}}, "taken"},
		"option":     {PostfixOptions{Listeners: []Listener{{Name: "x", Options: []string{"nonsense"}}}}, "parameter=value"},
		"brace":      {PostfixOptions{Listeners: []Listener{{Name: "x", Options: []string{"a = }"}}}}, "parameter=value"},
	} {
		p, err := StartPostfix(t.Context(), tt.options)
		if err == nil {
			t.Errorf("%s: started", name)
			stop(t, p)
			continue
		}
		if !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
		for _, dir := range folders.FindAllString(err.Error(), 1) {
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: folder %v", name, err)
			}
			if left, err := running(dir); len(left) > 0 || err != nil {
				t.Errorf("%s: left over %q, %v", name, left, err)
			}
		}
	}
}

func TestParsePostqueue(t *testing.T) {
	out := `{"queue_name": "hold", "queue_id": "A1", "sender": "MAILER-DAEMON", "recipients": [{"address": "x@rcpt.test"}, {"address": "y@rcpt.test", "delay_reason": "z"}]}
{"queue_name": "active", "queue_id": "A2", "sender": "a@b.test", "recipients": []}
`
	got, err := parsePostqueue([]byte(out))
	want := []QueueEntry{
		{ID: "A1", Queue: "hold", Recipients: []string{"x@rcpt.test", "y@rcpt.test"}},
		{ID: "A2", Queue: "active", Sender: "a@b.test"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := parsePostqueue([]byte("{")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated: %v", err)
	}
}

func TestEnsureNothingToDo(t *testing.T) {
	if _, err := postfixCommand(); err != nil {
		t.Fatal(err)
	}
	quiet := testdaemon.Logf(func(format string, args ...any) { t.Errorf("did something: "+format, args...) })
	if err := EnsurePostfix(t.Context(), quiet); err != nil {
		t.Error(err)
	}
	if _, err := EnsureSendmail(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureSendmail(t.Context(), quiet); err != nil {
		t.Error(err)
	}
}
