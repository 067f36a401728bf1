package config

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/authserver"
)

func writeServerFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoadServer(t *testing.T, content string, environ ...string) *LoadedServer {
	t.Helper()
	loaded, err := LoadServer(writeServerFile(t, content), environ)
	if err != nil {
		t.Fatalf("LoadServer: %v", err)
	}
	return loaded
}

func serverDefaults() Server {
	return Server{
		Listen:  []ServerListen{{false, ":7425"}},
		Domains: []ServerDomain{},
		Limits:  ServerLimits{10_000, 1000, Rate{5000, time.Second}, 2 * time.Minute},
		Log:     Log{slog.LevelInfo, "text"},
	}
}

// An empty file, no file and the published block of defaults come to the same, but
// for the block's domain, which has the defaults of a domain.
func TestServerDefaults(t *testing.T) {
	block, err := LoadServer("testdata/server.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	short := mustLoadServer(t, `domains: [{name: example.com, secret_file: /etc/authkey/credentials/example.com.secret, addresses: "file:/etc/authkey/addresses/example.com"}]`)
	if diff := cmp.Diff(short.Config, block.Config); diff != "" {
		t.Errorf("block (-short +block):\n%s", diff)
	}
	want := []ServerDomain{{"example.com", "/etc/authkey/credentials/example.com.secret", "file:/etc/authkey/addresses/example.com",
		24 * time.Hour, 120 * time.Hour, time.Hour, false, "+"}}
	if diff := cmp.Diff(want, block.Config.Domains); diff != "" {
		t.Errorf("domains (-want +got):\n%s", diff)
	}
	block.Config.Domains = []ServerDomain{}
	none, err := LoadServer("", []string{"AUTHKEY_MILTER_MODE=x"})
	if err != nil {
		t.Fatal(err)
	}
	for name, loaded := range map[string]*LoadedServer{"block": block, "none": none, "empty": mustLoadServer(t, "")} {
		if diff := cmp.Diff(serverDefaults(), loaded.Config); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for _, k := range serverSchema(new(Server)).keys {
			if loaded.IsSet(k.name) != (name == "block") {
				t.Errorf("%s: IsSet(%s) = %v", name, k.name, loaded.IsSet(k.name))
			}
		}
	}
}

// fullServer sets every key to something that is not its default.
const fullServer = `
host: as.example.com
listen: ["tcp:127.0.0.1:7425", "tls:[::1]:7426", "tls:as.example.com:7427", "tcp:[fe80::1%eth0]:1"]
tls: {cert: /c.pem, key: /k.pem}
domains:
  - {name: example.com, secret_file: /s, addresses: any, avt: 12h, grace: 0s, ttl: 0s, case_sensitive: true, subaddress: ""}
  - {name: bücher.example, secret_file: /b, addresses: "file:/b", subaddress: "-"}
allow_open_secrets: true
limits: {connections: 1, outstanding: 2, per_client: 3/1m, idle_timeout: 4s}
log: {level: debug, format: json}
metrics: {listen: ":9797"}
`

func TestEveryServerKey(t *testing.T) {
	want := Server{
		Host:   "as.example.com",
		Listen: []ServerListen{{false, "127.0.0.1:7425"}, {true, "[::1]:7426"}, {true, "as.example.com:7427"}, {false, "[fe80::1%eth0]:1"}},
		TLS:    TLS{"/c.pem", "/k.pem"},
		Domains: []ServerDomain{
			{"example.com", "/s", "any", 12 * time.Hour, 0, 0, true, ""},
			{"bücher.example", "/b", "file:/b", 24 * time.Hour, 120 * time.Hour, time.Hour, false, "-"},
		},
		Limits:  ServerLimits{1, 2, Rate{3, time.Minute}, 4 * time.Second},
		Log:     Log{slog.LevelDebug, "json"},
		Metrics: Metrics{":9797"},

		AllowOpenSecrets: true,
	}
	loaded := mustLoadServer(t, fullServer)
	if diff := cmp.Diff(want, loaded.Config); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"metrics.listen"}, loaded.NotImplemented()); diff != "" {
		t.Errorf("NotImplemented (-want +got):\n%s", diff)
	}
	// What Effective says is a file that comes to the same.
	again := mustLoadServer(t, string(nested(t, loaded.Effective())))
	if diff := cmp.Diff(loaded.Config, again.Config); diff != "" {
		t.Errorf("again (-first +second):\n%s", diff)
	}
	// And so does the environment, of every key that it can hold.
	var environ []string
	for _, k := range serverSchema(new(Server)).keys {
		if k.env() {
			environ = append(environ, loaded.schema.envName(k)+"="+envText(loaded.values[k.name].raw))
		}
	}
	env := mustLoadServer(t, "", environ...)
	want.Domains = []ServerDomain{}
	if diff := cmp.Diff(want, env.Config); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

// Every field is bound to a key, and no key is documented twice.
func TestServerFieldsAreBound(t *testing.T) {
	var c Server
	fill(reflect.ValueOf(&c).Elem())
	if _, faults := load(serverSchema(&c), "", nil, nil); len(faults) > 0 {
		t.Fatal(faults)
	}
	unbound(t, reflect.ValueOf(c), "Server")
	documented := map[string]bool{}
	for _, d := range DescribeServer() {
		if documented[d.Key] || d.Doc == "" || d.Type == "" {
			t.Errorf("%s is documented badly or twice: %+v", d.Key, d)
		}
		documented[d.Key] = true
	}
}

// The table's defaults are those of a server without configuration.
func TestServerDefaultLimits(t *testing.T) {
	l := serverDefaults().Limits
	want := authserver.DefaultLimits()
	got := authserver.Limits{Connections: l.Connections, Outstanding: l.Outstanding, IdleTimeout: l.IdleTimeout,
		PerClient: authserver.Rate{Questions: l.PerClient.Count, Per: l.PerClient.Per}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-package authserver +table):\n%s", diff)
	}
}

func TestServerFaults(t *testing.T) {
	const (
		listen = "tcp:[HOST:]PORT or tls:[HOST:]PORT"
		both   = "both tls.cert and tls.key"
		host   = `a host name or IP address without port, such as as.example.com, or ""`
	)
	tests := []struct {
		file string
		want []string
	}{
		{"lisen: []", []string{"1: lisen: is not a key; want perhaps listen"}},
		{"mode: test", []string{"1: mode: is not a key; want one of the keys that config --describe lists"}},
		{"listen: 'tcp:7425'", []string{"1: listen: is text; want a list in brackets, each " + listen}},
		{"listen: ['7425', 'unix:/s', 'tcp:', 'tcp:x', 'tcp:0', 'tls:65536', 'tcp::7425', 'tcp:::1:7425', 'tcp:a b:1', 'tcp:[::1]', \"tcp:[fe80::1%a\\nb]:1\"]", []string{
			`1: listen[0]: "7425" begins with neither tcp: nor tls: as it should; want ` + listen,
			`1: listen[1]: "unix:/s" begins with neither tcp: nor tls: as it should; want ` + listen,
			`1: listen[2]: "tcp:" has no port number where one belongs; want ` + listen,
			`1: listen[3]: "tcp:x" has no port number where one belongs; want ` + listen,
			`1: listen[4]: "tcp:0" has a port outside 1 to 65535; want ` + listen,
			`1: listen[5]: "tls:65536" has a port outside 1 to 65535; want ` + listen,
			`1: listen[6]: "tcp::7425" has no host name or address where one belongs; want ` + listen,
			`1: listen[7]: "tcp:::1:7425" is not [HOST:]PORT after its scheme; want ` + listen,
			`1: listen[8]: "tcp:a b:1" has no host name or address where one belongs; want ` + listen,
			`1: listen[9]: "tcp:[::1]" is not [HOST:]PORT after its scheme; want ` + listen,
			`1: listen[10]: "tcp:[fe80::1%a\nb]:1" has a line break or another control character; want ` + listen}},
		{"host: 'as.example.com:7425'", []string{`1: host: "as.example.com:7425" has no host name or address where one belongs; want ` + host}},
		{"\nlisten: ['tcp:1', 'tls:2']", []string{"2: listen: has a tls: socket without a certificate; want " + both}},
		{"tls:\n  cert: /c", []string{"2: tls.cert: is set, and tls.key is not; want " + both}},
		{"tls:\n  key: /k", []string{"2: tls.key: is set, and tls.cert is not; want " + both}},
		{"domains: {example.com: {}}", []string{"1: domains: is a group of keys; want a list of objects with name, secret_file, addresses, avt, grace, ttl, case_sensitive, subaddress"}},
		{"domains:\n  - {name: a..b, secret_file: '', addresses: 'sql:x', avt: 0s, grace: -1s, ttl: 5, subaddress: '++'}\n  - {nme: x}", []string{
			`2: domains[0].name: "a..b" is not a domain name; want a domain such as example.com`,
			`2: domains[0].secret_file: "" is empty; want a path`,
			`2: domains[0].addresses: "sql:x" does not begin with file:; want file:FILE, or any`,
			`2: domains[0].avt: "0s" is not more than zero; want ` + wantPositive,
			`2: domains[0].grace: "-1s" is below zero; want a duration with its unit, such as 0s or 5m`,
			`2: domains[0].ttl: 5 has no unit; want a duration with its unit, such as 0s or 5m`,
			`2: domains[0].subaddress: "++" is not a separator; want one character such as +, or ""`,
			"3: domains[1].nme: is not a key; want perhaps name",
			"3: domains[1].name: is not set; want a domain such as example.com",
			"3: domains[1].secret_file: is not set; want a path",
			"3: domains[1].addresses: is not set; want file:FILE, or any"}},
		{"limits: {connections: 0, outstanding: 0, per_client: many, idle_timeout: 0s}", []string{
			"1: limits.connections: 0 is below 1; want a whole number from 1 to 1000000",
			"1: limits.outstanding: 0 is below 1; want a whole number from 1 to 1000000",
			`1: limits.per_client: "many" is not a rate; want ` + wantRate,
			`1: limits.idle_timeout: "0s" is not more than zero; want ` + wantPositive}},
	}
	for _, tc := range tests {
		path := writeServerFile(t, tc.file)
		loaded, err := LoadServer(path, nil)
		if err == nil || loaded != nil {
			t.Errorf("%s: no fault, want %q", tc.file, tc.want)
			continue
		}
		got := strings.Split(strings.ReplaceAll(err.Error(), path+":", ""), "\n")
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.file, diff)
		}
	}
}

func TestServerEnvironmentFaults(t *testing.T) {
	for environ, want := range map[string]string{
		"AUTHKEY_SERVER_LISTEN=tls:7425":      "$AUTHKEY_SERVER_LISTEN: listen: has a tls: socket without a certificate; want both tls.cert and tls.key",
		"AUTHKEY_SERVER_DOMAINS=[]":           "$AUTHKEY_SERVER_DOMAINS: domains: is a list of objects, which an environment variable cannot hold; want it in the file",
		"AUTHKEY_SERVER_MODE=test":            "$AUTHKEY_SERVER_MODE: is not a key of server.yaml; want AUTHKEY_SERVER_ and a key in capitals, with _ for .",
		"AUTHKEY_SERVER_LIMITS_CONNECTIONS=0": "$AUTHKEY_SERVER_LIMITS_CONNECTIONS: limits.connections: \"0\" is below 1; want a whole number from 1 to 1000000",
	} {
		_, err := LoadServer("", []string{environ})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", environ, err, want)
		}
	}
	missing := filepath.Join(t.TempDir(), "server.yaml")
	faults := Faults{}
	if _, err := LoadServer(missing, nil); !errors.As(err, &faults) || err.Error() != missing+": does not exist" {
		t.Errorf("missing file: %v", err)
	}
}

// A fault that shows later says where the value stands.
func TestFaultOfSettings(t *testing.T) {
	loaded := mustLoadServer(t, fullServer, "AUTHKEY_SERVER_HOST=as2.example.com")
	none, err := LoadServer("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		settings Settings
		key      string
		want     Fault
	}{
		{loaded.Settings, "domains[1].secret_file", Fault{loaded.Path, 7, "domains[1].secret_file", "p", "w", nil}},
		{loaded.Settings, "domains[1]", Fault{loaded.Path, 7, "domains[1]", "p", "w", nil}},
		{loaded.Settings, "domains[1].avt", Fault{loaded.Path, 7, "domains[1].avt", "p", "w", nil}}, // by default
		{loaded.Settings, "tls.cert", Fault{loaded.Path, 4, "tls.cert", "p", "w", nil}},
		{loaded.Settings, "listen[1]", Fault{loaded.Path, 3, "listen[1]", "p", "w", nil}},
		{loaded.Settings, "host", Fault{"$AUTHKEY_SERVER_HOST", 0, "host", "p", "w", nil}},
		{none.Settings, "listen", Fault{"server.yaml", 0, "listen", "p", "w", nil}},
	} {
		if diff := cmp.Diff(tc.want, tc.settings.Fault(tc.key, "p", "w")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.key, diff)
		}
	}
}

func TestWriteServer(t *testing.T) {
	var describe, effective bytes.Buffer
	if err := errors.Join(WriteDescribe(&describe, DescribeServer(), false), WriteEffective(&effective, mustLoadServer(t, fullServer).Settings, false)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"domains[].secret_file", "AUTHKEY", "limits.per_client"} {
		if found := strings.Contains(describe.String(), want); found == (want == "AUTHKEY") {
			t.Errorf("describe has %s: %v", want, found)
		}
	}
	if !strings.Contains(effective.String(), "limits.per_client") || !strings.Contains(effective.String(), "3/1m") {
		t.Errorf("effective:\n%s", effective.String())
	}
}

// Any file is either refused with faults that print, or is a configuration whose
// effective settings are a file that comes to the same.
func FuzzLoadServer(f *testing.F) {
	data, err := os.ReadFile("testdata/server.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, s := range []string{
		fullServer, "", "tls: {cert: x}", "listen: ['tls:[::1%0]:1']", "listen: []", "domains: [{}]", "domains: [{name: a, secret_file: s, addresses: any}]",
		"domains: [&d {name: a}, *d]", "host: ::1", "limits: {per_client: 1/1ns}", "domains: {}", "tls: null",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second Server
		s, faults := load(serverSchema(&first), "f", data, nil)
		if len(faults) > 0 {
			if n := strings.Count(faults.Error(), "\n") + 1; n != len(faults) {
				t.Fatalf("%d faults on %d lines: %s", len(faults), n, faults)
			}
			return
		}
		again := nested(t, s.Effective())
		if _, faults := load(serverSchema(&second), "again", again, nil); len(faults) > 0 {
			t.Fatalf("%s\nof\n%s", faults, again)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
		loaded := LoadedServer{Config: first, Settings: s}
		for _, fault := range loaded.checkTLS() {
			if strings.Contains(fault.Error(), "\n") {
				t.Fatalf("a fault on two lines: %s", fault)
			}
		}
	})
}
