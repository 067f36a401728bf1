package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/keyring"
)

// endsSoon is how long before its end a certificate is warned of; one that is made for a
// shorter time, when a sixth of that is left.
const endsSoon = 14 * 24 * time.Hour

// A certificate is a pair of files that is read again when one of them changes.
type certificate struct {
	files config.TLS
	pair  atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	watched [2]diskfile.Watched // certificate and key
}

// loadCertificate reads a pair for the first time.
func loadCertificate(files config.TLS) (*certificate, error) {
	c := &certificate{files: files}
	c.watched[0].Path, c.watched[1].Path = files.Cert, files.Key
	return c, c.reload()
}

// get returns the pair in force.
func (c *certificate) get() *tls.Certificate { return c.pair.Load() }

// reload reads the pair. A bad one leaves in force what was.
func (c *certificate) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.load()
}

// load is reload. c.mu is held.
func (c *certificate) load() error {
	var infos [len(c.watched)]fs.FileInfo // before reading: what changes meanwhile is read once more
	for i := range c.watched {
		if info, err := os.Stat(c.watched[i].Path); err == nil {
			infos[i] = info
		}
	}
	pair, err := loadPair(c.files.Cert, c.files.Key)
	for i := range c.watched {
		c.watched[i].Read(infos[i])
	}
	if err != nil {
		return err
	}
	c.pair.Store(&pair)
	return nil
}

// maxPEM is the greatest size of a certificate or key file in octets.
const maxPEM = 1 << 20

// loadPair is tls.LoadX509KeyPair for files that may be anything, such as without end.
func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, _, err := diskfile.Read(certFile, maxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, _, err := diskfile.Read(keyFile, maxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	defer clear(key)
	return tls.X509KeyPair(cert, key)
}

// Refresh reads the pair again if one of its files has changed and seems to be whole. It
// reports whether it did. A renewal that replaces one file after the other causes at most one
// error in between.
func (c *certificate) Refresh() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.watched {
		did, err := c.watched[i].Refresh(func(bool) (fs.FileInfo, error) {
			info, err := os.Stat(c.watched[i].Path)
			if err != nil {
				return nil, err
			}
			return info, c.load()
		})
		if err != nil {
			return did, err
		}
		changed = changed || did
	}
	return changed, nil
}

// warnings says why clients may refuse the pair in force, and whether others can read its
// key. host is the name or address to which clients connect; "" where it is not known.
// judgeKey: look whether others can read the key, with the groups of this process, which
// must be the one that serves.
func (c *certificate) warnings(host string, judgeKey bool) []string {
	roots, err := x509.SystemCertPool()
	if err != nil { // without any every issuer is unknown, and that would be said
		roots = nil
	}
	all := pairWarnings(c.get(), host, roots, time.Now())
	if err := keyring.Private(c.files.Key); err != nil && judgeKey {
		var mode *keyring.ModeError
		if errors.As(err, &mode) {
			all = append(all, openKey(mode.Path, mode.Mode))
		}
	}
	return all
}

// openKey says that others can read a private key.
func openKey(path string, mode fs.FileMode) string {
	return fmt.Sprintf("private key %s: readable by others (mode %04o); needs 0600, or 0640 with a group of the server's user", path, mode.Perm())
}

// pairWarnings says why clients that trust roots may refuse a certificate at a time; nil
// roots are not looked at.
func pairWarnings(pair *tls.Certificate, host string, roots *x509.CertPool, now time.Time) (all []string) {
	leaf := pair.Leaf
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	left := leaf.NotAfter.Sub(now)
	switch soon := min(endsSoon, leaf.NotAfter.Sub(leaf.NotBefore)/6); {
	case left <= 0:
		warn("the certificate has ended, at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		warn("the certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case left < soon:
		warn("the certificate ends soon, at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	switch {
	case len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0:
		warn("the certificate has no name that clients look at (subjectAltName with dNSName); the common name %q does not count", leaf.Subject.CommonName)
	case host != "" && leaf.VerifyHostname(host) != nil:
		if len(leaf.DNSNames) == 0 && net.ParseIP(host) == nil {
			warn("the certificate has no dNSName, and clients look for %s", host)
		} else {
			warn("the certificate is for %q, and clients look for %s", names(leaf), host)
		}
	}
	if missing := missingIssuer(pair, roots, now); missing != "" {
		warn("the certificate file does not lead to an issuer that this machine knows: %s is not in it; without its intermediates clients refuse the certificate", missing)
	}
	return all
}

// names are those of a certificate that clients look at.
func names(leaf *x509.Certificate) []string {
	all := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// missingIssuer returns the issuer at which the chain of a pair ends without having come
// to one of roots, or to itself; "" where there is none.
func missingIssuer(pair *tls.Certificate, roots *x509.CertPool, now time.Time) string {
	top := pair.Leaf
	intermediates := x509.NewCertPool()
	var others []*x509.Certificate
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			others = append(others, c)
			intermediates.AddCert(c)
		}
	}
	if roots != nil {
		// Its time has a warning of its own.
		at := pair.Leaf.NotAfter
		if now.Before(at) && now.After(pair.Leaf.NotBefore) {
			at = now
		}
		options := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		if _, err := pair.Leaf.Verify(options); err == nil {
			return ""
		}
	}
	for range others { // in whatever order they are
		for _, c := range others {
			if string(c.RawSubject) == string(top.RawIssuer) && top.CheckSignatureFrom(c) == nil {
				top = c
				break
			}
		}
	}
	if string(top.RawIssuer) == string(top.RawSubject) {
		return "" // a root of one's own, which clients have to be given
	}
	return fmt.Sprintf("%q", top.Issuer.String())
}
