// Package e2e builds a small private world of mail, for end-to-end tests and for
// the demo: a DNS server with the TXT records of invented domains, real
// Authentication Servers with keys for their addresses, and the milter as the
// process that a postmaster runs. The MTA in front comes from testmta.
//
// Everything is on loopback, on free ports and in one temporary folder, and ends
// with Close.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/testmta"
	"github.com/authkey/authkey/internal/wire"
)

// recordTTL is that of every TXT record of a World: the least that a verifier
// keeps anything.
const recordTTL = 60

// A World is the domains of one test with what serves them.
type World struct {
	Dir string // searchable by every user
	DNS *testdns.Server
	// Told is where milters hand notices and DSNs to.
	Told *testmta.Sink

	mu      sync.Mutex
	domains map[string]*domain
	closers []func() error
}

type domain struct {
	*keyring.Domain
	list keyring.ListFile
}

// NewWorld starts a DNS server that knows nobody yet.
func NewWorld() (*World, error) {
	dir, err := testdaemon.TempDir("authkey-e2e-")
	if err != nil {
		return nil, err
	}
	dns, err := testdns.Start()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	dns.SetNegativeTTL(recordTTL)
	told, err := testmta.StartSink()
	if err != nil {
		return nil, errors.Join(err, dns.Close(), os.RemoveAll(dir))
	}
	return &World{Dir: dir, DNS: dns, Told: told, domains: make(map[string]*domain)}, nil
}

// Close ends everything, last started first, and removes the folder.
func (w *World) Close() error {
	w.mu.Lock()
	closers := w.closers
	w.closers = nil
	w.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(append(errs, w.DNS.Close(), w.Told.Close(), os.RemoveAll(w.Dir))...)
}

func (w *World) onClose(f func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closers = append(w.closers, f)
}

// AddDomain makes a domain with a secret and these local parts as addresses. It
// publishes nothing.
func (w *World) AddDomain(name string, locals ...string) error {
	dir := filepath.Join(w.Dir, "domain-"+name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	secret := filepath.Join(dir, "secret")
	if _, err := keyring.CreateSecret(secret); err != nil {
		return err
	}
	d := &domain{list: keyring.ListFile{Path: filepath.Join(dir, "addresses"), Form: keyring.Form{Domain: name, Subaddress: "+"}}}
	if err := d.list.Create(); err != nil {
		return err
	}
	if len(locals) > 0 {
		if _, err := d.list.Add(context.Background(), locals...); err != nil {
			return err
		}
	}
	var err error
	d.Domain, err = keyring.Open(keyring.Config{
		Form: d.list.Form, SecretFile: secret, Addresses: "file:" + d.list.Path,
		AVT: keyring.DefaultAVT, Grace: keyring.DefaultGrace, TTL: keyring.DefaultTTL,
	})
	if err != nil {
		return err
	}
	if err := d.Reload(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.domains[name] = d
	return nil
}

// Revoke ends every key of an address at once; the next Key is a new one.
func (w *World) Revoke(domain, local string) error {
	d, err := w.domain(domain)
	if err != nil {
		return err
	}
	if err := d.list.Revoke(context.Background(), local); err != nil {
		return err
	}
	return d.Reload()
}

func (w *World) domain(name string) (*domain, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.domains[name]
	if d == nil {
		return nil, fmt.Errorf("no domain %s in this world", name)
	}
	return d, nil
}

// Key is the AuthKey that the address attaches now.
func (w *World) Key(mailbox string) (string, error) {
	address, err := wire.ParseAddress(mailbox)
	if err != nil {
		return "", err
	}
	d, err := w.domain(address.Domain())
	if err != nil {
		return "", err
	}
	issued, err := d.KeyAt(address, time.Now())
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", mailbox, err)
	}
	return issued.Key.Reveal(), nil
}

// ServeAS starts an Authentication Server for domains and returns its port on
// 127.0.0.1 and a function that ends it.
func (w *World) ServeAS(names ...string) (port int, stop func() error, err error) {
	var served []*keyring.Domain
	for _, name := range names {
		d, err := w.domain(name)
		if err != nil {
			return 0, nil, err
		}
		served = append(served, d.Domain)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, nil, err
	}
	srv := authserver.New(authserver.Options{Domains: served, Limits: authserver.DefaultLimits(), Logger: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	stop = sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return errors.Join(srv.Shutdown(ctx), <-done)
	})
	w.onClose(stop)
	return ln.Addr().(*net.TCPAddr).Port, stop, nil
}

// RefusingPort returns a port on 127.0.0.1 that refuses connections until the World is
// closed: it is taken, so that nobody else can listen there meanwhile, and not listened on.
func (w *World) RefusingPort() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	w.onClose(func() error { return unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return addr.(*unix.SockaddrInet4).Port, nil
}

// Publish puts TXT records at the domain itself.
func (w *World) Publish(domain string, texts ...string) error {
	records := make([]string, 0, len(texts))
	for _, text := range texts {
		records = append(records, fmt.Sprintf("%s. %d IN TXT %q", domain, recordTTL, text))
	}
	return w.DNS.Set(records...)
}

// ASRecord is the record of an AS on 127.0.0.1, with further tags such as "req=yes".
func ASRecord(port int, tags ...string) string {
	return strings.Join(append([]string{fmt.Sprintf("AS=127.0.0.1:%d", port)}, tags...), "; ")
}
