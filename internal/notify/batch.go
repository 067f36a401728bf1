package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/milter"
)

// perDSN bounds the recipients of one DSN, which keeps it below the size that MTAs
// take by default. More of them make another DSN.
const perDSN = 2000

// An item is one mail of a batch.
type item struct {
	outgoing
	kind   string
	keys   []digest // to remember once it is handed over; claimed, but for that of the whole DSN
	tokens []token  // taken from the rates
	done   bool
}

// A batch is everything about one message.
type batch struct {
	n     *Notifier
	o     *original
	id    identity
	seen  map[digest]bool // a recipient may be given twice
	items []*item

	counted                          bool // the DSN's rates have been asked
	dsns, notices, declined, repeats int
	suppressed                       map[Suppression]int
}

// addDSN adds the DSN about failures, or several if there are very many.
func (b *batch) addDSN(failures []milter.Failure) error {
	o, n := b.o, b.n
	wanted := slices.DeleteFunc(slices.Clone(failures), func(f milter.Failure) bool { return esmtp.DeclinesDSN(f.RcptArgs) })
	b.declined = len(failures) - len(wanted)
	if len(wanted) == 0 {
		return nil
	}
	if why := mayDSN(o, n.opts.DSN); why != Allowed {
		return fmt.Errorf("may not be sent: %s", why)
	}
	to, err := mailbox(o.Sender)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(wanted, perDSN) {
		it := &item{kind: kindDSN}
		b.items = append(b.items, it)
		var fresh []milter.Failure
		for _, f := range some {
			ours, err := b.claim(it, f.Recipient)
			if err != nil {
				return err
			}
			if ours {
				fresh = append(fresh, f)
			}
		}
		if len(fresh) == 0 {
			b.dropLast()
			continue
		}
		// The rates count messages, however many DSNs and attempts one takes.
		if !b.counted && !n.ledger.knows(b.id.dsn()) {
			if why := b.take(it, n.dsnRates(o)); why != Allowed {
				return fmt.Errorf("may not be sent any more: %s", why)
			}
		}
		b.counted = true
		c := composer{n: n, o: o, kind: kindDSN, to: to, id: it.keys[0]}
		it.outgoing = outgoing{to, func() []byte { return c.dsn(fresh) }}
		it.keys = append(it.keys, b.id.dsn())
	}
	return nil
}

// addNotices adds those of notices that may be sent and have not been.
func (b *batch) addNotices(notices []milter.Notice) error {
	o, n := b.o, b.n
	for _, notice := range notices {
		if why := mayNotice(o, notice.Recipient); why != Allowed {
			b.suppressed[why]++
			continue
		}
		to, err := mailbox(notice.Recipient)
		if err != nil {
			return err
		}
		it := &item{kind: kindNotice}
		b.items = append(b.items, it)
		ours, err := b.claim(it, notice.Recipient)
		if err != nil {
			return err
		}
		if !ours {
			b.dropLast()
			continue
		}
		if why := b.take(it, n.noticeRates(notice)); why != Allowed {
			b.suppressed[why]++
			b.dropLast()
			continue
		}
		c := composer{n: n, o: o, kind: kindNotice, to: to, id: it.keys[0]}
		it.outgoing = outgoing{to, func() []byte { return c.notice(notice) }}
	}
	return nil
}

// claim makes the report about a recipient part of an item, unless it was sent.
func (b *batch) claim(it *item, recipient string) (bool, error) {
	key := b.id.report(it.kind, recipient)
	if b.seen[key] {
		return false, nil
	}
	b.seen[key] = true
	switch b.n.ledger.claim(key) {
	case busy:
		return false, ErrBusy
	case sent:
		b.repeats++
		return false, nil
	}
	it.keys = append(it.keys, key)
	return true, nil
}

// take takes from the rates what an item needs.
func (b *batch) take(it *item, tokens []token) Suppression {
	why := b.n.ledger.take(tokens)
	if why == Allowed {
		it.tokens = tokens
	}
	return why
}

// dropLast takes the last item back.
func (b *batch) dropLast() {
	last := len(b.items) - 1
	b.n.ledger.release(b.items[last].keys, b.items[last].tokens)
	b.items = b.items[:last]
}

// syncEvery is how many DSNs and notices of one message are handed over between two
// synchronisations of the ledger's file to the disk.
const syncEvery = 32

// handOver sends the items, and remembers each one when the MTA has accepted it. If the
// process ends in the middle, only the item under way can be sent again; if the machine
// crashes, those since the last synchronisation.
func (b *batch) handOver(ctx context.Context) error {
	mails := make([]outgoing, len(b.items))
	for i, it := range b.items {
		mails[i] = it.outgoing
	}
	var first error
	failed, unsynced := 0, 0
	b.n.handOver(ctx, mails, func(i int, err error) {
		it := b.items[i]
		if err != nil {
			if failed++; first == nil {
				first = err
			}
			return
		}
		it.done = true
		b.n.ledger.commit(it.keys)
		if it.kind == kindDSN {
			b.dsns++
		} else {
			b.notices++
		}
		if unsynced++; unsynced == syncEvery {
			b.n.ledger.sync()
			unsynced = 0
		}
	})
	if unsynced > 0 {
		b.n.ledger.sync()
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d not handed over: %w", failed, len(mails), first)
}

// abandon gives back what was claimed and taken for what was not sent.
func (b *batch) abandon() {
	for _, it := range b.items {
		if !it.done {
			b.n.ledger.release(it.keys, it.tokens)
		}
	}
}

// report logs what was sent, and what was not.
func (b *batch) report() {
	attrs := []any{"qid", cutOctets(b.o.QueueID, maxQueueID), "dsns", b.dsns, "notices", b.notices}
	if b.declined > 0 {
		attrs = append(attrs, "declined", b.declined)
	}
	if b.repeats > 0 {
		attrs = append(attrs, "repeats", b.repeats)
	}
	var list []string
	for why, count := range b.suppressed {
		list = append(list, fmt.Sprintf("%s=%d", why, count))
	}
	if len(list) > 0 {
		slices.Sort(list)
		attrs = append(attrs, "suppressed", strings.Join(list, ","))
	}
	if len(attrs) > 6 || b.dsns+b.notices > 0 {
		b.n.log.Info("notified", attrs...)
	}
}
