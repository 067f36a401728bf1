package main

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
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate of a template; by itself where there is no authority.
func (a *authority) sign(t *testing.T, template *x509.Certificate) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func pairOf(leaf *authority, others ...*authority) *tls.Certificate {
	pair := &tls.Certificate{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key, Leaf: leaf.cert}
	for _, o := range others {
		pair.Certificate = append(pair.Certificate, o.cert.Raw)
	}
	return pair
}

var begun = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// ca is a template of an authority, for ten years.
func ca(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, NotBefore: begun, NotAfter: begun.AddDate(10, 0, 0)}
}

// serverCert is a template of a server's certificate, for 90 days.
func serverCert(names ...string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: "as.example.com"}, DNSNames: names, NotBefore: begun, NotAfter: begun.AddDate(0, 0, 90)}
}

func TestPairWarnings(t *testing.T) {
	root := (*authority)(nil).sign(t, ca("Root"))
	middle := root.sign(t, ca("Middle"))
	upper := root.sign(t, ca("Upper"))
	lower := upper.sign(t, ca("Lower"))
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	good := middle.sign(t, serverCert("as.example.com"))
	deep := lower.sign(t, serverCert("as.example.com"))
	own := (*authority)(nil).sign(t, serverCert("as.example.com"))
	ip := serverCert()
	ip.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
	short := serverCert("as.example.com")
	short.NotAfter = begun.AddDate(0, 0, 6)
	day := func(n int) time.Time { return begun.AddDate(0, 0, n) }
	const host = "as.example.com"
	tests := []struct {
		name string
		pair *tls.Certificate
		host string
		now  time.Time
		want []string
	}{
		{"good", pairOf(good, middle), host, day(1), nil},
		{"with the root in the file too", pairOf(good, middle, root), host, day(1), nil},
		{"intermediates out of order", pairOf(deep, upper, lower), host, day(1), nil},
		{"no intermediate", pairOf(good), host, day(1), []string{`"CN=Middle" is not in it`}},
		{"another's intermediate", pairOf(good, lower), host, day(1), []string{`"CN=Middle" is not in it`}},
		{"one of two intermediates", pairOf(deep, lower), host, day(1), []string{`"CN=Upper" is not in it`}},
		{"self-signed", pairOf(own), host, day(1), nil},
		{"a wildcard", pairOf(middle.sign(t, serverCert("*.example.com")), middle), host, day(1), nil},
		{"another name", pairOf(middle.sign(t, serverCert("www.example.com")), middle), host, day(1), []string{`is for ["www.example.com"], and clients look for as.example.com`}},
		{"the host is not known", pairOf(middle.sign(t, serverCert("www.example.com")), middle), "", day(1), nil},
		{"no dNSName", pairOf(middle.sign(t, serverCert()), middle), host, day(1), []string{`the common name "as.example.com" does not count`}},
		{"no dNSName, of an unknown host", pairOf(middle.sign(t, serverCert()), middle), "", day(1), []string{`does not count`}},
		{"only an address", pairOf(middle.sign(t, ip), middle), host, day(1), []string{"has no dNSName, and clients look for as.example.com"}},
		{"the address", pairOf(middle.sign(t, ip), middle), "192.0.2.1", day(1), nil},
		{"another address", pairOf(middle.sign(t, ip), middle), "192.0.2.2", day(1), []string{`is for ["192.0.2.1"]`}},
		{"an address, of a name", pairOf(good, middle), "192.0.2.1", day(1), []string{`is for ["as.example.com"]`}},
		{"not soon", pairOf(good, middle), host, day(75), nil},
		{"soon", pairOf(good, middle), host, day(77), []string{"ends soon, at 2026-04-01T00:00:00Z"}},
		{"ended", pairOf(good, middle), host, day(90), []string{"has ended, at 2026-04-01T00:00:00Z"}},
		{"not yet", pairOf(good, middle), host, day(-1), []string{"is not valid before 2026-01-01T00:00:00Z"}},
		{"short-lived", pairOf(middle.sign(t, short), middle), host, day(4), nil},
		{"short-lived, soon", pairOf(middle.sign(t, short), middle), host, day(5).Add(time.Hour), []string{"ends soon"}},
		{"everything", pairOf(middle.sign(t, serverCert())), host, day(100), []string{"has ended", "does not count", "is not in it"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := pairWarnings(tt.pair, tt.host, roots, tt.now)
			if len(got) != len(tt.want) {
				t.Fatalf("%q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

// check and serve say what is wrong with a certificate that can be used, at the start and
// when it is read again.
func TestCertificateWarnings(t *testing.T) {
	t.Parallel()
	root := (*authority)(nil).sign(t, ca("Root"))
	middle := root.sign(t, ca("Middle"))
	dir := t.TempDir()
	write := func(name string, certs ...*authority) {
		t.Helper()
		template := serverCert(name)
		template.NotBefore = time.Now().Add(-time.Hour)
		template.NotAfter = time.Now().Add(80 * 24 * time.Hour)
		leaf := middle.sign(t, template)
		der, err := x509.MarshalPKCS8PrivateKey(leaf.key)
		if err != nil {
			t.Fatal(err)
		}
		var file strings.Builder
		for _, c := range append([]*authority{leaf}, certs...) {
			if err := pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}); err != nil {
				t.Fatal(err)
			}
		}
		replaceFile(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		replaceFile(t, filepath.Join(dir, "cert.pem"), file.String())
	}
	rootFile := filepath.Join(dir, "root.pem")
	writeFile(t, rootFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})), 0o644)
	write("www.example.com")
	if err := os.Chmod(filepath.Join(dir, "key.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, fmt.Sprintf("host: as.example.com\nlisten: ['tls:%s']\ntls: {cert: %s/cert.pem, key: %s/key.pem}", freePort(t), dir, dir))
	roots := []string{"SSL_CERT_FILE=" + rootFile, "SSL_CERT_DIR=" + p.dir}
	check := func() string {
		c := start(t, programCommand(roots, os.Args[0], "check", "--config", p.config))
		if code := c.wait(); code != 0 {
			t.Errorf("check: exit %d", code)
		}
		return c.log.String()
	}
	first := []string{`is for ["www.example.com"], and clients look for as.example.com`, "is not in it", "readable by others (mode 0644)"}
	got := check()
	for _, want := range first {
		if !strings.Contains(got, "warning: tls.cert: ") || !strings.Contains(got, want) {
			t.Errorf("check says %q, want %q", got, want)
		}
	}
	s := startServing(t, serveCommand(p.config, roots...))
	for _, want := range []string{"www.example.com", "is not in it", "mode 0644"} {
		s.waitLog("level=WARN", `msg="clients may refuse the certificate"`, want)
	}
	write("other.example.com", middle)
	s.waitLog("level=WARN", `msg="clients may refuse the certificate"`, "other.example.com")
	write("as.example.com", middle)
	s.waitLogs(2, `msg="certificate is read"`)
	if got := check(); got != "" {
		t.Errorf("of a good one check says %q", got)
	}
}

// A file without an end must not take all memory, nor one that nobody writes to hold up
// the program.
func TestPairIsOfFiles(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/dev/zero", fifo} {
		if _, err := loadPair(path, path); err == nil || !strings.Contains(err.Error(), path+": not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
