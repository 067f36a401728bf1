package testmta

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// saslConf is read by the SASL library in the name of sendmail: passwords are in a data
// base of our own.
const saslConf = `pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: DIR/sasldb
mech_list: PLAIN LOGIN
`

// saslDir is where Sendmail finds its SASL configuration.
func (s *Sendmail) saslDir() string { return s.file("sasl") }

func saslpasswd(prefix string) string { return filepath.Join(prefix, "usr/sbin/saslpasswd2") }

// plainIsThere tells whether the SASL library has its module for AUTH PLAIN.
func plainIsThere() bool {
	for _, pattern := range []string{"/usr/lib/*/sasl2/libplain.so*", "/usr/lib*/sasl2/libplain.so*"} {
		if files, err := filepath.Glob(pattern); err == nil && len(files) > 0 {
			return true
		}
	}
	return false
}

// configureSASL makes a data base of the passwords.
func (s *Sendmail) configureSASL(ctx context.Context) error {
	if err := os.Mkdir(s.saslDir(), 0o755); err != nil {
		return err
	}
	conf := strings.ReplaceAll(saslConf, "DIR", s.saslDir())
	if err := os.WriteFile(filepath.Join(s.saslDir(), "Sendmail.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	db := filepath.Join(s.saslDir(), "sasldb")
	for login, password := range s.options.Passwords {
		user, realm, ok := strings.Cut(login, "@")
		if !ok {
			realm = s.options.Hostname
		}
		cmd := exec.CommandContext(ctx, saslpasswd(s.options.Prefix), "-p", "-c", "-f", db, "-u", realm, user)
		cmd.Stdin = strings.NewReader(password)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("saslpasswd2 %s: %w: %s", login, err, out)
		}
	}
	return nil
}
