package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/wire"
)

// asProgram, set in the environment, makes the test binary the program itself.
const asProgram = "AUTHKEY_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// run runs the program within the test.
func run(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code = self().Run(ctx, args, strings.NewReader(stdin), &o, &e, commands()...)
	return code, o.String(), e.String()
}

// mustRun is run of what has to succeed.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errOut := run(t, "", args...)
	if code != 0 {
		t.Fatalf("%s: exit %d\n%s", strings.Join(args, " "), code, errOut)
	}
	return out
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A place is a folder with the files of example.com, whose list is addressed by
// file, and example.org, of which every local part is an address.
type place struct {
	dir, config, list, secret string
}

// newPlace makes a place; more is put into its server.yaml before the domains.
func newPlace(t *testing.T, more string) place {
	t.Helper()
	dir := t.TempDir()
	p := place{dir, filepath.Join(dir, "server.yaml"), filepath.Join(dir, "list"), filepath.Join(dir, "secret")}
	for _, path := range []string{p.secret, p.secret + "2"} {
		if _, err := keyring.CreateSecret(path); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, p.list, "# staff\nbob\nalice@example.com gen=3\n", 0o640)
	p.write(t, more)
	return p
}

// write writes the place's server.yaml.
func (p place) write(t *testing.T, more string) {
	t.Helper()
	writeFile(t, p.config, more+"\n"+strings.NewReplacer("{secret}", p.secret, "{list}", p.list).Replace(`domains:
  - {name: example.com, secret_file: "{secret}", addresses: "file:{list}"}
  - {name: Example.ORG, secret_file: "{secret}2", addresses: any, ttl: 10m}
`), 0o644)
}

// key is the key of an address now.
func (p place) key(t *testing.T, address string) string {
	t.Helper()
	return strings.TrimSpace(mustRun(t, "key", "--config", p.config, address))
}

func isKey(text string) bool {
	_, err := wire.ParseKey(text)
	return err == nil && len(text) == 34
}
