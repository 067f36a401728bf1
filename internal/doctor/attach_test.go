package doctor

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/internal/testdaemon"
)

// milterUser is as whom the milter of a sender runs.
const milterUser = "daemon"

// A sender is a machine that attaches keys, from copies of the server's files.
type sender struct {
	*machine
	dir, secret, list, logins string
}

func (c *site) sender(t *testing.T) *sender {
	t.Helper()
	p := c.machine(t)
	dir, err := testdaemon.TempDir("authkey-sender-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &sender{p, dir, filepath.Join(dir, "own.test.secret"), filepath.Join(dir, "own.test"), filepath.Join(dir, "logins")}
	from := filepath.Join(c.world.Dir, "domain-"+ownDomain)
	for to, name := range map[string]string{s.secret: "secret", s.list: "addresses"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		must(t, err)
		must(t, os.WriteFile(to, b, 0o600))
	}
	must(t, os.WriteFile(s.logins, []byte("alice@own.test alice\n"), 0o644))
	s.own(s.secret)
	s.own(s.list)
	p.options.Service.User = milterUser
	p.yaml += fmt.Sprintf("attach:\n  authorize: \"map:%s\"\n  domains:\n    - domain: %s\n      source: secret:%s\n      addresses: file:%s\n", s.logins, ownDomain, s.secret, s.list)
	p.postconf("-M", "submission/inet=submission inet n - n - - smtpd")
	return s
}

// own gives a file to the milter's user.
func (s *sender) own(path string) {
	s.t.Helper()
	u, err := user.Lookup(milterUser)
	must(s.t, err)
	uid, err := strconv.Atoi(u.Uid)
	must(s.t, err)
	must(s.t, os.Chown(path, uid, 0))
}

// write replaces what a file says, and keeps its owner and mode.
func (s *sender) write(path, text string) {
	s.t.Helper()
	must(s.t, os.WriteFile(path, []byte(text), 0o600))
}

func (s *sender) read(path string) string {
	s.t.Helper()
	b, err := os.ReadFile(path)
	must(s.t, err)
	return string(b)
}

// attachAny has the keys of every local part of another domain made.
func (s *sender) attachAny(domain string) {
	s.yaml = strings.NewReplacer("domain: "+ownDomain, "domain: "+domain, "file:"+s.list, "any").Replace(s.yaml)
}

// freshSecret is a secret file of nobody's.
func (s *sender) freshSecret() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "fresh")
	_, err := keyring.CreateSecret(path)
	must(s.t, err)
	return s.read(path)
}

// passed has systemd pass copies of the secrets, which are root's.
func (s *sender) passed(text string) {
	s.t.Helper()
	must(s.t, os.Chown(s.secret, 0, 0))
	s.options.Service.Passed, s.options.Service.Copies = []string{s.dir}, s.t.TempDir()
	if text != "" {
		must(s.t, os.WriteFile(s.options.Service.copyOf(s.secret), []byte(text), 0o400))
	}
}

// later is a clock that is off.
func later(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

const day = 24 * time.Hour

// TestPlantedFaultsOfAttaching is TestPlantedFaults for the sender's side.
func TestPlantedFaultsOfAttaching(t *testing.T) {
	t.Parallel()
	c := newSite(t)
	for _, tc := range []struct {
		name  string
		plant func(s *sender)
		check string
		what  string
		mend  string
		works bool
	}{
		{name: "nothing", plant: func(*sender) {}},
		{name: "by login", plant: func(s *sender) { s.yaml = strings.Replace(s.yaml, `"map:`+s.logins+`"`, "login", 1) }},
		{name: "secret passed by systemd", plant: func(s *sender) { s.passed(s.read(s.secret)) }},
		{name: "not running", plant: func(s *sender) {
			s.passed("")
			s.options.Service.Copies += "/none"
		}},
		{name: "secret that only systemd has", plant: func(s *sender) {
			s.passed(s.read(s.secret))
			must(s.t, os.Remove(s.secret))
		}},
		{name: "OpenDKIM as it comes", plant: func(s *sender) {
			s.signs("Mode sv\nOversignHeaders From\nSignHeaders *,X-Auth-Key\n")
		}},
		{name: "OpenDKIM that omits it", plant: func(s *sender) { s.signs("SignHeaders *,+X-Auth-Key\nOmitHeaders *,+x-auth-key\n") }},
		{name: "OpenDKIM that nobody can read", plant: func(s *sender) { s.signs(""); must(s.t, os.Remove(s.openDKIM)) }},

		{"no secret", func(s *sender) { must(s.t, os.Remove(s.secret)) }, CheckSecret, "there is no secret file ", "install -m 0600 FILE ", false},
		{"secret for everybody", func(s *sender) { must(s.t, os.Chmod(s.secret, 0o644)) }, CheckSecret, "which has mode 0644", "chmod 0600 ", true},
		{"secret for a group", func(s *sender) { must(s.t, os.Chmod(s.secret, 0o640)) }, CheckSecret, "which has mode 0640", "chmod 0600 ", true},
		{"secret of root", func(s *sender) { must(s.t, os.Chown(s.secret, 0, 0)) }, CheckSecret, "the milter's user daemon may not read the secret file: ", "chown daemon ", true},
		{"folder of root", func(s *sender) {
			// A folder of its own: the list stays where it is.
			dir := filepath.Join(s.dir, "credentials")
			must(s.t, os.Mkdir(dir, 0o700))
			must(s.t, os.Rename(s.secret, filepath.Join(dir, "secret")))
			s.yaml = strings.Replace(s.yaml, s.secret, dir+"/secret", 1)
		}, CheckSecret, "credentials has mode 0700", "chmod g+x ", true},
		{"bad secret", func(s *sender) { s.write(s.secret, "k1 c2hvcnQ=\n") }, CheckSecret, "own.test.secret: line 1: secret is not 32 octets", "install -m 0600 FILE ", false},
		{"secret replaced while the milter runs", func(s *sender) { s.passed(s.freshSecret()) }, CheckSecret, "was changed after the milter was started", "systemctl restart authkey-milter", false},
		{"secret put there while the milter runs", func(s *sender) { s.passed("") }, CheckSecret, "the milter was started before ", "systemctl restart authkey-milter", false},

		{"no list", func(s *sender) { must(s.t, os.Remove(s.list)) }, CheckAddresses, "there is no address list ", "install -m 0644 FILE ", false},
		{"list of root", func(s *sender) { must(s.t, os.Chown(s.list, 0, 0)) }, CheckAddresses, "may not read the address list: ", "chmod g+r ", true},
		{"bad list", func(s *sender) { s.write(s.list, "alice\nbob carol\n") }, CheckAddresses, "own.test: line 2: ", "install -m 0644 FILE ", false},
		{"empty list", func(s *sender) { s.write(s.list, "# nobody\n") }, CheckAddresses, "has no address", "authkey-server address add ", false},

		{"no map", func(s *sender) { must(s.t, os.Remove(s.logins)) }, CheckAuthorize, "there is no map of logins ", "systemctl reload authkey-milter", false},
		{"bad map", func(s *sender) { s.write(s.logins, "alice@own.test alice\nnobody\n") }, CheckAuthorize, "logins: line 2: ", "correct the line", false},
		{"map of root", func(s *sender) { must(s.t, os.Chmod(s.logins, 0o600)) }, CheckAuthorize, "may not read the map of logins: ", "chmod g+r ", true},

		{"another secret", func(s *sender) { s.write(s.secret, s.freshSecret()) }, CheckKey, "the secret here is another one, or avt, ", "authkey-server init own.test", false},
		{"secret that the server does not have yet", func(s *sender) { s.write(s.secret, s.freshSecret()+s.read(s.secret)) }, CheckKey, "does not have the secret that makes keys here, only ", "on the Authentication Server first", false},
		{"any here, a list there", func(s *sender) { s.attachAny(ownDomain) }, CheckKey, "every local part is an address here, and perhaps not there; or the secret here is another one", "prints the attach section that fits", false},
		{"another avt", func(s *sender) { s.yaml += "      avt: 12h\n" }, CheckKey, "the secret here is another one, or avt, ", "prints the attach section that fits", false},
		{"revoked on the server", func(s *sender) {
			old := s.read(s.list)
			must(s.t, s.world.Revoke(ownDomain, "alice"))
			s.write(s.list, old)
		}, CheckKey, "has revoked keys of alice@own.test that the list here still makes", "copy the address list of the Authentication Server", false},
		{"revoked here only", func(s *sender) {
			must(s.t, keyring.ListFile{Path: s.list, Form: keyring.Form{Domain: ownDomain, Subaddress: "+"}}.Revoke(s.t.Context(), "alice"))
		}, CheckKey, "has an older address list: alice@own.test is gen=", "to the Authentication Server", false},
		{"not in the server's list", func(s *sender) { s.write(s.list, s.read(s.list)+"dave\n") }, CheckKey, "refuses the key of dave@own.test, and accepts those of others", "authkey-server address list own.test", false},
		{"clock ahead", func(s *sender) { s.options.Now = later(2 * day) }, CheckKey, "the clock here is ahead of that of 127.0.0.1:", "timedatectl set-ntp true", false},
		{"clock behind", func(s *sender) {
			s.options.Now, s.configAge = later(-2*day), 3*day
		}, CheckKey, "the clock here is behind that of 127.0.0.1:", "timedatectl set-ntp true", false},
		{"clock far behind", func(s *sender) {
			s.options.Now, s.configAge = later(-9*day), 10*day
		}, CheckKey, "the clock here is behind that of 127.0.0.1:", "timedatectl set-ntp true", false},

		{"no record", func(s *sender) {
			s.attachAny("none.test")
		}, CheckAS, "none.test publishes no Authentication Server, and its mail gets keys", "authkey-server dns none.test", false},
		{"server is down", func(s *sender) {
			must(s.t, s.world.Publish("down.test", "AS="+deadAddr(s.t)))
			s.attachAny("down.test")
		}, CheckAS, "down.test: Authentication Server 127.0.0.1:", "systemctl status authkey-server", false},

		{"submission with a list of its own", func(s *sender) {
			s.postconf("-P", "submission/inet/smtpd_milters=unix:opendkim/opendkim.sock")
		}, CheckListed, "submission/inet does not have the milter in smtpd_milters, and attach.domains is set", "submission/inet/smtpd_milters=unix:authkey", true},
		{"submission switches it off", func(s *sender) { s.postconf("-P", "submission/inet/smtpd_milters=") },
			CheckListed, "submission/inet has -o smtpd_milters= in master.cf, which switches the milter off", "submission/inet/smtpd_milters=unix:authkey", true},
		{"submission has no_milters", func(s *sender) {
			s.postconf("-P", "submission/inet/receive_override_options=no_milters,no_address_mappings")
		}, CheckListed, "submission/inet has no_milters in receive_override_options", "submission/inet/receive_override_options=no_address_mappings", true},
		{"port 465 without it", func(s *sender) {
			s.postconf("-M", "submissions/inet=submissions inet n - n - - smtpd")
			s.postconf("-P", "submissions/inet/smtpd_milters=")
		}, CheckListed, "submissions/inet has -o smtpd_milters=", "submissions/inet/smtpd_milters=unix:authkey", true},
		{"a signer before it", func(s *sender) {
			s.signs("Mode sv\n")
			s.postconf("-P", "submission/inet/smtpd_milters=unix:opendkim/opendkim.sock,"+s.entry())
		}, CheckOrder, "submission/inet runs authkey after unix:opendkim/opendkim.sock", "submission/inet/smtpd_milters=unix:authkey", true},

		{"OpenDKIM signs it", func(s *sender) { s.signs("SignHeaders From,Subject,x-auth-key\n") },
			CheckSigner, "OpenDKIM signs X-Auth-Key: SignHeaders in ", "take X-Auth-Key out of SignHeaders", false},
		{"OpenDKIM signs it as well", func(s *sender) { s.signs("SignHeaders From\nSignHeaders\t*,+X-Auth-Key # too\n") },
			CheckSigner, "OpenDKIM signs X-Auth-Key: SignHeaders in ", "systemctl restart opendkim", false},
		{"OpenDKIM signs what a file lists", func(s *sender) {
			list := filepath.Join(s.dir, "signed")
			must(s.t, os.WriteFile(list, []byte("From\nX-Auth-Key\n"), 0o644))
			s.signs("SignHeaders file:" + list + "\n")
		}, CheckSigner, "OpenDKIM signs X-Auth-Key: SignHeaders in ", "systemctl restart opendkim", false},
		{"OpenDKIM oversigns it", func(s *sender) { s.signs("OmitHeaders *,+X-Auth-Key\nOversignHeaders From,X-Auth-Key\n") },
			CheckSigner, "OpenDKIM signs X-Auth-Key: OversignHeaders in ", "take X-Auth-Key out of OversignHeaders", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := c.sender(t)
			tc.plant(s)
			s.checkFound(tc.check, tc.what, tc.mend, tc.works)
		})
	}
}

// signs puts OpenDKIM behind the milter on submission, and before it elsewhere.
func (s *sender) signs(conf string) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.openDKIM, []byte(conf), 0o644))
	const dkim = "unix:opendkim/opendkim.sock"
	s.postconf("-e", "smtpd_milters = "+dkim+", "+s.entry())
	s.postconf("-P", "submission/inet/smtpd_milters="+s.entry()+","+dkim)
}

// TestHealthySender says what is looked at where nothing is wrong, and that no key and
// no secret shows.
func TestHealthySender(t *testing.T) {
	t.Parallel()
	c := newSite(t)
	s := c.sender(t)
	s.signs("Mode sv\n")
	found := s.examine()
	said := map[string]string{}
	for _, f := range found {
		said[f.Check] += f.What + "\n"
	}
	for check, want := range map[string]string{
		CheckSecret:    "own.test: the milter may read " + s.secret + ", and nobody else\n",
		CheckAddresses: "own.test: the milter may read " + s.list + ": 1 in the list\n",
		CheckAuthorize: s.logins + " says who may use which address\n",
		CheckKey:       fmt.Sprintf("own.test: 127.0.0.1:%d accepts the keys that are made here (asked about 1)\n", c.asPort),
		CheckSigner:    "OpenDKIM does not sign X-Auth-Key\n",
	} {
		if said[check] != want {
			t.Errorf("%s: %q, want %q", check, said[check], want)
		}
	}
	for _, want := range []string{"smtpd_milters has it for ", "submission/inet"} {
		if !strings.Contains(said[CheckListed], want) {
			t.Errorf("%s: %q", CheckListed, said[CheckListed])
		}
	}
	key, err := c.world.Key("alice@" + ownDomain)
	must(t, err)
	secret := strings.Fields(s.read(s.secret))
	if out := text(t, found); strings.Contains(out, key) || strings.Contains(out, secret[len(secret)-1]) {
		t.Error("a key or a secret shows")
	}
	s.postconf("-MX", "submission/inet")
	if out := text(t, s.examine()); !strings.Contains(out, "master.cf has no submission service") {
		t.Errorf("without submission:\n%s", out)
	}
}

func TestReadEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	for _, n := range []int{1, 99, 100, 101, 1000, 12345} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "u%d gen=%d\n", i, i)
		}
		must(t, os.WriteFile(path, []byte(b.String()), 0o644))
		k, err := readEntries(keyring.ListFile{Path: path, Form: keyring.Form{Domain: "a.test"}})
		must(t, err)
		if k.all != n || len(k.sample) > maxAsked || len(k.sample) < min(n, maxAsked/2) {
			t.Errorf("%d: %d, of which %d", n, k.all, len(k.sample))
		}
		step := n
		for i, m := range k.sample {
			if m.address.Local() != fmt.Sprint("u", m.generation) {
				t.Fatalf("%d: %s is gen=%d", n, m.address, m.generation)
			}
			if i == 1 {
				step = int(m.generation)
			}
			if int(m.generation) != i*step && i > 0 {
				t.Fatalf("%d: not evenly spread: %d is %d", n, i, m.generation)
			}
		}
	}
}

func TestParseService(t *testing.T) {
	const copies = "/run/credentials/authkey-milter.service"
	for _, tc := range []struct {
		properties, files string
		want              Service
	}{
		{"LoadState=not-found\nUser=\n", "", Service{}},
		{"LoadState=loaded\nUser=\n", "[Service]\n# LoadCredential=authkey:/x\n", Service{User: "root", Copies: copies}},
		{"User=authkey\nLoadState=loaded\n", "LoadCredential=other:/x\nLoadCredential = authkey:/etc/authkey/credentials/\n",
			Service{User: "authkey", Passed: []string{"/etc/authkey/credentials"}, Copies: copies}},
		{"LoadState=loaded\nUser=authkey\n", "LoadCredential=authkey:/x\nLoadCredential=\nLoadCredential=authkey:/y\n", Service{User: "authkey", Passed: []string{"/y"}, Copies: copies}},
		{"LoadState=loaded\nUser=authkey\nRuntimeDirectory=authkey more\nProtectHome=yes\nPrivateTmp=no\n" +
			"ExecStart={ path=/usr/sbin/authkey-milter ; argv[]=/usr/sbin/authkey-milter serve --config /etc/x.yaml ; ignore_errors=no ; start_time=[n/a] }\n", "",
			Service{User: "authkey", Copies: copies, RuntimeDir: "/run/authkey", ConfigFile: "/etc/x.yaml", Hidden: []string{"/home", "/root", "/run/user"}}},
	} {
		if diff := cmp.Diff(tc.want, parseService(tc.properties, tc.files)); diff != "" {
			t.Errorf("%q, %q: %s", tc.properties, tc.files, diff)
		}
	}
}

// TestFindService asks a systemctl of the test's own.
func TestFindService(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if got := FindService(t.Context()); got.User != "" {
		t.Errorf("without systemd: %+v", got)
	}
	script := "#!/bin/sh\ncase $1 in show) echo LoadState=loaded; echo User=authkey; echo ActiveState=failed; echo ExecMainStatus=78;; cat) echo LoadCredential=authkey:/x;; esac\n"
	must(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte(script), 0o755))
	if got := FindService(t.Context()); got.User != "authkey" || !got.Passes("/x/secret") || got.Passes("/y/secret") {
		t.Errorf("%+v", got)
	} else if active, exit := got.State(t.Context()); active != "failed" || exit != 78 {
		t.Errorf("%s, exit code %d", active, exit)
	}
}

func TestContainer(t *testing.T) {
	for _, tc := range []struct {
		file, text, want string
	}{
		{"etc/none", "", ""},
		{"run/systemd/container", "systemd-nspawn\n", "systemd-nspawn"},
		{"run/host/container-manager", "lxc", "lxc"},
		{"run/systemd/container", "", ""},
		{".dockerenv", "", "docker"},
		{"run/.containerenv", "", "podman"},
	} {
		root := t.TempDir()
		path := filepath.Join(root, tc.file)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(tc.text), 0o644))
		if got := containerIn(root); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.file, got, tc.want)
		}
	}
}

func FuzzService(f *testing.F) {
	f.Add("LoadState=loaded\nUser=authkey\nExecStart={ path=/x ; argv[]=/x serve --config=/y ; }\nRuntimeDirectory=a b\n", "LoadCredential=authkey:/x\n")
	f.Add("ExecStart=argv[]=--config", "")
	f.Add("LoadState=loaded\nRuntimeDirectory= \n", "")
	f.Fuzz(func(t *testing.T, properties, files string) {
		if s := parseService(properties, files); s.User == "" && len(s.Passed) > 0 {
			t.Errorf("nobody is passed %q", s.Passed)
		}
	})
}
