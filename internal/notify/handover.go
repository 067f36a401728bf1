package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/emersion/go-smtp"
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

// handOver hands mails to an MTA, over one connection, and calls done for each as soon
// as the MTA has answered. One refused does not keep the others back.
func (n *Notifier) handOver(ctx context.Context, mails []outgoing, done func(i int, err error)) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	c, broken := n.dial(ctx)
	if broken == nil {
		defer c.end()
	}
	for i, m := range mails {
		err := broken
		if err == nil {
			err = c.send(m)
			broken = c.broken(err) // which for one that was taken asks nobody
		}
		if err != nil {
			err = fmt.Errorf("hand over to %s: %w", n.opts.SMTP, err)
		}
		done(i, err)
	}
}

// smtpConn is a connection to the MTA that ends with its context.
type smtpConn struct {
	*smtp.Client
	ctx  context.Context
	stop func() bool // of the watch over ctx
}

func (n *Notifier) dial(ctx context.Context) (*smtpConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", n.opts.SMTP)
	if err != nil {
		return nil, err
	}
	c := &smtpConn{Client: smtp.NewClient(conn), ctx: ctx}
	// The client sets deadlines of its own for each command; closing ends them all.
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err := c.Hello(n.opts.Hostname); err != nil {
		err = c.explain("EHLO", err)
		c.stop()
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// send hands over one mail.
func (c *smtpConn) send(m outgoing) error {
	data := m.compose()
	opts := &smtp.MailOptions{Size: int64(len(data))}
	if ok, _ := c.Extension("SMTPUTF8"); ok {
		opts.UTF8 = !isASCII(m.to)
	}
	if err := c.Mail("", opts); err != nil {
		return c.explain("MAIL", err)
	}
	never := &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyNever}}
	if err := c.Rcpt(m.to, never); err != nil {
		return c.explain("RCPT", err)
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

// explain says what failed, with the MTA's reply, quoted and bounded.
func (c *smtpConn) explain(command string, err error) error {
	var reply *smtp.SMTPError
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", command, c.ctx.Err())
	case errors.As(err, &reply):
		return &refusal{command, reply}
	}
	return fmt.Errorf("%s: %w", command, err)
}

// broken returns err if nothing can be sent after it, and else makes the
// connection ready for the next mail.
func (c *smtpConn) broken(err error) error {
	var reply *refusal
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &reply) || reply.Code == 421:
		return err
	}
	return c.explain("RSET", c.Reset())
}

// end says good-bye.
func (c *smtpConn) end() {
	c.CommandTimeout = quitTimeout
	_ = c.Quit() // the MTA has what it accepted, whether it answers or not
	c.stop()
	_ = c.Close()
}

// A refusal is the MTA's reply to a command.
type refusal struct {
	command string
	*smtp.SMTPError
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s refused: %d %q", r.command, r.Code, cutOctets(r.Message, maxReply))
}
