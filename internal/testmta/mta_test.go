package testmta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/testdaemon"
)

// helperEnv makes the test binary play a program that starts the named mail
// system and dies without stopping it.
const helperEnv = "TESTMTA_DIE_WITH"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		mta, err := startBare(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Println(folder(mta))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func startBare(name string) (MTA, error) {
	ctx := context.Background()
	if name == "postfix" {
		return StartPostfix(ctx, PostfixOptions{})
	}
	prefix, err := EnsureSendmail(ctx, func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	return StartSendmail(ctx, SendmailOptions{Prefix: prefix})
}

func folder(mta MTA) string {
	switch m := mta.(type) {
	case *Postfix:
		return m.Dir()
	case *Sendmail:
		return m.dir
	}
	return ""
}

// A program that dies leaves neither processes nor files.
func TestNothingOutlivesItsProgram(t *testing.T) {
	if err := EnsurePostfix(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	for name := range drivers {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperEnv+"="+name)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		dir := strings.TrimSpace(string(out))
		err = testdaemon.Poll(t.Context(), func() (bool, error) {
			left, err := running(dir)
			_, statErr := os.Stat(dir)
			return len(left) == 0 && errors.Is(statErr, os.ErrNotExist), err
		})
		if err != nil {
			t.Errorf("%s: something is left in or of %s: %v", name, dir, err)
		}
	}
}

// drivers start each mail system with one milter.
var drivers = map[string]func(t *testing.T, milter string) (MTA, error){
	"postfix": func(t *testing.T, milter string) (MTA, error) {
		if err := EnsurePostfix(t.Context(), t.Logf); err != nil {
			return nil, err
		}
		return StartPostfix(t.Context(), PostfixOptions{Milters: []string{milter}})
	},
	"sendmail": func(t *testing.T, milter string) (MTA, error) {
		prefix, err := EnsureSendmail(t.Context(), t.Logf)
		if err != nil {
			return nil, err
		}
		return StartSendmail(t.Context(), SendmailOptions{Prefix: prefix, Milters: []string{milter}})
	},
}

// stop stops the MTA and checks that nothing is left of it.
func stop(t *testing.T, mta MTA) {
	t.Helper()
	if err := mta.Stop(); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := mta.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if c, err := net.Dial("tcp", mta.SMTPAddr()); err == nil {
		c.Close()
		t.Error("still listening after Stop")
	}
	dir := folder(mta)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("folder %s: %v", dir, err)
	}
	if left, err := running(dir); len(left) > 0 || err != nil {
		t.Errorf("left over: %q, %v", left, err)
	}
}

// running are the processes that name a folder in their command line or work in
// it.
func running(dir string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		command, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue // no process, or it has just ended
		}
		cwd, _ := os.Readlink("/proc/" + e.Name() + "/cwd")
		if strings.Contains(string(command), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, string(command))
		}
	}
	return found, nil
}

func dial(t *testing.T, addr string) *Client {
	t.Helper()
	c, err := Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func subject(s string) func(Message) bool {
	return func(m Message) bool { return m.Get("Subject") == s }
}

// content is a complete message, to which no MTA adds a field.
func content(subject, more string) []byte {
	return []byte("Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nFrom: a@sender.test\r\nMessage-ID: <1@sender.test>\r\n" +
		"Subject: " + subject + "\r\n" + more + "\r\n..two dots\r\n.one\r\n\r\nend\r\n")
}

func TestMTAs(t *testing.T) {
	for name, start := range drivers {
		t.Run(name, func(t *testing.T) {
			filter := startFilter(t)
			mta, err := start(t, filter.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer stop(t, mta)
			if mta.Name() != name {
				t.Errorf("Name() = %q", mta.Name())
			}
			c := dial(t, mta.SMTPAddr())
			defer c.Close()
			// All on one connection, one after another.
			testDelivery(t, mta, c)
			testVerdicts(t, mta, c)
			filter.stop(t)
			testFilterAway(t, mta)
			if err := c.Quit(); err != nil && !strings.Contains(err.Error(), "EOF") {
				t.Errorf("QUIT: %v", err)
			}
		})
	}
}

func testDelivery(t *testing.T, mta MTA, c *Client) {
	sent := content("deliver", "X-Auth-Key: one\r\nx-auth-key: two\r\n\tfolded\r\n")
	o, err := c.Send(Transaction{MailFrom: "a@sender.test", Rcpts: []string{"x@rcpt.test", "y@rcpt.test"}, Data: sent})
	if err != nil || !o.Accepted || len(o.Rcpts) != 2 || o.QueueID() == "" {
		t.Fatalf("Send = %+v, %v", o, err)
	}
	for _, rcpt := range []string{"x@rcpt.test", "y@rcpt.test"} {
		m, err := mta.WaitDelivered(t.Context(), func(m Message) bool {
			return m.Recipient == rcpt && m.Get("subject") == "deliver"
		})
		if err != nil {
			t.Fatal(err)
		}
		if m.Sender != "a@sender.test" {
			t.Errorf("Sender = %q", m.Sender)
		}
		if above := m.Above(); len(above) != 1 || above[0].Name != "X-Seen" || above[0].Value != "client=127.0.0.1 auth=" {
			t.Errorf("Above() = %+v", above)
		}
		if want := content("deliver", ""); !bytes.Equal(m.Content(), want) {
			t.Errorf("Content() = %q, want %q", m.Content(), want)
		}
		if want := "..two dots\n.one\n\nend\n"; string(m.Body()) != want {
			t.Errorf("Body() = %q, want %q", m.Body(), want)
		}
		if !strings.Contains(m.Get("Received"), o.QueueID()) {
			t.Errorf("Received without queue id %s: %q", o.QueueID(), m.Get("Received"))
		}
	}
}

func testVerdicts(t *testing.T, mta MTA, c *Client) {
	send := func(subject string) Outcome {
		t.Helper()
		o, err := c.Send(Transaction{MailFrom: "", Rcpts: []string{"x@rcpt.test"}, Data: content(subject, "X-Auth-Key: k\r\n")})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := send("reject"); o.Accepted || o.Final.Code != 550 || o.QueueID() != "" ||
		!strings.Contains(o.Final.Text, "first line\n5.7.1 second line, 100%") {
		t.Errorf("reject: %+v", o)
	}
	if o := send("discard"); !o.Accepted {
		t.Errorf("discard: %+v", o)
	}
	o := send("quarantine")
	if !o.Accepted {
		t.Errorf("quarantine: %+v", o)
	}
	entries, err := mta.Held()
	if err != nil || len(entries) != 1 {
		t.Fatalf("Held = %+v, %v", entries, err)
	}
	e := entries[0]
	if e.ID != o.QueueID() || e.Queue != "hold" || e.Sender != "" || len(e.Recipients) != 1 || e.Recipients[0] != "x@rcpt.test" {
		t.Errorf("held %+v, queue id %q", e, o.QueueID())
	}
	if mta.Name() == "sendmail" && e.Reason != "test reason" {
		t.Errorf("Reason = %q", e.Reason)
	}
	held, err := mta.Cat(e.ID)
	if err != nil || !bytes.Contains(held, []byte("Subject: quarantine\n")) || bytes.Contains(held, []byte("X-Auth-Key")) ||
		!bytes.HasSuffix(held, []byte("\n\n..two dots\n.one\n\nend\n")) {
		t.Errorf("Cat = %q, %v", held, err)
	}
	if err := mta.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	delivered, err := mta.Deliveries()
	if err != nil || len(delivered) != 2 { // those of testDelivery
		t.Errorf("%d deliveries, %v", len(delivered), err)
	}
	if !strings.Contains(mta.Log(), o.QueueID()) {
		t.Error("Log does not have the queue id")
	}
}

func testFilterAway(t *testing.T, mta MTA) {
	c := dial(t, mta.SMTPAddr())
	defer c.Close()
	o, err := c.Send(Transaction{MailFrom: "a@sender.test", Rcpts: []string{"x@rcpt.test"}, Data: content("away", "")})
	if err != nil || o.Accepted || o.Final.Code != 451 {
		t.Errorf("without the milter: %+v, %v", o, err)
	}
}
