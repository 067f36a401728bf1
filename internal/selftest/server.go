package selftest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	cert, err := makeCertificate(certFile)
	if err != nil {
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
