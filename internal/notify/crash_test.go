package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/authkey/authkey/internal/oplog"
	"github.com/authkey/authkey/milter"
)

// What the process that crashes is told.
const (
	crashDir = "AUTHKEY_TEST_CRASH_DIR"
	crashMTA = "AUTHKEY_TEST_CRASH_MTA"
)

const crashNotices = 300

// deliverAndCrash is the process: it delivers the notices of one message, unless it is
// killed.
func deliverAndCrash() {
	log, said := newLog()
	ledger, err := OpenLedger(os.Getenv(crashDir), log)
	if err == nil {
		var n *Notifier
		n, err = New(Options{SMTP: os.Getenv(crashMTA), DSN: Always, Rates: plenty, Hostname: "mx.example.com"}, ledger, log)
		if err == nil {
			n.timeout *= 60 // the machine may be busy
			var rcpts []string
			for i := range crashNotices {
				rcpts = append(rcpts, fmt.Sprintf("r%d@rcpt.example", i))
			}
			err = n.deliver(context.Background(), honest(), failures("bob@rcpt.example"), notices(rcpts...))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err, said)
		os.Exit(1)
	}
	os.Exit(0)
}

// killer is an MTA that kills its client with the mail in hand: before it answers, or
// after it has.
type killer struct {
	mu     sync.Mutex
	taken  map[string]int
	total  int
	at     int // of the mails taken, 0: never
	answer bool
	victim *os.Process
}

type killerSession struct {
	*killer
	to string
}

func (k *killerSession) Mail(string, *smtp.MailOptions) error { return nil }
func (k *killerSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	k.to = to
	return nil
}

func (k *killerSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.taken[k.to]++
	k.total++
	if k.at > 0 && k.total == k.at && !k.answer {
		return errors.Join(k.victim.Signal(syscall.SIGKILL), io.ErrUnexpectedEOF)
	}
	return nil
}

func (k *killerSession) Reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at > 0 && k.total >= k.at && k.answer {
		_ = k.victim.Signal(syscall.SIGKILL)
	}
}
func (k *killerSession) Logout() error { return nil }

// TestKilledInTheMiddle: a process that is killed while it hands over many notices has
// at most the one in hand sent again when the message comes back.
func TestKilledInTheMiddle(t *testing.T) {
	for _, answer := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		k := &killer{taken: make(map[string]int), answer: answer}
		server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &killerSession{killer: k}, nil }))
		server.Domain, server.ErrorLog = "killer.test", quiet{}
		server.EnableDSN = true
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()

		dir := t.TempDir()
		run := func(at int) error {
			k.mu.Lock()
			k.at = at
			k.mu.Unlock()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), crashDir+"="+dir, crashMTA+"="+l.Addr().String())
			var out bytes.Buffer
			cmd.Stderr = &out
			k.mu.Lock()
			err := cmd.Start()
			k.victim = cmd.Process
			k.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			if err = cmd.Wait(); err != nil && at == 0 {
				t.Errorf("%v\n%s", err, out.String())
			}
			return err
		}
		const kills = 3
		for i := range kills {
			if err := run((i + 1) * crashNotices / (kills + 1)); err == nil {
				t.Error("it was not killed: the test tests nothing")
			}
		}
		run(0)
		if len(k.taken) != crashNotices+1 {
			t.Errorf("%d were sent something, want the sender and %d recipients", len(k.taken), crashNotices)
		}
		if again := k.total - len(k.taken); again > kills {
			t.Errorf("answered before the kill: %v: %d were sent again after %d kills, want one each at most", answer, again, kills)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	}
}

// syncFailures counts the complaints of a ledger, and lets it complain again at once.
type syncFailures struct {
	ledger *Ledger
	n      int
}

func (s *syncFailures) Write(p []byte) (int, error) { // by complain, which holds the lock
	s.ledger.complaints = oplog.Limit{}
	s.n++
	return len(p), nil
}

// TestSynchronised: what was handed over is brought to the disk after every 32 of a
// message, and before it is answered. The null device takes what is written, and says
// that it cannot be synchronised.
func TestSynchronised(t *testing.T) {
	m := startMTA(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var seen syncFailures
	l, err := OpenLedger(t.TempDir(), slog.New(slog.NewTextHandler(&seen, nil)))
	if err != nil {
		t.Fatal(err)
	}
	seen.ledger = l
	if err := l.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	l.journal.file = null
	n := newNotifier(t, m.addr, l)
	sent := 0
	for _, tt := range []struct{ notices, want int }{{1, 1}, {syncEvery - 1, 1}, {syncEvery, 1}, {syncEvery + 1, 2}, {3 * syncEvery, 3}} {
		var rcpts []string
		for range tt.notices {
			sent++
			rcpts = append(rcpts, fmt.Sprintf("r%d@rcpt.example", sent))
		}
		seen.n = 0
		if err := n.deliver(t.Context(), honest(), nil, notices(rcpts...)); err != nil {
			t.Fatal(err)
		}
		if seen.n != tt.want {
			t.Errorf("%d notices: synchronised %d times, want %d", tt.notices, seen.n, tt.want)
		}
	}
	if got := len(m.taken()); got != sent {
		t.Errorf("%d of %d notices sent", got, sent)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestIdentity: a message is the same when it comes again, and another one is not.
func TestIdentity(t *testing.T) {
	is := func(change func(*original)) bool {
		o := honest()
		change(o)
		return o.identity() == honest().identity()
	}
	set := func(name, value string) func(*original) {
		return func(o *original) {
			for i, f := range o.Header {
				if isField(f, name) {
					o.Header[i].Value = value
					return
				}
			}
			o.Header = append([]milter.Field{field(name, value)}, o.Header...)
		}
	}
	for _, name := range []string{"Received", "received-spf", "Return-Path", "X-Received", "Delivered-To", "Authentication-Results",
		"ARC-Seal", "arc-message-signature", "DKIM-Signature", "X-Auth-Key", "X-New-Auth-Key"} {
		if !is(set(name, "other")) {
			t.Errorf("another %s makes another message", name)
		}
	}
	if !is(func(o *original) { o.QueueID, o.Client, o.MailArgs = "other", "192.0.2.9", "SIZE=1" }) {
		t.Error("another attempt makes another message")
	}
	for _, name := range []string{"Subject", "From", "To", "Message-ID", "Date", "X-Mailer", "Arc"} {
		if is(set(name, "other")) {
			t.Errorf("another %s makes the same message", name)
		}
	}
	if is(func(o *original) { o.Sender = "mallory@sender.example" }) {
		t.Error("another sender makes the same message")
	}
}
