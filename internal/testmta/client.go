package testmta

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	// clientTimeout bounds every single exchange with the server.
	clientTimeout = 5 * time.Minute
	// maxReplyLine and maxReplyLines bound what a server may answer.
	maxReplyLine  = 64 << 10
	maxReplyLines = 1000
	// DefaultHelo is the client's name where a transaction gives none.
	DefaultHelo = "client.test"
)

// A Reply is a server's answer to one command.
type Reply struct {
	Code int
	Text string // lines without code, joined by LF
}

func (r Reply) String() string { return strconv.Itoa(r.Code) + " " + r.Text }

// A Client is one SMTP connection. It sends exactly what it is told and bounds
// every exchange to a minute. It is not for concurrent use.
type Client struct {
	Greeting Reply

	conn  net.Conn
	r     *bufio.Reader
	helo  string // last name said in EHLO or HELO; empty before
	hello Reply  // the answer to it
}

// Dial connects to addr (host:port) and reads the greeting.
func Dial(addr string) (*Client, error) { return DialFrom("", addr) }

// DialFrom is Dial from a local IP address, such as 127.0.0.2; an empty one
// leaves the choice to the system.
func DialFrom(localIP, addr string) (*Client, error) {
	d := net.Dialer{Timeout: clientTimeout}
	if localIP != "" {
		ip := net.ParseIP(localIP)
		if ip == nil {
			return nil, fmt.Errorf("dial from %q: not an IP address", localIP)
		}
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, maxReplyLine)}
	c.Greeting, err = c.ReadReply()
	if err == nil && c.Greeting.Code != 220 {
		err = fmt.Errorf("greeting of %s: %s", addr, c.Greeting)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close drops the connection without QUIT.
func (c *Client) Close() error { return c.conn.Close() }

// Quit says QUIT and closes the connection.
func (c *Client) Quit() error {
	_, _, err := c.Cmd("QUIT")
	if closeErr := c.conn.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Reset says RSET.
func (c *Client) Reset() error {
	code, text, err := c.Cmd("RSET")
	if err == nil && code != 250 {
		err = fmt.Errorf("RSET: %d %s", code, text)
	}
	return err
}

// Write sends bytes as they are.
func (c *Client) Write(b []byte) (int, error) {
	if err := c.conn.SetWriteDeadline(time.Now().Add(clientTimeout)); err != nil {
		return 0, err
	}
	return c.conn.Write(b)
}

// Cmd sends the bytes of line and CRLF, and reads the answer. A multi-line
// answer's lines are joined by LF.
func (c *Client) Cmd(line string) (code int, text string, err error) {
	r, err := c.command(line)
	return r.Code, r.Text, err
}

func (c *Client) command(line string) (Reply, error) {
	if _, err := c.Write([]byte(line + "\r\n")); err != nil {
		return Reply{}, err
	}
	return c.ReadReply()
}

// ReadReply reads one answer, of one or several lines. It returns io.EOF when
// the server has closed the connection.
func (c *Client) ReadReply() (Reply, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(clientTimeout)); err != nil {
		return Reply{}, err
	}
	var reply Reply
	var lines []string
	for len(lines) < maxReplyLines {
		b, err := c.r.ReadSlice('\n')
		if err != nil {
			if len(b) > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, err
		}
		line := strings.TrimRight(string(b), "\r\n")
		code, text, more, err := parseReplyLine(line)
		if err != nil {
			return Reply{}, err
		}
		if reply.Code != 0 && code != reply.Code {
			return Reply{}, fmt.Errorf("reply line %q: the line before had code %d", line, reply.Code)
		}
		reply.Code = code
		lines = append(lines, text)
		if !more {
			reply.Text = strings.Join(lines, "\n")
			return reply, nil
		}
	}
	return Reply{}, fmt.Errorf("reply has more than %d lines", maxReplyLines)
}

// parseReplyLine reads "250-text", "250 text" or "250".
func parseReplyLine(line string) (code int, text string, more bool, err error) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, "", false, fmt.Errorf("reply line %q: malformed", line)
	}
	for _, d := range []byte(line[:3]) {
		if d < '0' || d > '9' {
			return 0, "", false, fmt.Errorf("reply line %q: malformed", line)
		}
		code = 10*code + int(d-'0')
	}
	if code < 200 || code > 599 {
		return 0, "", false, fmt.Errorf("reply line %q: code out of range", line)
	}
	if len(line) > 3 {
		text, more = line[4:], line[3] == '-'
	}
	return code, text, more, nil
}

// A Transaction is one message with its envelope, in the client's very bytes.
type Transaction struct {
	// Helo is the name for EHLO, said again only where it changes. Empty is
	// DefaultHelo, or the one said before.
	Helo string
	// XClient, such as "ADDR=192.0.2.1 NAME=out.example", makes Postfix believe
	// in another client (XCLIENT); Sendmail does not know it.
	XClient string
	// MailFrom is put between "MAIL FROM:<" and ">"; empty is the null sender.
	MailFrom string
	MailArgs string // such as "SMTPUTF8 BODY=8BITMIME"
	// Rcpts are each put between "RCPT TO:<" and ">".
	Rcpts []string
	// RcptArgs[i], where there is one, follows Rcpts[i], such as "NOTIFY=NEVER".
	RcptArgs []string
	// Data is header and body with CRLF. Dots at the begin of a line (after any
	// LF, since MTAs take a bare one for a line end) are doubled, and a missing
	// CRLF at the end is added.
	Data []byte
}

// An Exchange is one command and what the server said to it. The message
// itself has the command ".".
type Exchange struct {
	Command string
	Reply   Reply
}

// An Outcome is what a server has said to a transaction.
type Outcome struct {
	Exchanges []Exchange
	Rcpts     []Reply // for each recipient
	// Final is the answer to the message itself, or the refusal that kept it
	// from being sent.
	Final    Reply
	Accepted bool // the message itself was accepted
}

// QueueID is the MTA's id of the accepted message, from its final reply, or "".
func (o Outcome) QueueID() string {
	if !o.Accepted {
		return ""
	}
	if _, id, ok := strings.Cut(o.Final.Text, "queued as "); ok { // Postfix
		return id
	}
	if f := strings.Fields(o.Final.Text); len(f) >= 2 { // Sendmail: "2.0.0 ID Message accepted for delivery"
		return f[1]
	}
	return ""
}

// Send carries out one transaction. Refusals are data in the outcome; an error
// is a connection that broke, and comes with the outcome so far. Several
// messages may be sent one after another.
func (c *Client) Send(t Transaction) (Outcome, error) {
	var o Outcome
	ok, err := c.greet(t, &o)
	if !ok || err != nil {
		return o, err
	}
	r, err := c.exchange(&o, withArgs("MAIL FROM:<"+t.MailFrom+">", t.MailArgs))
	if err != nil || r.Code/100 != 2 {
		return o, err
	}
	accepted := 0
	for i, rcpt := range t.Rcpts {
		line := "RCPT TO:<" + rcpt + ">"
		if i < len(t.RcptArgs) {
			line = withArgs(line, t.RcptArgs[i])
		}
		r, err := c.exchange(&o, line)
		if err != nil {
			return o, err
		}
		o.Rcpts = append(o.Rcpts, r)
		if r.Code/100 == 2 {
			accepted++
		}
	}
	if accepted == 0 {
		return o, c.Reset()
	}
	return o, c.data(t.Data, &o)
}

func (c *Client) data(data []byte, o *Outcome) error {
	r, err := c.exchange(o, "DATA")
	if err != nil {
		return err
	}
	if r.Code != 354 {
		return c.Reset()
	}
	if _, err := c.Write(stuff(data)); err != nil {
		return err
	}
	r, err = c.exchange(o, ".")
	o.Accepted = err == nil && r.Code/100 == 2
	return err
}

// greet says XCLIENT and EHLO where they are needed.
func (c *Client) greet(t Transaction, o *Outcome) (ok bool, err error) {
	helo := t.Helo
	if helo == "" {
		helo = c.helo
	}
	if helo == "" {
		helo = DefaultHelo
	}
	if t.XClient != "" {
		if ok, err := c.sayHelo(helo, o); !ok || err != nil {
			return false, err
		}
		r, err := c.exchange(o, "XCLIENT "+t.XClient)
		if err != nil || r.Code/100 != 2 {
			return false, err
		}
		c.helo = ""
	}
	return c.sayHelo(helo, o)
}

func (c *Client) sayHelo(helo string, o *Outcome) (ok bool, err error) {
	if c.helo == helo {
		return true, nil
	}
	r, err := c.exchange(o, "EHLO "+helo)
	if err != nil || r.Code != 250 {
		return false, err
	}
	c.helo, c.hello = helo, r
	return true, nil
}

// Supports tells whether the server's last EHLO reply announced the keyword.
func (c *Client) Supports(keyword string) bool {
	for _, line := range strings.Split(c.hello.Text, "\n")[1:] {
		if word, _, _ := strings.Cut(line, " "); strings.EqualFold(word, keyword) {
			return true
		}
	}
	return false
}

func (c *Client) exchange(o *Outcome, line string) (Reply, error) {
	r, err := c.command(line)
	if err != nil {
		return r, fmt.Errorf("%s: %w", line, err)
	}
	o.Exchanges = append(o.Exchanges, Exchange{line, r})
	o.Final = r
	return r, nil
}

func withArgs(line, args string) string {
	if args == "" {
		return line
	}
	return line + " " + args
}

// stuff doubles dots at line begins and completes the last line.
func stuff(data []byte) []byte {
	out := bytes.ReplaceAll(data, []byte("\n."), []byte("\n.."))
	if bytes.HasPrefix(out, []byte(".")) {
		out = append([]byte("."), out...)
	}
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out[:len(out):len(out)], "\r\n"...)
	}
	return out
}
