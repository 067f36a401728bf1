package testmta

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/authkey/authkey/internal/testdaemon"
)

// EnsureOpenDKIM installs Debian's opendkim where it is missing, without starting it,
// and tells logf before. It returns testdaemon.ErrNotInstalled where it cannot, and
// under systemd, which would start it at the next boot.
func EnsureOpenDKIM(ctx context.Context, logf testdaemon.Logf) error {
	return testdaemon.Ensure(ctx, logf, "opendkim", testdaemon.Installation{Packages: []string{"opendkim"}, Service: true})
}

// An OpenDKIM is a running private OpenDKIM.
type OpenDKIM struct {
	*testdaemon.Daemon
	// Record publishes a signer's key, in the syntax of zone files.
	Record string
	socket string
}

// dkimBits is the size of keys: what RFC 8301 wants signers to use.
const dkimBits = 2048

// StartSigner starts an OpenDKIM that signs mail of the domain, from loopback or from
// clients that logged in, with a key of its own under the selector. config are further
// lines of opendkim.conf(5).
func StartSigner(ctx context.Context, domain, selector string, config ...string) (*OpenDKIM, error) {
	key, err := rsa.GenerateKey(rand.Reader, dkimBits)
	if err != nil {
		return nil, fmt.Errorf("start opendkim: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("start opendkim: %w", err)
	}
	d, err := startOpenDKIM(ctx, func(dir string) ([]string, error) {
		file := filepath.Join(dir, "private.pem")
		private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		return append([]string{"Mode s", "Domain " + domain, "Selector " + selector, "KeyFile " + file, "RequireSafeKeys no"}, config...),
			os.WriteFile(file, private, 0o600)
	})
	if err != nil {
		return nil, err
	}
	encoded := base64.StdEncoding.EncodeToString(public)
	half := len(encoded) / 2 // a string of a TXT record has 255 octets at most
	d.Record = fmt.Sprintf("%s._domainkey.%s. 60 IN TXT \"v=DKIM1; k=rsa; p=\" %q %q", selector, domain, encoded[:half], encoded[half:])
	return d, nil
}

// StartDKIMVerifier starts an OpenDKIM that verifies all mail, with the keys that the
// DNS server at dns (host:port) publishes, and says so as authservID.
func StartDKIMVerifier(ctx context.Context, dns, authservID string) (*OpenDKIM, error) {
	host, port, err := net.SplitHostPort(dns)
	if err != nil {
		return nil, fmt.Errorf("start opendkim: %w", err)
	}
	return startOpenDKIM(ctx, func(dir string) ([]string, error) {
		resolver := filepath.Join(dir, "unbound.conf")
		nobody := filepath.Join(dir, "nobody")
		conf := "server:\n  do-not-query-localhost: no\n  local-zone: \"test.\" nodefault\n  module-config: \"iterator\"\n" +
			"forward-zone:\n  name: \".\"\n  forward-addr: " + host + "@" + port + "\n"
		if err := os.WriteFile(resolver, []byte(conf), 0o644); err != nil {
			return nil, err
		}
		return []string{"Mode v", "AuthservID " + authservID, "ResolverConfiguration " + resolver, "InternalHosts " + nobody},
			os.WriteFile(nobody, []byte("192.0.2.255\n"), 0o644)
	})
}

// startOpenDKIM starts one whose particular settings prepare returns.
func startOpenDKIM(ctx context.Context, prepare func(dir string) (config []string, err error)) (*OpenDKIM, error) {
	d := &OpenDKIM{}
	var err error
	d.Daemon, err = testdaemon.StartDaemon(ctx, "opendkim", func(dir string) ([]string, error) {
		config, err := prepare(dir)
		if err != nil {
			return nil, err
		}
		d.socket = filepath.Join(dir, "opendkim.sock")
		config = append([]string{"Syslog no", "Canonicalization relaxed/simple", "OversignHeaders From", "UMask 000",
			"Socket local:" + d.socket, "TemporaryDirectory " + dir}, config...)
		conf := filepath.Join(dir, "opendkim.conf")
		return []string{"-f", "-x", conf}, os.WriteFile(conf, []byte(strings.Join(config, "\n")+"\n"), 0o644)
	}, func() bool { return testdaemon.Listens("unix", d.socket) })
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Milter is for smtpd_milters.
func (d *OpenDKIM) Milter() string { return "unix:" + d.socket }

// Stop ends it and removes its folder. A second call does nothing. libmilter heeds a
// signal when somebody connects, or else within five seconds.
func (d *OpenDKIM) Stop() error {
	ctx, cancel := context.WithCancel(context.Background())
	var knocking sync.WaitGroup
	knocking.Go(func() {
		_ = testdaemon.Poll(ctx, func() (bool, error) { return !testdaemon.Listens("unix", d.socket), nil })
	})
	err := d.Daemon.Stop()
	cancel()
	knocking.Wait()
	return err
}
