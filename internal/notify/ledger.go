package notify

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/authkey/authkey/internal/oplog"
)

const (
	// rememberFor is how long what was sent is not sent again: longer than a client
	// waits after a 451 before it tries again.
	rememberFor = 24 * time.Hour
	// maxRemembered bounds the memory: some 50 MB. The oldest is forgotten first.
	maxRemembered = 500_000
	// journalSlack is how many records too many the file may have before it is
	// written anew, beside as many as are needed.
	journalSlack = 4096
)

// A Ledger remembers what was sent: for a day, so that nothing is sent twice, and
// as rates. A process has one, also when its configuration changes.
//
// It is in memory, and appends to one file of fixed-size records, which is read once, at
// start. The data is never queried, so that a database would only add its own recovery and
// dependencies. Keys are digests: the file does not show who wrote to whom. Rates begin
// again with each process.
//
// If the file cannot be written, mail goes on: what was sent is still known in memory, and
// a 451 would make clients try again, and so cause the repetition that it is to prevent.
type Ledger struct {
	log *slog.Logger

	mu         sync.Mutex
	sent       map[digest]struct{}
	queue      []record // of sent, oldest first
	pending    map[digest]struct{}
	rates      limiter
	journal    *journal // nil: memory only
	unwritten  bool     // the journal lacks records
	complaints oplog.Limit
}

// OpenLedger opens the Ledger in a state directory, which must exist, be writable,
// and be used by this process alone (ErrLocked). An empty dir keeps everything in
// memory: after a restart a retry may then repeat a notice.
func OpenLedger(dir string, log *slog.Logger) (*Ledger, error) {
	l := &Ledger{
		log:     log,
		sent:    make(map[digest]struct{}),
		pending: make(map[digest]struct{}),
		rates:   limiter{buckets: make(map[digest]*rate.Limiter)},
	}
	if dir == "" {
		return l, nil
	}
	j, records, err := openJournal(dir)
	if err != nil {
		return nil, fmt.Errorf("open the ledger of notices: %w", err)
	}
	l.journal = j
	now := time.Now()
	for _, r := range records {
		if r.at.After(now) { // the clock was wrong then, or is now
			r.at = now
		}
		l.remember(r)
	}
	l.forget(now)
	return l, nil
}

// Close releases the state directory. The Ledger is of no use then.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return nil
	}
	err := l.journal.close()
	l.journal = nil
	return err
}

// A claim is what a Ledger says about something to be sent.
type claim uint8

const (
	unsent claim = iota // the caller is to send it now
	sent                // it was sent
	busy                // the caller for another message is sending it
)

// claim is called before something is sent. A caller that gets unsent has to call commit or
// release afterwards.
func (l *Ledger) claim(key digest) claim {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(time.Now())
	if _, ok := l.sent[key]; ok {
		return sent
	}
	if _, ok := l.pending[key]; ok {
		return busy
	}
	l.pending[key] = struct{}{}
	return unsent
}

// knows reports whether something was sent.
func (l *Ledger) knows(key digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(time.Now())
	_, ok := l.sent[key]
	return ok
}

// exhausted says which of tokens cannot be had now, if any.
func (l *Ledger) exhausted(tokens []token) Suppression {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rates.exhausted(time.Now(), tokens)
}

// take takes tokens from the rates, all or none.
func (l *Ledger) take(tokens []token) Suppression {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rates.take(time.Now(), tokens)
}

// release gives back what was claimed and taken, for something not sent.
func (l *Ledger) release(keys []digest, tokens []token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.pending, key)
	}
	l.rates.giveBack(time.Now(), tokens)
}

// commit remembers what was sent.
func (l *Ledger) commit(keys []digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var records []record
	for _, key := range keys {
		delete(l.pending, key)
		if r := (record{key, now}); l.remember(r) {
			records = append(records, r)
		}
	}
	if l.journal == nil {
		return
	}
	var err error
	if l.unwritten || l.journal.records >= 2*len(l.queue)+journalSlack {
		err = l.journal.rewrite(l.queue)
	} else {
		err = l.journal.add(records...)
	}
	l.unwritten = err != nil
	l.complain(err)
}

// sync brings what was committed to the disk. Other messages do not wait for that.
func (l *Ledger) sync() {
	l.mu.Lock()
	var file *os.File
	if l.journal != nil {
		file = l.journal.file
	}
	l.mu.Unlock()
	if file == nil {
		return
	}
	err := file.Sync()
	if errors.Is(err, os.ErrClosed) { // another file is in its place, and on the disk
		err = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complain(err)
}

// complain logs a failure to write, but not each one. l.mu is held.
func (l *Ledger) complain(err error) {
	if err == nil {
		return
	}
	if left, ok := l.complaints.Allow(); ok {
		l.log.Error("cannot write the record of sent notices; keeping it in memory", "error", err.Error(), "suppressed", left)
	}
}

// remember adds what is not known yet.
func (l *Ledger) remember(r record) bool {
	if _, known := l.sent[r.key]; known {
		return false
	}
	if len(l.queue) >= maxRemembered {
		delete(l.sent, l.queue[0].key)
		l.queue = l.queue[1:]
	}
	l.sent[r.key] = struct{}{}
	l.queue = append(l.queue, r)
	return true
}

// forget drops what is older than a day.
func (l *Ledger) forget(now time.Time) {
	for len(l.queue) > 0 && now.Sub(l.queue[0].at) >= rememberFor {
		delete(l.sent, l.queue[0].key)
		l.queue = l.queue[1:]
	}
}

const digestSize = 20

// A digest is of what was sent to whom, or of an address with a rate.
type digest [digestSize]byte

// digestOf is the digest of a list of texts.
func digestOf(parts ...string) digest {
	h := sha256.New()
	for _, p := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	return digest(h.Sum(nil)[:digestSize])
}

// digestOfAddress does not mind case.
func digestOfAddress(kind, addr string) digest { return digestOf(kind, strings.ToLower(addr)) }
