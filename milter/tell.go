package milter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// A Notifier tells senders and recipients what became of a message.
type Notifier interface {
	// AllowDSN reports whether the sender may be sent a DSN about recipients who
	// refused. It is asked only where one is wanted.
	AllowDSN(Original) bool
	// Deliver hands over a DSN about the failures and each of the notices. An error
	// means that not everything could be handed over: the client is answered 451, and
	// tries again.
	Deliver(context.Context, Original, []Failure, []Notice) error
}

// An Original is the message that DSNs and notices are about. Everything in it may come
// from a stranger.
type Original struct {
	QueueID  string
	Sender   string // MAIL FROM without angle brackets; "" is the null sender
	MailArgs string // the ESMTP parameters of MAIL, separated by blanks
	Client   string // address of the SMTP client; may be empty
	MTA      string // the MTA's own name, "" where it did not say
	Arrived  time.Time

	Header    []Field // in the order of the message, without AuthKeys
	Truncated bool    // the header was longer than what is kept of it

	// SenderAuthenticated: the envelope result is pass, or one of Settings.DSNVouchers
	// says spf or dkim pass for the sender's domain.
	SenderAuthenticated bool

	Checked string          // the address whose result decided: MAIL FROM's, or the From field's
	Result  verifier.Result // that result
}

// A Field is a header field as the MTA gave it, folded or not.
type Field struct{ Name, Value string }

// A Failure is a recipient about whom the sender is to get a DSN.
type Failure struct {
	Recipient string       // RCPT TO without angle brackets
	RcptArgs  string       // its ESMTP parameters, separated by blanks
	Reply     policy.Reply // the answer if this were the only recipient
}

// A Notice is a recipient who is to get a notice about the Original.
type Notice struct {
	Recipient string // RCPT TO without angle brackets
	Language  string // of the recipient, such as de or pt-BR; "" is the default one
	Refused   bool   // the sender is told too; otherwise the message was discarded
}

// mayTellSender reports whether the sender may be sent the DSN that the plan asks for, if
// it asks for one.
func mayTellSender(msg *message, out *outcome) bool {
	if !slices.ContainsFunc(out.plan.Recipients, func(r policy.RecipientPlan) bool { return r.DSN }) {
		return true
	}
	return msg.engine.Notifier != nil && msg.engine.Notifier.AllowDSN(originalOf(msg, out))
}

// errNoNotifier is a plan for notices where the configuration can have none: a
// fault of ours.
var errNoNotifier = errors.New("no notifier configured")

// tell hands over the DSNs and notices that the plan asks for. Where that fails the
// outcome becomes a 451, and the client tries again.
func (h handler) tell(ctx context.Context, msg *message, out *outcome) {
	var failures []Failure
	var notices []Notice
	for i, r := range out.plan.Recipients { // in the order of the message's, or one for all
		if r.DSN {
			failures = append(failures, Failure{r.Address, msg.rcptArg(i), r.Reply})
		}
		if r.Notice {
			notices = append(notices, Notice{r.Address, r.Language, r.Action == policy.RejectNotify})
		}
	}
	if len(failures)+len(notices) == 0 {
		return
	}
	err, ok := errNoNotifier, true
	if n := msg.engine.Notifier; n != nil {
		original := originalOf(msg, out)
		ok = h.work("notify", func() { err = n.Deliver(ctx, original, failures, notices) })
	}
	switch {
	case !ok:
		out.own = filterError
	case err != nil:
		out.own, out.deliverErr = notHandedOver, err
	}
}

// originalOf is the message for a Notifier.
func originalOf(msg *message, out *outcome) Original {
	o := Original{
		QueueID: msg.queueID, Sender: msg.sender, MailArgs: msg.mailArgs, Client: msg.client, MTA: msg.mta, Arrived: msg.arrived,
		Header: msg.header(), Truncated: msg.truncated,
		Checked: msg.sender, Result: out.envelope,
	}
	o.SenderAuthenticated = out.envelope.Status == verifier.Pass ||
		msg.addrErr == nil && vouchedFor(o.Header, msg.engine.Settings.DSNVouchers, msg.address.Domain())
	if out.plan.By == policy.ByFrom {
		o.Checked, o.Result = mailboxOf(out.from.address), out.from.Result
	}
	return o
}
