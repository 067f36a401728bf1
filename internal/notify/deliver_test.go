package notify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/verifier"
)

func tos(mails []received) []string {
	var list []string
	for _, m := range mails {
		list = append(list, m.to)
	}
	return list
}

func TestDeliver(t *testing.T) {
	m := startMTA(t)
	n := newNotifier(t, m.addr, memoryLedger(t))
	logged := watch(n)
	failures := append(failures("bob@rcpt.example", "carol@rcpt.example"),
		milter.Failure{Recipient: "never@rcpt.example", RcptArgs: "NOTIFY=NEVER"})
	err := n.deliver(t.Context(), honest(), failures, notices("dave@rcpt.example", "erin@rcpt.example", "dave@rcpt.example"))
	if err != nil {
		t.Fatal(err)
	}
	mails := m.taken()
	if want := []string{"alice@sender.example", "dave@rcpt.example", "erin@rcpt.example"}; !slices.Equal(tos(mails), want) {
		t.Fatalf("mail to %v, want %v", tos(mails), want)
	}
	if m.connections != 1 {
		t.Errorf("%d connections for one message", m.connections)
	}
	for _, mail := range mails {
		if mail.from != "" || !mail.never || mail.utf8 {
			t.Errorf("MAIL FROM:<%s>, NOTIFY=NEVER %v, SMTPUTF8 %v", mail.from, mail.never, mail.utf8)
		}
	}
	for _, rcpt := range []string{"bob@", "carol@"} {
		if !strings.Contains(mails[0].data, "Final-Recipient: rfc822; "+rcpt) {
			t.Errorf("the DSN does not report %s", rcpt)
		}
	}
	if strings.Contains(mails[0].data, "never@") {
		t.Error("the DSN reports a recipient with NOTIFY=NEVER")
	}
	// A notice names nobody but its recipient.
	for _, other := range []string{"bob@", "carol@", "erin@", "never@"} {
		if strings.Contains(mails[1].data, other) {
			t.Errorf("the notice to dave names %s", other)
		}
	}
	if want := "msg=notified qid=4ABC12 dsns=1 notices=2 declined=1\n"; strings.Count(logged.String(), "\n") != 1 || !strings.HasSuffix(logged.String(), want) {
		t.Errorf("logged %s, want %s", logged, want)
	}
}

// TestFailedHandOver is what must hold whenever the MTA does not take something:
// an error, and on the retry what is missing, once, and nothing else again.
func TestFailedHandOver(t *testing.T) {
	everything := []string{"alice@sender.example", "dave@rcpt.example", "erin@rcpt.example"}
	tests := []struct {
		name  string
		spoil func(*mta)
		first []string // taken before the fault is mended
	}{
		{"full", func(m *mta) { m.mailErr = full }, nil},
		{"full at the end of DATA", func(m *mta) { m.dataErr = full }, nil},
		{"DSN refused", func(m *mta) {
			m.rcptErr = map[string]error{"alice@sender.example": &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Relay access denied"}}
		}, []string{"dave@rcpt.example", "erin@rcpt.example"}},
		{"one notice refused", func(m *mta) {
			m.rcptErr = map[string]error{"dave@rcpt.example": full}
		}, []string{"alice@sender.example", "erin@rcpt.example"}},
		{"shutting down after one", func(m *mta) {
			m.rcptErr = map[string]error{"dave@rcpt.example": &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "Shutting down"}}
		}, []string{"alice@sender.example"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := startMTA(t)
			// Rates that leave no room for counting an attempt that failed.
			rates := Rates{Rate{1, time.Hour}, Rate{1, time.Hour}, Rate{3, time.Hour}}
			n := newNotifier(t, m.addr, memoryLedger(t), func(o *Options) { o.Rates = rates })
			deliver := func() error {
				o := honest()
				if why := n.suppressDSN(o); why != Allowed {
					t.Errorf("a retry's DSN is suppressed: %s", why)
				}
				return n.deliver(t.Context(), o, failures("bob@rcpt.example"), notices("dave@rcpt.example", "erin@rcpt.example"))
			}
			m.set(tt.spoil)
			for range 2 {
				err := deliver()
				deliverErr(t, err, "refused: ")
				if !isRefusal(err) {
					t.Errorf("%v does not carry the MTA's reply", err)
				}
				if got := tos(m.taken()); !slices.Equal(got, tt.first) {
					t.Fatalf("taken %v, want %v", got, tt.first)
				}
			}
			m.set(func(m *mta) { m.mailErr, m.dataErr, m.rcptErr = nil, nil, nil })
			for range 2 {
				if err := deliver(); err != nil {
					t.Fatal(err)
				}
			}
			got := tos(m.taken())
			slices.Sort(got)
			if !slices.Equal(got, everything) {
				t.Errorf("taken in the end %v, want %v", got, everything)
			}
		})
	}
}

// brokenMTA accepts connections, answers the commands before stop, and then
// says no more.
func brokenMTA(t *testing.T, stop string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { answerUntil(c, stop) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

func answerUntil(c net.Conn, stop string) {
	defer c.Close()
	if stop != "" {
		fmt.Fprint(c, "220 ready\r\n")
	}
	silent := stop == ""
	for in := bufio.NewScanner(c); in.Scan(); { // until the client goes
		command, _, _ := strings.Cut(in.Text(), " ")
		silent = silent || command == stop
		switch {
		case silent:
		case command == "DATA":
			fmt.Fprint(c, "354 go on\r\n")
		case command == "." || command == "EHLO" || strings.HasSuffix(command, "FROM:<>") || command == "MAIL" || command == "RCPT":
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

func TestSlowMTA(t *testing.T) {
	for _, stop := range []string{"", "EHLO", "MAIL", "RCPT", "DATA", "."} {
		t.Run("silent at "+stop, func(t *testing.T) {
			n := newNotifier(t, brokenMTA(t, stop), memoryLedger(t))
			n.timeout = 100 * time.Millisecond
			err := n.deliver(t.Context(), honest(), failures("bob@rcpt.example"), notices("dave@rcpt.example"))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want one of the deadline", err)
			}
			deliverErr(t, err, "2 of 2 not handed over")
			if got := len(n.ledger.sent); got != 0 {
				t.Errorf("%d remembered", got)
			}
		})
	}
}

func TestSilentQuit(t *testing.T) {
	n := newNotifier(t, brokenMTA(t, "QUIT"), memoryLedger(t))
	if err := n.deliver(t.Context(), honest(), nil, notices("dave@rcpt.example")); err != nil {
		t.Errorf("a mail that was taken counts as lost: %v", err)
	}
}

func TestNoMTA(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	n := newNotifier(t, l.Addr().String(), memoryLedger(t))
	deliverErr(t, n.deliver(t.Context(), honest(), nil, notices("dave@rcpt.example")), "hand over to "+l.Addr().String())
	// Nothing to say needs no MTA.
	if err := n.deliver(t.Context(), honest(), []milter.Failure{{Recipient: "bob@rcpt.example", RcptArgs: "NOTIFY=SUCCESS,DELAY"}}, nil); err != nil {
		t.Error(err)
	}
}

// TestForgedSenders: by default nobody is told of mail that forgers sent in their name.
func TestForgedSenders(t *testing.T) {
	m := startMTA(t)
	n := newNotifier(t, m.addr, memoryLedger(t))
	logged := watch(n)
	const many = 10_000
	for i := range many {
		o := honest()
		o.Sender, o.SenderAuthenticated = fmt.Sprintf("user%d@victim.example", i), false
		o.Header = append(o.Header, field("Message-ID", fmt.Sprintf("<%d@forger.example>", i)))
		if why := n.suppressDSN(o); why != Unauthenticated {
			t.Fatalf("DSN to forged sender %d: %q", i, why)
		}
		if err := n.deliver(t.Context(), o, failures("bob@rcpt.example"), nil); err == nil {
			t.Fatal("Deliver sent what AllowDSN had not allowed")
		}
	}
	if got := len(m.taken()); got != 0 {
		t.Errorf("%d DSNs to forged senders", got)
	}
	if got := strings.Count(logged.String(), "why=unauthenticated\n"); got != many {
		t.Errorf("%d logged as suppressed", got)
	}
}

// TestRateForged: also where every sender gets DSNs, one address gets few.
func TestRateForged(t *testing.T) {
	m := startMTA(t)
	n := newNotifier(t, m.addr, memoryLedger(t), func(o *Options) {
		o.DSN = Always
		o.Rates.PerSender = Rate{2, time.Hour}
		o.Rates.PerRecipient = Rate{3, time.Hour}
	})
	logged := watch(n)
	for i := range 50 {
		o := honest()
		o.SenderAuthenticated = false
		o.Header[3].Value = fmt.Sprintf("<%d@forger.example>", i)
		o.Sender = []string{"victim@sender.example", "Victim@SENDER.example"}[i%2]
		var list []milter.Failure
		if n.suppressDSN(o) == Allowed {
			list = failures("bob@rcpt.example")
		}
		if err := n.deliver(t.Context(), o, list, notices("dave@rcpt.example")); err != nil {
			t.Fatal(err)
		}
	}
	count := make(map[string]int)
	for _, to := range tos(m.taken()) {
		count[strings.ToLower(to)]++
	}
	if count["victim@sender.example"] != 2 || count["dave@rcpt.example"] != 3 {
		t.Errorf("mails sent: %v", count)
	}
	for what, want := range map[string]int{"why=rate-sender\n": 48, "suppressed=rate-recipient=1\n": 47} {
		if got := strings.Count(strings.ReplaceAll(logged.String(), `"`, ""), what); got != want {
			t.Errorf("%d logged with %s, want %d", got, what, want)
		}
	}
}

// TestTwoHosts has two systems report to one another what the other reported: at
// most one notice comes of it.
func TestTwoHosts(t *testing.T) {
	m := startMTA(t)
	here := newNotifier(t, m.addr, memoryLedger(t))
	there := newNotifier(t, m.addr, memoryLedger(t), func(o *Options) { o.DSN, o.Hostname = Always, "mx.sender.example" })
	if err := here.deliver(t.Context(), honest(), failures("bob@rcpt.example"), notices("bob@rcpt.example")); err != nil {
		t.Fatal(err)
	}
	mails := m.taken()
	if len(mails) != 2 {
		t.Fatalf("%d mails", len(mails))
	}
	for _, mail := range mails {
		// As it would come in, and with what could have been lost on the way.
		for _, lost := range []string{"", "null sender", "Auto-Submitted"} {
			o := &original{milter.Original{Sender: mail.from, Arrived: arrived, SenderAuthenticated: true, Result: verifier.Result{Status: verifier.Fail}}}
			if lost != "" {
				o.Sender = "forwarder@elsewhere.example"
			}
			for _, f := range readMail(t, mail.data).fields {
				if f.Name != lost {
					o.Header = append(o.Header, f)
				}
			}
			if why := there.suppressDSN(o); why == Allowed {
				t.Errorf("a DSN about our mail, %q lost:\n%s", lost, mail.data)
			}
			if err := there.deliver(t.Context(), o, nil, notices("alice@sender.example")); err != nil {
				t.Error(err)
			}
		}
	}
	if got := m.taken(); len(got) != 2 {
		t.Errorf("our mail brought about %d more", len(got)-2)
	}
}

// TestSameMessageTwice: a client that gave up waiting comes back while its first
// transaction is still being answered.
func TestSameMessageTwice(t *testing.T) {
	m := startMTA(t)
	n := newNotifier(t, m.addr, memoryLedger(t))
	key := honest().identity().report(kindNotice, "dave@rcpt.example")
	if n.ledger.claim(key) != unsent {
		t.Fatal("cannot claim")
	}
	err := n.deliver(t.Context(), honest(), failures("bob@rcpt.example"), notices("erin@rcpt.example", "dave@rcpt.example"))
	if !errors.Is(err, ErrBusy) {
		t.Fatalf("error %v, want ErrBusy", err)
	}
	if len(m.taken()) != 0 {
		t.Error("sent beside the first transaction")
	}
	n.ledger.release([]digest{key}, nil)
	// Whoever wins, everything is sent once.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				err := n.deliver(t.Context(), honest(), failures("bob@rcpt.example"), notices("erin@rcpt.example", "dave@rcpt.example"))
				if err == nil || !errors.Is(err, ErrBusy) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	all.Wait()
	got := tos(m.taken())
	slices.Sort(got)
	if want := []string{"alice@sender.example", "dave@rcpt.example", "erin@rcpt.example"}; !slices.Equal(got, want) {
		t.Errorf("taken %v, want %v", got, want)
	}
}

// TestManyRecipients: a DSN of which an MTA would not take the size becomes several.
func TestManyRecipients(t *testing.T) {
	m := startMTA(t)
	n := newNotifier(t, m.addr, memoryLedger(t), func(o *Options) { o.Rates.PerSender = Rate{1, time.Hour} })
	var list []milter.Failure
	for i := range perDSN + 1 {
		list = append(list, failures(fmt.Sprintf("user%d@rcpt.example", i))...)
	}
	for range 2 {
		if err := n.deliver(t.Context(), honest(), list, nil); err != nil {
			t.Fatal(err)
		}
	}
	mails := m.taken()
	if len(mails) != 2 {
		t.Fatalf("%d DSNs", len(mails))
	}
	count := 0
	for _, mail := range mails {
		count += strings.Count(mail.data, "\r\nFinal-Recipient: ")
	}
	if count != len(list) {
		t.Errorf("%d of %d recipients reported", count, len(list))
	}
	if !strings.Contains(mails[0].data, fmt.Sprintf("and %d more", perDSN-maxListed)) {
		t.Error("the text does not say that there are more")
	}
}

func TestUTF8Addresses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*smtp.Server)
		sender string
		wantTo string
		utf8   bool
	}{
		{"local part", nil, "jürgen@bücher.example", "jürgen@xn--bcher-kva.example", true},
		{"domain alone", nil, "alice@bücher.example", "alice@xn--bcher-kva.example", false},
		{"MTA without SMTPUTF8", func(s *smtp.Server) { s.EnableSMTPUTF8 = false }, "jürgen@sender.example", "jürgen@sender.example", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := startMTA(t, func(s *smtp.Server) {
				if tt.change != nil {
					tt.change(s)
				}
			})
			o := honest()
			o.Sender = tt.sender
			if err := newNotifier(t, m.addr, memoryLedger(t)).deliver(t.Context(), o, failures("bob@rcpt.example"), nil); err != nil {
				t.Fatal(err)
			}
			mail := m.taken()[0]
			if mail.to != tt.wantTo || mail.utf8 != tt.utf8 {
				t.Errorf("RCPT TO:<%s>, SMTPUTF8 %v, want %s, %v", mail.to, mail.utf8, tt.wantTo, tt.utf8)
			}
			wide := strings.Contains(mail.data, "message/global-delivery-status")
			if wide != !esmtp.IsASCII(tt.wantTo) {
				t.Errorf("forms of RFC 6533: %v", wide)
			}
			if !wide && !esmtp.IsASCII(mail.data) {
				t.Error("octets above ASCII in a mail to an ASCII address")
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	n := newNotifier(t, brokenMTA(t, ""), memoryLedger(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.deliver(ctx, honest(), nil, notices("dave@rcpt.example")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{SMTP: "127.0.0.1:25", DSN: Always, Rates: plenty, Hostname: "mx.example.com"}
	tests := map[string]func(*Options){
		"mode": func(o *Options) { o.DSN = "sometimes" },
		"rate": func(o *Options) { o.Rates.Global.Count = 0 },
		"span": func(o *Options) { o.Rates.PerSender.Per = 0 },
		"host": func(o *Options) { o.Hostname = "mx example" },
		"none": func(o *Options) { o.Hostname = "" },
	}
	log, _ := newLog()
	for name, spoil := range tests {
		opts := good
		spoil(&opts)
		if _, err := New(opts, memoryLedger(t), log); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	good.Hostname = "bücher.example."
	if n, err := New(good, memoryLedger(t), log); err != nil || n.opts.Hostname != "xn--bcher-kva.example" {
		t.Errorf("host name of an IDN: %v", err)
	}
}

// TestProbe: what would be refused is refused a probe too, and what is not is no mail.
func TestProbe(t *testing.T) {
	m := startMTA(t)
	recipients := []string{"postmaster@example.com", "jürgen@own.example"}
	if at, err := Probe(t.Context(), m.addr, "mx.example.com", recipients); err != nil {
		t.Errorf("recipient %d: %v", at, err)
	}
	if m.mailCommand != 2 || !slices.Equal(m.envelopeIDs, []string{milter.ProbeEnvelopeID, milter.ProbeEnvelopeID}) || len(m.taken()) != 0 {
		t.Errorf("%d transactions, ENVID %q, %d mails", m.mailCommand, m.envelopeIDs, len(m.taken()))
	}
	m.set(func(m *mta) {
		m.rcptErr = map[string]error{recipients[1]: &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "User unknown"}}
	})
	at, err := Probe(t.Context(), m.addr, "mx.example.com", recipients)
	var refusal *Refusal
	if at != 1 || !errors.As(err, &refusal) || refusal.Status() != "5.1.1" || err.Error() != `RCPT refused: 550 5.1.1 "User unknown"` {
		t.Errorf("recipient %d: %v", at, err)
	}
	for _, code := range []smtp.EnhancedCode{{}, {4, 1, 1}} {
		if r := (&Refusal{"RCPT", &smtp.SMTPError{Code: 550, EnhancedCode: code, Message: "no"}}); r.Status() != "" || r.Error() != `RCPT refused: 550 "no"` {
			t.Errorf("%v: status %q, %v", code, r.Status(), r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Probe(ctx, brokenMTA(t, "RCPT"), "mx.example.com", recipients); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "RCPT is not answered") {
		t.Errorf("silent at RCPT: %v", err)
	}
}
