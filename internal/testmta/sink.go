package testmta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// sinkMessageLimit and sinkLineLimit are above what an MTA sends on.
	sinkMessageLimit = 64 << 20
	sinkLineLimit    = 1 << 20
	sinkTimeout      = 5 * time.Minute
)

// A Sink is an SMTP server that accepts and keeps every message: the next hop
// of a Sendmail, or the place to which notices are handed. It knows DSN
// (RFC 3461), 8BITMIME and SMTPUTF8; it refuses addresses without domain.
type Sink struct {
	server   *smtp.Server
	listener net.Listener
	done     chan error // of Serve
	close    sync.Once

	mu       sync.Mutex
	messages []Message
}

// StartSink starts a sink on a free port of 127.0.0.1.
func StartSink() (*Sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start sink: %w", err)
	}
	s := &Sink{listener: l, done: make(chan error, 1)}
	s.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &sinkSession{sink: s}, nil
	}))
	s.server.Domain = "sink.test"
	s.server.MaxMessageBytes = sinkMessageLimit
	s.server.MaxLineLength = sinkLineLimit
	s.server.ReadTimeout = sinkTimeout
	s.server.WriteTimeout = sinkTimeout
	s.server.EnableDSN = true
	s.server.EnableSMTPUTF8 = true
	s.server.ErrorLog = discardLog{}
	go func() { s.done <- s.server.Serve(l) }()
	return s, nil
}

// Addr is host:port.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Deliveries are the messages received so far, one for each recipient.
func (s *Sink) Deliveries() ([]Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages...), nil
}

// WaitDelivered waits for a message that match accepts, until ctx ends or for a
// minute.
func (s *Sink) WaitDelivered(ctx context.Context, match func(Message) bool) (Message, error) {
	return waitDelivered(ctx, s.Deliveries, match, func() string { return "" })
}

// Close ends the sink and its connections; closing it again does nothing.
func (s *Sink) Close() (err error) {
	s.close.Do(func() {
		err = s.server.Close()
		// Where Serve has not begun yet, the server does not know the listener.
		if closeErr := s.listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
		if serveErr := <-s.done; serveErr != nil {
			err = errors.Join(err, fmt.Errorf("sink: %w", serveErr))
		}
	})
	return err
}

// discardLog drops go-smtp's remarks on broken connections.
type discardLog struct{}

func (discardLog) Printf(string, ...any) {}
func (discardLog) Println(...any)        {}

// sinkSession is one connection to a sink.
type sinkSession struct {
	sink   *Sink
	sender string
	rcpts  []string
}

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.sender = quoteLocalPart(from)
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.rcpts = append(s.rcpts, quoteLocalPart(to))
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	raw := bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	fields := parseFields(raw)
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for _, rcpt := range s.rcpts {
		s.sink.messages = append(s.sink.messages, Message{Raw: raw, Sender: s.sender, Recipient: rcpt, Fields: fields})
	}
	return nil
}

func (s *sinkSession) Reset() { s.sender, s.rcpts = "", nil }

func (s *sinkSession) Logout() error { return nil }

// quoteLocalPart puts back the quotes that go-smtp has taken from a local part
// that is no dot-string.
func quoteLocalPart(addr string) string {
	i := strings.LastIndexByte(addr, '@')
	if i < 0 {
		return addr
	}
	local := addr[:i]
	if local != "" && !strings.ContainsAny(local, "()<>[]:;@\\,\" \t") &&
		!strings.HasPrefix(local, ".") && !strings.HasSuffix(local, ".") && !strings.Contains(local, "..") {
		return addr
	}
	local = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local)
	return `"` + local + `"` + addr[i:]
}
