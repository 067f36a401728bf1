package selftest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/authkey/authkey/internal/loopback"
)

// The invented domains. Their owners can have no mail: RFC 2606.
const (
	senderDomain = "sender.test"      // has keys
	otherDomain  = "other.test"       // has keys too
	strictDomain = "strict.test"      // has keys, and says req=yes
	plainDomain  = "plain.test"       // takes no part
	downDomain   = "down.test"        // its Authentication Server is not there
	downStrict   = "down-strict.test" // the same, and says req=yes
	brokenDomain = "broken.test"      // its record cannot be understood
)

// A World is what is around the milter. Close ends it.
type World struct {
	dir    string
	log    logBuffer
	server *keyServer
	dns    *resolver
	sink   *loopback.Sink

	notices notices

	closers []func() error
}

// NewWorld starts everything but the milter and the MTA, on loopback.
func NewWorld() (*World, error) {
	dir, err := os.MkdirTemp("", "authkey-selftest-")
	if err != nil {
		return nil, err
	}
	w := &World{dir: dir}
	w.onClose(func() error { return os.RemoveAll(dir) })
	if err := w.start(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *World) start() (err error) {
	if w.server, err = startServer(w.dir, w.CAFile(), senderDomain, otherDomain, strictDomain); err != nil {
		return err
	}
	w.onClose(w.server.Close)
	down, err := loopback.OpenRefusingPort()
	if err != nil {
		return err
	}
	w.onClose(down.Close)
	record := func(port int, tags string) string { return fmt.Sprintf("AS=%s:%d; tls=yes%s", asHost, port, tags) }
	w.dns, err = startResolver(map[string]string{
		senderDomain + ".": record(w.server.Port, ""),
		otherDomain + ".":  record(w.server.Port, ""),
		strictDomain + ".": record(w.server.Port, "; req=yes"),
		plainDomain + ".":  "v=spf1 -all",
		downDomain + ".":   record(down.Port, ""),
		downStrict + ".":   record(down.Port, "; req=yes"),
		brokenDomain + ".": "AS=" + asHost + "; port=seventy",
	}, map[string]netip.Addr{asHost + ".": netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	if err != nil {
		return err
	}
	w.onClose(w.dns.close)
	if w.sink, err = loopback.StartSink(w.notices.add); err != nil {
		return err
	}
	w.onClose(w.sink.Close)
	return nil
}

// Close ends everything, last started first, and removes the folder.
func (w *World) Close() error {
	var errs []error
	for _, end := range slices.Backward(w.closers) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

func (w *World) onClose(end func() error) { w.closers = append(w.closers, end) }

// Dir is a folder of this process's own, gone with the World.
func (w *World) Dir() string { return w.dir }

// DNS is the name server to ask.
func (w *World) DNS() netip.AddrPort { return w.dns.addr() }

// CAFile holds the certificate to trust in place of the system's roots.
func (w *World) CAFile() string { return filepath.Join(w.dir, "ca.pem") }

// Network is the one to dial although it is not globally reachable.
func (w *World) Network() netip.Prefix { return netip.MustParsePrefix("127.0.0.0/8") }

// SMTP is the listener to hand notices to, as HOST:PORT.
func (w *World) SMTP() string { return w.sink.Addr() }

// Log is where the milter's log is to go, in JSON, at level debug.
func (w *World) Log() io.Writer { return &w.log }

// notices are the notices and DSNs that were handed over. They go nowhere.
type notices struct {
	mu    sync.Mutex
	mails []loopback.Mail
}

func (n *notices) add(m loopback.Mail) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mails = append(n.mails, m)
}

// take returns what has arrived since it was last asked.
func (n *notices) take() []loopback.Mail {
	n.mu.Lock()
	defer n.mu.Unlock()
	mails := n.mails
	n.mails = nil
	return mails
}

// A logBuffer keeps what was logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// take returns what was logged since it was last asked.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.buf.String()
	l.buf.Reset()
	return text
}
