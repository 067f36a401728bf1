package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every command with the code it ends with and what it prints. {dir} stands for the
// folder of a place, {key} for bob's key.
func TestCommands(t *testing.T) {
	const c = "--config {dir}/server.yaml "
	tests := []struct {
		name, args, stdin string
		code              int
		out, err          string // patterns; "" means nothing at all
	}{
		{"no command", "", "", 2, "", "authkey-server: which command\\?\nTry"},
		{"unknown command", "serv", "", 2, "", `unknown command "serv"`},
		{"unknown flag", "check --cnfig x", "", 2, "", "unknown flag: --cnfig"},
		{"help", "--help", "", 0, "(?s)Authentication Server.*address.*completion.*verify", ""},
		{"version", "version", "", 0, "^authkey-server devel \\(.*go1.*\\)\n$", ""},
		{"--version", "--version", "", 0, "^authkey-server devel \\(.*go1.*\\)\n$", ""},
		{"completion", "completion bash", "", 0, "bash completion", ""},
		{"argument where none belongs", "check x", "", 2, "", "check takes no argument"},

		{"check", c + "check", "", 0, "^{dir}/server.yaml is right: 1 key set\n$", ""},
		{"check of the default file, which is missing", "check", "", 78, "", "^/etc/authkey/server.yaml: does not exist; want one that `authkey-server init DOMAIN` makes\n$"},
		{"check without file", "--config {dir}/none.yaml check", "", 78, "", "^{dir}/none.yaml: does not exist; want one that `authkey-server init DOMAIN` makes\n$"},
		{"check of faults", "--config {dir}/bad.yaml check", "", 78, "", "^{dir}/bad.yaml:1: listen\\[0\\]: .*\n{dir}/bad.yaml:2: domains\\[0\\].addresses: is not set; want .*\n$"},
		{"check of files", "--config {dir}/files.yaml check", "", 78, "", "" +
			"^{dir}/files.yaml:2: domains\\[0\\].secret_file: .*open {dir}/none: no such file or directory\n" +
			"{dir}/files.yaml:3: domains\\[1\\].secret_file: .*{dir}/open.secret: readable by others \\(mode 0644\\); needs 0600: chmod 600 {dir}/open.secret\n" +
			"{dir}/files.yaml:4: domains\\[2\\].addresses: .*{dir}/bad.list: line 2: .*\n" +
			"{dir}/files.yaml:5: domains\\[3\\].addresses: .*open {dir}/none: no such file or directory\n" +
			"{dir}/files.yaml:6: domains\\[4\\]: .*grace 2400h0m0s is not 0 to 999 times the avt\n" +
			"{dir}/files.yaml:8: domains\\[6\\].name: example.net is the domain of domains\\[5\\] too; want each domain once\n" +
			"{dir}/files.yaml:1: tls.cert: open {dir}/none: no such file or directory\n$"},
		{"check of what is not acted on", "--config {dir}/metrics.yaml check", "", 0, "is right: 1 key set", "^metrics.listen: no effect yet\n$"},

		{"config", c + "config", "", 0, `(?s)KEY +VALUE +SOURCE.*\nlisten +\["tcp:7425"\] +default\n`, ""},
		{"config as JSON", c + "config --json", "", 0, `"key": "limits.per_client"`, ""},
		{"config of faults", "--config {dir}/bad.yaml config", "", 78, "", "bad.yaml:1: listen"},
		{"describe", "config --describe", "", 0, `(?m)^domains\[\]\.avt +duration +24h +AuthKey Valid Time`, ""},
		{"describe as JSON", "config --describe --json", "", 0, `"env": "AUTHKEY_SERVER_LIMITS_PER_CLIENT"`, ""},

		{"key", c + "key bob@example.com", "", 0, "^[A-Z2-7]{34}\n$", "^attach until 20..-..-..T00:00:00Z, valid until 20..-..-..T00:00:00Z\n$"},
		{"key of a sub-address", c + "key BOB+shop@Example.COM", "", 0, "^{key}\n$", "attach until"},
		{"key of any", c + "key whoever@example.org", "", 0, "^[A-Z2-7]{34}\n$", "attach until"},
		{"key of nobody", c + "key mallory@example.com", "", 1, "", "^authkey-server: mallory@example.com: address is not in the list\n$"},
		{"key of another domain", c + "key bob@example.net", "", 1, "", "example.net is not among the domains of {dir}/server.yaml"},
		{"key of no address", c + "key bob", "", 2, "", `"bob": address has no domain`},
		{"key without list", "--config {dir}/nolist.yaml key bob@example.com", "", 78, "", "no such file"},
		{"key without secret", "--config {dir}/files.yaml key bob@example.com", "", 78, "", "no such file"},
		{"key without file", "--config {dir}/none.yaml key bob@example.com", "", 78, "", "does not exist"},
		{"all keys", c + "key --all-valid bob@example.com", "", 0, "^({key}|[A-Z2-7]{34})  secret [0-9a-f]{8}  attach until .*Z  valid until .*Z\n(.*\n){5,6}$", ""},
		{"all keys of nobody", c + "key --all-valid mallory@example.com", "", 1, "", "not in the list"},

		{"address", "address", "", 2, "", "which command"},
		{"list", c + "address list example.com", "", 0, "^bob@example.com\nalice@example.com gen=3\n$", ""},
		{"list all", c + "address list", "", 0, "^bob@example.com\nalice@example.com gen=3\n$", ""},
		{"list as JSON", c + "address list --json", "", 0, `^{"address":"bob@example.com","generation":0}` + "\n" + `{"address":"alice@example.com","generation":3}` + "\n$", ""},
		{"list any", c + "address list example.org", "", 78, "", "has no list: addresses is any"},
		{"list of no domain", c + "address list a..b", "", 2, "", "not a valid host name"},
		{"list of another domain", c + "address list example.net", "", 1, "", "not among the domains"},
		{"list of a missing list", "--config {dir}/nolist.yaml address list", "", 78, "", "no such file or directory \\(init makes it\\)"},
		{"list of a bad list", "--config {dir}/badlist.yaml address list", "", 78, "bob", "bad.list: line 2"},
		{"list without domains", "--config {dir}/metrics.yaml address list", "", 78, "", "has no domains"},
		{"list of only any", "--config {dir}/any.yaml address list", "", 78, "", "addresses is any"},

		{"add one that is there", c + "address add bob@example.com", "", 0, "^added 0\n$", ""},
		{"add to any", c + "address add bob@example.com bob@example.org", "", 78, "", "addresses is any"},
		{"add of another domain", c + "address add bob@example.net", "", 1, "", "not among the domains"},
		{"add of no address", c + "address add bob", "", 2, "", "has no domain"},
		{"add of nothing", c + "address add", "", 2, "", "address add: which address"},
		{"add of a sub-address", c + "address add bob+x@example.com", "", 2, "", "is a sub-address of"},
		{"add to a missing list", "--config {dir}/nolist.yaml address add bob@example.com", "", 78, "", "init makes it"},
		{"add to a bad list", "--config {dir}/badlist.yaml address add bob@example.com", "", 78, "", "bad.list: line 2"},
		{"revoke nobody", c + "address revoke mallory@example.com", "", 1, "", "mallory@example.com: address is not in the list"},
		{"remove nobody", c + "address remove bob@example.com mallory@example.com", "", 1, "", "mallory@example.com: address is not in the list"},
		{"import nothing", c + "address import --json", "# nobody\n", 0, `^{"added":0}` + "\n$", ""},
		{"import without domain", c + "address import", "carol@example.com\n\nx y\n", 2, "", `standard input: line 3: "y" after the address`},
		{"import of another domain", c + "address import {dir}/other.list", "", 2, "", "other.list: line 1: address is of another domain"},
		{"import of no file", c + "address import {dir}/none", "", 2, "", "no such file"},
		{"import into a bad list", "--config {dir}/badlist.yaml address import", "carol\n", 78, "", "bad.list: line 2"},
		{"import into any", "--config {dir}/any.yaml address import", "carol\n", 78, "", "addresses is any"},

		{"replace without a terminal", c + "address import --replace", "carol@example.com\nalice@example.com gen=4\n", 1,
			"^example.com: 1 come, 1 go, 1 get a higher generation, 0 stay as they are\n\\+ carol@example.com\n- bob@example.com\n\\^ alice@example.com gen=4\n$", "nothing was changed: with --yes it would be"},
		{"replace as JSON", c + "address import --replace --json", "carol@example.com\n", 1,
			`^{"replaced":false,"changes":3,"domains":\[{"domain":"example.com","added":\["carol@example.com"\],"removed":\["bob@example.com","alice@example.com gen=3"\],"raised":\[\],"kept":0}\],"untouched":\[\]}` + "\n$", "with --yes"},
		{"replace by the same", c + "address import --replace", "BOB@example.com\nalice@example.com\n", 0, "^example.com: 0 come, 0 go, 0 get a higher generation, 2 stay as they are\n$", ""},
		{"replace by nothing", c + "address import --replace --yes", "# nobody\n", 2, "", "standard input: there is no address in it; to end the keys of all"},
		{"replace by a bad line", c + "address import --replace --yes", "bob@example.com\nbob bob\n", 2, "", "standard input: line 2"},
		{"replace of a missing list", "--config {dir}/nolist.yaml address import --replace --yes", "bob@example.com\n", 78, "", "init makes it"},
		{"--yes without --replace", c + "address import --yes", "bob@example.com\n", 2, "", "--yes is for --replace"},

		{"verify of no server", c + "verify --server 127.0.0.1:1 bob@example.com", "x", 75, "result +temperror \\(as-refused\\)\n", ""},
		{"verify of no server as JSON", c + "verify --json --server 127.0.0.1:1,tls bob@example.com", "x", 75, `"result":"temperror","reason":"as-refused"`, ""},
		{"verify without key", c + "verify --server 127.0.0.1:1 bob@example.com", "", 2, "", "^authkey-server: no key: give one on standard input\n$"},
		{"verify of a bad key", c + "verify --server 127.0.0.1:1 bob@example.com", "a b", 1, "result +fail \\(bad-key\\)\n", ""},
		{"verify of too much", c + "verify --server 127.0.0.1:1 bob@example.com", strings.Repeat("x", 2049), 2, "", "there is more than a key"},
		{"verify of no address", c + "verify --server 127.0.0.1:1 bob", "x", 1, "result +none \\(no-domain\\)\n", ""},
		{"verify at nonsense", c + "verify --server 127.0.0.1 bob@example.com", "x", 2, "", "is not HOST:PORT"},
		{"verify at port 0", c + "verify --server 127.0.0.1:0 bob@example.com", "x", 2, "", "has no port"},
		{"verify at no host", c + "verify --server a..b:1 bob@example.com", "x", 2, "", "not a valid host name"},
		{"verify without sockets", "--config {dir}/nosocket.yaml verify bob@example.com", "x", 2, "", "which --server"},
		{"verify with a bad resolver", c + "verify --resolver x bob@example.com", "x", 2, "", `--resolver "x" is not IP:PORT`},

		{"dns with a bad resolver", c + "dns --resolver 127.0.0.1", "", 2, "", "is not IP:PORT"},
		{"dns with one bad resolver of two", c + "dns --resolver 127.0.0.1:1,127.0.0.1", "", 2, "", `--resolver "127.0.0.1" is not IP:PORT`},
		{"dns of another domain", c + "dns example.net", "", 1, "", "not among the domains"},
		{"dns without domains", "--config {dir}/metrics.yaml dns", "", 78, "", "has no domains"},
		{"dns of a bad host", c + "dns --host a..b", "", 2, "", "not a valid host name"},
		{"dns without DNS", c + "dns --host as.example.com --resolver 127.0.0.1:1 example.com", "", 75, "(?s)wanted .*verdict +unknown: ", ""},

		{"serve without file", "--config {dir}/none.yaml serve", "", 78, "", "does not exist"},
		{"serve without secret", "--config {dir}/files.yaml serve", "", 78, "", "(?s)domains\\[1\\].secret_file: .*chmod 600.*tls.cert"},
		{"serve without sockets", "--config {dir}/nosocket.yaml serve", "", 78, "", "nosocket.yaml:1: listen: names no socket; want one at least\n$"},
		{"serve on a foreign address", "--config {dir}/foreign.yaml serve", "", 75, "", "authkey-server: listen: .*192.0.2.1"},

		{"init of a file", "init example.net --config {dir}/new.yaml --dir {dir}/new", "", 2, "", "takes no --config"},
		{"init of nonsense", "init a..b --dir {dir}/new", "", 2, "", "not a valid host name"},
		{"init at a bad host", "init example.net --host a..b --dir {dir}/new", "", 2, "", "not a valid host name"},
		{"init beside a bad file", "init example.net --dir {dir}/bad", "", 78, "", "bad/server.yaml:1: lisen: is not a key"},
		{"init where no folder can be", "init example.net --host as.example.net --dir {dir}/list/x", "", 78, "", "not a directory"},
		{"init where a file is in the way", "init example.net --host as.example.net --dir {dir}/half", "", 75, "", "mkdir {dir}/half/credentials: file exists"},
	}
	p := newPlace(t, "")
	files := map[string]string{
		"bad.yaml":      "listen: [x]\ndomains: [{name: example.com, secret_file: /s}]\n",
		"files.yaml":    filesYAML,
		"metrics.yaml":  "metrics: {listen: ':9797'}\n",
		"nosocket.yaml": "listen: []\n",
		"foreign.yaml":  "listen: ['tcp:192.0.2.1:7425']\n",
		"nolist.yaml":   "domains: [{name: example.com, secret_file: '{dir}/secret', addresses: 'file:{dir}/none'}]\n",
		"badlist.yaml":  "domains: [{name: example.com, secret_file: '{dir}/secret', addresses: 'file:{dir}/bad.list'}]\n",
		"any.yaml":      "domains: [{name: example.com, secret_file: '{dir}/secret', addresses: any}]\n",
		"bad.list":      "bob\nbob bob\n",
		"other.list":    "bob@example.net\n",

		"bad/server.yaml":  "lisen: []\n",
		"half/credentials": "",
	}
	for _, name := range []string{"bad", "half"} {
		if err := os.Mkdir(filepath.Join(p.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		writeFile(t, filepath.Join(p.dir, name), strings.ReplaceAll(content, "{dir}", p.dir), 0o644)
	}
	writeFile(t, filepath.Join(p.dir, "open.secret"), readFile(t, p.secret), 0o644)
	before := readFile(t, p.list)
	fill := strings.NewReplacer("{dir}", p.dir, "{key}", p.key(t, "bob@example.com")).Replace
	for _, tt := range tests {
		if _, err := os.Stat(self().DefaultConfig); err == nil && strings.Contains(tt.err, self().DefaultConfig+": does not exist") {
			continue // this machine has one, and check reads it
		}
		t.Run(tt.name, func(t *testing.T) {
			code, out, errOut := run(t, tt.stdin, strings.Fields(fill(tt.args))...)
			if code != tt.code {
				t.Errorf("exit %d, want %d", code, tt.code)
			}
			for what, text := range map[string][2]string{"out": {out, tt.out}, "err": {errOut, tt.err}} {
				pattern := text[1]
				if pattern == "" {
					pattern = "^$"
				}
				if !regexp.MustCompile(fill(pattern)).MatchString(text[0]) {
					t.Errorf("%s is %q, want %q", what, text[0], fill(pattern))
				}
			}
		})
	}
	if after := readFile(t, p.list); after != before {
		t.Errorf("the list is\n%swant\n%s", after, before)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "new")); err == nil {
		t.Error("an init that was refused made a folder")
	}
}

const filesYAML = `tls: {cert: "{dir}/none", key: "{dir}/none"}
domains: [{name: example.com, secret_file: "{dir}/none", addresses: any},
  {name: a.example, secret_file: "{dir}/open.secret", addresses: any},
  {name: b.example, secret_file: "{dir}/secret", addresses: "file:{dir}/bad.list"},
  {name: c.example, secret_file: "{dir}/secret", addresses: "file:{dir}/none"},
  {name: d.example, secret_file: "{dir}/secret", addresses: any, avt: 1h, grace: 2400h},
  {name: example.net, secret_file: "{dir}/secret", addresses: any},
  {name: EXAMPLE.net, secret_file: "{dir}/secret2", addresses: any}]
`

// An address comes, has a key, is revoked, leaves, and comes back with other keys.
func TestLifeOfAnAddress(t *testing.T) {
	p := newPlace(t, "")
	at := []string{"--config", p.config}
	do := func(want string, args ...string) {
		t.Helper()
		if got := mustRun(t, append(at, args...)...); got != want {
			t.Errorf("%s: %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	do("added 2\n", "address", "add", "Carol@example.com", "dave@EXAMPLE.com", "bob@example.com")
	first := p.key(t, "carol@example.com")
	do(`{"revoked":1}`+"\n", "address", "revoke", "--json", "carol@example.com")
	second := p.key(t, "carol@example.com")
	do("removed 2\n", "address", "remove", "carol@example.com", "dave@example.com")
	do("bob@example.com\nalice@example.com gen=3\n", "address", "list")
	do("added 1\n", "address", "add", "carol@example.com")
	third := p.key(t, "carol@example.com")
	if first == second || second == third || first == third || !isKey(third) {
		t.Errorf("keys %q, %q, %q are not three", first, second, third)
	}
	do("bob@example.com\nalice@example.com gen=3\ncarol@example.com gen=2\n", "address", "list", "example.com")

	// What list prints, import takes; generations included.
	list := mustRun(t, append(at, "address", "list")...)
	writeFile(t, p.list, "", 0o640)
	code, out, errOut := run(t, list, append(at, "address", "import")...)
	if code != 0 || out != "added 3\n" {
		t.Errorf("import: exit %d, %q, %q", code, out, errOut)
	}
	if got := p.key(t, "carol@example.com"); got != third {
		t.Errorf("key %q after list and import, want %q", got, third)
	}
	if got := readFile(t, p.list); got != list {
		t.Errorf("the list is\n%swant\n%s", got, list)
	}
}

func TestKeyAsJSON(t *testing.T) {
	p := newPlace(t, "")
	var one struct {
		Address, Key, Secret string
		AttachUntil          string `json:"attach_until"`
		ValidUntil           string `json:"valid_until"`
	}
	if err := json.Unmarshal([]byte(mustRun(t, "--config", p.config, "key", "--json", "BOB+x@example.com")), &one); err != nil {
		t.Fatal(err)
	}
	if !isKey(one.Key) || one.Secret == "" || one.AttachUntil >= one.ValidUntil || one.Address != "BOB+x@example.com" {
		t.Errorf("%+v", one)
	}
	var all struct {
		Address string
		Keys    []struct{ Key, Secret string }
	}
	if err := json.Unmarshal([]byte(mustRun(t, "--config", p.config, "key", "--json", "--all-valid", "bob@example.com")), &all); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, k := range all.Keys {
		found = found || k.Key == one.Key && k.Secret == one.Secret
	}
	if !found || len(all.Keys) < 6 {
		t.Errorf("%d keys, today's among them: %v", len(all.Keys), found)
	}
}

// A secret is rotated by moving lines: what one key file accepts, the other does.
func TestRotation(t *testing.T) {
	p := newPlace(t, "")
	old := p.key(t, "bob@example.com")
	lines := func(path string) string {
		var secrets []string
		for line := range strings.Lines(readFile(t, path)) {
			if !strings.HasPrefix(line, "#") {
				secrets = append(secrets, line)
			}
		}
		return strings.Join(secrets, "")
	}
	first, second := lines(p.secret), lines(p.secret+"2")
	all := func() string { return mustRun(t, "--config", p.config, "key", "--all-valid", "bob@example.com") }
	writeFile(t, p.secret, first+second, 0o600)
	if got := p.key(t, "bob@example.com"); got != old {
		t.Error("a secret that was added below makes keys already")
	}
	writeFile(t, p.secret, second+first, 0o600)
	fresh := p.key(t, "bob@example.com")
	if fresh == old || !strings.Contains(all(), old) || !strings.Contains(all(), fresh) {
		t.Error("with the new secret on top, not both keys are accepted")
	}
	writeFile(t, p.secret, second, 0o600)
	if strings.Contains(all(), old) || p.key(t, "bob@example.com") != fresh {
		t.Error("without the old secret its key is accepted")
	}
}
