package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/testmta"
)

// A front takes mail by SMTP, or as if by SMTP, and has the milter look at it.
type front interface {
	name() string
	addr() string
	// deliver sends one message and says what became of it.
	deliver(ctx context.Context, t testmta.Transaction, subject string) (found, error)
	stop() error
}

// found is what became of a message: where it lies and its bytes, or the reply
// that the client heard.
type found struct {
	outcome string
	bytes   []byte
	rcpts   []string // whose mailboxes it lies in
}

// postfix is the front that mail really has.
type postfix struct{ mta *testmta.Postfix }

func startPostfix(ctx context.Context, socket string) (front, error) {
	mta, err := testmta.StartPostfix(ctx, testmta.PostfixOptions{Milters: []string{socket}})
	if err != nil {
		return nil, err
	}
	return &postfix{mta}, nil
}

func (p *postfix) name() string { return "Postfix" }
func (p *postfix) addr() string { return p.mta.SMTPAddr() }
func (p *postfix) stop() error  { return p.mta.Stop() }

func (p *postfix) deliver(ctx context.Context, t testmta.Transaction, subject string) (found, error) {
	c, err := testmta.Dial(p.mta.SMTPAddr())
	if err != nil {
		return found{}, err
	}
	defer c.Close()
	out, err := c.Send(t)
	if err != nil {
		return found{}, err
	}
	if !out.Accepted {
		return found{outcome: fmt.Sprintf("%d %s", out.Final.Code, out.Final.Text)}, c.Quit()
	}
	if err := c.Quit(); err != nil {
		return found{}, err
	}
	if id := out.QueueID(); id != "" {
		held, err := p.mta.Held()
		if err != nil {
			return found{}, err
		}
		if slices.ContainsFunc(held, func(e testmta.QueueEntry) bool { return e.ID == id }) {
			content, err := p.mta.Cat(id)
			return found{outcome: "held", bytes: content}, err
		}
	}
	isIt := func(m testmta.Message) bool { return m.Get("Subject") == subject }
	m, err := p.mta.WaitDelivered(ctx, isIt)
	if err != nil {
		return found{}, err
	}
	if err := p.mta.WaitIdle(ctx); err != nil { // further copies
		return found{}, err
	}
	all, err := p.mta.Deliveries()
	got := found{outcome: "delivered", bytes: m.Raw}
	for _, m := range all {
		if isIt(m) {
			got.rcpts = append(got.rcpts, m.Recipient)
		}
	}
	return got, err
}

// builtin stands in for an MTA where none can be installed: it speaks to the
// milter with go-milter's client and applies the changes itself.
type builtin struct {
	client *gomilter.Client
	socket string
}

func startBuiltin(socket string) (front, error) {
	path, ok := strings.CutPrefix(socket, "unix:")
	if !ok {
		return nil, fmt.Errorf("built-in front: %s is no unix socket", socket)
	}
	return &builtin{gomilter.NewClient("unix", path, gomilter.WithActions(gomilter.AllClientSupportedActionMasks)), socket}, nil
}

func (b *builtin) name() string { return "the built-in SMTP front" }
func (b *builtin) addr() string { return b.socket }
func (b *builtin) stop() error  { return nil }

func (b *builtin) deliver(_ context.Context, t testmta.Transaction, subject string) (found, error) {
	macros := gomilter.NewMacroBag()
	macros.Set(gomilter.MacroMTAFQDN, "mx.test")
	macros.Set(gomilter.MacroQueueId, "DEMO"+strings.TrimPrefix(subject, "demo "))
	s, err := b.client.Session(macros)
	if err != nil {
		return found{}, err
	}
	defer s.Close()
	header, body, _ := strings.Cut(string(t.Data), "\r\n\r\n")
	fields := strings.Split(header, "\r\n")
	steps := []func() (*gomilter.Action, error){
		func() (*gomilter.Action, error) {
			return s.Conn("client.test", gomilter.FamilyInet, 25, "127.0.0.1")
		},
		func() (*gomilter.Action, error) { return s.Helo("client.test") },
		func() (*gomilter.Action, error) { return s.Mail(t.MailFrom, "") },
	}
	for _, rcpt := range t.Rcpts {
		steps = append(steps, func() (*gomilter.Action, error) { return s.Rcpt(rcpt, "") })
	}
	steps = append(steps, s.DataStart)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ":")
		steps = append(steps, func() (*gomilter.Action, error) { return s.HeaderField(name, strings.TrimPrefix(value, " "), nil) })
	}
	steps = append(steps, s.HeaderEnd, func() (*gomilter.Action, error) { return s.BodyChunk([]byte(body)) })
	for _, step := range steps {
		if _, err := step(); err != nil {
			return found{}, err
		}
	}
	changes, action, err := s.End()
	if err != nil {
		return found{}, err
	}
	if action.SMTPCode >= 400 {
		return found{outcome: action.SMTPReply}, nil
	}
	outcome, rcpts := "delivered", slices.Clone(t.Rcpts)
	for _, change := range changes {
		switch change.Type {
		case gomilter.ActionDelRcpt:
			rcpts = slices.DeleteFunc(rcpts, func(r string) bool { return gomilter.AddAngle(r) == change.Rcpt })
		case gomilter.ActionAddRcpt:
			rcpts = append(rcpts, gomilter.RemoveAngle(change.Rcpt))
		case gomilter.ActionChangeHeader:
			fields = deleteField(fields, change.HeaderName, int(change.HeaderIndex))
		case gomilter.ActionInsertHeader:
			at := min(int(change.HeaderIndex), len(fields))
			fields = slices.Insert(fields, at, change.HeaderName+": "+change.HeaderValue)
		case gomilter.ActionQuarantine:
			outcome = "held"
		}
	}
	return found{outcome, []byte(strings.Join(fields, "\r\n") + "\r\n\r\n" + body), rcpts}, nil
}

// deleteField removes the n-th field of a name, counted from 1.
func deleteField(fields []string, name string, n int) []string {
	for i, field := range fields {
		if got, _, _ := strings.Cut(field, ":"); strings.EqualFold(got, name) {
			if n--; n == 0 {
				return slices.Delete(fields, i, i+1)
			}
		}
	}
	return fields
}
