// Package front takes the place of an MTA in front of a milter: it takes a message as if by
// SMTP, asks the milter about it over the milter protocol, version 6, and does
// with it what the milter says, as Postfix does: each deletion of a header field
// renumbers those of its name that follow.
//
// It leaves out SMTP itself, queues, aliases, and what our milter never asks for: a change
// of the sender or of the body is an error.
package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	gomilter "github.com/d--j/go-milter"
)

// A Message is what an SMTP client hands to the MTA.
type Message struct {
	QueueID    string
	Client     netip.Addr
	Login      string // as whom the client logged in; "" if it did not
	Sender     string // without angle brackets; "" is the null sender
	Recipients []string
	Header     []Field
	Body       string // lines end in CRLF
}

// A Field is a header field. Its value begins after the blank that follows the
// colon, and may be folded.
type Field struct{ Name, Value string }

// A Verdict says what was done with a message.
type Verdict string

// Verdicts.
const (
	Delivered Verdict = "delivered"
	Held      Verdict = "held"      // by the MTA, for a person to look at
	Discarded Verdict = "discarded" // the client was answered 250, and nobody gets it
	Refused   Verdict = "refused"   // 5xx
	Deferred  Verdict = "deferred"  // 4xx
)

// An Outcome is what became of a message, with everything the milter changed.
type Outcome struct {
	Verdict Verdict
	Reply   string // the reply to the client, where that was not 250
	Reason  string // why it is held
	// What there is to deliver; empty where nothing is.
	Recipients []string
	Header     []Field
	Body       string
}

// Bytes is the message as it is delivered or held.
func (o Outcome) Bytes() []byte {
	var b strings.Builder
	for _, f := range o.Header {
		b.WriteString(f.Name + ": " + f.Value + "\r\n")
	}
	b.WriteString("\r\n" + o.Body)
	return []byte(b.String())
}

// A Front is one connection to a milter. It is not safe for concurrent use.
type Front struct {
	ctx     context.Context
	session *gomilter.ClientSession
	macros  *gomilter.MacroBag
	begun   bool // a client was announced on this connection
	stop    func() bool
}

// Dial connects to the milter at address and negotiates. The MTA calls itself name.
// When ctx ends, so does the connection.
func Dial(ctx context.Context, network, address, name string) (*Front, error) {
	d := &dialer{ctx: ctx}
	client := gomilter.NewClient(network, address, gomilter.WithDialer(d), gomilter.WithActions(gomilter.AllClientSupportedActionMasks))
	macros := gomilter.NewMacroBag()
	macros.Set(gomilter.MacroMTAFQDN, name)
	session, err := client.Session(macros)
	if err != nil {
		d.end()
		return nil, fmt.Errorf("milter at %s: %w", address, err)
	}
	return &Front{ctx: ctx, session: session, macros: macros, stop: d.end}, nil
}

// A dialer ends its connection with ctx: the library knows no contexts.
type dialer struct {
	ctx  context.Context
	stop func() bool
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(d.ctx, network, address)
	if err == nil {
		d.stop = context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	}
	return conn, err
}

func (d *dialer) end() bool { return d.stop != nil && d.stop() }

// Close ends the connection as the protocol demands.
func (f *Front) Close() error {
	err := f.session.Close()
	f.stop()
	return err
}

// Send takes one message, from a client of its own, and returns what was done with it.
// An error means that the milter did not do its part, or broke the protocol.
func (f *Front) Send(m Message) (Outcome, error) {
	out, err := f.send(m)
	if err != nil {
		if f.ctx.Err() != nil {
			err = context.Cause(f.ctx)
		}
		return Outcome{}, fmt.Errorf("milter, message %s: %w", m.QueueID, err)
	}
	return out, nil
}

func (f *Front) send(m Message) (Outcome, error) {
	if err := f.newClient(); err != nil {
		return Outcome{}, err
	}
	recipients, stopped, err := f.envelope(m)
	if err != nil || stopped != nil {
		return f.broken(stopped, err)
	}
	if stopped, err = f.content(m); err != nil || stopped != nil {
		return f.broken(stopped, err)
	}
	changes, action, err := f.session.End()
	if err != nil {
		return Outcome{}, err
	}
	if action.Type != gomilter.ActionAccept && action.Type != gomilter.ActionContinue {
		return answered(action), nil
	}
	out := Outcome{Verdict: Delivered, Recipients: recipients, Header: slices.Clone(m.Header), Body: m.Body}
	for _, change := range changes {
		if err := out.apply(change); err != nil {
			return Outcome{}, err
		}
	}
	return out, nil
}

// newClient begins another SMTP client on the connection.
func (f *Front) newClient() error {
	if f.begun {
		return f.session.Reset(f.macros)
	}
	f.begun = true
	return nil
}

// envelope announces client, sender and recipients. It returns the recipients that
// were not refused, or the action that ended the message.
func (f *Front) envelope(m Message) (recipients []string, stopped *gomilter.Action, err error) {
	f.macros.Set(gomilter.MacroClientAddr, m.Client.String())
	f.macros.Set(gomilter.MacroQueueId, m.QueueID)
	f.macros.Set(gomilter.MacroMailAddr, m.Sender)
	f.macros.Set(gomilter.MacroAuthAuthen, m.Login)
	family := gomilter.FamilyInet
	if m.Client.Is6() {
		family = gomilter.FamilyInet6
	}
	const helo = "client.test"
	stopped, err = first(
		func() (*gomilter.Action, error) { return f.session.Conn(helo, family, 25, m.Client.String()) },
		func() (*gomilter.Action, error) { return f.session.Helo(helo) },
		func() (*gomilter.Action, error) { return f.session.Mail(m.Sender, "") },
	)
	if err != nil || stopped != nil {
		return nil, stopped, err
	}
	for _, rcpt := range m.Recipients {
		f.macros.Set(gomilter.MacroRcptAddr, rcpt)
		action, err := f.session.Rcpt(rcpt, "")
		if err != nil {
			return nil, nil, err
		}
		if action.StopProcessing() {
			stopped = action
			continue
		}
		recipients = append(recipients, rcpt)
	}
	if len(recipients) > 0 {
		stopped = nil
	}
	return recipients, stopped, nil
}

// content sends header and body.
func (f *Front) content(m Message) (stopped *gomilter.Action, err error) {
	steps := []func() (*gomilter.Action, error){f.session.DataStart}
	for _, field := range m.Header {
		steps = append(steps, func() (*gomilter.Action, error) {
			// Milters see bare LF where a field is folded.
			return f.session.HeaderField(field.Name, strings.ReplaceAll(field.Value, "\r\n", "\n"), nil)
		})
	}
	return first(append(steps, f.session.HeaderEnd,
		func() (*gomilter.Action, error) { return f.session.BodyChunk([]byte(m.Body)) })...)
}

// first takes steps until one of them ends the message.
func first(steps ...func() (*gomilter.Action, error)) (*gomilter.Action, error) {
	for _, step := range steps {
		action, err := step()
		if err != nil {
			return nil, err
		}
		if action.StopProcessing() || action.Type == gomilter.ActionDiscard {
			return action, nil
		}
	}
	return nil, nil
}

// broken is the outcome of a message that ended before its end.
func (f *Front) broken(action *gomilter.Action, err error) (Outcome, error) {
	if err != nil {
		return Outcome{}, err
	}
	return answered(action), f.session.Abort(nil)
}

func answered(action *gomilter.Action) Outcome {
	if action.Type == gomilter.ActionDiscard {
		return Outcome{Verdict: Discarded}
	}
	// MTAs take a reply for a format, in which "%%" is a "%".
	out := Outcome{Verdict: Refused, Reply: strings.ReplaceAll(action.SMTPReply, "%%", "%")}
	if action.SMTPCode < 500 {
		out.Verdict = Deferred
	}
	return out
}

// apply does one thing that the milter asks for.
func (o *Outcome) apply(change gomilter.ModifyAction) error {
	value := strings.NewReplacer("\r\n", "\r\n", "\n", "\r\n").Replace(change.HeaderValue)
	switch change.Type {
	case gomilter.ActionChangeHeader:
		return o.change(change.HeaderName, int(change.HeaderIndex), value)
	case gomilter.ActionInsertHeader:
		at := min(int(change.HeaderIndex), len(o.Header))
		o.Header = slices.Insert(o.Header, at, Field{change.HeaderName, value})
	case gomilter.ActionAddHeader:
		o.Header = append(o.Header, Field{change.HeaderName, value})
	case gomilter.ActionDelRcpt:
		rcpt := trimAngle(change.Rcpt)
		if !slices.Contains(o.Recipients, rcpt) {
			return fmt.Errorf("deletes %s, who is no recipient", rcpt)
		}
		o.Recipients = slices.DeleteFunc(o.Recipients, func(r string) bool { return r == rcpt })
	case gomilter.ActionAddRcpt:
		o.Recipients = append(o.Recipients, trimAngle(change.Rcpt))
	case gomilter.ActionQuarantine:
		o.Verdict, o.Reason = Held, change.Reason
	default:
		return errors.New("asks for a change that this front does not know")
	}
	return nil
}

// change replaces the n-th field of a name, counted from 1, or deletes it.
func (o *Outcome) change(name string, n int, value string) error {
	for i, field := range o.Header {
		if !strings.EqualFold(field.Name, name) {
			continue
		}
		if n--; n > 0 {
			continue
		}
		if value == "" {
			o.Header = slices.Delete(o.Header, i, i+1)
		} else {
			o.Header[i].Value = value
		}
		return nil
	}
	return fmt.Errorf("changes a field %s that is not there", name)
}

func trimAngle(address string) string {
	return strings.TrimSuffix(strings.TrimPrefix(address, "<"), ">")
}
