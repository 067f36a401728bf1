package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
)

// HandOverTimeout bounds the handing over of everything about one message.
const HandOverTimeout = 5 * time.Second

const (
	// quitTimeout bounds the wait for the answer to QUIT, which changes nothing.
	quitTimeout = 500 * time.Millisecond
	// maxReply bounds what an error repeats of the MTA's reply.
	maxReply = 200
)

// An outgoing mail is a DSN or a notice to be handed over, from the null sender.
type outgoing struct {
	to      string        // as mailbox returns it
	compose func() []byte // writes it, when its turn has come; lines end in CRLF
}

// handOver hands mails to an MTA, over one connection, and calls done for each as soon as
// the MTA has answered. If one is refused the others are handed over all the same.
func (n *Notifier) handOver(ctx context.Context, mails []outgoing, done func(i int, err error)) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	c, broken := dial(ctx, n.opts.SMTP, n.opts.Hostname)
	if broken == nil {
		defer c.end()
	}
	for i, m := range mails {
		err := broken
		if err == nil {
			err = c.send(m)
			broken = c.broken(err) // without err it returns at once
		}
		if err != nil {
			err = fmt.Errorf("hand over to %s: %w", n.opts.SMTP, err)
		}
		done(i, err)
	}
}

// Probe begins a transaction with the MTA at addr, as for a mail of ours to each of
// recipients, and ends it with RSET; host is our name in EHLO. The ENVID says that it is no
// mail, so that our own milter, if it is asked, does not count it. An error is about the
// recipient with index at, and is a *Refusal if the MTA has answered.
func Probe(ctx context.Context, addr, host string, recipients []string) (at int, err error) {
	ctx, cancel := context.WithTimeout(ctx, HandOverTimeout)
	defer cancel()
	c, err := dial(ctx, addr, host)
	if err != nil {
		return 0, err
	}
	defer c.end()
	for at, to := range recipients {
		err := c.envelope(to, &smtp.MailOptions{EnvelopeID: milter.ProbeEnvelopeID})
		if err == nil {
			err = c.explain("RSET", c.Reset())
		}
		if err != nil {
			return at, err
		}
	}
	return 0, nil
}

// smtpConn is a connection to the MTA that ends with its context.
type smtpConn struct {
	*smtp.Client
	ctx  context.Context
	stop func() bool // of the watch over ctx
}

func dial(ctx context.Context, addr, host string) (*smtpConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &smtpConn{Client: smtp.NewClient(conn), ctx: ctx}
	// The client sets deadlines of its own for each command; closing ends them all.
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err := c.Hello(host); err != nil {
		err = c.explain("EHLO", err)
		c.stop()
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// envelope begins a mail from the null sender.
func (c *smtpConn) envelope(to string, opts *smtp.MailOptions) error {
	if ok, _ := c.Extension("SMTPUTF8"); ok {
		opts.UTF8 = !esmtp.IsASCII(to)
	}
	if err := c.Mail("", opts); err != nil {
		return c.explain("MAIL", err)
	}
	never := &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyNever}}
	return c.explain("RCPT", c.Rcpt(to, never))
}

// send hands over one mail.
func (c *smtpConn) send(m outgoing) error {
	data := m.compose()
	if err := c.envelope(m.to, &smtp.MailOptions{Size: int64(len(data))}); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return c.explain("DATA", err)
	}
	if _, err := w.Write(data); err != nil {
		return c.explain("DATA", err)
	}
	return c.explain("end of DATA", w.Close())
}

// explain says what failed, with the MTA's reply if there is one.
func (c *smtpConn) explain(command string, err error) error {
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		err = c.ctx.Err()
	case errors.As(err, &reply):
		return &Refusal{command, reply}
	}
	return fmt.Errorf("%s is not answered: %w", command, err)
}

// broken returns err if nothing can be sent after it, and else makes the
// connection ready for the next mail.
func (c *smtpConn) broken(err error) error {
	var reply *Refusal
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &reply) || reply.Code == 421:
		return err
	}
	return c.explain("RSET", c.Reset())
}

// end sends QUIT and closes the connection.
func (c *smtpConn) end() {
	c.CommandTimeout = quitTimeout
	_ = c.Quit() // the MTA has what it accepted, whether it answers or not
	c.stop()
	_ = c.Close()
}

// A Refusal is the MTA's reply to a command that it does not take.
type Refusal struct {
	Command string // EHLO, MAIL, RCPT, DATA, end of DATA, or RSET
	*smtp.SMTPError
}

// Status is the enhanced status code (RFC 3463), "" if the reply has none.
func (r *Refusal) Status() string {
	if r.EnhancedCode[0] != r.Code/100 {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", r.EnhancedCode[0], r.EnhancedCode[1], r.EnhancedCode[2])
}

// Error has the reply, quoted and bounded.
func (r *Refusal) Error() string {
	code := strings.TrimSuffix(fmt.Sprintf("%d %s", r.Code, r.Status()), " ")
	return fmt.Sprintf("%s refused: %s %q", r.Command, code, cutOctets(r.Message, maxReply))
}
