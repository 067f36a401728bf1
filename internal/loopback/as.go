package loopback

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// shutdownTimeout bounds the end of an AS.
const shutdownTimeout = time.Minute

// OpenDomain opens a domain with the default validity of keys. secretFile is made where it
// does not exist; addresses is "any" or "file:" and the path of a list, as in server.yaml.
func OpenDomain(name, secretFile, addresses string) (*keyring.Domain, error) {
	if _, err := keyring.CreateSecret(secretFile); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := keyring.Open(keyring.Config{
		Form: keyring.Form{Domain: name, Subaddress: "+"}, SecretFile: secretFile, Addresses: addresses,
		AVT: keyring.DefaultAVT, Grace: keyring.DefaultGrace, TTL: keyring.DefaultTTL,
	})
	if err != nil {
		return nil, err
	}
	return d, d.Reload()
}

// Key is the text of the AuthKey that an address of the domain attaches now.
func Key(d *keyring.Domain, mailbox string) (string, error) {
	address, err := wire.ParseAddress(mailbox)
	if err != nil {
		return "", err
	}
	issued, err := d.KeyAt(address, time.Now())
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", mailbox, err)
	}
	return issued.Key.Reveal(), nil
}

// An AS is an Authentication Server.
type AS struct {
	*authserver.Server
	Port  int // on 127.0.0.1
	close func() error
}

// StartAS serves domains: over TLS if cert is not nil.
func StartAS(cert *tls.Certificate, limits authserver.Limits, domains ...*keyring.Domain) (*AS, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start Authentication Server: %w", err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12})
	}
	srv := authserver.New(authserver.Options{Domains: domains, Limits: limits, Logger: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	return &AS{srv, port, sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		return errors.Join(srv.Shutdown(ctx), <-done)
	})}, nil
}

// Close ends the server. A second call returns the same.
func (s *AS) Close() error { return s.close() }
