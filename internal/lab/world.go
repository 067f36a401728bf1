// Package lab builds a private mail system for end-to-end tests, benchmarks, `make storm` and
// the demo: a DNS server with the TXT records of invented domains, real Authentication
// Servers with keys for their addresses, and the milter as the process that a postmaster
// runs. The MTA comes from package testmta.
//
// Everything is on loopback, on free ports and in one temporary folder, and ends
// with Close.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/loopback"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
	"github.com/authkey/authkey/internal/testmta"
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
	dir, err := testdaemon.TempDir("authkey-lab-")
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

// InWorld runs f in a World of its own, and closes it.
func InWorld(f func(*World) error) error {
	w, err := NewWorld()
	if err != nil {
		return err
	}
	return errors.Join(f(w), w.Close())
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

// OnClose has Close call f, before what was there already ends.
func (w *World) OnClose(f func() error) {
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
	list := keyring.ListFile{Path: filepath.Join(dir, "addresses"), Form: keyring.Form{Domain: name, Subaddress: "+"}}
	d, err := NewDomain(list, filepath.Join(dir, "secret"), locals...)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.domains[name] = &domain{d, list}
	return nil
}

// NewDomain writes an address list with these local parts and a secret, and opens their domain.
func NewDomain(list keyring.ListFile, secretFile string, locals ...string) (*keyring.Domain, error) {
	if err := list.Create(); err != nil {
		return nil, err
	}
	if len(locals) > 0 {
		if _, err := list.Add(context.Background(), locals...); err != nil {
			return nil, err
		}
	}
	return loopback.OpenDomain(list.Form.Domain, secretFile, "file:"+list.Path)
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
	d, err := w.domain(mailbox[strings.LastIndexByte(mailbox, '@')+1:])
	if err != nil {
		return "", err
	}
	return loopback.Key(d.Domain, mailbox)
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
	as, err := loopback.StartAS(nil, authserver.DefaultLimits(), served...)
	if err != nil {
		return 0, nil, err
	}
	w.OnClose(as.Close)
	return as.Port, as.Close, nil
}

// RefusingPort returns a port on 127.0.0.1 that refuses connections until the World is
// closed.
func (w *World) RefusingPort() (int, error) {
	p, err := loopback.OpenRefusingPort()
	if err != nil {
		return 0, err
	}
	w.OnClose(p.Close)
	return p.Port, nil
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
