package attach

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secretA = "a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
	secretB = "b //////////////////////////////////////////8=\n"
)

// midday of an epoch of a day.
var midday = time.Unix(20000*86400+43200, 0)

// write writes a file as if long ago, so that it counts as at rest.
func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	return path
}

// ringConfig is that of a domain over files written for it; list "any" means any.
func ringConfig(t testing.TB, name, list string) keyring.Config {
	t.Helper()
	dir := t.TempDir()
	c := keyring.Config{
		Form:       keyring.Form{Domain: name, Subaddress: "+"},
		SecretFile: write(t, filepath.Join(dir, "secret"), secretA),
		Addresses:  "any",
		AVT:        keyring.DefaultAVT,
		Grace:      keyring.DefaultGrace,
	}
	if list != "any" {
		c.Addresses = "file:" + write(t, filepath.Join(dir, "addresses"), list)
	}
	return c
}

// options are of two domains, both ours. Example.org tells Bob from bob.
func options(t testing.TB) Options {
	t.Helper()
	org := ringConfig(t, "example.org", "Bob\nbob\ncarol\n")
	org.CaseSensitive = true
	return Options{
		Domains: []Domain{
			{Config: ringConfig(t, "Example.COM", "bob\ncarol gen=2\nsales\n\"john doe\"\njürgen\n")},
			{Config: org, To: []string{"Partner.example.", "bücher.example"}},
		},
		Authorize: "login",
		Networks:  []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Brand:     "authkey/1.0",
	}
}

// start makes an Attacher whose lists are read.
func start(t testing.TB, o Options) *Attacher {
	t.Helper()
	a, err := New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	reload(t, a)
	return a
}

func reload(t testing.TB, a *Attacher) {
	t.Helper()
	a.Reload(func(d *keyring.Domain, err error) {
		if err != nil {
			t.Error(err)
		}
	})
}

func address(t testing.TB, mailbox string) wire.Address {
	t.Helper()
	a, err := wire.ParseAddress(mailbox)
	if err != nil {
		t.Fatalf("%q: %v", mailbox, err)
	}
	return a
}

func addresses(t testing.TB, mailboxes ...string) (all []wire.Address) {
	t.Helper()
	for _, m := range mailboxes {
		all = append(all, address(t, m))
	}
	return all
}

// keyOf is the key of an address, as the server of its domain makes it.
func keyOf(t testing.TB, o Options, mailbox string) wire.Key {
	t.Helper()
	a := address(t, mailbox)
	for _, d := range o.Domains {
		if name, err := wire.ParseDomain(d.Domain); err != nil || name != a.Domain() {
			continue
		}
		server, err := keyring.Open(d.Config)
		if err == nil {
			err = server.Reload()
		}
		if err != nil {
			t.Fatal(err)
		}
		issued, err := server.KeyAt(a, midday)
		if err != nil {
			t.Fatal(err)
		}
		return issued.Key
	}
	t.Fatalf("%s is in no domain", mailbox)
	return wire.Key{}
}
