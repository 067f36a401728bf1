package keyring

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two fixed secrets: 0x00 to 0x1F, and 32 times 0xFF.
const (
	secretA = "a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
	secretB = "b //////////////////////////////////////////8=\n"
)

// midday of epoch 20000 with an AVT of a day.
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

// open opens a domain over a secret file and a list written for it; list "any" means any.
func open(t testing.TB, secrets, list string, change func(*Config)) *Domain {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		Form:       Form{Domain: "example.com", Subaddress: "+"},
		SecretFile: write(t, filepath.Join(dir, "secret"), secrets),
		Addresses:  "any",
		AVT:        DefaultAVT,
		Grace:      DefaultGrace,
		TTL:        DefaultTTL,
	}
	if list != "any" {
		c.Addresses = "file:" + write(t, filepath.Join(dir, "addresses"), list)
	}
	if change != nil {
		change(&c)
	}
	d, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Reload(); err != nil {
		t.Fatal(err)
	}
	return d
}

func address(t testing.TB, mailbox string) wire.Address {
	t.Helper()
	a, err := wire.ParseAddress(mailbox)
	if err != nil {
		t.Fatalf("%s: %v", mailbox, err)
	}
	return a
}

func keyAt(t testing.TB, d *Domain, mailbox string, now time.Time) wire.Key {
	t.Helper()
	issued, err := d.KeyAt(address(t, mailbox), now)
	if err != nil {
		t.Fatalf("%s: %v", mailbox, err)
	}
	return issued.Key
}

func key(t testing.TB, text string) wire.Key {
	t.Helper()
	k, err := wire.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func verify(t testing.TB, d *Domain, mailbox string, k wire.Key, now time.Time) Answer {
	t.Helper()
	answer, err := d.Verify(address(t, mailbox), k, now)
	if err != nil {
		t.Fatalf("%s: %v", mailbox, err)
	}
	return answer
}
