package milter

import (
	"strings"
	"time"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
)

// Names of the fields we know, in the spelling in which we write them.
const (
	keyField        = "X-Auth-Key"
	newKeyField     = "X-New-Auth-Key"
	quarantineField = "X-Authkey-Quarantine"
)

// maxDeletions bounds the header deletions of one message. Some 12 000 make
// Postfix's cleanup abort, and honest mail has one or two.
const maxDeletions = 256

// A message is what a session collects of one message between MAIL FROM and its
// end: bounded, whatever the client sends.
type message struct {
	engine  *Engine // the configuration it began under and ends under
	began   time.Time
	class   class
	sender  string       // MAIL FROM as the MTA gave it
	address wire.Address // its canonical form, zero where addressErr says why not
	addrErr error

	authID  string   // under which we write Authentication-Results
	authIDs []string // under which outsiders may not

	recipients []policy.Recipient
	overflow   bool // more recipients than limits.recipients

	fields  int
	key     wire.Key
	authRes []int // indexes, among the fields of that name, of those which claim our method
	counts  fieldCounts

	broken    bool // a callback panicked: nothing may be concluded from the rest
	uncounted bool // it began after Shutdown: not waited for, answered 451
}

// fieldCounts counts the fields of each name that may have to be deleted. A
// milter deletes by index among the fields of one name, so that the count is all
// that is needed to delete every one.
type fieldCounts struct {
	key, newKey, quarantine, mark, authRes int
}

// addRecipient takes one recipient, up to the limit.
func (m *message) addRecipient(rcpt string) {
	if len(m.recipients) >= m.engine.Limits.Recipients {
		m.overflow = true
		return
	}
	m.recipients = append(m.recipients, policy.Recipient{Address: rcpt, Folded: wire.Fold(rcpt)})
}

// addField looks at one header field and keeps what matters of it.
func (m *message) addField(name, value string) {
	m.fields++
	switch {
	case strings.EqualFold(name, keyField):
		m.counts.key++
		m.key = m.key.Join(value)
	case strings.EqualFold(name, newKeyField):
		m.counts.newKey++
	case strings.EqualFold(name, quarantineField):
		m.counts.quarantine++
	case strings.EqualFold(name, authResField):
		m.counts.authRes++
		if len(m.authRes) <= maxDeletions && claimsAuthKey(value, m.authIDs) {
			m.authRes = append(m.authRes, m.counts.authRes)
		}
	case strings.EqualFold(name, m.engine.Settings.MarkHeader):
		m.counts.mark++
	}
}

// keepsKey reports whether the message goes out with its key: our own user's
// mail, unless it stays at home.
func (m *message) keepsKey() bool {
	if m.class != submission {
		return false
	}
	for _, rcpt := range m.recipients {
		if !m.engine.Settings.localRecipient(rcpt.Address) {
			return true
		}
	}
	return len(m.recipients) == 0
}
