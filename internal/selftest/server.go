package selftest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// asHost is the name of the Authentication Server.
const asHost = "as.sender.test"

// shutdownPatience is how long an Authentication Server may take to end.
const shutdownPatience = 2 * time.Second

// A keyServer is an Authentication Server, over TLS, for domains in which every
// local part is an address.
type keyServer struct {
	*authserver.Server
	listener net.Listener
	done     chan error
	domains  map[string]*keyring.Domain
}

// startServer serves domains on a free port of 127.0.0.1. Its secret, and the
// certificate to trust in place of the system's roots, are files in dir.
func startServer(dir, certFile string, domains ...string) (*keyServer, error) {
	secret := filepath.Join(dir, "secret")
	if _, err := keyring.CreateSecret(secret); err != nil {
		return nil, err
	}
	s := &keyServer{done: make(chan error, 1), domains: make(map[string]*keyring.Domain)}
	var served []*keyring.Domain
	for _, name := range domains {
		domain, err := keyring.Open(keyring.Config{
			Form: keyring.Form{Domain: name}, SecretFile: secret, Addresses: "any",
			AVT: keyring.DefaultAVT, Grace: keyring.DefaultGrace, TTL: keyring.DefaultTTL,
		})
		if err != nil {
			return nil, err
		}
		s.domains[name] = domain
		served = append(served, domain)
	}
	cert, err := makeCertificate(certFile)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start Authentication Server: %w", err)
	}
	s.Server = authserver.New(authserver.Options{Domains: served, Limits: authserver.DefaultLimits()})
	s.listener = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	go func() { s.done <- s.Serve(s.listener) }()
	return s, nil
}

func (s *keyServer) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// asked is how many questions it has been asked.
func (s *keyServer) asked() uint64 {
	c := s.Stats()
	return c.Valid + c.Invalid + c.TempFail + c.NotServed + c.Syntax + c.TooLong + c.Busy
}

// key is the text of the key that an address attaches now.
func (s *keyServer) key(mailbox string) (string, error) {
	address, err := wire.ParseAddress(mailbox)
	if err != nil {
		return "", err
	}
	issued, err := s.domains[address.Domain()].KeyAt(address, time.Now())
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", mailbox, err)
	}
	return issued.Key.Reveal(), nil
}

func (s *keyServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
	defer cancel()
	return errors.Join(s.Shutdown(ctx), <-s.done)
}

// makeCertificate makes a certificate for asHost that signs itself, and writes it
// to file.
func makeCertificate(file string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: asHost}, DNSNames: []string{asHost},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(file, text, 0o600)
}

// A closedPort is a TCP port of 127.0.0.1 that refuses connections, and that nobody
// else can get meanwhile: bound, and not listened on.
type closedPort struct{ fd, port int }

func openClosedPort() (closedPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return closedPort{}, fmt.Errorf("closed port: %w", err)
	}
	unix.CloseOnExec(fd)
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		var addr unix.Sockaddr
		if addr, err = unix.Getsockname(fd); err == nil {
			return closedPort{fd, addr.(*unix.SockaddrInet4).Port}, nil
		}
	}
	return closedPort{}, fmt.Errorf("closed port: %w", errors.Join(err, unix.Close(fd)))
}

func (p closedPort) close() error { return unix.Close(p.fd) }
