package loopback

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/authkey/authkey/internal/authserver"
)

// Close ends a sink that has hardly begun.
func TestSinkClosedAtOnce(t *testing.T) {
	for range 100 {
		s, err := StartSink(func(Mail) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("tcp", s.Addr()); err == nil {
			c.Close()
			t.Fatal("still answers")
		}
	}
}

func TestRefusingPort(t *testing.T) {
	p, err := OpenRefusingPort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", p.Port)
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a connection was accepted")
	}
	if ln, err := net.Listen("tcp", addr); err == nil {
		ln.Close()
		t.Error("somebody else could listen there")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if ln, err := net.Listen("tcp", addr); err != nil {
		t.Error(err)
	} else {
		ln.Close()
	}
}

func TestAS(t *testing.T) {
	d, err := OpenDomain("as.test", filepath.Join(t.TempDir(), "secret"), "any")
	if err != nil {
		t.Fatal(err)
	}
	if key, err := Key(d, "alice@as.test"); err != nil || key == "" {
		t.Errorf("Key = %q, %v", key, err)
	}
	if _, err := Key(d, "alice@elsewhere.test"); err == nil {
		t.Error("a key of another domain's address")
	}
	as, err := StartAS(nil, authserver.DefaultLimits(), d)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", as.Port)
	if c, err := net.Dial("tcp", addr); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	for range 2 {
		if err := as.Close(); err != nil {
			t.Error(err)
		}
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestASOverTLS(t *testing.T) {
	certPEM, keyPEM, err := MakeCertificate("as.test")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	as, err := StartAS(&cert, authserver.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	for host, want := range map[string]bool{"as.test": true, "other.test": false} {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", as.Port), &tls.Config{RootCAs: roots, ServerName: host})
		if (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if err := as.Close(); err != nil {
		t.Error(err)
	}
}
