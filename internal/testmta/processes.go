package testmta

import (
	"slices"

	"github.com/authkey/authkey/internal/testdaemon"
)

// Receivers are the processes that take mail from clients just now, smtpd(8) and
// cleanup(8): those to kill for a test of what that costs. Postfix starts new ones.
func (p *Postfix) Receivers() ([]testdaemon.Member, error) { return p.servers() }

// Receivers are the processes that Sendmail has beside its daemon: one for each
// client, and those that deliver.
func (s *Sendmail) Receivers() ([]testdaemon.Member, error) {
	daemon := s.process.Pid()
	members, err := testdaemon.Members(daemon)
	return slices.DeleteFunc(members, func(m testdaemon.Member) bool { return m.Pid == daemon }), err
}

// Count is how many messages have been received so far, by recipients.
func (s *Sink) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}
