package testmta

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/d--j/go-milter"
)

// testFilter is a milter which does what the subject says: "quarantine",
// "reject", "discard", or by default deletes every X-Auth-Key and inserts
// X-Seen at index 0 with the client's address. It records what it was told.
type testFilter struct {
	server *milter.Server
	addr   string
	done   chan error

	mu       sync.Mutex
	subjects []string
	senders  []string
}

func startFilter(t *testing.T) *testFilter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &testFilter{addr: "inet:" + l.Addr().String(), done: make(chan error, 1)}
	f.server = milter.NewServer(
		milter.WithMilter(func() milter.Milter { return &filterSession{filter: f} }),
		milter.WithActions(milter.OptAddHeader|milter.OptChangeHeader|milter.OptQuarantine),
	)
	go func() { f.done <- f.server.Serve(l) }()
	return f
}

func (f *testFilter) stop(t *testing.T) {
	t.Helper()
	if err := f.server.Close(); err != nil && !errors.Is(err, milter.ErrServerClosed) {
		t.Error(err)
	}
	if err := <-f.done; err != nil && !errors.Is(err, milter.ErrServerClosed) {
		t.Error(err)
	}
}

func (f *testFilter) saw(subject string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.subjects {
		if s == subject {
			return true
		}
	}
	return false
}

func (f *testFilter) lastSender() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.senders[len(f.senders)-1]
}

type filterSession struct {
	milter.NoOpMilter
	filter        *testFilter
	client        string
	subject       string
	authenticated string
	keys          int
}

func (s *filterSession) Connect(_, _ string, _ uint16, addr string, _ milter.Modifier) (*milter.Response, error) {
	s.client = addr
	return milter.RespContinue, nil
}

func (s *filterSession) MailFrom(from, _ string, m milter.Modifier) (*milter.Response, error) {
	s.subject, s.keys = "", 0
	s.authenticated = m.Get(milter.MacroAuthAuthen)
	s.filter.mu.Lock()
	defer s.filter.mu.Unlock()
	s.filter.senders = append(s.filter.senders, from)
	return milter.RespContinue, nil
}

func (s *filterSession) Header(name, value string, _ milter.Modifier) (*milter.Response, error) {
	switch strings.ToLower(name) {
	case "subject":
		s.subject = strings.TrimSpace(value)
	case "x-auth-key":
		s.keys++
	}
	return milter.RespContinue, nil
}

func (s *filterSession) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	s.filter.mu.Lock()
	s.filter.subjects = append(s.filter.subjects, s.subject)
	s.filter.mu.Unlock()
	for i := s.keys; i > 0; i-- {
		if err := m.ChangeHeader(i, "X-Auth-Key", ""); err != nil {
			return nil, err
		}
	}
	verdict, _, _ := strings.Cut(s.subject, " ")
	switch verdict {
	case "reject":
		return milter.RejectWithCodeAndReason(550, "5.7.1 first line\nsecond line, 100%")
	case "discard":
		return milter.RespDiscard, nil
	case "quarantine":
		return milter.RespAccept, m.Quarantine("test reason")
	}
	return milter.RespAccept, m.InsertHeader(0, "X-Seen", "client="+s.client+" auth="+s.authenticated)
}
