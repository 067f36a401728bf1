package packagetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testdaemon"
)

// A profile is what an AppArmor profile says of files and sockets, with what it
// includes. Rules that hold for a file's owner only are left out: they allow less than
// they seem to.
type profile struct {
	attached bool // to a path; false: whoever asks for it by name
	complain bool
	files    []fileRule
	networks map[string]bool // "inet stream"; "netlink" is every kind
}

type fileRule struct {
	path   *regexp.Regexp
	rights string
	deny   bool
}

// allows reports whether every right is given for a path.
func (p *profile) allows(path, rights string) bool {
	for _, right := range rights {
		given := false
		for _, rule := range p.files {
			if strings.ContainsRune(rule.rights, right) && rule.path.MatchString(path) {
				if rule.deny {
					return false
				}
				given = true
			}
		}
		if !given {
			return false
		}
	}
	return true
}

var (
	headLine     = regexp.MustCompile(`^profile\s+(\S+)(\s+/\S+)?\s+(flags=\(([^)]*)\)\s+)?\{$`)
	variableLine = regexp.MustCompile(`^(@\{[^}]+\})\s*\+?=\s*(.*)$`)
	fileLine     = regexp.MustCompile(`^((?:audit |deny |allow |owner )*)"?([/@][^"\s]*)"?\s+([rwaklmixPUCpuc]+)\s*,$`)
	networkLine  = regexp.MustCompile(`^network\s+(\w+)(?:\s+(\w+))?\s*,$`)
)

// parseProfile reads what apparmor_parser --preprocess prints.
func parseProfile(text string) *profile {
	p := &profile{networks: map[string]bool{}}
	variables := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if m := variableLine.FindStringSubmatch(line); m != nil {
			for value := range strings.FieldsSeq(m[2]) {
				variables[m[1]] = append(variables[m[1]], strings.TrimSuffix(strings.Trim(value, `"`), "/"))
			}
		} else if m := headLine.FindStringSubmatch(line); m != nil {
			p.attached, p.complain = m[2] != "", strings.Contains(m[4], "complain")
		} else if m := networkLine.FindStringSubmatch(line); m != nil {
			p.networks[strings.TrimSpace(m[1]+" "+m[2])] = true
		} else if m := fileLine.FindStringSubmatch(line); m != nil && !strings.Contains(m[1], "owner") {
			p.files = append(p.files, fileRule{globExpression(m[2], variables), m[3], strings.Contains(m[1], "deny")})
		}
	}
	return p
}

// globExpression is a path of a rule as a regular expression.
func globExpression(glob string, variables map[string][]string) *regexp.Regexp {
	for strings.Contains(glob, "@{") {
		before := glob
		for name, values := range variables {
			glob = strings.ReplaceAll(glob, name, "{"+strings.Join(values, ",")+"}")
		}
		if glob == before {
			return regexp.MustCompile(`$.^`) // a variable that nobody sets
		}
	}
	var b strings.Builder
	depth := 0
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; {
		case c == '*':
			kind := `[^/]`
			if i+1 < len(glob) && glob[i+1] == '*' {
				i++
				kind = `.`
			}
			if i+1 == len(glob) && strings.HasSuffix(strings.TrimRight(glob, "*"), "/") {
				b.WriteString(kind + "+") // a folder's, not the folder
			} else {
				b.WriteString(kind + "*")
			}
		case c == '?':
			b.WriteString(`[^/]`)
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}':
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		case c == '[' || c == ']' || c == '-' || c == '^':
			b.WriteByte(c)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.MustCompile("^" + b.String() + "$")
}

func TestProfile(t *testing.T) {
	p := parseProfile("@{run}=/run/ /var/run/\n@{pid}={[1-9],[1-9][0-9]}\nprofile x flags=(attach_disconnected) {\n  @{run}/x/{,**} rw,\n" +
		"  /etc/y/* r, \n  deny /etc/y/no r,\n  owner /etc/mine r,\n  /proc/@{pid}/cgroup r,\n  /a/**.so mr,\n  network inet stream,\n  network netlink,\n")
	for _, tc := range []struct {
		path, rights string
		want         bool
	}{
		{"/run/x/", "r", true}, {"/run/x/a/b", "rw", true}, {"/var/run/x/a", "w", true}, {"/run/xa", "r", false},
		{"/etc/y/a", "r", true}, {"/etc/y/a", "rw", false}, {"/etc/y/", "r", false}, {"/etc/y/a/b", "r", false}, {"/etc/y/no", "r", false},
		{"/etc/mine", "r", false}, {"/proc/42/cgroup", "r", true}, {"/proc/x/cgroup", "r", false}, {"/a/b/c.so", "m", true}, {"/a/b/c.so.1", "m", false},
	} {
		if got := p.allows(tc.path, tc.rights); got != tc.want {
			t.Errorf("%s %s: %v", tc.path, tc.rights, got)
		}
	}
	if p.attached || p.complain || !p.networks["inet stream"] || !p.networks["netlink"] {
		t.Errorf("%+v", p)
	}
	if p := parseProfile("profile x /usr/bin/x flags=(complain) {\n"); !p.attached || !p.complain {
		t.Errorf("%+v", p)
	}
}

// readProfile compiles the profile of a program, as it is in its package, and reads it.
func readProfile(t *testing.T, program string) *profile {
	t.Helper()
	file := filepath.Join(unpacked(t, deb(packages.release, program)), "etc/apparmor.d/usr.sbin."+program)
	output(t, "apparmor_parser", "--skip-kernel-load", "--skip-cache", "--abort-on-error", file)
	cmd := exec.Command("apparmor_parser", "--preprocess", file)
	text, err := cmd.Output()
	must(t, err)
	p := parseProfile(string(text))
	if len(p.files) < 50 || len(p.networks) < 4 {
		t.Fatalf("the profile of %s was not understood: %d rules for files, %d for networks", program, len(p.files), len(p.networks))
	}
	return p
}

// TestAppArmor: the profiles can be compiled, enforce, and are the services' only, which
// ask for them: commands that people type read whatever file they are told to.
func TestAppArmor(t *testing.T) {
	for _, program := range programs {
		p := readProfile(t, program)
		if p.complain || p.attached {
			t.Errorf("the profile of %s only complains, or is for whoever runs it: %+v", program, p)
		}
		unit := readFile(t, filepath.Join(unpacked(t, deb(packages.release, program)), "usr/lib/systemd/system", program+".service"))
		if !strings.Contains(unit, "\nAppArmorProfile=-"+program+"\n") {
			t.Errorf("%s.service does not ask for its profile", program)
		}
		for path, rights := range map[string]string{"/etc/shadow": "r", "/etc/authkey/milter.yaml": "w", "/home/bob/x": "r", "/usr/bin/dash": "x", "/var/spool/postfix/maildrop/x": "r"} {
			if p.allows(path, rights) {
				t.Errorf("the profile of %s allows %s %s", program, rights, path)
			}
		}
	}
}

// An access is what strace saw a service do.
type access struct{ program, path, rights, family string }

var (
	traceLine = regexp.MustCompile(`^(\d+)<([^>]*)>\s+(.*)$`)
	openFlags = regexp.MustCompile(`\bO_[A-Z_]+(?:\|O_[A-Z_]+)*`)
	opened    = regexp.MustCompile(`= \d+<([^>]*)>`)
	flocked   = regexp.MustCompile(`^flock\(\d+<([^>]*)>`)
	unixPath  = regexp.MustCompile(`sun_path="([^"]*)"`)
	atPath    = regexp.MustCompile(`(?:AT_FDCWD<[^>]*>|\d+<([^>]*)>), "([^"]*)"`)
	plainPath = regexp.MustCompile(`^\w+\("([^"]*)"`)
	socketOf  = regexp.MustCompile(`^socket\(AF_(\w+), SOCK_(\w+)`)
)

// A tracedCall is a line of strace's.
type tracedCall struct{ program, text string }

// joinTrace reads lines of strace. A call that another one interrupts is on two lines,
// which are joined.
func joinTrace(text string) []tracedCall {
	var all []tracedCall
	begun := map[string]string{}
	for line := range strings.Lines(text) {
		m := traceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		call := m[3]
		if begin, ok := strings.CutSuffix(call, "<unfinished ...>"); ok {
			begun[m[1]] = begin
			continue
		}
		if strings.HasPrefix(call, "<... ") {
			_, rest, _ := strings.Cut(call, "resumed>")
			call = begun[m[1]] + rest
		}
		all = append(all, tracedCall{m[2], call})
	}
	return all
}

// readTrace reads what the services did.
func readTrace(text string) []access {
	var all []access
	for _, c := range joinTrace(text) {
		if !slices.Contains(programs, c.program) {
			continue
		}
		if a, ok := readCall(c.text); ok {
			a.program = c.program
			all = append(all, a)
		}
	}
	return all
}

// executed is the program of an execve.
func executed(call string) string {
	if m := plainPath.FindStringSubmatch(call); m != nil {
		return m[1]
	}
	return ""
}

// readCall reads a system call of those that AppArmor mediates. Looking at a file's
// attributes is always allowed, and so is whatever fails because nothing is there.
func readCall(call string) (access, bool) {
	name, _, _ := strings.Cut(call, "(")
	switch name {
	case "open", "openat":
		m := opened.FindStringSubmatch(call)
		if m == nil {
			return access{}, false
		}
		flags := openFlags.FindString(call)
		rights := "r"
		switch {
		case strings.Contains(flags, "O_RDWR"):
			rights = "rw"
		case strings.Contains(flags, "O_WRONLY"):
			rights = "w"
		}
		return access{path: m[1], rights: rights}, true
	case "flock":
		if m := flocked.FindStringSubmatch(call); m != nil {
			return access{path: m[1], rights: "k"}, true
		}
	case "connect", "bind":
		if m := unixPath.FindStringSubmatch(call); m != nil {
			return access{path: m[1], rights: "rw"}, true
		}
	case "socket":
		if m := socketOf.FindStringSubmatch(call); m != nil {
			return access{family: strings.ToLower(m[1]) + " " + strings.ToLower(m[2])}, true
		}
	case "unlinkat", "renameat", "renameat2", "mkdirat", "linkat", "symlinkat", "fchmodat", "fchownat":
		if m := atPath.FindStringSubmatch(call); m != nil && strings.HasSuffix(call, " = 0") {
			return access{path: filepath.Join("/", m[1], m[2]), rights: "w"}, true
		}
	case "execve", "execveat":
		// systemd's child has the name of the program only once it runs it.
		if path := executed(call); path != "" && !slices.Contains(programs, filepath.Base(path)) {
			return access{path: path, rights: "x"}, true
		}
	}
	return access{}, false
}

func TestReadTrace(t *testing.T) {
	const trace = `12<authkey-milter> execve("/usr/sbin/authkey-milter", ["/usr/sbin/authkey-milter", "serve"], 0x1 /* 1 vars */) = 0
15<authkey-server> execve("/usr/sbin/authkey-server", ["/usr/sbin/authkey-server", "serve"], 0x1 /* 1 vars */) = 0
12<authkey-milter> openat(AT_FDCWD</>, "/proc/self/cgroup", O_RDONLY|O_CLOEXEC) = 3</proc/12/cgroup>
13<systemd> openat(AT_FDCWD</>, "/etc/shadow", O_RDONLY) = 3</etc/shadow>
14<authkey-milter> openat(AT_FDCWD</>, "/var/lib/authkey/n", O_RDWR|O_CREAT, 0600 <unfinished ...>
14<authkey-milter> newfstatat(AT_FDCWD</>, "/etc/x", {}, 0) = 0
14<authkey-milter> <... openat resumed>) = 4</var/lib/authkey/n>
12<authkey-milter> flock(4</var/lib/authkey/n>, LOCK_EX) = 0
15<authkey-server> connect(9<socket:[1]>, {sa_family=AF_UNIX, sun_path="/run/systemd/notify"}, 22) = 0
15<authkey-server> socket(AF_INET6, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_TCP) = 8<socket:[2]>
15<authkey-server> openat(AT_FDCWD</>, "/etc/none", O_RDONLY) = -1 ENOENT (No such file or directory)
12<authkey-milter> renameat(AT_FDCWD</>, "/var/lib/authkey/a", AT_FDCWD</>, "/var/lib/authkey/b") = 0
14<authkey-milter> execve("/bin/sh", ["sh"], 0x1 /* 1 vars */) = 0
`
	want := []access{
		{"authkey-milter", "/proc/12/cgroup", "r", ""}, {"authkey-milter", "/var/lib/authkey/n", "rw", ""}, {"authkey-milter", "/var/lib/authkey/n", "k", ""},
		{"authkey-server", "/run/systemd/notify", "rw", ""}, {"authkey-server", "", "", "inet6 stream"}, {"authkey-milter", "/var/lib/authkey/a", "w", ""},
		{"authkey-milter", "/bin/sh", "x", ""},
	}
	if got := readTrace(trace); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

// everything is a milter.yaml with all that makes the service open files.
const everything = `
mode: enforce
local_domains: [b.example]
preferences: {source: "file:/etc/authkey/preferences"}
verify: {ca_file: /etc/authkey/ca.pem, allow_networks: [127.0.0.0/8, 9.0.0.0/8]}
policy: {fail: discard-notify}
listen: ["unix:/run/authkey-milter/more.sock"]
attach:
  authorize: "map:/etc/authkey/logins"
  domains:
    - domain: a.example
      source: secret:/etc/authkey/credentials/a.example.secret
      addresses: file:/etc/authkey/addresses/a.example
`

// confinement: what the services really open, traced by strace while they do all that
// they do, is allowed by their profiles.
func (u *firstUse) confinement() {
	u.configureEverything()
	trace := filepath.Join(u.t.TempDir(), "trace")
	strace, err := testdaemon.Start(exec.Command("strace", "--follow-forks", "--decode-fds=path", "--decode-pids=comm", "--string-limit=300",
		"--trace=%file,%network,flock", "--output="+trace, "--attach="+strconv.Itoa(u.pid)), filepath.Join(u.t.TempDir(), "strace"), "")
	must(u.t, err)
	must(u.t, strace.Ready(u.t.Context(), func() bool { return strings.Contains(string(strace.Log()), "attached") }))
	defer func() {
		if err := strace.Stop(); err != nil {
			u.t.Log(err)
		}
	}()
	// Not by systemctl reload, nor by the hook: the check that it runs first is root's, and
	// not confined.
	u.run("systemctl stop authkey-milter authkey-server")
	u.start("authkey-milter", "authkey-server")
	u.run("kill -HUP $(systemctl show --property=MainPID --value authkey-milter authkey-server)")
	u.sendOne(u.key, "traced")
	u.send(senderJob{Messages: 1, Workers: 1, Key: strings.Repeat("x", 40), Prefix: "noticed", Once: true}, nil)
	since := u.value("date '+%F %T'")
	u.run("authkey-server address add carol@a.example && echo '# changed' >> /etc/authkey/preferences && mkdir -p /root/nothing && ln -sf /bin/true /root/nothing/systemctl && " +
		strings.Replace(deployHook, "RENEWED", "PATH=/root/nothing:$PATH RENEWED_DOMAINS=as.a.example RENEWED", 1) + " && kill -HUP $(systemctl show --property=MainPID --value authkey-server)")
	u.await("journalctl --unit=authkey-server --since='" + since + "' --output=cat | grep 'addresses=2' && journalctl --unit=authkey-milter --since='" + since + "' --output=cat | grep 'addresses=2'")
	u.run("systemctl stop authkey-milter authkey-server")
	must(u.t, strace.Stop())

	text, err := os.ReadFile(trace)
	must(u.t, err)
	seen := u.checkAccesses(readTrace(string(text)))
	for _, want := range []string{"authkey-milter /etc/authkey/milter.yaml r", "authkey-milter /etc/authkey/preferences r", "authkey-milter /var/lib/authkey/notified rw",
		"authkey-milter /run/systemd/notify rw", "authkey-milter /run/authkey-milter/more.sock rw", "authkey-milter /etc/authkey/logins r",
		"authkey-server /etc/authkey/server.yaml r", "authkey-server /etc/authkey/tls/privkey.pem r", "authkey-server /etc/authkey/addresses/a.example r"} {
		if !seen[want] {
			u.t.Errorf("the trace lacks %s: it was not all that they do", want)
		}
	}
	u.write("/etc/authkey/milter.yaml", enforcing)
	u.start("authkey-milter", "authkey-server")
	u.sendOne(u.key, "untraced")
}

// checkAccesses holds accesses against the profiles, and returns them as text.
func (u *firstUse) checkAccesses(all []access) map[string]bool {
	profiles := map[string]*profile{}
	for _, program := range programs {
		profiles[program] = readProfile(u.t, program)
	}
	seen := map[string]bool{}
	for _, a := range all {
		text := strings.TrimSpace(fmt.Sprintf("%s %s %s%s", a.program, a.path, a.rights, a.family))
		if seen[text] {
			continue
		}
		seen[text] = true
		p := profiles[a.program]
		family, _, _ := strings.Cut(a.family, " ")
		if a.family != "" && !p.networks[a.family] && !p.networks[family] || a.path != "" && !p.allows(a.path, a.rights) {
			u.t.Errorf("the profile does not allow: %s", text)
		}
	}
	return seen
}

const deployHook = "RENEWED_LINEAGE=/etc/letsencrypt/live/as.a.example /usr/share/doc/authkey-server/examples/certbot-deploy-hook"

// configureEverything has the certificate in folders of certbot's modes, from where the
// deploy hook takes it.
func (u *firstUse) configureEverything() {
	u.run(`mkdir -p -m 0700 /etc/letsencrypt
		cd /etc/letsencrypt
		mkdir -p archive/as.a.example live/as.a.example && chmod 0700 archive live
		openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=as.a.example -addext subjectAltName=DNS:as.a.example -keyout archive/as.a.example/privkey1.pem -out archive/as.a.example/fullchain1.pem -days 30 2>/dev/null
		chmod 0600 archive/as.a.example/privkey1.pem
		for name in privkey fullchain; do ln -s ../../archive/as.a.example/${name}1.pem live/as.a.example/$name.pem; done
		cp live/as.a.example/fullchain.pem /etc/authkey/ca.pem`)
	u.run("RENEWED_DOMAINS='www.a.example a.example' " + deployHook)
	if u.exists("/etc/authkey/tls") {
		u.t.Error("the deploy hook took the certificate of another host")
	}
	u.run("RENEWED_DOMAINS='www.a.example as.a.example' " + deployHook)
	if got := u.value("cd /etc/authkey/tls && stat -c '%U:%G %a %n' . .* * | grep -v '\\.\\.' | sort -u"); got != "root:authkey-server 640 fullchain.pem\nroot:authkey-server 640 privkey.pem\nroot:authkey-server 750 ." {
		u.t.Errorf("the deploy hook made %s", got)
	}
	u.run(`cd /etc/authkey
		echo 'listen: ["tcp:7425", "tls:7426"]
tls: {cert: /etc/authkey/tls/fullchain.pem, key: /etc/authkey/tls/privkey.pem}' >> server.yaml
		echo 'bob@b.example bob@a.example' > logins
		echo '# nobody has any' > preferences`)
	u.write("/etc/authkey/milter.yaml", everything)
	u.run("authkey-milter check && authkey-server check")
}
