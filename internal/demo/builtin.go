package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/internal/testmta"
)

// builtin replaces an MTA where none can be installed. Its mailboxes are in memory.
type builtin struct {
	domain  string
	socket  string
	next    mta
	mailbox []testmta.Message
}

func startBuiltin(_ context.Context, domain, socket string) (mta, error) {
	if !strings.HasPrefix(socket, "unix:") {
		return nil, fmt.Errorf("built-in front: %s is no unix socket", socket)
	}
	return &builtin{domain: domain, socket: socket}, nil
}

func (b *builtin) name() string { return "the built-in SMTP front" }
func (b *builtin) addr() string { return b.socket }
func (b *builtin) log() string  { return "" }
func (b *builtin) stop() error  { return nil }

func (b *builtin) delivered() ([]testmta.Message, error) { return b.mailbox, nil }

func (b *builtin) route(_ context.Context, next mta) error {
	b.next = next
	return nil
}

func (b *builtin) submit(ctx context.Context, login string, l message) (found, error) {
	got, err := b.filter(ctx, login, l)
	if err != nil || got.outcome != isDelivered {
		return got, err
	}
	l.data, l.rcpts = got.bytes, got.rcpts
	return b.next.deliver(ctx, l)
}

func (b *builtin) deliver(ctx context.Context, l message) (found, error) {
	got, err := b.filter(ctx, "", l)
	if got.outcome == isDelivered {
		for _, rcpt := range got.rcpts {
			b.mailbox = append(b.mailbox, testmta.Message{Raw: got.bytes, Sender: l.from, Recipient: rcpt})
		}
	}
	return got, err
}

// filter has the milter look at a message, and does what it says.
func (b *builtin) filter(ctx context.Context, login string, l message) (found, error) {
	f, err := front.Dial(ctx, "unix", strings.TrimPrefix(b.socket, "unix:"), "mx."+b.domain)
	if err != nil {
		return found{}, err
	}
	m := front.Message{
		QueueID: "DEMO" + l.subject[strings.LastIndexByte(l.subject, ' ')+1:], Client: netip.MustParseAddr("127.0.0.1"),
		Login: login, Sender: l.from, Recipients: l.rcpts,
	}
	m.Header, m.Body = parse(string(l.data))
	out, err := f.Send(m)
	if err := errors.Join(err, f.Close()); err != nil {
		return found{}, err
	}
	switch out.Verdict {
	case front.Delivered:
		return found{outcome: isDelivered, bytes: out.Bytes(), rcpts: out.Recipients}, nil
	case front.Held:
		return found{outcome: isHeld, bytes: out.Bytes(), rcpts: out.Recipients}, nil
	case front.Discarded:
		return found{outcome: string(out.Verdict)}, nil
	}
	return found{outcome: out.Reply}, nil
}

// parse takes a message apart.
func parse(data string) (fields []front.Field, body string) {
	header, body, _ := strings.Cut(data, "\r\n\r\n")
	for line := range strings.SplitSeq(header, "\r\n") {
		if n := len(fields); n > 0 && strings.HasPrefix(line, "\t") { // a milter's fold
			fields[n-1].Value += "\r\n" + line
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		fields = append(fields, front.Field{Name: name, Value: value})
	}
	return fields, body
}
