package e2e

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testmta"
)

// binary is the authkey-milter under test, built with the race detector.
var binary string

// buildDir is where the programs under test are built, once for all tests.
var buildDir string

// sendmailPrefix is where Sendmail's files are.
var sendmailPrefix string

// patience is how long a test waits for what must come. It is much longer than anything
// takes, also on a machine that has other things to do: when it is over, something
// hangs.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	// Programs with the race detector wait a second before they end, unless told not to.
	if err := os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	var err error
	if buildDir, err = os.MkdirTemp("", "authkey-build-"); err != nil {
		say("%v", err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	binary = filepath.Join(buildDir, "authkey-milter")
	build := exec.CommandContext(ctx, "go", "build", "-race", "-o", binary, "github.com/authkey/authkey/cmd/authkey-milter")
	if out, err := build.CombinedOutput(); err != nil {
		say("build: %v\n%s", err, out)
		return 1
	}
	if err := testmta.EnsurePostfix(ctx, say); err != nil {
		say("%v", err)
		return 1
	}
	if sendmailPrefix, err = testmta.EnsureSendmail(ctx, say); err != nil {
		say("%v", err)
		return 1
	}
	// These tests wait for mail, and for timeouts, more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	return m.Run()
}

// mtas are the real MTAs which every scenario runs on.
var mtas = []struct {
	name  string
	start func(t *testing.T, socket string) (testmta.MTA, error)
}{
	{"postfix", func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket},
			Main: map[string]string{"smtputf8_enable": "yes"}})
	}},
	{"sendmail", func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartSendmail(t.Context(), testmta.SendmailOptions{Prefix: sendmailPrefix, Milters: []string{socket}})
	}},
}

// The domains of the world that most tests share.
const (
	withAS    = "pass.test"   // has an AS; alice is an address
	requiring = "req.test"    // the same, and says req=yes
	withoutAS = "none.test"   // publishes nothing
	downAS    = "down.test"   // its AS is not there
	brokenAS  = "broken.test" // its record cannot be understood
	strictly  = "strict.test" // says req=yes, and its AS is not there
)

// newWorld makes the world of those domains. It ends with the test.
func newWorld(t *testing.T) *lab.World {
	t.Helper()
	w, err := lab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("end of the world: %v", err)
		}
	})
	for _, domain := range []string{withAS, requiring, downAS, strictly} {
		must(t, w.AddDomain(domain, "alice"))
	}
	port, _, err := w.ServeAS(withAS, requiring)
	must(t, err)
	gone, err := w.RefusingPort()
	must(t, err)
	must(t, w.Publish(withAS, "v=spf1 -all", lab.ASRecord(port)))
	must(t, w.Publish(requiring, lab.ASRecord(port, "req=yes")))
	must(t, w.Publish(downAS, lab.ASRecord(gone)))
	must(t, w.Publish(strictly, lab.ASRecord(gone, "req=yes")))
	must(t, w.Publish(brokenAS, "AS=somewhere; tls=perhaps"))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustKey(t *testing.T, w *lab.World, mailbox string) string {
	t.Helper()
	key, err := w.Key(mailbox)
	must(t, err)
	return key
}

// startMilter runs the milter on a unix socket.
func startMilter(t *testing.T, w *lab.World, more string) *lab.Milter {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := w.StartMilter(ctx, binary, "unix", more)
	must(t, err)
	return m
}

// startMTA runs an MTA until the end of the test.
func startMTA(t *testing.T, start func(*testing.T, string) (testmta.MTA, error), socket string) testmta.MTA {
	t.Helper()
	mta, err := start(t, socket)
	must(t, err)
	t.Cleanup(func() {
		if err := mta.Stop(); err != nil {
			t.Errorf("stop %s: %v", mta.Name(), err)
		}
		if t.Failed() {
			t.Logf("%s's log:\n%s", mta.Name(), mta.Log())
		}
	})
	return mta
}

func dialSMTP(t *testing.T, mta testmta.MTA) *testmta.Client {
	t.Helper()
	c, err := testmta.Dial(mta.SMTPAddr())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var messages atomic.Int64

// newSubject is a subject that no other message has.
func newSubject() string { return fmt.Sprintf("message %d", messages.Add(1)) }

// A mail is a message whose header MTAs add nothing to.
type mail struct {
	from     string
	mailArgs string
	author   string // the From field; "" for alice@pass.test
	rcpts    []string
	rcptArgs []string
	fields   string // further fields, on top of the rest, with CRLF
	subject  string // "" for a new one
	tail     string // further fields below the rest
}

func (m *mail) data() []byte {
	if m.subject == "" {
		m.subject = newSubject()
	}
	return []byte(m.fields + "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nFrom: " + cmp.Or(m.author, "alice@pass.test") + "\r\nTo: bob@rcpt.test\r\n" +
		"Message-ID: " + m.id() + "\r\nSubject: " + m.subject + "\r\n" + m.tail + "\r\nHello Bob.\r\n..\r\nX-Auth-Key: body text stays\r\n")
}

// id is its Message-ID, which no other message has.
func (m *mail) id() string { return "<" + strings.ReplaceAll(m.subject, " ", ".") + "@pass.test>" }

func (m *mail) transaction() testmta.Transaction {
	rcpts := m.rcpts
	if len(rcpts) == 0 {
		rcpts = []string{"bob@rcpt.test"}
	}
	return testmta.Transaction{MailFrom: m.from, MailArgs: m.mailArgs, Rcpts: rcpts, RcptArgs: m.rcptArgs, Data: m.data()}
}

// sendMail sends m and fails the test where the connection breaks.
func sendMail(t *testing.T, c *testmta.Client, m *mail) testmta.Outcome {
	t.Helper()
	out, err := c.Send(m.transaction())
	if err != nil {
		t.Fatalf("send: %v\n%+v", err, out)
	}
	return out
}

// delivered waits for the copy of m.
func delivered(t *testing.T, mta testmta.MTA, m *mail) testmta.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := mta.WaitDelivered(ctx, func(d testmta.Message) bool { return d.Get("Subject") == m.subject })
	if err != nil {
		t.Fatalf("not delivered: %v", err)
	}
	return got
}

// notDelivered reports what should not have been delivered.
func notDelivered(t *testing.T, mta testmta.MTA, m *mail) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, mta.WaitIdle(ctx))
	all, err := mta.Deliveries()
	must(t, err)
	for _, d := range all {
		if d.Get("Subject") == m.subject {
			t.Errorf("delivered all the same:\n%s", d.Raw)
		}
	}
}

// checkContent compares what was delivered, below the MTA's own fields, with what
// was sent but for the fields that had to go.
func checkContent(t *testing.T, got testmta.Message, m *mail, without ...string) {
	t.Helper()
	want := m.data()
	for _, field := range without {
		if !bytes.Contains(want, []byte(field)) {
			t.Fatalf("the test is wrong: %q was not sent", field)
		}
		want = bytes.Replace(want, []byte(field), nil, 1)
	}
	if content := got.Content(); !bytes.Equal(content, want) {
		t.Errorf("delivered below Received:\n%q\nwant:\n%q", content, want)
	}
}

// authRes is what the delivered Authentication-Results of ours say of the envelope
// sender, unfolded.
func authRes(m testmta.Message) string {
	return resultsOf(m, func(r string) bool { return !strings.Contains(r, "header.from=") })
}

// fromRes is what they say of the From field.
func fromRes(m testmta.Message) string {
	return resultsOf(m, func(r string) bool { return strings.Contains(r, "header.from=") })
}

func resultsOf(m testmta.Message, want func(result string) bool) string {
	for _, f := range m.Above() {
		if !strings.EqualFold(f.Name, "Authentication-Results") {
			continue
		}
		id, results, _ := strings.Cut(strings.Join(strings.Fields(f.Value), " "), "; ")
		for result := range strings.SplitSeq(results, "; ") {
			if want(result) {
				return id + "; " + result
			}
		}
	}
	return ""
}
