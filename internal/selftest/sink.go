package selftest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// Bounds of the sink: notices and DSNs are short.
const (
	maxNotice   = 1 << 20
	sinkTimeout = 10 * time.Second
)

// A letter is a notice or DSN as it was handed over.
type letter struct {
	sender    string
	recipient string
	raw       string
}

// A sink is the SMTP listener that takes notices and DSNs. They go nowhere.
type sink struct {
	server   *smtp.Server
	listener net.Listener
	done     chan error

	mu      sync.Mutex
	letters []letter
}

func startSink() (*sink, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start SMTP: %w", err)
	}
	s := &sink{listener: ln, done: make(chan error, 1)}
	s.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &sinkSession{sink: s}, nil
	}))
	s.server.Domain = "sink.test"
	s.server.MaxMessageBytes = maxNotice
	s.server.ReadTimeout, s.server.WriteTimeout = sinkTimeout, sinkTimeout
	s.server.EnableDSN, s.server.EnableSMTPUTF8 = true, true
	s.server.ErrorLog = silence{}
	go func() { s.done <- s.server.Serve(ln) }()
	return s, nil
}

func (s *sink) addr() string { return s.listener.Addr().String() }

// take returns what has arrived since it was last asked.
func (s *sink) take() []letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	letters := s.letters
	s.letters = nil
	return letters
}

func (s *sink) close() error {
	err := s.server.Close()
	// Where Serve has not begun yet, the server does not know the listener.
	if closeErr := s.listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return errors.Join(err, <-s.done)
}

// silence drops go-smtp's remarks on broken connections.
type silence struct{}

func (silence) Printf(string, ...any) {}
func (silence) Println(...any)        {}

// A sinkSession is one connection to a sink.
type sinkSession struct {
	sink   *sink
	sender string
	rcpts  []string
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
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	for _, rcpt := range s.rcpts {
		s.sink.letters = append(s.sink.letters, letter{s.sender, rcpt, string(raw)})
	}
	return nil
}

func (s *sinkSession) Reset() { s.sender, s.rcpts = "", nil }

func (s *sinkSession) Logout() error { return nil }
