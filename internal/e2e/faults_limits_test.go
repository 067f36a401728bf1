package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// TestHugeHeaders sends headers as large as MTAs can be made to take, and sees that
// the MTA survives what becomes of them.
func TestHugeHeaders(t *testing.T) {
	t.Parallel()
	const tooMany = "550 5.7.1 Too many authentication header fields"
	w := newWorld(t)
	key := "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"
	type hugeHeader struct {
		name    string
		fields  string
		result  string   // "" for a refusal
		removed []string // nil: all of fields
	}
	manyFields := func(n int) hugeHeader {
		return hugeHeader{fmt.Sprintf("%d fields, the key last", n), strings.Repeat("X-F: y\r\n", n) + key, "pass", []string{key}}
	}
	tests := []hugeHeader{
		{"12000 keys", strings.Repeat(key, 12_000), "", nil},
		{"12000 empty keys", strings.Repeat("X-Auth-Key:\r\n", 12_000), "", nil},
		{"12000 forged results", strings.Repeat("Authentication-Results: mx.test; x-authkey=pass\r\n", 12_000), "", nil},
		{"a key of 64 KiB", "X-Auth-Key: " + folded("k", 64<<10) + "\r\n", `fail reason="bad-key"`, nil},
		{"40 keys of 64 KiB", strings.Repeat("X-Auth-Key: "+folded("k", 64<<10)+"\r\n", 40), `fail reason="bad-key"`, nil},
		// Postfix shows a filter some 60 000 octets of a field and deletes all of it.
		{"a key behind 48 KiB of blanks", "X-Auth-Key:" + folded(" ", 48<<10) + "\r\n " + strings.TrimPrefix(key, "X-Auth-Key: "), "pass", nil},
	}
	for _, mtaKind := range []struct {
		name   string
		fields int // Sendmail's time grows with the square of their number
		start  func(t *testing.T, socket string) (testmta.MTA, error)
	}{
		{"postfix", 100_000, func(t *testing.T, socket string) (testmta.MTA, error) {
			return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket},
				Main: map[string]string{"message_size_limit": "20000000"}})
		}},
		{"sendmail", 20_000, func(t *testing.T, socket string) (testmta.MTA, error) {
			return testmta.StartSendmail(t.Context(), testmta.SendmailOptions{Prefix: sendmailPrefix, Milters: []string{socket},
				MC: []string{"define(`confMAX_HEADERS_LENGTH', `20000000')"}})
		}},
	} {
		t.Run(mtaKind.name, func(t *testing.T) {
			milter := startMilter(t, w, "")
			mta := startMTA(t, mtaKind.start, milter.Socket)
			for _, tt := range append([]hugeHeader{manyFields(mtaKind.fields)}, tests...) {
				t.Run(tt.name, func(t *testing.T) {
					c := dialSMTP(t, mta)
					m := &mail{from: "alice@" + withAS, fields: tt.fields}
					out := sendMail(t, c, m)
					if tt.result == "" {
						if out.Final.String() != tooMany {
							t.Errorf("%s, want %s", out.Final, tooMany)
						}
						notDelivered(t, mta, m)
					} else {
						if out.Final.Code != 250 {
							t.Fatalf("%s, want 250", out.Final)
						}
						got := delivered(t, mta, m)
						if a := authRes(got); !strings.HasPrefix(a, "mx.test; x-authkey="+tt.result) {
							t.Errorf("Authentication-Results %q", a)
						}
						if tt.removed == nil {
							tt.removed = []string{tt.fields}
						}
						checkContent(t, got, m, tt.removed...)
					}
				})
			}
			// The MTA is well, and the next message has nothing of those.
			m := &mail{from: "alice@" + withAS}
			sendMail(t, dialSMTP(t, mta), m)
			if a := authRes(delivered(t, mta, m)); !strings.HasPrefix(a, `mx.test; x-authkey=none reason="no AuthKey"`) {
				t.Errorf("afterwards: %q", a)
			}
			for _, bad := range []string{"killed by signal", "panic:", "fatal:"} {
				if strings.Contains(mta.Log(), bad) {
					t.Errorf("the MTA's log has %q", bad)
				}
			}
		})
	}
}

// folded is so many octets of text on lines that MTAs take, all but the first folded.
func folded(text string, size int) string {
	const width = 900
	return strings.Repeat(strings.Repeat(text, width)+"\r\n ", size/width) + text
}

// TestManyRecipients sends a message to as many recipients as limits.recipients allows,
// through a Postfix that keeps what it gets, and to more than a lower limit allows.
func TestManyRecipients(t *testing.T) {
	t.Parallel()
	const most, few = 50_000, 100
	w := newWorld(t)
	milter := startMilter(t, w, "")
	mta := startMTA(t, func(t *testing.T, socket string) (testmta.MTA, error) {
		return testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Milters: []string{socket}, Main: map[string]string{
			"smtpd_recipient_limit": "100000", "smtpd_recipient_overshoot_limit": "100000",
			"smtpd_recipient_restrictions": "check_recipient_access static:HOLD",
		}})
	}, milter.Socket)
	key := mustKey(t, w, "alice@"+withAS)
	send := func(n int) testmta.Reply {
		return sendPipelined(t, dialSMTP(t, mta), &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + key + "\r\n"}, n)
	}
	if reply := send(most); reply.Code != 250 {
		t.Fatalf("%d recipients: %s", most, reply)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	held, err := mta.Held()
	must(t, err)
	if len(held) != 1 || len(held[0].Recipients) != most {
		t.Fatalf("%d messages held, want one with all recipients", len(held))
	}
	content, err := mta.Cat(held[0].ID)
	must(t, err)
	if bytes.Contains(content, []byte(key)) || !bytes.Contains(content, []byte("x-authkey=pass")) {
		t.Errorf("held:\n%s", content)
	}
	_, err = milter.WaitLog(ctx, "result=pass", fmt.Sprintf("rcpts=%d ", most))
	must(t, err)

	must(t, milter.Configure(fmt.Sprintf("limits: {recipients: %d}\n", few)))
	before := strings.Count(milter.Log(), "configuration in force")
	must(t, milter.Signal(syscall.SIGHUP))
	must(t, testdaemon.Poll(ctx, func() (bool, error) {
		return strings.Count(milter.Log(), "configuration in force") > before, nil
	}))
	if reply, want := send(few+1), "451 4.5.3 Too many recipients"; reply.String() != want {
		t.Errorf("%d recipients: %s, want %s", few+1, reply, want)
	}
	if held, err := mta.Held(); err != nil || len(held) != 1 {
		t.Errorf("%d messages held, %v; want the first one only", len(held), err)
	}
}

// sendPipelined sends m to n recipients without waiting for the answer to each (RFC
// 2920), and returns the last reply.
func sendPipelined(t *testing.T, c *testmta.Client, m *mail, n int) testmta.Reply {
	t.Helper()
	sent := make(chan error, 1)
	if code, text, err := c.Cmd("EHLO client.test"); err != nil || code != 250 {
		t.Fatalf("EHLO: %d %s, %v", code, text, err)
	}
	go func() {
		out := bufio.NewWriterSize(c, 32<<10)
		fmt.Fprintf(out, "MAIL FROM:<%s>\r\n", m.from)
		for i := range n {
			fmt.Fprintf(out, "RCPT TO:<r%d@rcpt.test>\r\n", i)
		}
		fmt.Fprintf(out, "DATA\r\n")
		sent <- out.Flush()
	}()
	for i := range n + 2 {
		reply, err := c.ReadReply()
		if err != nil || reply.Code != 250 && !(i == n+1 && reply.Code == 354) {
			t.Fatalf("reply %d: %s, %v", i, reply, err)
		}
	}
	must(t, <-sent)
	_, err := c.Write(append(bytes.ReplaceAll(m.data(), []byte("\r\n.."), []byte("\r\n...")), ".\r\n"...))
	must(t, err)
	reply, err := c.ReadReply()
	must(t, err)
	return reply
}
