package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/emersion/go-message/textproto"

	"github.com/authkey/authkey/milter"
)

// Options is the administrator's part of a Notifier.
type Options struct {
	SMTP        string // HOST:PORT of the listener that takes our mail
	DSN         Mode
	FromName    string // display name of our mail; empty: Mail Delivery System
	TemplateDir string // of templates over the built-in ones; empty: none
	Rates       Rates
	Hostname    string // this machine's: in EHLO, and for messages whose MTA did not name itself
}

// maxQueueID bounds a queue id in our log.
const maxQueueID = 64

// ErrBusy says that something about the same message is being sent just now, on
// behalf of another transaction.
var ErrBusy = errors.New("the same notice is being sent already")

// A Notifier sends DSNs and notices under one configuration. It is immutable and
// safe for concurrent use.
type Notifier struct {
	opts      Options
	templates *templates
	ledger    *Ledger
	log       *slog.Logger

	timeout  time.Duration
	now      func() time.Time
	boundary func(*textproto.MultipartWriter) string
}

// New returns a Notifier that remembers in ledger what it sent. Its error names
// every fault of the templates with file and line, or the option that is wrong.
func New(opts Options, ledger *Ledger, log *slog.Logger) (*Notifier, error) {
	switch opts.DSN {
	case Never, Authenticated, Always:
	default:
		return nil, fmt.Errorf("notify: unknown DSN mode %q", opts.DSN)
	}
	for _, r := range []Rate{opts.Rates.PerSender, opts.Rates.PerRecipient, opts.Rates.Global} {
		if r.Count < 1 || r.Per <= 0 {
			return nil, fmt.Errorf("notify: rate %d/%v allows nothing", r.Count, r.Per)
		}
	}
	host, err := hostName(opts.Hostname)
	if err != nil {
		return nil, fmt.Errorf("notify: %q is no host name", opts.Hostname)
	}
	opts.Hostname = host
	if opts.FromName = oneLine(opts.FromName, maxValue); opts.FromName == "" {
		opts.FromName = defaultName
	}
	t, err := loadTemplates(opts.TemplateDir)
	if err != nil {
		return nil, err
	}
	return &Notifier{
		opts: opts, templates: t, ledger: ledger, log: log,
		timeout: HandOverTimeout, now: time.Now, boundary: (*textproto.MultipartWriter).Boundary,
	}, nil
}

// AllowDSN implements milter.Notifier: whether a DSN about a message may be sent to its
// sender. Call it only when the policy wants a DSN: a refusal is logged, and the recipient's
// action becomes mark. Nothing is taken from the rates.
func (n *Notifier) AllowDSN(o milter.Original) bool { return n.suppressDSN(&original{o}) == Allowed }

func (n *Notifier) suppressDSN(o *original) Suppression {
	why := mayDSN(o, n.opts.DSN)
	if why == Allowed && !n.ledger.knows(o.identity().dsn()) {
		why = n.ledger.exhausted(n.dsnRates(o))
	}
	if why != Allowed {
		n.log.Info("DSN not sent", "qid", cutOctets(o.QueueID, maxQueueID), "why", string(why))
	}
	return why
}

// Deliver implements milter.Notifier: it hands a DSN about all of failures and each of
// notices to the MTA, and returns when the MTA has taken them. After an error the original
// must be answered 451: what could not be handed over is tried again when the client tries
// again, and what was handed over is then not sent again.
//
// AllowDSN must have allowed a DSN about failures; if its answer has changed meanwhile
// (another message used up the rate), Deliver fails. Notices that may not be sent are left
// out, and logged. Recipients for whom the sender declines a DSN are left out.
func (n *Notifier) Deliver(ctx context.Context, o milter.Original, failures []milter.Failure, notices []milter.Notice) error {
	return n.deliver(ctx, &original{o}, failures, notices)
}

func (n *Notifier) deliver(ctx context.Context, o *original, failures []milter.Failure, notices []milter.Notice) error {
	b := &batch{n: n, o: o, id: o.identity(), seen: make(map[digest]bool), suppressed: make(map[Suppression]int)}
	// Also after a panic nothing stays claimed.
	defer b.abandon()
	if err := b.addDSN(failures); err != nil {
		return fmt.Errorf("DSN: %w", err)
	}
	if err := b.addNotices(notices); err != nil {
		return fmt.Errorf("notice: %w", err)
	}
	var err error
	if len(b.items) > 0 {
		err = b.handOver(ctx)
	}
	b.report()
	return err
}

func (n *Notifier) dsnRates(o *original) []token {
	return []token{
		{digestOfAddress("sender", o.Sender), n.opts.Rates.PerSender, SenderRate},
		{digestOf("global"), n.opts.Rates.Global, GlobalRate},
	}
}

func (n *Notifier) noticeRates(notice milter.Notice) []token {
	return []token{
		{digestOfAddress("recipient", notice.Recipient), n.opts.Rates.PerRecipient, RecipientRate},
		{digestOf("global"), n.opts.Rates.Global, GlobalRate},
	}
}
