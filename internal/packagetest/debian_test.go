package packagetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A debian is a release that the tests boot, and what its base is made of. Postfix's
// archive is kept, to be installed once more.
type debian struct {
	suite   string
	include string
}

var (
	debian12 = debian{"bookworm", "systemd,systemd-sysv,init-system-helpers,adduser,procps,dbus,ca-certificates,postfix,dnsmasq-base,iproute2,dovecot-core,opendkim"}
	debian13 = debian{"trixie", "systemd,systemd-sysv,init-system-helpers,adduser,procps,dbus,ca-certificates,postfix,dnsmasq-base,iproute2"}
	debians  = []debian{debian12, debian13}
)

// finish is done in every base.
const finish = `
		set -e
		cd /var/cache/apt/archives
		find . -name '*.deb' ! -name 'postfix_*' -delete
		: > /etc/machine-id
		rm -f /var/lib/dbus/machine-id
		echo mx.b.example > /etc/hostname
		useradd --create-home bob
		for unit in dovecot opendkim; do
			if [ -e /lib/systemd/system/$unit.service ]; then systemctl disable $unit; fi
		done
		postconf -e myhostname=mx.b.example 'mydestination=b.example, $myhostname, localhost' \
			home_mailbox=Maildir/ smtpd_tls_security_level=none smtp_tls_security_level=none inet_protocols=ipv4 biff=no
		newaliases`

// base is where the release lies in the user's cache folder. It is only read.
func (d debian) base() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(d.include + finish))
	return filepath.Join(cache, "authkey-packagetest", fmt.Sprintf("%s-%x", d.suite, sum[:4])), nil
}

// ensureDebian makes the base of a release, where it is missing.
func ensureDebian(ctx context.Context, say testdaemon.Logf, d debian) error {
	base, err := d.base()
	if err != nil {
		return err
	}
	dir := filepath.Dir(base)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(dir, d.suite+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(base); err == nil {
		return nil
	}
	say("making a Debian of the tests' own in %s (debootstrap, some minutes)", base)
	work, err := os.MkdirTemp(dir, "making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "--include="+d.include, d.suite, work),
		exec.CommandContext(ctx, "chroot", work, "sh", "-c", finish),
	} {
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd.Args[0], err, out)
		}
	}
	return os.Rename(work, base)
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// unmountScript takes down what newRoot made in the folder $1. systemd-nspawn leaves a
// lock file there.
const unmountScript = `umount -l "$1/root" "$1/memory" && rm -f "$1"/.#*.lck && rmdir "$1/root" "$1/memory" "$1"`

// newRoot is a copy of a release to be written to, in memory. It ends with the test.
func newRoot(t *testing.T, d debian) string {
	t.Helper()
	base, err := d.base()
	must(t, err)
	dir, err := testdaemon.TempDir("authkey-root-")
	must(t, err)
	guard, err := testdaemon.NewGuard(unmountScript, dir)
	must(t, err)
	root, memory := filepath.Join(dir, "root"), filepath.Join(dir, "memory")
	t.Cleanup(func() {
		if out, err := exec.Command("sh", "-c", unmountScript, "sh", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v\n%s", err, out)
		}
		if err := guard.Release(); err != nil {
			t.Error(err)
		}
	})
	must(t, errors.Join(os.Mkdir(root, 0o755), os.Mkdir(memory, 0o755)))
	must(t, syscall.Mount("tmpfs", memory, "tmpfs", 0, "mode=0755"))
	upper, work := filepath.Join(memory, "upper"), filepath.Join(memory, "work")
	must(t, errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)))
	must(t, syscall.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, upper, work)))
	return root
}
