package packagetest

import (
	"path/filepath"
	"runtime"
	"strings"
)

// The two sockets that the packages make.
const milterSockets = "/run/authkey/milter.sock /var/spool/postfix/authkey/milter.sock"

// as makes commands those of a user of the machine.
func as(user, script string) string {
	return "setpriv --reuid=" + user + " --regid=" + user + " --init-groups sh -ec '" + strings.ReplaceAll(script, "'", `'\''`) + "'"
}

// refuses wants commands to fail, each for want of permission.
func (m *machine) refuses(user string, commands ...string) {
	m.t.Helper()
	for _, command := range commands {
		out, err := m.try(as(user, command))
		if err == nil || !strings.Contains(out, "ermission denied") && !strings.Contains(out, "not permitted") && !strings.Contains(out, "ead-only file system") {
			m.t.Errorf("user %s may do %s: %v\n%s", user, command, err, out)
		}
	}
}

// hostileUser: what another user of the machine, and whoever has taken over one of the
// services, may not do.
func (u *firstUse) hostileUser() {
	u.run("systemctl is-active authkey-milter authkey-milter.socket authkey-server")
	u.checkSocketsAreClosed()
	u.checkSecretsAreClosed()
	u.checkLinksAreNotFollowed()
	for _, unit := range []string{"authkey-milter", "authkey-server"} {
		u.checkMemoryIsClosed(unit)
	}
	u.checkNoCore()
}

// checkSocketsAreClosed: whoever can connect to the milter can have keys attached, which
// is to say handed out.
func (u *firstUse) checkSocketsAreClosed() {
	const connect = `perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "$!\n"' `
	for socket := range strings.FieldsSeq(milterSockets) {
		u.run(as("postfix", connect+socket)) // or the refusal below would say nothing
		u.refuses("bob", connect+socket)
		u.refuses("authkey-server", connect+socket)
		// Nobody but root may put a socket of his own in its place.
		for _, user := range []string{"bob", "authkey", "authkey-server", "postfix"} {
			u.refuses(user, "rm -f "+socket, "mv "+socket+" "+socket+".old", "ln -s /etc/shadow "+filepath.Dir(socket)+"/link", "mkdir "+filepath.Dir(socket)+"/folder")
		}
	}
}

func (u *firstUse) checkSecretsAreClosed() {
	for _, user := range []string{"bob", "postfix", "authkey", "authkey-server"} {
		u.refuses(user, "ls /etc/authkey/credentials", "cat /etc/authkey/credentials/a.example.secret", "touch /etc/authkey/milter.yaml", "touch /etc/authkey/new",
			"touch /etc/authkey/addresses/a.example", "touch /etc/authkey/addresses/new")
	}
	u.refuses("bob", "ls /etc/authkey/addresses", "ls /var/lib/authkey", "ls /run/credentials/authkey-milter.service/", "ls /run/credentials/authkey-server.service/")
	u.refuses("authkey-server", "ls /var/lib/authkey", "ls /run/credentials/authkey-milter.service/")
	u.refuses("authkey", "ls /run/credentials/authkey-server.service/")
	if out := u.run("find / -xdev \\( -user authkey -o -user authkey-server \\) ! -type l ! -type s -perm /0022 2>/dev/null || true"); out != "" {
		u.t.Errorf("others may write to\n%s", out)
	}
}

// checkLinksAreNotFollowed: links that the milter's user has planted, where it may and
// where older packages let it, and what root does then.
func (u *firstUse) checkLinksAreNotFollowed() {
	const look = "stat -c '%U:%G %a %s %Y' /etc/shadow"
	before := u.value(look)
	// The folder that was the service's, in older packages.
	u.run("chown authkey /run/authkey && rm /run/authkey/milter.sock && " + as("authkey", "ln -s /etc/shadow /run/authkey/milter.sock"))
	u.run(as("authkey", "for n in notified notified.lock notified.new; do ln -sf /etc/shadow /var/lib/authkey/$n; done; ln -s /etc /var/lib/authkey/folder; ln -sf /etc/shadow /run/authkey-milter/link"))
	u.run("/var/lib/dpkg/info/authkey-milter.postinst triggered")
	u.run("/var/lib/dpkg/info/authkey-milter.postinst configure 1.0.0-1")
	if now := u.value(look); now != before {
		u.t.Errorf("root followed a link: /etc/shadow was %s, is %s", before, now)
	}
	u.run("systemctl stop authkey-milter.service authkey-milter.socket; rm -f /var/lib/authkey/*")
	u.start("authkey-milter.socket", "authkey-milter.service")
	if now := u.value(look); now != before {
		u.t.Errorf("root followed a link: /etc/shadow was %s, is %s", before, now)
	}
	if got := u.value("stat -c '%U:%G %a' /run/authkey " + milterSockets); got != "root:root 755\nauthkey:postfix 660\nauthkey:postfix 660" {
		u.t.Errorf("folder and sockets are %s", got)
	}
	u.sendOne(u.key, "unlinked")
}

// checkMemoryIsClosed: another process of the service's user cannot trace it, nor read
// its memory and environment, where keys are.
func (u *firstUse) checkMemoryIsClosed(unit string) {
	ptrace := map[string]string{"amd64": "101", "arm64": "117"}[runtime.GOARCH]
	const seize = "0x4206"
	user := strings.TrimSuffix(unit, "-milter")
	attach := "perl -e 'syscall(" + ptrace + ", " + seize + ", $ARGV[0] + 0, 0, 0) == 0 or die \"$!\\n\"' "
	// As control one that does nothing about it.
	u.run(as(user, "sleep 100 & "+attach+"$!; cat /proc/$!/environ >/dev/null; kill $!"))
	pid := u.value("systemctl show --property=MainPID --value " + unit)
	u.refuses(user, attach+pid, "cat /proc/"+pid+"/environ", "cat /proc/"+pid+"/maps", "head -c 1 /proc/"+pid+"/mem", "ls /proc/"+pid+"/fd")
	if owner := u.value("stat -c %U /proc/" + pid + "/mem"); owner != "root" {
		u.t.Errorf("the memory of %s is %s's", unit, owner)
	}
}

// checkNoCore: a program that dies leaves no core file, also where systemd does not keep
// it from it. As control, one that does nothing about it leaves one, where the kernel
// writes them into the working folder.
func (u *firstUse) checkNoCore() {
	u.write("/home/bob/milter.yaml", "listen: [\"unix:/home/bob/milter.sock\"]\n")
	u.write("/home/bob/die.sh", `ulimit -c unlimited
cd "$1"
shift
GOTRACEBACK=crash "$@" 2>log &
pid=$!
until test -S /home/bob/milter.sock || test "$1" = sleep; do sleep 0.1; done
kill -ABRT $pid
wait $pid || true
`)
	u.run("mkdir /home/bob/control /home/bob/milter && chown -R bob /home/bob/control /home/bob/milter && chown bob /home/bob && ulimit -Hc unlimited")
	u.run(as("bob", "sh /home/bob/die.sh /home/bob/control sleep 100; sh /home/bob/die.sh /home/bob/milter authkey-milter serve --config /home/bob/milter.yaml"))
	pattern := u.value("cat /proc/sys/kernel/core_pattern")
	if names := u.value("ls /home/bob/control"); !strings.HasPrefix(pattern, "|") && !strings.HasPrefix(pattern, "/") && !strings.Contains(names, "core") {
		u.t.Errorf("the control left no core file (%s): %s", pattern, names)
	}
	if names := u.value("ls /home/bob/milter"); names != "log" {
		u.t.Errorf("the milter that died left %s", names)
	}
	if log := readFile(u.t, filepath.Join(u.root, "home/bob/milter/log")); !strings.Contains(log, "SIGABRT") {
		u.t.Errorf("the milter did not die of the signal:\n%s", log)
	}
	u.run("rm -r /home/bob/control /home/bob/milter /home/bob/die.sh /home/bob/milter.*")
}
