package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// The logins of the submission services have all the same password.
const password = "open sesame"

var logins = []string{alice, mallory, erin, "frank"}

// loginMap says who may use which address, to the milter and to Postfix.
const loginMap = `alice@a.test    alice@a.test
sales@a.test    alice@a.test, erin@a.test
erin@private.test    erin@a.test
frank@a.test    frank
`

// A service is the submission side of a.test: listeners of one real MTA, whose mail to
// b.test goes there, and to kept.test into a mailbox where it can be looked at.
type service struct {
	mta     testmta.MTA
	milters []*lab.Milter
	clients *tls.Config

	login  string // the listener that wants a login, with `authorize: login`
	mapped string // the same with a map of logins and addresses
	open   string // one that wants none
}

// A submission is what a client does there, and what has to come of it.
type submission struct {
	name     string
	listener func(*service) string
	login    string // "": none
	from     string // MAIL FROM
	author   string // the From field
	brought  []string
	note     string // in the milter's log
	key      string // whose key is attached: "" none, "brought" what the client brought
	result   string // at b.test
}

func byLogin(s *service) string { return s.login }
func byMap(s *service) string   { return s.mapped }
func noLogin(s *service) string { return s.open }

const (
	alice   = "alice@a.test"
	mallory = "mallory@a.test"
	erin    = "erin@a.test"
	sales   = "sales@a.test"
	frank   = "frank@a.test"
	invited = "carol@elsewhere.test"

	passed  = "x-authkey=pass"
	keyless = `x-authkey=none reason="no AuthKey"`
)

// submissions are what both MTAs are tried with. AKEY stands for Alice's key.
var submissions = []submission{
	{"one's own address", byLogin, alice, alice, alice, nil, "key-attached", alice, passed},
	{"a sub-address", byLogin, alice, "alice+shop@a.test", "Alice <alice@a.test>", nil, "key-attached", alice, passed},
	{"another's MAIL FROM", byLogin, mallory, alice, mallory, nil, "sender-not-allowed", "", keyless},
	{"another's From", byLogin, mallory, mallory, alice, nil, "from-not-allowed", "", keyless},
	{"one's own From and another's", byLogin, mallory, mallory, mallory + ", " + alice, nil, "from-not-allowed", "", keyless},
	{"keys that the client brought", byLogin, alice, alice, alice, []string{"STALE", "OLDER"}, "key-attached", alice, passed},
	{"a stolen key", byLogin, mallory, alice, alice, []string{"AKEY"}, "sender-not-allowed", "", keyless},
	{"a stolen key under another's From", byLogin, mallory, mallory, alice, []string{"AKEY", "AKEY"}, "from-not-allowed", "", keyless},
	{"a key of a domain that is not ours", byLogin, alice, invited, invited, []string{"HERS"}, "other-domain", "brought", `x-authkey=none reason="no-as"`},
	{"no login", noLogin, "", alice, alice, nil, "no-login", "", keyless},
	{"no login, and a key", noLogin, "", alice, alice, []string{"AKEY"}, "no-login", "", keyless},
	{"a login that is no address", byLogin, "frank", frank, frank, nil, "login-is-no-address", "", keyless},
	{"the same with a map", byMap, "frank", frank, frank, nil, "key-attached", frank, passed},
	{"an address of several people", byMap, erin, sales, sales, nil, "key-attached", sales, passed},
	{"a private address in From", byMap, erin, sales, "erin@private.test", nil, "key-attached", sales, passed},
	{"an address of several others", byMap, mallory, mallory, sales, []string{"AKEY"}, "sender-not-allowed", "", keyless},
}

// TestSubmission has real clients log in at real MTAs, and reads their mail as it
// leaves and as it arrives at a site that verifies it.
func TestSubmission(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		start func(t *testing.T, a, b *site) *service
	}{{"postfix", postfixSubmission}, {"sendmail", sendmailSubmission}} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := foundSite(t, w, "a.test", []string{"alice", "mallory", "erin", "sales", "frank"})
			b := newSite(t, w, "b.test", "bob")
			s := kind.start(t, a, b)
			for _, sub := range submissions {
				t.Run(sub.name, func(t *testing.T) { s.try(t, w, b, sub) })
			}
			t.Run("wrong password", func(t *testing.T) {
				c := s.dial(t, s.login)
				r, err := c.Login(alice, "guess")
				must(t, err)
				if r.Code != 535 {
					t.Errorf("the answer is %s", r)
				}
				s.refuses(t, c)
			})
			t.Run("another's name to act for", func(t *testing.T) { // RFC 4616's authorization identity
				c := s.dial(t, s.login)
				command(t, c, "EHLO client.test")
				both := base64.StdEncoding.EncodeToString([]byte(alice + "\x00" + mallory + "\x00" + password))
				switch code := command(t, c, "AUTH PLAIN "+both); code {
				case 535: // so does Dovecot
				case 235: // so does Sendmail: it is Mallory to the milter all the same
					s.send(t, w, b, c, submission{login: mallory, from: alice, author: alice, note: "sender-not-allowed", result: keyless})
				default:
					t.Errorf("the answer is %d", code)
				}
			})
			t.Run("no login where one is wanted", func(t *testing.T) { s.refuses(t, s.dial(t, s.login)) })
			for _, m := range s.milters {
				if log := m.Log(); strings.Contains(log, mustKey(t, w, alice)) || strings.Contains(log, "DATA RACE") {
					t.Errorf("a milter's log:\n%s", log)
				}
			}
		})
	}
}

// dial connects to a listener, under TLS.
func (s *service) dial(t *testing.T, listener string) *testmta.Client {
	t.Helper()
	c, err := testmta.Dial(listener)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	if listener != s.open {
		must(t, c.StartTLS(s.clients))
	}
	return c
}

// refuses looks whether the MTA takes mail of c.
func (s *service) refuses(t *testing.T, c *testmta.Client) {
	t.Helper()
	out, err := c.Send(testmta.Transaction{MailFrom: alice, Rcpts: []string{"bob@b.test"}, Data: []byte("From: " + alice + "\r\n\r\n")})
	must(t, err)
	if out.Accepted || out.Final.Code/100 != 5 {
		t.Errorf("the answer is %s", out.Final)
	}
}

// try makes a submission.
func (s *service) try(t *testing.T, w *lab.World, b *site, sub submission) {
	t.Helper()
	c := s.dial(t, sub.listener(s))
	if sub.login != "" {
		s.logIn(t, c, sub.login)
	}
	s.send(t, w, b, c, sub)
}

func (s *service) logIn(t *testing.T, c *testmta.Client, login string) {
	t.Helper()
	r, err := c.Login(login, password)
	must(t, err)
	if r.Code != 235 {
		t.Fatalf("login: %s", r)
	}
}

// send sends the message of a submission, and looks what comes of it.
func (s *service) send(t *testing.T, w *lab.World, b *site, c *testmta.Client, sub submission) {
	t.Helper()
	m := &mail{from: sub.from, author: sub.author, rcpts: []string{"bob@b.test", "spy@kept.test"}}
	brought := slices.Clone(sub.brought)
	for i, key := range brought {
		brought[i] = strings.ReplaceAll(key, "AKEY", mustKey(t, w, alice))
		m.fields += "X-Auth-Key: " + brought[i] + "\r\n"
	}
	out := sendMail(t, c, m)
	if !out.Accepted {
		t.Fatalf("the answer is %s", out.Final)
	}
	s.wantNote(t, out.QueueID(), sub.note)

	var keys []string
	switch sub.key {
	case "":
	case "brought":
		keys = brought
	default:
		keys = []string{mustKey(t, w, sub.key)}
	}
	kept := delivered(t, s.mta, m)
	if got := kept.Values("X-Auth-Key"); !slices.Equal(got, keys) {
		t.Errorf("it leaves with the keys %q, want %q", got, keys)
	}
	agents := kept.Values("X-Auth-Agent")
	if attached := sub.note == "key-attached"; attached != (len(agents) == 1 && strings.HasPrefix(agents[0], "smtp; authkey/")) || !attached && len(agents) > 0 {
		t.Errorf("it leaves with X-Auth-Agent %q", agents)
	}
	got := delivered(t, b.mta, m)
	if res := authRes(got); res != "mx.b.test; "+sub.result+" smtp.mailfrom="+sub.from {
		t.Errorf("it arrives with %q", res)
	}
	if len(got.Values("X-Auth-Key")) != 0 {
		t.Errorf("its key arrives:\n%s", got.Raw)
	}
}

// wantNote waits for the line about the message in the log of a milter.
func (s *service) wantNote(t *testing.T, qid, note string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var line string
	err := testdaemon.Poll(ctx, func() (bool, error) {
		for _, m := range s.milters {
			for l := range strings.Lines(m.Log()) {
				if strings.Contains(l, " qid="+qid+" ") && strings.HasSuffix(l, "\n") {
					line = l
				}
			}
		}
		return line != "", nil
	})
	if err != nil || !strings.Contains(line, " result=skipped reason=submission ") || !strings.Contains(line, " note="+note+" ") {
		t.Errorf("%v: the log says of %s: %q", err, qid, line)
	}
}

// certify writes a certificate for 127.0.0.1 into dir, and returns its files and what
// clients trust.
func certify(t *testing.T, dir string) (cert, key string, clients *tls.Config) {
	t.Helper()
	web := httptest.NewTLSServer(nil) // which has one
	defer web.Close()
	pair := web.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o644))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	trusted := x509.NewCertPool()
	trusted.AddCert(web.Certificate())
	return cert, key, &tls.Config{RootCAs: trusted, ServerName: "127.0.0.1"}
}

// newService starts the two milters of a submission side.
func newService(t *testing.T, a *site) (s *service, cert, key, mapFile string) {
	t.Helper()
	mapFile = filepath.Join(a.w.Dir, "logins")
	must(t, os.WriteFile(mapFile, []byte(loginMap), 0o644))
	s = &service{milters: []*lab.Milter{a.startMilter(t, ""), a.startMilter(t, fmt.Sprintf("  authorize: %q\n", "map:"+mapFile))}}
	cert, key, s.clients = certify(t, a.w.Dir)
	return s, cert, key, mapFile
}

func passwords() map[string]string {
	all := make(map[string]string)
	for _, login := range logins {
		all[login] = password
	}
	return all
}

// submissionOptions are those of docs/sender.md for Postfix, with Dovecot.
func submissionOptions(milter, auth, cert, key string) []string {
	return []string{
		"smtpd_tls_security_level=encrypt", "smtpd_tls_cert_file=" + cert, "smtpd_tls_key_file=" + key,
		"smtpd_sasl_auth_enable=yes", "smtpd_sasl_type=dovecot", "smtpd_sasl_path=" + auth,
		"smtpd_relay_restrictions=permit_sasl_authenticated,reject",
		"smtpd_milters=" + milter, "milter_macro_daemon_name=ORIGINATING",
	}
}

func postfixSubmission(t *testing.T, a, b *site) *service {
	s, cert, key, mapFile := newService(t, a)
	must(t, testmta.EnsureDovecot(t.Context(), t.Logf))
	dovecot, err := testmta.StartDovecot(t.Context(), passwords())
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Dovecot's log:\n%s", dovecot.Log())
		}
		must(t, dovecot.Stop())
	})
	byLogin := submissionOptions(s.milters[0].Socket, dovecot.AuthSocket(), cert, key)
	byMap := submissionOptions(s.milters[1].Socket, dovecot.AuthSocket(), cert, key)
	a.startPostfix(t, testmta.PostfixOptions{
		RecipientDomains: []string{"kept.test"},
		Main:             relayTo(b.mta.SMTPAddr()),
		Listeners: []testmta.Listener{
			{Name: "submission", Options: byLogin},
			{Name: "mapped", Options: byMap},
			{Name: "held", Options: append(slices.Clone(byMap),
				"smtpd_sender_login_maps=texthash:"+mapFile, "smtpd_sender_restrictions=reject_sender_login_mismatch", "recipient_delimiter=+")},
			{Name: "open", Options: []string{"mynetworks=127.0.0.0/8", "smtpd_milters=" + s.milters[0].Socket, "milter_macro_daemon_name=ORIGINATING"}},
		},
	})
	s.mta, s.login, s.mapped, s.open = a.mta, a.mta.Listener("submission"), a.mta.Listener("mapped"), a.mta.Listener("open")
	t.Run("Postfix holds users to the same map", func(t *testing.T) { s.held(t, a.mta.Listener("held")) })
	return s
}

// held tries the listener where Postfix reads the milter's map: it refuses what is not
// the user's, and lets the rest through to the milter.
func (s *service) held(t *testing.T, listener string) {
	for _, tt := range []struct {
		login, from string
		code        int
	}{{erin, sales, 250}, {alice, alice, 250}, {alice, "alice+shop@a.test", 250}, {mallory, sales, 553}, {erin, alice, 553}} {
		c := s.dial(t, listener)
		s.logIn(t, c, tt.login)
		m := &mail{from: tt.from, author: tt.from, rcpts: []string{"spy@kept.test"}}
		out := sendMail(t, c, m)
		if out.Final.Code != tt.code {
			t.Errorf("%s as %s: %s", tt.login, tt.from, out.Final)
		}
		if out.Accepted {
			s.wantNote(t, out.QueueID(), "key-attached")
		}
	}
}

func sendmailSubmission(t *testing.T, a, b *site) *service {
	s, cert, key, _ := newService(t, a)
	accounts := passwords()
	accounts[frank] = accounts["frank"]
	delete(accounts, "frank")
	routes := filepath.Join(a.w.Dir, "mailertable")
	must(t, os.WriteFile(routes, []byte("b.test relay:[127.0.0.1]\n"), 0o644))
	_, port, _ := strings.Cut(b.mta.SMTPAddr(), ":")
	mc := []string{
		"define(`RELAY_MAILER_ARGS', `TCP $h " + port + "')", // relay: is b.test's MTA, all else the sink
		"FEATURE(`mailertable', `text -k0 -v1 " + routes + "')",
		"define(`confAUTH_OPTIONS', `A p y')",
		"define(`confAUTH_REALM', `a.test')", // of logins without one
		"define(`confCACERT_PATH', `" + filepath.Dir(cert) + "')",
		"define(`confCACERT', `" + cert + "')",
		"define(`confSERVER_CERT', `" + cert + "')",
		"define(`confSERVER_KEY', `" + key + "')",
	}
	for _, l := range []struct {
		addr       *string
		name, more string
	}{
		{&s.login, "MSA", "M=Ea, InputMailFilters=milter1"},
		{&s.mapped, "Mapped", "M=Ea, InputMailFilters=milter2"},
		{&s.open, "ORIGINATING", "InputMailFilters=milter1"},
	} {
		port, err := testdaemon.FreePort()
		must(t, err)
		*l.addr = fmt.Sprintf("127.0.0.1:%d", port)
		mc = append(mc, fmt.Sprintf("DAEMON_OPTIONS(`Family=inet, Name=%s, Addr=127.0.0.1, Port=%d, %s')", l.name, port, l.more))
	}
	s.mta = startMTA(t, func(t *testing.T, _ string) (testmta.MTA, error) {
		return testmta.StartSendmail(t.Context(), testmta.SendmailOptions{
			Prefix: sendmailPrefix, Hostname: "mx.a.test", Passwords: accounts, MC: mc,
			Milters: []string{s.milters[0].Socket, s.milters[1].Socket}})
	}, "")
	// The milter sees what the user typed, not the account that it opens.
	for _, sub := range []submission{
		{"the account's full name", byLogin, frank, frank, frank, nil, "key-attached", frank, passed},
		{"a full name that the map lacks", byMap, frank, frank, frank, nil, "sender-not-allowed", "", keyless},
		{"a full name without its realm", byLogin, "alice", alice, alice, nil, "login-is-no-address", "", keyless},
	} {
		t.Run(sub.name, func(t *testing.T) { s.try(t, a.w, b, sub) })
	}
	return s
}
