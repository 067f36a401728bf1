package config

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/authkey/authkey/policy"
)

// prefixes compares networks and addresses, which have no exported fields.
var prefixes = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "milter.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, content string, environ ...string) *Loaded {
	t.Helper()
	loaded, err := Load(writeFile(t, content), environ)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return loaded
}

func defaults() Config {
	accept := Actions{Pass: policy.Accept, None: policy.Accept, NoKey: policy.Accept, Fail: policy.Mark, PermError: policy.Accept}
	from := accept
	from.PermError, from.TempError = policy.Mark, policy.Accept
	return Config{
		Mode:               "enforce",
		Listen:             []Listen{{"unix", "/run/authkey/milter.sock"}},
		Socket:             Socket{Mode: 0o660},
		TrustedAuthservIDs: []string{},
		LocalDomains:       []string{},
		Exempt:             Exempt{Networks: []netip.Prefix{}},
		Submission: Submission{
			Authenticated: true,
			Networks:      []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			Daemons:       []string{"ORIGINATING"},
		},
		DNS: DNS{Servers: []netip.AddrPort{}, Timeout: 3 * time.Second},
		Verify: Verify{
			Timeout: 10 * time.Second, ConnectTimeout: 2 * time.Second, ReplyTimeout: 5 * time.Second,
			AllowNetworks: []netip.Prefix{}, AllowPorts: []int{},
		},
		Cache: Cache{Entries: 1_000_000, DefaultTTL: 5 * time.Minute, MaxTTL: time.Hour},
		Policy: Policy{
			Actions:      accept,
			Rules:        []Rule{},
			Allowed:      []policy.Action{policy.Accept, policy.Mark, policy.Discard, policy.Reject, policy.DiscardNotify, policy.RejectNotify, policy.Quarantine},
			Recipients:   "merge",
			MarkConflict: "mark",
		},
		From:        From{Check: "report", Actions: from, Trusted: []Trusted{}},
		Preferences: Preferences{OnError: "default", Timeout: 2 * time.Second, Cache: time.Minute},
		Mark:        Mark{Header: "X-Spam-Flag", Value: "YES"},
		Notify: Notify{
			SMTP: "127.0.0.1:25", DSN: "authenticated", Trust: []Voucher{},
			Rate: NotifyRate{PerSender: Rate{1, time.Hour}, PerRecipient: Rate{10, time.Hour}, Global: Rate{100, time.Minute}},
		},
		Log:    Log{Level: slog.LevelInfo, Format: "text"},
		Limits: Limits{Connections: 2000, IdleTimeout: 10 * time.Minute, Recipients: 50_000},
		Attach: Attach{Domains: []AttachDomain{}, Authorize: "login", Networks: []netip.Prefix{}, OnError: "send"},
	}
}

// The published block of defaults, an empty file and no file come to the same.
func TestDefaults(t *testing.T) {
	block, err := Load("testdata/milter.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	none, err := Load("", []string{"PATH=/bin", "AUTHKEY_SERVER_MODE=x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, loaded := range map[string]*Loaded{
		"block": block, "none": none,
		"empty":    mustLoad(t, ""),
		"comments": mustLoad(t, "# nothing\n"),
		"marker":   mustLoad(t, "---\n"),
		"sections": mustLoad(t, "dns:\npolicy:\n  floor:\n"),
		"anchor":   mustLoad(t, "dns: &d\npolicy: &p {floor: &f }\n"), // which a YAML decoder takes for text
	} {
		if diff := cmp.Diff(defaults(), loaded.Config, prefixes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got := loaded.NotImplemented(); len(got) > 0 {
			t.Errorf("%s: NotImplemented = %q, want none: all are defaults", name, got)
		}
		if set := loaded.IsSet("listen"); set != (name == "block") {
			t.Errorf("%s: IsSet(listen) = %v", name, set)
		}
	}
	if block.Path != "testdata/milter.yaml" || none.Path != "" {
		t.Errorf("paths %q and %q", block.Path, none.Path)
	}
	// The block names every key but those that belong to its empty maps, and
	// the query of SQL sources, and the folder that systemd gives us.
	for _, k := range milterSchema(new(Config)).keys {
		absent := strings.HasPrefix(k.name, "policy.floor.") || strings.HasPrefix(k.name, "attach.") ||
			strings.HasPrefix(k.name, "from.actions.") && k.name != "from.actions.fail" || k.name == "preferences.query" || k.name == "notify.state_dir"
		if block.IsSet(k.name) == absent {
			t.Errorf("block: IsSet(%s) = %v", k.name, !absent)
		}
	}
}

// full sets every key to something that is not its default.
const full = `
mode: test
listen: ["inet:8891@localhost", "inet6:8891@[::1]", "inet:8892", "inet6:8892", "unix:/tmp/s", "inet:8893@127.0.0.1", "inet6:8894@mx.example.com", "inet6:8895@::1"]
socket: {mode: "770", group: postfix}
authserv_id: mx.example.com
trusted_authserv_ids: [mx2.example.com]
local_domains: [example.com, bücher.example]
exempt: {networks: [192.0.2.7, "2001:db8::7"], keep_results: true}
submission: {authenticated: false, networks: [], daemons: []}
dns: {servers: ["127.0.0.1:53", "[::1]:5353"], timeout: 500ms}
verify: {timeout: 20s, connect_timeout: 3s, reply_timeout: 6s, allow_networks: [10.0.0.0/8], allow_ports: [25, 0x1bb], require_tls: true, ca_file: /etc/ssl/as.pem}
cache: {entries: 10, default_ttl: 1m30s, max_ttl: 2h}
policy:
  pass: mark
  none: discard
  nokey: quarantine
  fail: reject-notify
  permerror: tempfail
  temperror: discard-notify
  rules:
    - {recipient: "ceo.x@Example.com", fail: reject-notify}
    - {recipient: ".example.com", sender: "a@b.example", nokey: reject, temperror: tempfail}
  allowed: [mark]
  floor: {fail: mark, temperror: tempfail}
  recipients: separate
  mark_conflict: accept
from: {check: enforce, actions: {fail: reject, nokey: mark}, trusted: [{mail_from: lists.example.org}, {client: 192.0.2.0/24}]}
preferences: {source: "postgres://u:secret@db.example/x", query: "SELECT 1\nFROM t", on_error: tempfail, timeout: 1s, cache: 0s}
mark: {header: X-Spam, value: "yes, AuthKey", readdress: "{local}+spam@{domain}"}
quarantine: {mailbox: "q-{local}@quarantine.example"}
notify: {smtp: "localhost:2525", dsn: always, trust: [spf.example/spf], from_name: "Müller's filter", template_dir: /etc/authkey/t, state_dir: /var/lib/authkey, rate: {per_sender: 2/1h, per_recipient: 20/1h, global: 1000/1m30s}}
reply: {fail: "no 1", nokey: "no 2", none: "no 3", permerror: "no 4", temperror: "no 5"}
log: {level: debug, format: json}
metrics: {listen: ":9796"}
control: {socket: /run/authkey/milter.ctl}
limits: {connections: 1, idle_timeout: 1m, recipients: 1}
attach:
  domains: [{domain: example.com, source: "secret:/s", addresses: any, avt: 12h, case_sensitive: true, subaddress: "", to: [example.org]}, {domain: example.net, source: "secret:/n", addresses: "file:/n"}]
  authorize: "map:/etc/authkey/logins"
  networks: [192.0.2.1]
  on_error: tempfail
  allow_inet: true
  allow_open_secrets: true
`

func TestEveryKey(t *testing.T) {
	want := Config{
		Mode: "test",
		Listen: []Listen{
			{"tcp4", "localhost:8891"}, {"tcp6", "[::1]:8891"}, {"tcp", "localhost:8892"}, {"tcp6", "[::1]:8892"}, {"unix", "/tmp/s"},
			{"tcp4", "127.0.0.1:8893"}, {"tcp6", "mx.example.com:8894"}, {"tcp6", "[::1]:8895"},
		},
		Socket:             Socket{Mode: fs.FileMode(0o770), Group: "postfix"},
		AuthservID:         "mx.example.com",
		TrustedAuthservIDs: []string{"mx2.example.com"},
		LocalDomains:       []string{"example.com", "xn--bcher-kva.example"},
		Exempt:             Exempt{[]netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::7/128")}, true},
		Submission:         Submission{Networks: []netip.Prefix{}, Daemons: []string{}},
		DNS:                DNS{[]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:5353")}, 500 * time.Millisecond},
		Verify: Verify{20 * time.Second, 3 * time.Second, 6 * time.Second, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			[]int{25, 443}, true, "/etc/ssl/as.pem"},
		Cache: Cache{10, 90 * time.Second, 2 * time.Hour},
		Policy: Policy{
			Actions: Actions{Pass: policy.Mark, None: policy.Discard, NoKey: policy.Quarantine, Fail: policy.RejectNotify, PermError: policy.TempFail, TempError: policy.DiscardNotify},
			Rules: []Rule{
				{Recipient: "ceo.x@example.com", Actions: Actions{Fail: policy.RejectNotify}},
				{Recipient: ".example.com", Sender: "a@b.example", Actions: Actions{NoKey: policy.Reject, TempError: policy.TempFail}},
			},
			Allowed:    []policy.Action{policy.Mark},
			Floor:      Actions{Fail: policy.Mark, TempError: policy.TempFail},
			Recipients: "separate", MarkConflict: "accept",
		},
		From: From{"enforce", Actions{Pass: policy.Accept, None: policy.Accept, NoKey: policy.Mark, Fail: policy.Reject, PermError: policy.Mark, TempError: policy.Accept},
			[]Trusted{{MailFrom: "lists.example.org"}, {Client: netip.MustParsePrefix("192.0.2.0/24")}}},
		Preferences: Preferences{"postgres://u:secret@db.example/x", "SELECT 1\nFROM t", "tempfail", time.Second, 0},
		Mark:        Mark{"X-Spam", "yes, AuthKey", "{local}+spam@{domain}"},
		Quarantine:  Quarantine{"q-{local}@quarantine.example"},
		Notify: Notify{"localhost:2525", "always", []Voucher{{"spf.example", "spf"}}, "Müller's filter", "/etc/authkey/t", "/var/lib/authkey",
			NotifyRate{Rate{2, time.Hour}, Rate{20, time.Hour}, Rate{1000, 90 * time.Second}}},
		Reply:   Reply{Fail: "no 1", NoKey: "no 2", None: "no 3", PermError: "no 4", TempError: "no 5"},
		Log:     Log{slog.LevelDebug, "json"},
		Metrics: Metrics{":9796"},
		Control: Control{"/run/authkey/milter.ctl"},
		Limits:  Limits{1, time.Minute, 1},
		Attach: Attach{
			Domains: []AttachDomain{
				{"example.com", "secret:/s", "any", 12 * time.Hour, true, "", []string{"example.org"}},
				{"example.net", "secret:/n", "file:/n", 24 * time.Hour, false, "+", nil},
			},
			Authorize: "map:/etc/authkey/logins", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, OnError: "tempfail",
			AllowInet: true, AllowOpenSecrets: true,
		},
	}
	loaded := mustLoad(t, full)
	if diff := cmp.Diff(want, loaded.Config, prefixes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAttachExample(t *testing.T) {
	loaded, err := Load("testdata/attach.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []AttachDomain{
		{"example.com", "secret:/etc/authkey/credentials/example.com.secret", "file:/etc/authkey/addresses/example.com", 24 * time.Hour, false, "+", nil},
		{"example.net", "secret:/etc/authkey/credentials/example.net.secret", "any", 24 * time.Hour, false, "+", []string{"example.com", "example.org"}},
	}
	if diff := cmp.Diff(want, loaded.Config.Attach.Domains); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Every key that is no list of objects can be set in the environment, to the
// same effect as in the file.
func TestEnvironment(t *testing.T) {
	file := mustLoad(t, full)
	var environ []string
	names := map[string]string{}
	for _, s := range file.schema.keys {
		if !s.env() {
			continue
		}
		name := file.schema.envName(s)
		if other, twice := names[name]; twice {
			t.Errorf("%s and %s have the same name %s", s.name, other, name)
		}
		names[name] = s.name
		environ = append(environ, name+"="+envText(file.values[s.name].raw))
	}
	env := mustLoad(t, "policy: {fail: discard}\n", environ...)
	want := file.Config
	want.Policy.Rules, want.From.Trusted, want.Attach.Domains = []Rule{}, []Trusted{}, []AttachDomain{}
	if diff := cmp.Diff(want, env.Config, prefixes); diff != "" {
		t.Errorf("(-file +environment):\n%s", diff)
	}
	for _, k := range milterSchema(new(Config)).keys {
		source, want := env.Source(k.name), SourceEnvironment
		if !k.env() {
			want = SourceDefault
		}
		if source != want || env.IsSet(k.name) != k.env() {
			t.Errorf("%s: Source %q, IsSet %v", k.name, source, env.IsSet(k.name))
		}
	}
	if env.Source("policy") != "" || env.IsSet("policy") {
		t.Error("a section passes for a key")
	}
}

func envText(raw any) string {
	if list, ok := raw.([]any); ok {
		parts := make([]string, len(list))
		for i, e := range list {
			parts[i] = fmt.Sprint(e)
		}
		return strings.Join(parts, " , ")
	}
	return fmt.Sprint(raw)
}

func TestSources(t *testing.T) {
	loaded := mustLoad(t, "dns: {timeout: 2s}\nlisten: []\nlog: {level: info}\n",
		"AUTHKEY_MILTER_DNS_TIMEOUT=4s", "AUTHKEY_MILTER_DNS_TIMEOUT=1s", "AUTHKEY_MILTER_SUBMISSION_NETWORKS=", "HOME=/", "broken")
	if got := loaded.Config.DNS.Timeout; got != time.Second {
		t.Errorf("dns.timeout = %v, want that of the last variable", got)
	}
	if len(loaded.Config.Submission.Networks) != 0 || len(loaded.Config.Listen) != 0 {
		t.Errorf("an explicit empty list is not empty: %v, %v", loaded.Config.Submission.Networks, loaded.Config.Listen)
	}
	for key, want := range map[string]string{
		"dns.timeout": SourceEnvironment, "submission.networks": SourceEnvironment, "listen": SourceFile,
		"log.level": SourceFile, "log.format": SourceDefault, "nonsense": "",
	} {
		if got := loaded.Source(key); got != want {
			t.Errorf("Source(%s) = %q, want %q", key, got, want)
		}
	}
	if !loaded.IsSet("listen") || loaded.IsSet("log.format") {
		t.Error("IsSet is wrong of listen or log.format")
	}
}

// nest turns values by key into maps within maps.
func nest(values map[string]any) map[string]any {
	root := map[string]any{}
	for key, v := range values {
		m := root
		section, rest, nested := strings.Cut(key, ".")
		for ; nested; section, rest, nested = strings.Cut(rest, ".") {
			if m[section] == nil {
				m[section] = map[string]any{}
			}
			m = m[section].(map[string]any)
		}
		m[section] = v
	}
	return root
}

// nested turns settings back into a file.
func nested(t testing.TB, all []Setting) []byte {
	t.Helper()
	values := map[string]any{}
	for _, s := range all {
		values[s.Key] = s.Value
	}
	data, err := yaml.Marshal(nest(values))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What Effective says is a file that comes to the same configuration.
func TestEffectiveRoundTrip(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "full": full} {
		first := mustLoad(t, content)
		second := mustLoad(t, string(nested(t, first.Effective())))
		want := first.Config
		want.Preferences.Source = DSN(want.Preferences.Source.String())
		if diff := cmp.Diff(want, second.Config, prefixes); diff != "" {
			t.Errorf("%s (-first +second):\n%s", name, diff)
		}
		if len(first.Effective()) != len(milterSchema(new(Config)).keys) {
			t.Errorf("%s: %d settings of %d keys", name, len(first.Effective()), len(milterSchema(new(Config)).keys))
		}
	}
}

func TestNotImplemented(t *testing.T) {
	tests := []struct {
		file string
		want []string
	}{
		{"from: {check: enforce}", nil},
		{"preferences: {source: 'file:/etc/authkey/preferences.yaml'}", nil},
		{"preferences: {source: 'sqlite:/var/lib/authkey/p.db'}", []string{"preferences.source: preferences in SQL"}},
		{"metrics: {listen: ':9796'}", []string{"metrics.listen"}},
		{"attach: {on_error: tempfail}", nil},
		{"mode: test\nlimits: {connections: 7}\nverify: {allow_ports: [25]}", nil},
	}
	for _, tc := range tests {
		if diff := cmp.Diff(tc.want, mustLoad(t, tc.file).NotImplemented()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.file, diff)
		}
	}
}

// The keys of this release that are implemented, as documented.
func TestImplemented(t *testing.T) {
	notYet := []string{"preferences.query", "preferences.timeout", "preferences.cache", "metrics.listen", "control.socket"}
	for _, k := range milterSchema(new(Config)).keys {
		want := true
		for _, p := range notYet {
			if k.name == p || strings.HasSuffix(p, ".") && strings.HasPrefix(k.name, p) {
				want = false
			}
		}
		if k.implemented != want {
			t.Errorf("%s: implemented = %v, want %v", k.name, k.implemented, want)
		}
	}
}

// Every field is bound to a key: one that is not would stay what it is when a
// configuration is loaded.
func TestFieldsAreBound(t *testing.T) {
	var c Config
	fill(reflect.ValueOf(&c).Elem())
	if _, faults := load(milterSchema(&c), "", nil, nil); len(faults) > 0 {
		t.Fatal(faults)
	}
	unbound(t, reflect.ValueOf(c), "Config")
}

// Values that no key has by default.
const (
	filledText   = "filled"
	filledNumber = 77
	filledLength = 9
)

// fill sets every field of a struct, and those of structs in it, to a value that no key
// has by default. A bool has two values only: TestEveryKey looks at those.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString(filledText)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), filledLength, filledLength))
	case reflect.Bool:
	default:
		if v.CanInt() {
			v.SetInt(filledNumber)
		} else {
			v.SetUint(filledNumber)
		}
	}
}

// unbound reports the fields that are still as fill made them.
func unbound(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	filled := false
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			unbound(t, v.Field(i), name+"."+v.Type().Field(i).Name)
		}
	case reflect.String:
		filled = v.String() == filledText
	case reflect.Slice:
		filled = v.Len() == filledLength
	case reflect.Bool:
	default:
		filled = v.CanInt() && v.Int() == filledNumber || v.CanUint() && v.Uint() == filledNumber
	}
	if filled {
		t.Errorf("no key sets %s", name)
	}
}

// A file that is the beginning of another one looks cut off, unless it says otherwise.
func TestCutOff(t *testing.T) {
	const whole = "mode: enforce\npolicy:\n  fail: reject\n\n# at last\nlog: {level: warn}\n# end\n"
	path := writeFile(t, whole)
	load := func() *Loaded {
		t.Helper()
		loaded, err := Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	inForce := load()
	for content, want := range map[string]bool{
		"":                                       true,
		"mode: enforce\n":                        true,
		"mode: enforce\npolicy:\n":               true,
		"mode: enforce\npolicy:\n  fail: reject": true,
		"mode: enforce\npolicy:\n  fail: reject\n\n# at last\n": true,
		"mode: enforce\n...\n":          false,
		whole:                           false,
		whole + "cache: {entries: 5}\n": false,
		"mode: enforce\npolicy:\n  fail: reject\n\n# at last\nlog: {level: warn}\n": false, // but a comment
		"mode: enforce\npolicy:\n  fail: reject\n\n# at last\nlog: {level: warn}":   false,
		"mode: enforce\npolicy:\n  fail: mark\n":                                    false,
		"mode: test\n":                                                              false,
		"# mode: enforce\n":                                                         false,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load().CutOff(inForce.Content); got != want {
			t.Errorf("%q: %v, want %v", content, got, want)
		}
		// Another file that was put there is whole; but nothing at all is nothing.
		other := writtenAtOnce(t, content)
		cutOff := func(state string, want bool) {
			t.Helper()
			loaded, err := Load(other, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := loaded.CutOff(inForce.Content); got != want {
				t.Errorf("another file, %s, %q: %v, want %v", state, content, got, want)
			}
		}
		cutOff("written at once", content == "")
		if err := os.Chtimes(other, time.Time{}, time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		cutOff("renamed later", content == "")
		// Written after it was put there it is not.
		if err := os.Chtimes(other, time.Time{}, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		cutOff("written later", want)
	}
}

// writtenAtOnce is writeFile, so fast that nobody can have written to the file later.
func writtenAtOnce(t *testing.T, content string) string {
	t.Helper()
	for {
		began := time.Now()
		if path := writeFile(t, content); time.Since(began) < 5*time.Millisecond {
			return path
		}
	}
}

func TestWarnings(t *testing.T) {
	for content, want := range map[string]string{"": "is empty", "mode: test": "no end", "mode: test\n": "", "# x\n": ""} {
		got := strings.Join(mustLoad(t, content).Warnings(), "\n")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
	none, err := Load("", nil)
	if err != nil || len(none.Warnings()) > 0 {
		t.Errorf("no file: %q, %v", none.Warnings(), err)
	}
}

// Editors of some systems begin a file with a byte order mark.
func TestByteOrderMark(t *testing.T) {
	if got := mustLoad(t, "\uFEFFmode: test\n").Config.Mode; got != "test" {
		t.Errorf("mode %q", got)
	}
}

// Whoever reaches an inet socket is believed whatever login he claims: with attach it has
// to be allowed.
func TestAttachOnInet(t *testing.T) {
	const attach = "attach: {domains: [{domain: example.com, source: 'secret:/s', addresses: any}]%s}\n"
	for _, tt := range []struct {
		listen, more string
		refused      bool
	}{
		{"unix:/run/s", "", false},
		{"inet:8891", "", true},
		{"unix:@abstract", "", true},
		{"unix:@abstract", ", allow_inet: true", false},
		{"inet:8891@127.0.0.1", "", true},
		{"inet6:8891@[::1]", "", true},
		{"inet:8891@0.0.0.0", ", allow_inet: false", true},
		{"inet:8891@0.0.0.0", ", allow_inet: true", false},
	} {
		content := fmt.Sprintf("listen: ['unix:/run/t', %q]\n", tt.listen) + fmt.Sprintf(attach, tt.more)
		_, err := Load(writeFile(t, content), nil)
		if (err != nil) != tt.refused || err != nil && (!strings.Contains(err.Error(), "attach.allow_inet: true") || !strings.Contains(err.Error(), ":1: listen: ")) {
			t.Errorf("%s%s: %v", tt.listen, tt.more, err)
		}
	}
	mustLoad(t, "listen: ['inet:8891']\n") // nothing is attached
	if _, err := Load(writeFile(t, fmt.Sprintf(attach, "")), []string{"AUTHKEY_MILTER_LISTEN=inet:8891"}); err == nil {
		t.Error("set in the environment: no error")
	}
}
