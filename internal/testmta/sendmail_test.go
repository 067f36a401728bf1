package testmta

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func startTestSendmail(t *testing.T, o SendmailOptions) *Sendmail {
	t.Helper()
	var err error
	if o.Prefix, err = EnsureSendmail(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	s, err := StartSendmail(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func TestSendmailAliases(t *testing.T) {
	s := startTestSendmail(t, SendmailOptions{Hostname: "other.test", Aliases: []string{"list: a@rcpt.test, b@rcpt.test"}})
	c := dial(t, s.SMTPAddr())
	if !strings.HasPrefix(c.Greeting.Text, "other.test ") {
		t.Errorf("greeting %q", c.Greeting)
	}
	o, err := c.Send(Transaction{MailFrom: "a@b.test", Rcpts: []string{"list@other.test", "c@rcpt.test"}, Data: content("alias", "")})
	if err != nil || !o.Accepted {
		t.Fatalf("Send = %+v, %v", o, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if err := s.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	messages, err := s.Deliveries()
	if err != nil {
		t.Fatal(err)
	}
	var rcpts []string
	for _, m := range messages {
		rcpts = append(rcpts, m.Recipient)
	}
	slices.Sort(rcpts)
	if diff := cmp.Diff([]string{"a@rcpt.test", "b@rcpt.test", "c@rcpt.test"}, rcpts); diff != "" {
		t.Error(diff)
	}
}

func TestSendmailFilters(t *testing.T) {
	got, err := sendmailFilters([]string{"inet:127.0.0.1:99", "unix:/run/x/y"}, "reject")
	want := []sendmailFilter{
		{"milter1", "inet:99@127.0.0.1", ", F=R"},
		{"milter2", "unix:/run/x/y", ", F=R"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, milter := range []string{"", "inet:99", "unix:relative", "unix:/a,b", "local:/x"} {
		if got, err := sendmailFilters([]string{milter}, ""); err == nil {
			t.Errorf("%q became %+v", milter, got)
		}
	}
	if _, err := sendmailFilters(nil, "quarantine"); err == nil {
		t.Error("took an unknown default action")
	}
}

func TestSendmailBroken(t *testing.T) {
	if _, err := StartSendmail(t.Context(), SendmailOptions{Prefix: t.TempDir()}); !errors.Is(err, ErrNoSendmail) {
		t.Errorf("StartSendmail without files = %v", err)
	}
	prefix, err := EnsureSendmail(t.Context(), t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]SendmailOptions{
		"milter": {Milters: []string{"nonsense"}},
		"m4":     {MC: []string{"m4exit(`1')"}},
		"alias":  {Aliases: []string{"one two three"}},
	} {
		o.Prefix = prefix
		if s, err := StartSendmail(t.Context(), o); err == nil {
			t.Errorf("%s: started", name)
			stop(t, s)
		}
	}
}
