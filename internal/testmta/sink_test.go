package testmta

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestSink(t *testing.T) {
	s, err := StartSink()
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, s.Addr())
	data := content("sunk", "X-Long: "+string(make([]byte, 3000))+"\r\n")
	for _, sender := range []string{"", `"a b"@b.test`} {
		o, err := c.Send(Transaction{
			MailFrom: sender, MailArgs: "SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=e1",
			Rcpts: []string{"x@rcpt.test", "empfänger@rcpt.test"}, RcptArgs: []string{"NOTIFY=FAILURE"}, Data: data,
		})
		if err != nil || !o.Accepted {
			t.Fatalf("Send = %+v, %v", o, err)
		}
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	m, err := s.WaitDelivered(t.Context(), func(m Message) bool { return m.Sender == `"a b"@b.test` && m.Recipient == "empfänger@rcpt.test" })
	if err != nil || string(m.Content()) != string(data) {
		t.Errorf("Content() = %q, %v", m.Content(), err)
	}
	if all, err := s.Deliveries(); err != nil || len(all) != 4 || s.Count() != 4 || all[0].Sender != "" || all[0].Recipient != "x@rcpt.test" {
		t.Errorf("Deliveries = %v, %v", all, err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := s.WaitDelivered(ctx, subject("never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitDelivered = %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestQuoteLocalPart(t *testing.T) {
	for addr, want := range map[string]string{
		"a@b.test":    "a@b.test",
		"a.b+c@d":     "a.b+c@d",
		"a b@c":       `"a b"@c`,
		`a"\b@c`:      `"a\"\\b"@c`,
		"a@b@c":       `"a@b"@c`,
		".a@c":        `".a"@c`,
		"a..b@c":      `"a..b"@c`,
		"@c":          `""@c`,
		"":            "",
		"jürgen@bü.x": "jürgen@bü.x",
	} {
		if got := quoteLocalPart(addr); got != want {
			t.Errorf("quoteLocalPart(%q) = %q, want %q", addr, got, want)
		}
	}
}
