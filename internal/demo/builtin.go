package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/testmta"
)

// builtin stands in for an MTA where none can be installed: it speaks to the
// milter with go-milter's client and applies the changes itself.
type builtin struct {
	client  *gomilter.Client
	domain  string
	socket  string
	next    front
	mailbox []testmta.Message
}

func startBuiltin(_ context.Context, domain, socket string) (front, error) {
	path, ok := strings.CutPrefix(socket, "unix:")
	if !ok {
		return nil, fmt.Errorf("built-in front: %s is no unix socket", socket)
	}
	client := gomilter.NewClient("unix", path, gomilter.WithActions(gomilter.AllClientSupportedActionMasks))
	return &builtin{client: client, domain: domain, socket: socket}, nil
}

func (b *builtin) name() string { return "the built-in SMTP front" }
func (b *builtin) addr() string { return b.socket }
func (b *builtin) log() string  { return "" }
func (b *builtin) stop() error  { return nil }

func (b *builtin) delivered() ([]testmta.Message, error) { return b.mailbox, nil }

func (b *builtin) route(_ context.Context, next front) error {
	b.next = next
	return nil
}

func (b *builtin) submit(ctx context.Context, login string, l letter) (found, error) {
	got, err := b.filter(login, l)
	if err != nil || got.outcome != isDelivered {
		return got, err
	}
	l.data, l.rcpts = got.bytes, got.rcpts
	return b.next.deliver(ctx, l)
}

func (b *builtin) deliver(_ context.Context, l letter) (found, error) {
	got, err := b.filter("", l)
	if got.outcome == isDelivered {
		for _, rcpt := range got.rcpts {
			b.mailbox = append(b.mailbox, testmta.Message{Raw: got.bytes, Sender: l.from, Recipient: rcpt})
		}
	}
	return got, err
}

// filter has the milter look at a message, and does what it says.
func (b *builtin) filter(login string, l letter) (found, error) {
	macros := gomilter.NewMacroBag()
	macros.Set(gomilter.MacroMTAFQDN, "mx."+b.domain)
	macros.Set(gomilter.MacroQueueId, "DEMO"+l.subject[strings.LastIndexByte(l.subject, ' ')+1:])
	if login != "" {
		macros.Set(gomilter.MacroAuthAuthen, login)
	}
	s, err := b.client.Session(macros)
	if err != nil {
		return found{}, err
	}
	defer s.Close()
	header, body, _ := strings.Cut(string(l.data), "\r\n\r\n")
	fields := strings.Split(header, "\r\n")
	for _, step := range steps(s, l, fields, body) {
		action, err := step()
		if err != nil {
			return found{}, err
		}
		if action.StopProcessing() {
			return found{outcome: action.SMTPReply}, nil
		}
	}
	changes, action, err := s.End()
	if err != nil {
		return found{}, err
	}
	if action.SMTPCode >= 400 {
		return found{outcome: action.SMTPReply}, nil
	}
	return changed(l, fields, body, changes), nil
}

// steps are what an MTA tells a milter, up to the end of the message.
func steps(s *gomilter.ClientSession, l letter, fields []string, body string) []func() (*gomilter.Action, error) {
	steps := []func() (*gomilter.Action, error){
		func() (*gomilter.Action, error) {
			return s.Conn("client.test", gomilter.FamilyInet, 25, "127.0.0.1")
		},
		func() (*gomilter.Action, error) { return s.Helo("client.test") },
		func() (*gomilter.Action, error) { return s.Mail(l.from, "") },
	}
	for _, rcpt := range l.rcpts {
		steps = append(steps, func() (*gomilter.Action, error) { return s.Rcpt(rcpt, "") })
	}
	steps = append(steps, s.DataStart)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ":")
		steps = append(steps, func() (*gomilter.Action, error) { return s.HeaderField(name, strings.TrimPrefix(value, " "), nil) })
	}
	return append(steps, s.HeaderEnd, func() (*gomilter.Action, error) { return s.BodyChunk([]byte(body)) })
}

// changed is a message with the changes that a milter asked for.
func changed(l letter, fields []string, body string, changes []gomilter.ModifyAction) found {
	got := found{outcome: isDelivered, rcpts: slices.Clone(l.rcpts)}
	for _, change := range changes {
		switch change.Type {
		case gomilter.ActionDelRcpt:
			got.rcpts = slices.DeleteFunc(got.rcpts, func(r string) bool { return gomilter.AddAngle(r) == change.Rcpt })
		case gomilter.ActionAddRcpt:
			got.rcpts = append(got.rcpts, gomilter.RemoveAngle(change.Rcpt))
		case gomilter.ActionChangeHeader:
			fields = deleteField(fields, change.HeaderName, int(change.HeaderIndex))
		case gomilter.ActionInsertHeader:
			at := min(int(change.HeaderIndex), len(fields))
			fields = slices.Insert(fields, at, change.HeaderName+": "+change.HeaderValue)
		case gomilter.ActionQuarantine:
			got.outcome = isHeld
		}
	}
	got.bytes = []byte(strings.Join(fields, "\r\n") + "\r\n\r\n" + body)
	return got
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
