package testmta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/authkey/authkey/internal/testdaemon"
)

// PostfixDebconf has Debian's postfix come without a configuration, in the syntax of
// debconf-set-selections(1).
const PostfixDebconf = "postfix postfix/main_mailer_type select No configuration"

// EnsurePostfix installs Debian's Postfix where it is missing, with no
// configuration, so that it neither starts nor receives mail, and tells logf
// before. It returns ErrNoPostfix where it cannot, and where it would have to
// replace another mail system or meet an old configuration in /etc/postfix.
func EnsurePostfix(ctx context.Context, logf testdaemon.Logf) error {
	if _, err := postfixCommand(); err == nil {
		return nil
	}
	// With a main.cf left from former times the package would start Postfix.
	if _, err := os.Stat("/etc/postfix/main.cf"); err == nil {
		return fmt.Errorf("%w: not installing it beside the configuration in /etc/postfix", ErrNoPostfix)
	}
	err := testdaemon.Install(ctx, logf, testdaemon.Installation{
		Packages: []string{"postfix"},
		Debconf:  PostfixDebconf,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoPostfix, err)
	}
	_, err = postfixCommand()
	return err
}

// postfixCommand finds postfix(1), also where PATH lacks /usr/sbin.
func postfixCommand() (string, error) {
	for _, name := range []string{"postfix", "/usr/sbin/postfix", "/usr/local/sbin/postfix"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoPostfix
}

// sendmailPackages are unpacked, never installed: they conflict with Postfix, but for
// the last one, whose saslpasswd2(8) is all that is wanted.
var sendmailPackages = []string{"sendmail-bin", "sendmail-base", "sendmail-cf", "sasl2-bin"}

// EnsureSendmail downloads and unpacks Debian's Sendmail below the user's cache
// folder and returns where; the machine's mail system does not change. It
// installs m4 and the libraries libwrap0 and libsasl2-modules where they are missing. What it does it
// tells logf before. It returns ErrNoSendmail where it cannot.
func EnsureSendmail(ctx context.Context, logf testdaemon.Logf) (prefix string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoSendmail, err)
	}
	prefix = filepath.Join(cache, "authkey-testmta", "sendmail")
	if err := ensureSendmail(ctx, logf, prefix); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoSendmail, err)
	}
	return prefix, nil
}

func ensureSendmail(ctx context.Context, logf testdaemon.Logf, prefix string) error {
	for _, program := range []string{sendmailBinary(prefix), saslpasswd(prefix)} {
		if _, err := os.Stat(program); err == nil {
			continue
		}
		if err := testdaemon.Unpack(ctx, logf, prefix, sendmailPackages...); err != nil {
			return err
		}
	}
	var missing []string
	if _, err := exec.LookPath("m4"); err != nil {
		missing = append(missing, "m4")
	}
	if !sendmailRuns(ctx, prefix) {
		missing = append(missing, "libwrap0")
	}
	if !plainIsThere() {
		missing = append(missing, "libsasl2-modules")
	}
	if len(missing) > 0 {
		if err := testdaemon.Install(ctx, logf, testdaemon.Installation{Packages: missing}); err != nil {
			return err
		}
	}
	if !sendmailRuns(ctx, prefix) {
		return errors.New("a library that sendmail needs is missing")
	}
	return nil
}

func sendmailBinary(prefix string) string {
	return filepath.Join(prefix, "usr/libexec/sendmail/sendmail")
}

// sendmailRuns tells whether all libraries are there.
func sendmailRuns(ctx context.Context, prefix string) bool {
	out, err := exec.CommandContext(ctx, "ldd", sendmailBinary(prefix)).Output()
	return err == nil && !bytes.Contains(out, []byte("not found"))
}
