package packagetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/testmta"
)

// senderVariable makes this test program a sender, in the network of a machine: the
// SMTP client of a stranger that keeps what it could not send, and tries again.
const senderVariable = "AUTHKEY_PACKAGETEST_SENDER"

// A senderJob is what a sender is to send.
type senderJob struct {
	Submission *submission // this one message; nil: as follows

	Messages int
	Workers  int
	Key      string // of alice@a.example
	Prefix   string // of the subjects, which are numbered from 1
	Report   int    // a line of progress after so many messages; 0: none
	Once     bool   // nothing is tried again
}

// A senderResult is what came of it. It is the last line that the sender prints.
type senderResult struct {
	Accepted int
	Deferred int      // 4xx replies
	Broken   int      // connections
	Refused  []string // 5xx replies: none is tried again
}

const (
	retryAfter  = 100 * time.Millisecond
	senderLimit = 10 * time.Minute
)

func senderMain(text string) int {
	ctx, cancel := context.WithTimeout(context.Background(), senderLimit)
	defer cancel()
	go func() { // whoever started us is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var job senderJob
	err := json.Unmarshal([]byte(text), &job)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(job.do(ctx))
	}
	if err != nil || ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, errors.Join(err, ctx.Err()))
		return 1
	}
	return 0
}

// A submission is a message of a user who logs in.
type submission struct {
	Server, Login, Password string
	From, To, Subject       string
}

func (s submission) send(ctx context.Context) (err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.Server)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	host, _, _ := net.SplitHostPort(s.Server)
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil { // nobody has signed the machine's certificate
		return err
	}
	if err := c.Auth(smtp.PlainAuth("", s.Login, s.Password, host)); err != nil {
		return err
	}
	if err := errors.Join(c.Mail(s.From), c.Rcpt(s.To)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nFrom: %s\r\nTo: %s\r\nMessage-ID: <%s@client>\r\nSubject: %s\r\n\r\nHello.\r\n",
		s.From, s.To, s.Subject, s.Subject)
	return errors.Join(w.Close(), c.Quit())
}

// do sends the submission, or all messages.
func (job senderJob) do(ctx context.Context) senderResult {
	if job.Submission == nil {
		return job.send(ctx)
	}
	if err := job.Submission.send(ctx); err != nil {
		return senderResult{Refused: []string{err.Error()}}
	}
	return senderResult{Accepted: 1}
}

func (job senderJob) send(ctx context.Context) senderResult {
	var mu sync.Mutex
	var result senderResult
	var next atomic.Int64
	var workers sync.WaitGroup
	for range job.Workers {
		workers.Go(func() {
			var c *testmta.Client
			for ctx.Err() == nil {
				n := int(next.Add(1))
				if n > job.Messages {
					break
				}
				for sent := false; !sent && ctx.Err() == nil; {
					var reply testmta.Reply
					c, reply = job.attempt(c, n)
					mu.Lock()
					switch {
					case reply.Code/100 == 2:
						result.Accepted++
						if job.Report > 0 && result.Accepted%job.Report == 0 {
							fmt.Println(result.Accepted)
						}
						sent = true
					case reply.Code/100 == 5:
						result.Refused = append(result.Refused, reply.String())
						sent = true
					case reply.Code == 0:
						result.Broken++
					default:
						result.Deferred++
					}
					mu.Unlock()
					if job.Once {
						break
					}
					if !sent {
						wait(ctx, retryAfter)
					}
				}
			}
			if c != nil {
				_ = c.Quit()
			}
		})
	}
	workers.Wait()
	return result
}

func wait(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

// attempt tries to send message n, over c if there is one, and returns the connection
// that is left. A reply without code is a connection that broke, or there was none.
func (job senderJob) attempt(c *testmta.Client, n int) (*testmta.Client, testmta.Reply) {
	if c == nil {
		var err error
		if c, err = testmta.DialFrom(clientAddress, serverAddress+":25"); err != nil {
			return nil, testmta.Reply{}
		}
	}
	subject := job.Prefix + strconv.Itoa(n)
	outcome, err := c.Send(testmta.Transaction{
		Helo: "client.a.example", MailFrom: "alice@a.example", Rcpts: []string{"bob@b.example"},
		Data: []byte("X-Auth-Key: " + job.Key + "\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\nFrom: alice@a.example\r\nTo: bob@b.example\r\n" +
			"Message-ID: <" + subject + "@a.example>\r\nSubject: " + subject + "\r\n\r\nHello Bob.\r\n"),
	})
	if err != nil {
		_ = c.Close()
		return nil, testmta.Reply{}
	}
	if outcome.Final.Code/100 == 4 { // as MTAs do
		_ = c.Close()
		c = nil
	}
	return c, outcome.Final
}

// send runs a sender on the machine's network, and calls progress with each count that
// it reports.
func (m *machine) send(job senderJob, progress func(accepted int)) senderResult {
	m.t.Helper()
	text, err := json.Marshal(job)
	must(m.t, err)
	self, err := os.Executable()
	must(m.t, err)
	cmd := exec.CommandContext(m.t.Context(), "nsenter", "--target", strconv.Itoa(m.pid), "--net", "--", self)
	cmd.Env = append(os.Environ(), senderVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // open until the sender has ended
	must(m.t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	must(m.t, err)
	must(m.t, cmd.Start())
	var result senderResult
	finished := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			progress(n)
			continue
		}
		finished = json.Unmarshal(lines.Bytes(), &result) == nil
	}
	if err := cmd.Wait(); err != nil || !finished {
		m.t.Fatalf("the sender ended without result: %v", err)
	}
	return result
}
