package milter

import (
	"net/netip"

	"github.com/authkey/authkey/verifier"
)

// agentField says who attached a key.
const agentField = "X-Auth-Agent"

// An Attacher says which key our own users' mail gets (docs/sender.md). It must not
// block: the MTA waits.
type Attacher interface {
	Attach(OwnMail) Attachment
}

// OwnMail is what an Attacher has to know of a message that one of our own users sends to
// other domains.
type OwnMail struct {
	Login  string     // that the client authenticated as; "" where it did not
	Client netip.Addr // IPv4 unmapped, no zone; the zero Addr where there is none
	Sender string     // MAIL FROM without angle brackets, as the MTA gave it; "" is the null sender
	// From are the addresses of all From fields. FromKnown: they are what the fields
	// say; false where there are none or one of them cannot be read.
	From       []verifier.Address
	FromKnown  bool
	FromShown  []verifier.Address // further addresses that some program could show for them
	Recipients []string           // RCPT TO without angle brackets, as the MTA gave them
}

// An Attachment is an Attacher's answer: the key of a message, or why it gets none. The
// zero Attachment leaves the message as it is, with a key that the client sent.
type Attachment struct {
	Key   verifier.Key // put into X-Auth-Key, in place of the client's; zero: none
	Agent string       // put into X-Auth-Agent beside it
	Note  string       // why there is no key: one hyphenated token for the log; "" where there is nothing to say
	Defer bool         // no key can be had now: the client is answered 451, and tries again
	Strip bool         // there is no key, and a key that the client sent is removed
}

// attach asks for the key of a submission that goes out.
func attach(msg *message) Attachment {
	if msg.engine.Attacher == nil || msg.class != submission || msg.staysHere() {
		return Attachment{}
	}
	mail := OwnMail{Login: msg.origin.login, Client: msg.origin.client, Sender: msg.sender}
	reading := msg.author.read(msg)
	mail.FromKnown = len(reading.Mailboxes) > 0 && !reading.Unreadable
	for _, box := range reading.Mailboxes {
		mail.From = append(mail.From, box.Address)
		mail.FromKnown = mail.FromKnown && !box.Address.IsZero() && !box.Address.IsDomain()
	}
	mail.FromShown = reading.Shown
	for _, r := range msg.recipients {
		mail.Recipients = append(mail.Recipients, r.Address)
	}
	return msg.engine.Attacher.Attach(mail)
}
