package milter

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// maxKeptHeader bounds what is kept of a header for DSNs and notices, in octets.
const maxKeptHeader = 64 << 10

// A Notifier tells senders and recipients what became of a message.
type Notifier interface {
	// AllowDSN reports whether the sender may be sent a DSN about recipients who
	// refused. It is asked only where one is wanted.
	AllowDSN(Original) bool
	// Deliver hands over a DSN about the failures and each of the notices. An error
	// means that not everything could be: the message must come again.
	Deliver(context.Context, Original, []Failure, []Notice) error
}

// An Original is the message that DSNs and notices are about.
type Original struct {
	QueueID             string
	Sender, MailArgs    string
	Client              string
	MTA                 string // its name, "" where it did not say
	Arrived             time.Time
	Header              []Field // without AuthKeys
	Truncated           bool    // there was more of it than is kept
	SenderAuthenticated bool
	Checked             string // the address whose result decided
	Result              verifier.Result
}

// A Field is a header field as the MTA gave it.
type Field struct{ Name, Value string }

// A Failure is a recipient whom the sender is to be told of.
type Failure struct {
	Recipient, RcptArgs string
	Reply               policy.Reply
}

// A Notice is a recipient who is to be told.
type Notice struct {
	Recipient, Language string
	Refused             bool // the sender hears of it too
}

// keepsHeader reports whether there may be DSNs or notices about the message.
func (m *message) keepsHeader() bool { return m.engine.Notifier != nil && m.class == inbound }

// keepField keeps a field for DSNs and notices: as bytes, one after the other, since
// most messages need none. It must not be one that holds a key.
func (m *message) keepField(name, value []byte) {
	if len(m.kept)+len(name)+len(value)+2 > maxKeptHeader {
		m.truncated = true
		return
	}
	m.kept = append(append(m.kept, name...), 0)
	m.kept = append(append(m.kept, value...), 0)
}

// header is what was kept. Neither names nor values hold a NUL.
func (m *message) header() []Field {
	var fields []Field
	for rest := string(m.kept); rest != ""; {
		var f Field
		f.Name, rest, _ = strings.Cut(rest, "\x00")
		f.Value, rest, _ = strings.Cut(rest, "\x00")
		fields = append(fields, f)
	}
	return fields
}

// original is the message for a Notifier.
func (m *message) original(out *outcome) Original {
	o := Original{
		QueueID: m.queueID, Sender: m.sender, MailArgs: m.mailArgs, Client: m.client, MTA: m.mta, Arrived: m.arrived,
		Header: m.header(), Truncated: m.truncated,
		SenderAuthenticated: out.envelope.Status == verifier.Pass || m.vouched(),
		Checked:             m.sender, Result: out.envelope,
	}
	if out.plan.By == policy.ByFrom {
		o.Checked, o.Result = mailboxOf(out.from.address), out.from.Result
	}
	return o
}

// mailboxOf is an address without quotes and encoding, "" for none.
func mailboxOf(a wire.Address) string {
	if a.IsZero() {
		return ""
	}
	return a.Local() + "@" + a.Domain()
}

// vouched reports whether a filter before us, whom the administrator trusts, says
// spf or dkim pass for the sender's domain.
func (m *message) vouched() bool {
	if m.addrErr != nil {
		return false
	}
	for _, f := range m.header() {
		if isField(f.Name, authResField) && vouches(f.Value, m.engine.Settings.NotifyTrust, m.address.Domain()) {
			return true
		}
	}
	return false
}

// errNoNotifier is a plan for notices where the configuration can have none: a
// fault of ours.
var errNoNotifier = errors.New("there is nobody to hand notices to")

// notify hands over what the plan asks for.
func (m *message) notify(ctx context.Context, out *outcome) error {
	var failures []Failure
	var notices []Notice
	for i, r := range out.plan.Recipients {
		if r.DSN {
			failures = append(failures, Failure{r.Address, m.rcptArg(i), r.Reply})
		}
		if r.Notice {
			notices = append(notices, Notice{r.Address, r.Language, r.Action == policy.RejectNotify})
		}
	}
	if len(failures)+len(notices) == 0 {
		return nil
	}
	if m.engine.Notifier == nil {
		return errNoNotifier
	}
	return m.engine.Notifier.Deliver(ctx, m.original(out), failures, notices)
}

// rcptArg is the i-th recipient's ESMTP parameters. Plans have the recipients in
// their order; one for all of them stands for the first.
func (m *message) rcptArg(i int) string {
	if i < len(m.rcptArgs) {
		return m.rcptArgs[i]
	}
	return ""
}
