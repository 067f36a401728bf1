package notify

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDir) != "" {
		deliverAndCrash()
	}
	goleak.VerifyTestMain(m)
}

// received is a mail that an mta took.
type received struct {
	from, to string
	utf8     bool
	never    bool // NOTIFY=NEVER
	data     string
}

// mta is an SMTP server that does what it is told.
type mta struct {
	addr string

	mu                       sync.Mutex
	mailErr, dataErr         error
	rcptErr                  map[string]error
	mails                    []received
	connections, mailCommand int
	envelopeIDs              []string
}

func startMTA(t *testing.T, change ...func(*smtp.Server)) *mta {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mta{addr: l.Addr().String()}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.connections++
		return &session{mta: m}, nil
	}))
	s.Domain, s.EnableDSN, s.EnableSMTPUTF8 = "mta.test", true, true
	s.ReadTimeout, s.WriteTimeout = time.Minute, time.Minute
	s.ErrorLog = quiet{}
	for _, c := range change {
		c(s)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return m
}

// set changes what the MTA does.
func (m *mta) set(change func(m *mta)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (m *mta) taken() []received {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]received(nil), m.mails...)
}

type session struct {
	mta *mta
	received
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	s.mta.mu.Lock()
	defer s.mta.mu.Unlock()
	s.mta.mailCommand++
	s.mta.envelopeIDs = append(s.mta.envelopeIDs, opts.EnvelopeID)
	s.received = received{from: from, utf8: opts.UTF8}
	return s.mta.mailErr
}

func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	s.mta.mu.Lock()
	defer s.mta.mu.Unlock()
	s.to = to
	s.never = len(opts.Notify) == 1 && opts.Notify[0] == smtp.DSNNotifyNever
	return s.mta.rcptErr[to]
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mta.mu.Lock()
	defer s.mta.mu.Unlock()
	if s.mta.dataErr != nil {
		return s.mta.dataErr
	}
	s.data = string(data)
	s.mta.mails = append(s.mta.mails, s.received)
	return nil
}

func (s *session) Reset()        { s.received = received{} }
func (s *session) Logout() error { return nil }

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// full is what an MTA says whose disk is.
var full = &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "Insufficient system storage"}

var refusedReply = policy.Reply{Code: 550, Enhanced: "5.7.1", Text: "Sender address not authenticated: AuthKey invalid"}

// plenty never gets in a test's way.
var plenty = Rates{Rate{1000, time.Minute}, Rate{1000, time.Minute}, Rate{1000, time.Minute}}

type testLog struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

func newLog() (*slog.Logger, *testLog) {
	var out testLog
	return slog.New(slog.NewTextHandler(&out, nil)), &out
}

func memoryLedger(t *testing.T) *Ledger {
	t.Helper()
	log, _ := newLog()
	l, err := OpenLedger("", log)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newNotifier returns a Notifier with test's options over the usual ones.
func newNotifier(t *testing.T, smtpAddr string, ledger *Ledger, change ...func(*Options)) *Notifier {
	t.Helper()
	opts := Options{SMTP: smtpAddr, DSN: Authenticated, Rates: plenty, Hostname: "mx.example.com"}
	for _, c := range change {
		c(&opts)
	}
	log, _ := newLog()
	n, err := New(opts, ledger, log)
	if err != nil {
		t.Fatal(err)
	}
	n.timeout = time.Minute // what is taken is taken in time, however busy the machine is
	return n
}

// watch returns what a Notifier logs from now on.
func watch(n *Notifier) *testLog {
	log, out := newLog()
	n.log = log
	return out
}

var arrived = time.Date(2026, 3, 1, 12, 30, 15, 0, time.FixedZone("", 3600))

func field(name, value string) milter.Field { return milter.Field{Name: name, Value: value} }

// honest is a message that everything may be said about.
func honest() *original {
	return &original{milter.Original{
		QueueID: "4ABC12", Sender: "alice@sender.example", Client: "192.0.2.7", Arrived: arrived,
		Header: []milter.Field{
			field("From", "Alice <alice@sender.example>"),
			field("To", "bob@rcpt.example, carol@rcpt.example"),
			field("Subject", "Lunch?"),
			field("Message-ID", "<1@sender.example>"),
			field("X-Auth-Key", theKey),
		},
		SenderAuthenticated: true, Result: verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey},
	}}
}

// with returns honest with another header field.
func with(name, value string) *original {
	o := honest()
	o.Header = append(o.Header, field(name, value))
	return o
}

const theKey = "QK7DAVZ3MNOP5TRW2XYBCEFGHI4JLSU6"

func failures(rcpts ...string) []milter.Failure {
	var list []milter.Failure
	for _, r := range rcpts {
		list = append(list, milter.Failure{Recipient: r, Reply: refusedReply})
	}
	return list
}

func notices(rcpts ...string) []milter.Notice {
	var list []milter.Notice
	for _, r := range rcpts {
		list = append(list, milter.Notice{Recipient: r})
	}
	return list
}

// deliverErr checks an error that is to be answered 451.
func deliverErr(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
}

func isRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}
