package testmta

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/loopback"
)

// A Sink is an SMTP server that accepts and keeps every message: the next hop
// of a Sendmail, or the place to which notices are handed.
type Sink struct {
	*loopback.Sink

	mu       sync.Mutex
	messages []Message
}

// StartSink starts a sink on a free port of 127.0.0.1.
func StartSink() (s *Sink, err error) {
	s = new(Sink)
	s.Sink, err = loopback.StartSink(s.keep)
	return s, err
}

func (s *Sink) keep(m loopback.Mail) {
	raw := bytes.ReplaceAll(m.Raw, []byte("\r\n"), []byte("\n"))
	message := Message{Raw: raw, Sender: quoteLocalPart(m.Sender), Recipient: quoteLocalPart(m.Recipient), Fields: parseFields(raw)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, message)
}

// Deliveries are the messages received so far, one for each recipient.
func (s *Sink) Deliveries() ([]Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages), nil
}

// WaitDelivered waits for a message that match accepts, until ctx ends or for a
// minute.
func (s *Sink) WaitDelivered(ctx context.Context, match func(Message) bool) (Message, error) {
	return waitDelivered(ctx, s.Deliveries, match, func() string { return "" })
}

// quoteLocalPart puts back the quotes that go-smtp has taken from a local part
// that is no dot-string.
func quoteLocalPart(addr string) string {
	local, domain, ok := esmtp.Cut(addr)
	if !ok {
		return addr
	}
	return esmtp.QuoteLocal(local) + "@" + domain
}
