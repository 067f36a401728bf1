package selftest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/authkey/authkey/internal/authserver"
	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/loopback"
)

// asHost is the name of the Authentication Server.
const asHost = "as.sender.test"

// A keyServer is an Authentication Server, over TLS, for domains in which every
// local part is an address.
type keyServer struct {
	*loopback.AS
	domains map[string]*keyring.Domain
}

// startServer serves domains. Their secret, and the certificate to trust in place of the
// system's roots, are files in dir.
func startServer(dir, certFile string, names ...string) (*keyServer, error) {
	s := &keyServer{domains: make(map[string]*keyring.Domain)}
	var served []*keyring.Domain
	for _, name := range names {
		domain, err := loopback.OpenDomain(name, filepath.Join(dir, "secret"), "any")
		if err != nil {
			return nil, err
		}
		s.domains[name] = domain
		served = append(served, domain)
	}
	certPEM, keyPEM, err := loopback.MakeCertificate(asHost)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err := errors.Join(err, os.WriteFile(certFile, certPEM, 0o600)); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	s.AS, err = loopback.StartAS(&cert, authserver.DefaultLimits(), served...)
	return s, err
}

// asked is how many questions it has been asked.
func (s *keyServer) asked() uint64 {
	c := s.Stats()
	return c.Valid + c.Invalid + c.TempFail + c.NotServed + c.Syntax + c.TooLong + c.Busy
}

// key is the text of the key that an address of senderDomain or otherDomain attaches now.
func (s *keyServer) key(mailbox string) (string, error) {
	_, domain, _ := strings.Cut(mailbox, "@")
	return loopback.Key(s.domains[domain], mailbox)
}
