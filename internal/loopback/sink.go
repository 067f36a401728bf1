package loopback

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Limits of a Sink: above what an MTA sends on.
const (
	sinkMessageLimit = 64 << 20
	sinkLineLimit    = 1 << 20
	sinkTimeout      = 5 * time.Minute
)

// Mail is a message for one recipient, as an SMTP client handed it over.
type Mail struct {
	Sender    string // without the quotes of its local part
	Recipient string // likewise
	Raw       []byte // with CRLF
}

// A Sink is an SMTP server that accepts every message. It knows DSN (RFC 3461), 8BITMIME
// and SMTPUTF8; it refuses addresses without domain.
type Sink struct {
	server   *smtp.Server
	listener net.Listener
	done     chan error // of Serve
	close    sync.Once
}

// StartSink starts a sink on a free port of 127.0.0.1. It calls receive once for each
// recipient of a message, before the message is answered, from several goroutines.
func StartSink(receive func(Mail)) (*Sink, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start SMTP: %w", err)
	}
	s := &Sink{listener: ln, done: make(chan error, 1)}
	s.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &sinkSession{receive: receive}, nil
	}))
	s.server.Domain = "sink.test"
	s.server.MaxMessageBytes, s.server.MaxLineLength = sinkMessageLimit, sinkLineLimit
	s.server.ReadTimeout, s.server.WriteTimeout = sinkTimeout, sinkTimeout
	s.server.EnableDSN, s.server.EnableSMTPUTF8 = true, true
	s.server.ErrorLog = discardLog{}
	go func() { s.done <- s.server.Serve(ln) }()
	return s, nil
}

// Addr is host:port.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

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

// A sinkSession is one connection to a sink.
type sinkSession struct {
	receive func(Mail)
	sender  string
	rcpts   []string
}

func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error {
	s.sender = from
	return nil
}

func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, rcpt := range s.rcpts {
		s.receive(Mail{s.sender, rcpt, raw})
	}
	return nil
}

func (s *sinkSession) Reset() { s.sender, s.rcpts = "", nil }

func (s *sinkSession) Logout() error { return nil }
