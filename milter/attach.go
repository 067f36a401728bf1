package milter

import (
	"fmt"
	"net/netip"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/wire"
)

// agentField says who attached a key.
const agentField = "X-Auth-Agent"

// An Attacher says which key our own users' mail gets.
type Attacher interface {
	Attach(OwnMail) Attachment
}

// OwnMail is a submission that leaves us.
type OwnMail struct {
	Login      string     // "" where the client did not log in
	Client     netip.Addr // zero where there is none
	Sender     string     // MAIL FROM as received
	From       []wire.Address
	FromKnown  bool           // From is what the From fields say; false where they cannot be read
	FromShown  []wire.Address // further addresses that some program could show for them
	Recipients []string       // as RCPT TO gave them
}

// An Attachment is the answer.
type Attachment struct {
	Key   wire.Key // zero: none
	Agent string   // value of X-Auth-Agent
	Note  string   // why there is none: one hyphenated token for the log; "" where there is nothing to say
	Defer bool     // no key can be had now, and the message is to wait for one
	Strip bool     // there is none, and what the client brought must not stand in for it
}

// attach asks for the key of a submission that goes out.
func (m *message) attach() Attachment {
	if m.engine.Attacher == nil || m.class != submission || !m.keepsKey() {
		return Attachment{}
	}
	mail := OwnMail{Login: m.origin.login, Client: m.origin.client, Sender: m.sender}
	reading := m.readFrom()
	mail.FromKnown = len(reading.Mailboxes) > 0 && !reading.Unreadable
	for _, box := range reading.Mailboxes {
		mail.From = append(mail.From, box.Address)
		mail.FromKnown = mail.FromKnown && !box.Address.IsZero() && !box.Address.IsDomain()
	}
	mail.FromShown = reading.Shown
	for _, r := range m.recipients {
		mail.Recipients = append(mail.Recipients, r.Address)
	}
	return m.engine.Attacher.Attach(mail)
}

// apply puts the key on a message whose own ones, if the client brought
// any, are gone by now.
func (a Attachment) apply(m gomilter.Modifier) error {
	if a.Key.IsZero() {
		return nil
	}
	if err := m.InsertHeader(0, agentField, a.Agent); err != nil {
		return fmt.Errorf("insert %s: %w", agentField, err)
	}
	if err := m.InsertHeader(0, keyField, a.Key.Reveal()); err != nil {
		return fmt.Errorf("insert %s: %w", keyField, err)
	}
	return nil
}
