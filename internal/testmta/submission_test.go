package testmta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testdns"
)

// postfixLogins starts a Postfix where users of a Dovecot log in, in clear, and
// returns its listener.
func postfixLogins(t *testing.T, passwords map[string]string) string {
	t.Helper()
	if err := EnsureDovecot(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	d, err := StartDovecot(t.Context(), passwords)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Dir(d.AuthSocket())); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("folder: %v", err)
		}
	})
	return startTestPostfix(t, PostfixOptions{Main: map[string]string{
		"smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": d.AuthSocket(),
		"smtpd_relay_restrictions": "permit_sasl_authenticated, reject"}}).SMTPAddr()
}

// sendmailLogins is the same of a Sendmail.
func sendmailLogins(t *testing.T, passwords map[string]string) string {
	t.Helper()
	port, err := testdaemon.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := startTestSendmail(t, SendmailOptions{Passwords: passwords, MC: []string{
		"define(`confAUTH_OPTIONS', `A')",
		fmt.Sprintf("DAEMON_OPTIONS(`Family=inet, Name=MSA, Addr=127.0.0.1, Port=%d, M=a')", port)}})
	t.Cleanup(func() { // what delivers leaves the daemon's process group
		if err := s.WaitIdle(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// TestLogin: only the right password opens a submission service.
func TestLogin(t *testing.T) {
	passwords := map[string]string{"alice@a.test": "open sesame", "bob": "b"}
	for name, start := range map[string]func(*testing.T, map[string]string) string{"postfix": postfixLogins, "sendmail": sendmailLogins} {
		t.Run(name, func(t *testing.T) {
			listener := start(t, passwords)
			for _, tt := range []struct {
				login, password string
				code            int
			}{{"alice@a.test", "open sesame", 235}, {"bob", "b", 235}, {"bob", "guess", 535}, {"carol", "b", 535}, {"", "", 0}} {
				c := dial(t, listener)
				if tt.login != "" {
					r, err := c.Login(tt.login, tt.password)
					if err != nil || r.Code != tt.code {
						t.Errorf("%s, %s: %s, %v", tt.login, tt.password, r, err)
					}
				}
				out, err := c.Send(Transaction{MailFrom: "a@b.test", Rcpts: []string{"bob@rcpt.test"}, Data: content("login", "")})
				if err != nil || out.Accepted != (tt.code == 235) {
					t.Errorf("%s, %s: %s, %v", tt.login, tt.password, out.Final, err)
				}
			}
		})
	}
}

func TestStartTLSRefused(t *testing.T) {
	s, err := StartSink() // which has no certificate
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := dial(t, s.Addr())
	if err := c.StartTLS(&tls.Config{ServerName: "sink.test"}); err == nil || !strings.Contains(err.Error(), "STARTTLS: 5") {
		t.Errorf("StartTLS = %v", err)
	}
}

// TestOpenDKIM: what is signed verifies with the key that is to be published.
func TestOpenDKIM(t *testing.T) {
	if err := EnsureOpenDKIM(t.Context(), t.Logf); err != nil {
		t.Fatal(err)
	}
	dns, err := testdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	signer, err := StartSigner(t.Context(), "a.test", "selector")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := StartDKIMVerifier(t.Context(), dns.Addr(), "dkim.test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, d := range []*OpenDKIM{signer, verifier, signer} {
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		}
	}()
	if err := dns.Set(signer.Record); err != nil {
		t.Fatal(err)
	}
	p := startTestPostfix(t, PostfixOptions{Milters: []string{signer.Milter(), verifier.Milter()}})
	c := dial(t, p.SMTPAddr())
	out, err := c.Send(Transaction{MailFrom: "alice@a.test", Rcpts: []string{"bob@rcpt.test"}, Data: []byte("From: alice@a.test\r\nSubject: signed\r\n\r\nHello.\r\n")})
	if err != nil || !out.Accepted {
		t.Fatalf("%s, %v", out.Final, err)
	}
	m, err := p.WaitDelivered(t.Context(), subject("signed"))
	if err != nil {
		t.Fatal(err)
	}
	if res := m.Get("Authentication-Results"); !strings.HasPrefix(res, "dkim.test;\tdkim=pass ") {
		t.Errorf("the verifier says %q", res)
	}
}
