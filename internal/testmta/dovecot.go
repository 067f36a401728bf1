package testmta

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/authkey/authkey/internal/testdaemon"
)

// EnsureDovecot installs Debian's dovecot-core where it is missing, without starting
// it, and tells logf before. It returns testdaemon.ErrNotInstalled where it cannot, and
// under systemd, which would start it at the next boot.
func EnsureDovecot(ctx context.Context, logf testdaemon.Logf) error {
	return testdaemon.Ensure(ctx, logf, "dovecot", testdaemon.Installation{Packages: []string{"dovecot-core"}, Service: true})
}

// EnsureReaders installs programs and libraries that read the header of messages, where
// one is missing: Dovecot's IMAP server, Python, Email::Address::XS for Perl, nodemailer
// for Node.js. It tells logf before, and starts nothing; errors as EnsureDovecot's.
func EnsureReaders(ctx context.Context, logf testdaemon.Logf) error {
	if err := EnsureDovecot(ctx, logf); err != nil {
		return err
	}
	for _, file := range []string{"/usr/lib/dovecot/imap", "/usr/bin/python3", "/usr/share/nodejs/nodemailer/package.json", "/usr/bin/node"} {
		if _, err := os.Stat(file); err != nil {
			return installReaders(ctx, logf)
		}
	}
	if err := exec.CommandContext(ctx, "/usr/bin/perl", "-MEmail::Address::XS", "-e1").Run(); err != nil {
		return installReaders(ctx, logf)
	}
	return nil
}

func installReaders(ctx context.Context, logf testdaemon.Logf) error {
	return testdaemon.Install(ctx, logf, testdaemon.Installation{
		Packages: []string{"dovecot-imapd", "python3", "libemail-address-xs-perl", "nodejs", "node-nodemailer"}})
}

// EnsureSieve installs Debian's dovecot-sieve, for sieve-test(1), where it is missing;
// otherwise it is as EnsureDovecot.
func EnsureSieve(ctx context.Context, logf testdaemon.Logf) error {
	return testdaemon.Ensure(ctx, logf, "sieve-test", testdaemon.Installation{Packages: []string{"dovecot-sieve"}, Service: true})
}

// sieveConf lets sieve-test(1) run a script, for nobody's mail.
const sieveConf = "log_path = /dev/stderr\nssl = no\nmail_location = maildir:DIR/mail\nmail_uid = nobody\nmail_gid = nogroup\n" +
	"base_dir = DIR/run\nplugin {\n  sieve = file:DIR/none.sieve\n}\n"

// Sieve runs a script in Dovecot's Pigeonhole on each of messages, and returns the
// folders that it files them into. Nothing is delivered.
func Sieve(ctx context.Context, script string, messages ...[]byte) (folders [][]string, err error) {
	dir, err := testdaemon.TempDir("authkey-sieve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{"conf": strings.ReplaceAll(sieveConf, "DIR", dir), "test.sieve": script} {
		if err := os.WriteFile(file(name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	// The owner of the mail compiles the script anew each time: it may not write here.
	for _, m := range messages {
		if err := os.WriteFile(file("message"), m, 0o644); err != nil {
			return nil, err
		}
		out, err := exec.CommandContext(ctx, "sieve-test", "-c", file("conf"), file("test.sieve"), file("message")).Output()
		if err != nil {
			return nil, fmt.Errorf("sieve-test: %w: %s", err, out)
		}
		var into []string
		for line := range strings.Lines(string(out)) {
			if folder, ok := strings.CutPrefix(strings.TrimSpace(line), "* store message in folder: "); ok {
				into = append(into, folder)
			}
		}
		folders = append(folders, into)
	}
	return folders, nil
}

// A Dovecot is a running private Dovecot 2.3 which knows passwords, for the
// smtpd_sasl_path of a Postfix, and serves no mail.
type Dovecot struct {
	*testdaemon.Daemon
	socket string
}

// dovecotConf is the configuration of a Dovecot in the folder DIR.
const dovecotConf = `base_dir = DIR/run
state_dir = DIR/state
instance_name = authkey-test
log_path = /dev/stderr
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_verbose = yes
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN DIR/users
}
service auth {
  unix_listener DIR/auth {
    mode = 0660
    user = postfix
    group = postfix
  }
}
`

// StartDovecot starts a Dovecot with these passwords by login, and returns when it can
// be asked. config are further lines of its configuration.
func StartDovecot(ctx context.Context, passwords map[string]string, config ...string) (*Dovecot, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("start Dovecot: %w", ErrNotRoot)
	}
	var users strings.Builder
	for login, password := range passwords {
		fmt.Fprintf(&users, "%s:%s\n", login, password)
	}
	d := &Dovecot{}
	var err error
	d.Daemon, err = testdaemon.StartDaemon(ctx, "dovecot", func(dir string) ([]string, error) {
		d.socket = filepath.Join(dir, "auth")
		if err := os.Mkdir(filepath.Join(dir, "state"), 0o755); err != nil {
			return nil, err
		}
		// Dovecot's own user reads it.
		if err := os.WriteFile(filepath.Join(dir, "users"), []byte(users.String()), 0o644); err != nil {
			return nil, err
		}
		conf := filepath.Join(dir, "dovecot.conf")
		text := strings.ReplaceAll(dovecotConf, "DIR", dir) + strings.Join(config, "\n") + "\n"
		return []string{"-F", "-c", conf}, os.WriteFile(conf, []byte(text), 0o644)
	}, func() bool { return testdaemon.Listens("unix", d.socket) })
	if err != nil {
		return nil, err
	}
	return d, nil
}

// AuthSocket is the path for smtpd_sasl_path.
func (d *Dovecot) AuthSocket() string { return d.socket }
