package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// A message is one as a client hands it to an MTA.
type message struct {
	from    string
	rcpts   []string
	subject string // unlike that of any other
	data    []byte
}

// newMessage writes a message with further fields, each with its line end, on top.
func newMessage(from, author string, rcpts []string, subject, fields string) message {
	_, domain, _ := strings.Cut(from, "@")
	data := fields + "Date: " + time.Now().Format(time.RFC1123Z) + "\r\nFrom: " + author + "\r\nTo: " + strings.Join(rcpts, ", ") +
		"\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", ".") + "@" + domain + ">\r\nSubject: " + subject + "\r\n\r\nHello.\r\n"
	return message{from, rcpts, subject, []byte(data)}
}

// keyField is the field that carries a key; none for "".
func keyField(key string) string {
	if key == "" {
		return ""
	}
	return "X-Auth-Key: " + key + "\r\n"
}

// An mta takes mail by SMTP, or as if by SMTP, and has the milter look at it.
type mta interface {
	name() string
	addr() string
	// deliver takes a message from outside and says what became of it.
	deliver(ctx context.Context, l message) (found, error)
	// route sends what is for other domains to another MTA.
	route(ctx context.Context, next mta) error
	// submit takes a message from a user who is logged in, and says what became of
	// it where it was routed to.
	submit(ctx context.Context, login string, l message) (found, error)
	// delivered is everything that was delivered to mailboxes, bounces included.
	delivered() ([]testmta.Message, error)
	log() string
	stop() error
}

// A startMTA starts the MTA of a domain, which asks the milter at socket.
type startMTA func(ctx context.Context, domain, socket string) (mta, error)

// What became of a message where there is no reply to tell.
const (
	isDelivered = "delivered"
	isHeld      = "held"
)

// found is what was done with a message: the mailboxes that have it and its bytes, or the
// reply to its client.
type found struct {
	outcome string
	bytes   []byte
	rcpts   []string // whose mailboxes have it
	bounce  string   // who was told that it was refused, by the MTA it was submitted to
}

// submission is the name of the listener for users.
const submission = "submission"

// postfix is what mail really meets.
type postfix struct {
	mta  *testmta.Postfix
	next mta
}

// startPostfix starts a Postfix with a listener for strangers and one for users.
func startPostfix(ctx context.Context, domain, socket string) (mta, error) {
	mta, err := testmta.StartPostfix(ctx, testmta.PostfixOptions{
		Hostname: "mx." + domain, RecipientDomains: []string{domain}, Milters: []string{socket},
		Main: map[string]string{"smtp_bind_address": "127.0.0.1"},
		// Who is logged in says XCLIENT; permit_sasl_authenticated does not believe it.
		Listeners: []testmta.Listener{{Name: submission, Options: []string{"mynetworks=127.0.0.0/8", "smtpd_relay_restrictions=permit_mynetworks,reject"}}},
	})
	if err != nil {
		return nil, err
	}
	return &postfix{mta: mta}, nil
}

func (p *postfix) name() string { return "Postfix" }
func (p *postfix) addr() string { return p.mta.SMTPAddr() }
func (p *postfix) log() string  { return p.mta.Log() }
func (p *postfix) stop() error  { return p.mta.Stop() }

func (p *postfix) delivered() ([]testmta.Message, error) { return p.mta.Deliveries() }

func (p *postfix) route(ctx context.Context, next mta) error {
	host, port, _ := strings.Cut(next.addr(), ":")
	p.next = next
	return p.mta.Reload(ctx, map[string]string{"default_transport": "smtp", "relayhost": "[" + host + "]:" + port})
}

// send carries a message to one of the listeners.
func send(addr, xclient string, l message) (testmta.Outcome, error) {
	c, err := testmta.Dial(addr)
	if err != nil {
		return testmta.Outcome{}, err
	}
	defer c.Close()
	out, err := c.Send(testmta.Transaction{XClient: xclient, MailFrom: l.from, Rcpts: l.rcpts, Data: l.data})
	if err != nil {
		return out, err
	}
	return out, c.Quit()
}

// refused is what a client heard.
func refused(out testmta.Outcome) found {
	return found{outcome: fmt.Sprintf("%d %s", out.Final.Code, out.Final.Text)}
}

func (p *postfix) deliver(ctx context.Context, l message) (found, error) {
	out, err := send(p.mta.SMTPAddr(), "", l)
	if err != nil {
		return found{}, err
	}
	if !out.Accepted {
		return refused(out), nil
	}
	held, err := p.mta.Held()
	if err != nil {
		return found{}, err
	}
	if id := out.QueueID(); slices.ContainsFunc(held, func(e testmta.QueueEntry) bool { return e.ID == id }) {
		content, err := p.mta.Cat(id)
		return found{outcome: isHeld, bytes: content}, err
	}
	isIt := func(m testmta.Message) bool { return m.Get("Subject") == l.subject }
	if _, err := p.mta.WaitDelivered(ctx, isIt); err != nil {
		return found{}, err
	}
	if err := p.mta.WaitIdle(ctx); err != nil { // further copies
		return found{}, err
	}
	all, err := p.mta.Deliveries()
	return copiesOf(l.subject, all), err
}

// copiesOf is what mailboxes have of a message; outcome is empty where there is nothing.
func copiesOf(subject string, all []testmta.Message) found {
	var got found
	for _, m := range all {
		if m.Get("Subject") == subject {
			got.outcome, got.bytes = isDelivered, m.Raw
			got.rcpts = append(got.rcpts, m.Recipient)
		}
	}
	return got
}

func (p *postfix) submit(ctx context.Context, login string, l message) (found, error) {
	out, err := send(p.mta.Listener(submission), "LOGIN="+login, l)
	if err != nil {
		return found{}, err
	}
	if !out.Accepted {
		return refused(out), nil
	}
	var got found
	err = testdaemon.Poll(ctx, func() (bool, error) {
		there, err := p.next.delivered()
		if err != nil {
			return false, err
		}
		if got = copiesOf(l.subject, there); got.outcome != "" {
			return true, nil
		}
		here, err := p.mta.Deliveries()
		got = bounceOf(l.subject, here)
		return got.outcome != "", err
	})
	if err != nil {
		return found{}, fmt.Errorf("neither delivered nor bounced: %w; Postfix's log:\n%s", err, p.mta.Log())
	}
	return got, nil
}

// bounceOf finds the reply to a message in the bounce that Postfix wrote of it;
// outcome is empty where there is none.
func bounceOf(subject string, all []testmta.Message) found {
	for _, m := range all {
		text := string(m.Raw)
		if m.Sender == "" && strings.Contains(text, "\nSubject: "+subject+"\n") {
			return found{outcome: strings.TrimPrefix(fieldOf(text, "Diagnostic-Code"), "smtp; "), bounce: m.Recipient}
		}
	}
	return found{}
}
