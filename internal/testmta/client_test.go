package testmta

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scripted is a server that answers each line with the next of its replies and
// records what it was sent.
type scripted struct {
	addr string
	got  chan string // everything, when the connection has ended
}

func startScripted(t *testing.T, replies ...string) scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := scripted{l.Addr().String(), make(chan string, 1)}
	go func() {
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			s.got <- err.Error()
			return
		}
		defer conn.Close()
		s.got <- serveScript(conn, replies)
	}()
	return s
}

func serveScript(conn net.Conn, replies []string) string {
	var got strings.Builder
	r := bufio.NewReader(conn)
	inData := false
	for i, reply := range replies {
		if i > 0 {
			for {
				line, err := r.ReadString('\n')
				got.WriteString(line)
				if err != nil {
					return got.String()
				}
				if !inData || line == ".\r\n" {
					break
				}
			}
		}
		inData = strings.HasPrefix(reply, "354")
		if _, err := io.WriteString(conn, reply); err != nil {
			return got.String()
		}
	}
	return got.String()
}

func TestClientSendsExactBytes(t *testing.T) {
	s := startScripted(t, "220-mx\r\n220 ready\r\n",
		"250-mx\r\n250-SIZE 100\r\n250 SMTPUTF8\r\n",
		"250 ok\r\n", "250 ok\r\n", "550-5.1.1 no\r\n550 such user\r\n", "354 go\r\n",
		"250 2.0.0 Ok: queued as ABC\r\n",
		"250\r\n", "221 bye\r\n")
	c := dial(t, s.addr)
	if c.Greeting != (Reply{220, "mx\nready"}) {
		t.Errorf("greeting %q", c.Greeting)
	}
	o, err := c.Send(Transaction{
		Helo: "h.test", MailFrom: "\"a\tb\"@x.", MailArgs: "SIZE=1",
		Rcpts: []string{"@r:x@y", "z"}, RcptArgs: []string{"NOTIFY=NEVER"},
		Data: []byte(".a\r\n..b\n.c\rd\x00\r\n.\r\ne"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Supports("size") || !c.Supports("SMTPUTF8") || c.Supports("mx") || c.Supports("PIPELINING") {
		t.Errorf("Supports is wrong after %q", c.hello)
	}
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	want := "EHLO h.test\r\nMAIL FROM:<\"a\tb\"@x.> SIZE=1\r\nRCPT TO:<@r:x@y> NOTIFY=NEVER\r\nRCPT TO:<z>\r\n" +
		"DATA\r\n..a\r\n...b\n..c\rd\x00\r\n..\r\ne\r\n.\r\nRSET\r\nQUIT\r\n"
	if diff := cmp.Diff(want, <-s.got); diff != "" {
		t.Error(diff)
	}
	if !o.Accepted || o.QueueID() != "ABC" {
		t.Errorf("outcome %+v", o)
	}
	if diff := cmp.Diff([]Reply{{250, "ok"}, {550, "5.1.1 no\nsuch user"}}, o.Rcpts); diff != "" {
		t.Error(diff)
	}
}

func TestClientRefusals(t *testing.T) {
	tr := Transaction{MailFrom: "a@b", Rcpts: []string{"x@y"}, Data: []byte("x")}
	for _, tt := range []struct {
		name    string
		replies []string
		last    string // command that was refused
		code    int
	}{
		{"EHLO", []string{"220 x\r\n", "502 no\r\n"}, "EHLO client.test", 502},
		{"MAIL", []string{"220 x\r\n", "250 x\r\n", "550 no\r\n"}, "MAIL FROM:<a@b>", 550},
		{"all RCPT", []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "451 later\r\n", "250 reset\r\n"}, "RCPT TO:<x@y>", 451},
		{"DATA", []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "452 full\r\n", "250 reset\r\n"}, "DATA", 452},
		{"message", []string{"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n", "550 spam\r\n"}, ".", 550},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startScripted(t, tt.replies...)
			c := dial(t, s.addr)
			o, err := c.Send(tr)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			<-s.got
			last := o.Exchanges[len(o.Exchanges)-1]
			if o.Accepted || o.QueueID() != "" || o.Final.Code != tt.code || last.Command != tt.last || last.Reply != o.Final {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

func TestClientBrokenServers(t *testing.T) {
	for _, tt := range []struct {
		name, reply string
		want        error
	}{
		{"closed", "", io.EOF},
		{"half a line", "250 x", io.ErrUnexpectedEOF},
		{"no code", "hello\r\n", nil},
		{"short", "25\r\n", nil},
		{"code out of range", "999 x\r\n", nil},
		{"codes differ", "250-x\r\n251 x\r\n", nil},
		{"line too long", "250 " + strings.Repeat("x", maxReplyLine) + "\r\n", bufio.ErrBufferFull},
		{"too many lines", strings.Repeat("250-x\r\n", maxReplyLines+1), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startScripted(t, "220 x\r\n", tt.reply)
			c := dial(t, s.addr)
			code, text, err := c.Cmd("NOOP")
			c.Close()
			<-s.got
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Cmd = %d %q, %v", code, text, err)
			}
		})
	}
	s := startScripted(t, "554 go away\r\n")
	if c, err := Dial(s.addr); err == nil {
		t.Errorf("Dial took greeting %q", c.Greeting)
	}
	if _, err := DialFrom("nonsense", s.addr); err == nil {
		t.Error("DialFrom took a name")
	}
}

func FuzzParseReplyLine(f *testing.F) {
	for _, s := range []string{"250 ok", "250-more", "250", "", "25", "abc d", "250x", "199 x", "600 x", "2505"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		code, text, more, err := parseReplyLine(line)
		if err != nil {
			return
		}
		if code < 200 || code > 599 || !strings.HasPrefix(line, line[:3]) || !strings.HasSuffix(line, text) || more && line[3] != '-' {
			t.Errorf("parseReplyLine(%q) = %d, %q, %v", line, code, text, more)
		}
	})
}

func FuzzStuff(f *testing.F) {
	for _, s := range []string{"", ".", "a", "a\r\n", ".\r\n.\r\n", "\n.\n", "a\r", "\r\n.."} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out := string(stuff(data))
		if len(data) == 0 {
			if out != "" {
				t.Errorf("stuff of nothing = %q", out)
			}
			return
		}
		if !strings.HasSuffix(out, "\r\n") || strings.Contains("\n"+out, "\n.\r\n") || strings.Contains("\n"+out, "\n.\n") {
			t.Fatalf("stuff(%q) = %q ends the message early or not at all", data, out)
		}
		// Taking one dot from each line that begins with one gives data back.
		back := strings.ReplaceAll("\n"+out, "\n.", "\n")[1:]
		if back != string(data) && back != string(data)+"\r\n" {
			t.Errorf("stuff(%q) = %q does not undo", data, out)
		}
	})
}
