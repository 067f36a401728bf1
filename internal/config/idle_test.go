package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An idleCase is a configuration, and what of it is refused or said to have no effect:
// parts of the faults, none for what has one.
type idleCase struct {
	yaml string
	want []string
}

// An idleKey has the cases of one key.
type idleKey struct {
	none  string // why every value has an effect
	cases []idleCase
}

// milterIdle has for every key the values that would be accepted and do nothing, or says
// why there are none.
var milterIdle = map[string]idleKey{
	"mode":        {none: "either word"},
	"listen":      {cases: []idleCase{{"listen: []", []string{"listen: has no effect: it names no socket"}}, {"listen: ['unix:/a', 'unix:/a']", []string{"listen[1]: has no effect: the socket is named before"}}}},
	"socket.mode": {cases: []idleCase{{"socket: {mode: '0555'}", []string{"socket.mode: 0555 allows no connection"}}, {"listen: ['inet:1@127.0.0.1']\nsocket: {mode: '0600'}", []string{"2: socket.mode: has no effect: listen has no unix: socket"}}}},
	"socket.group": {cases: []idleCase{{"listen: ['inet:1@127.0.0.1']\nsocket: {group: mail}", []string{"socket.group: has no effect: listen has no unix: socket"}},
		{"socket: {group: mail}", nil}}}, // that there is such a group is looked at by check
	"authserv_id": {cases: []idleCase{{"authserv_id: '*'", []string{"has a wildcard, and matches nothing"}}}},
	"trusted_authserv_ids": {cases: []idleCase{{"trusted_authserv_ids: [a.test]", []string{"trusted_authserv_ids: has no effect: exempt.keep_results is false"}},
		{"exempt: {keep_results: true, networks: [192.0.2.1]}\ntrusted_authserv_ids: ['*.test']", []string{"has a wildcard, and matches nothing"}},
		{"exempt: {keep_results: true, networks: [192.0.2.1]}\nauthserv_id: mx.test\ntrusted_authserv_ids: [a.test, MX.test, A.test]", []string{"trusted_authserv_ids[1]: has no effect: MX.test is authserv_id, our own", "trusted_authserv_ids[2]: has no effect: A.test is there before"}}}},
	"local_domains":            {cases: []idleCase{{"local_domains: [a.test, A.TEST]", []string{"local_domains[1]: has no effect"}}, {"local_domains: ['*.a.test']", []string{"is not a domain name"}}, {"local_domains: [192.0.2.1]", []string{"is not a domain name"}}}},
	"exempt.networks":          {cases: []idleCase{{"exempt: {networks: [0.0.0.0/0]}", []string{"exempt.networks[0]: 0.0.0.0/0 is every client: nobody's mail is checked"}}, {"exempt: {networks: [10.0.0.0/8, 10.1.0.0/16]}", []string{"exempt.networks[1]: has no effect: 10.1.0.0/16 is in a network before it"}}}},
	"submission.authenticated": {none: "either word"},
	"submission.networks": {cases: []idleCase{{"submission: {networks: ['::/0']}", []string{"submission.networks[0]: ::/0 is every client"}},
		{"exempt: {networks: [10.0.0.0/8]}\nsubmission: {networks: [10.1.0.0/16]}", []string{"2: submission.networks[0]: has no effect: 10.1.0.0/16 is in exempt.networks, which comes first"}},
		{"exempt: {networks: [10.0.0.0/16]}\nsubmission: {networks: [10.0.0.0/8]}", nil}}},
	"submission.daemons": {cases: []idleCase{{"submission: {daemons: [A, A]}", []string{"submission.daemons[1]"}}, {"submission: {daemons: ['*']}", []string{"has a wildcard, and matches nothing"}},
		{"submission: {daemons: [\"A\\u200B\"]}", []string{"has the character U+200B, which does not show"}}}},
	"dns.servers":            {cases: []idleCase{{"dns: {servers: ['127.0.0.1:53', '127.0.0.1:53']}", []string{"dns.servers[1]"}}}},
	"dns.timeout":            {cases: []idleCase{{"dns: {timeout: 11s}", []string{"dns.timeout: has no effect: verify.timeout, 10s, ends before it"}}}},
	"verify.timeout":         {none: "it bounds the others"},
	"verify.connect_timeout": {cases: []idleCase{{"verify: {connect_timeout: 20s}", []string{"verify.connect_timeout: has no effect"}}, {"verify: {timeout: 1s}", nil}}},
	"verify.reply_timeout":   {cases: []idleCase{{"verify: {reply_timeout: 20s}", []string{"verify.reply_timeout: has no effect"}}}},
	"verify.allow_networks":  {cases: []idleCase{{"verify: {allow_networks: [10.0.0.0/8, 10.0.0.1]}", []string{"verify.allow_networks[1]"}}}},
	"verify.allow_ports":     {cases: []idleCase{{"verify: {allow_ports: [443, 7425]}", []string{"verify.allow_ports[1]: has no effect: ports from 1024 on are allowed anyway"}}}},
	"verify.require_tls":     {none: "either word"},
	"verify.ca_file":         {none: "a file without certificate is refused by check"},
	"cache.entries":          {none: "any number"},
	"cache.default_ttl":      {cases: []idleCase{{"cache: {default_ttl: 2h}", []string{"cache.default_ttl: has no effect: cache.max_ttl, 1h0m0s, ends before it"}}}},
	"cache.max_ttl":          {none: "it bounds the other"},
	"policy.pass":            {cases: floorCases("pass")}, "policy.none": {cases: floorCases("none")}, "policy.nokey": {cases: floorCases("nokey")},
	"policy.fail": {cases: floorCases("fail")}, "policy.permerror": {cases: floorCases("permerror")}, "policy.temperror": {cases: floorCases("temperror")},
	"policy.rules": {cases: []idleCase{
		{"policy:\n rules:\n  - {recipient: a@b.test, fail: mark, nokey: mark}\n  - {recipient: A@B.test, fail: reject, none: mark}", []string{"4: policy.rules[1].fail: has no effect: policy.rules[0] is for the same, and comes first"}},
		{"policy: {rules: [{recipient: a@b.test, fail: mark}, {recipient: a@b.test, sender: c.test, fail: mark}, {sender: a@b.test, fail: mark}]}", nil},
		{"policy: {floor: {fail: reject}, rules: [{recipient: a@b.test, fail: mark}]}", []string{"policy.rules[0].fail: has no effect: policy.floor.fail, reject, is stricter"}},
		{"policy: {rules: [{sender: '*@bank.test', fail: reject}]}", []string{`has a wildcard, and matches nothing (perhaps bank.test is meant, the domain)`}},
		{"policy: {rules: [{sender: '%@bank.test', fail: reject}]}", []string{"(perhaps bank.test is meant, the domain)"}},
		{"policy: {rules: [{sender: 'ceo*@bank.test', fail: reject}]}", []string{"has a wildcard"}},
		{"policy: {rules: [{sender: '*.bank.test', fail: reject}]}", []string{"has a wildcard, and matches nothing (.example.com is for the subdomains of example.com)"}},
		{"policy: {rules: [{sender: 'ceo@*.bank.test', fail: reject}]}", []string{"has a wildcard"}},
		{"policy: {rules: [{sender: '*', fail: reject}]}", []string{"has a wildcard"}},
		{"policy: {rules: [{sender: '%', fail: reject}]}", []string{"has a wildcard"}},
		{"policy: {rules: [{sender: 192.0.2.1, fail: reject}]}", []string{"is neither an address nor a domain"}},
		{"policy: {rules: [{sender: ceo@192.0.2.1, fail: reject}]}", []string{"has no domain name after its @"}},
		{"policy: {rules: [{sender: \"ceo\\u200B@bank.test\", fail: reject}]}", []string{"has the character U+200B, which does not show"}},
		{"policy: {rules: [{recipient: \"ceo\\u00A0@bank.test\", fail: reject}]}", []string{"has the character U+00A0"}},
		{"policy: {rules: [{sender: 'ceo', fail: reject}]}", []string{"is a word without a dot, and matches nothing"}},
		{"policy: {rules: [{sender: '@bank.test', fail: reject}]}", []string{"is not an address"}},
		{"policy: {rules: [{sender: '<a@bank.test>', fail: reject}]}", []string{"policy.rules[0].sender"}},
		{"policy: {rules: [{sender: 'a b@bank.test', fail: reject}]}", []string{"is not an address"}},
		{"policy: {rules: [{sender: '.a@bank.test', fail: reject}]}", []string{"is not an address"}},
		{"policy: {rules: [{sender: '/.*@bank.test/', fail: reject}]}", []string{"policy.rules[0].sender"}},
		{"policy: {rules: [{sender: localhost, fail: reject}, {sender: '\"a b\"@bank.test', fail: mark}, {sender: 'user%host@bank.test', fail: mark}, {sender: 'jörg@bank.test', fail: mark}]}", nil},
	}},
	"policy.allowed": {cases: []idleCase{{"policy: {allowed: [mark]}", []string{"policy.allowed: has no effect: preferences.source is empty"}},
		{"policy: {allowed: [reject-notify, reject, accept, mark, discard, discard-notify, quarantine]}", nil},
		{"preferences: {source: 'file:/p'}\npolicy: {allowed: [mark, mark]}", []string{"policy.allowed[1]: has no effect: mark is there before"}}}},
	"policy.floor.pass": mildestFloor("pass"), "policy.floor.none": mildestFloor("none"), "policy.floor.nokey": mildestFloor("nokey"),
	"policy.floor.fail": mildestFloor("fail"), "policy.floor.permerror": mildestFloor("permerror"), "policy.floor.temperror": mildestFloor("temperror"),
	"policy.recipients": {none: "either word"}, "policy.mark_conflict": {none: "either word"}, "from.check": {none: "each word"},
	"from.actions.pass": {cases: fromCases("pass")}, "from.actions.none": {cases: fromCases("none")}, "from.actions.nokey": {cases: fromCases("nokey")},
	"from.actions.fail": {cases: fromCases("fail")}, "from.actions.permerror": {cases: fromCases("permerror")}, "from.actions.temperror": {cases: fromCases("temperror")},
	"from.trusted": {cases: []idleCase{
		{"from: {check: 'off', trusted: [{client: 192.0.2.1}]}", []string{"from.trusted: has no effect: from.check is off"}},
		{"from: {trusted: [{mail_from: list.test}, {mail_from: List.test}]}", []string{"from.trusted[1]: has no effect: from.trusted[0] is the same"}},
		{"from: {trusted: [{client: '::/0'}]}", []string{"from.trusted[0].client: ::/0 is every client: nobody's From is checked"}},
		{"from: {trusted: [{mail_from: \"a\\u200B@list.test\"}]}", []string{"U+200B"}},
		{"from: {trusted: [{client: 127.0.0.1}]}", []string{"from.trusted[0].client: has no effect"}},
		{"from: {trusted: [{mail_from: '*@list.test'}]}", []string{"perhaps list.test is meant"}},
		{"from: {trusted: [{mail_from: list}]}", []string{"is a word without a dot"}},
		{"from: {trusted: [{mail_from: .list.test}, {client: 192.0.2.0/24}]}", nil}}},
	"preferences.source":        {cases: []idleCase{{"preferences: {source: 'file:/p'}\npolicy: {allowed: []}", []string{"preferences.source: has no effect: policy.allowed is empty"}}}},
	"preferences.query":         {cases: []idleCase{{"preferences: {query: 'SELECT 1'}", []string{"preferences.query: has no effect: preferences.source is empty"}}}},
	"preferences.on_error":      {cases: []idleCase{{"preferences: {on_error: tempfail}", []string{"preferences.on_error: has no effect"}}}},
	"preferences.timeout":       {cases: []idleCase{{"preferences: {timeout: 1s}", []string{"preferences.timeout: has no effect"}}}},
	"preferences.cache":         {cases: []idleCase{{"preferences: {cache: 1s}", []string{"preferences.cache: has no effect"}}}},
	"mark.header":               {none: "any name that is not reserved"},
	"mark.value":                {none: "any text"},
	"mark.readdress":            {cases: []idleCase{{"mark: {readdress: '{local}@{domain}'}", []string{"mark.readdress: has no effect: it is the recipient's own address"}}}},
	"quarantine.mailbox":        {cases: []idleCase{{"quarantine: {mailbox: '{local}@{domain}'}", []string{"quarantine.mailbox: has no effect"}}}},
	"notify.smtp":               {none: "any address"},
	"notify.dsn":                {none: "each word"},
	"notify.trust":              {cases: []idleCase{{"notify: {dsn: always, trust: [TRUST]}", []string{"notify.trust: has no effect: notify.dsn is not authenticated"}}, {"notify: {trust: [TRUST, TRUST]}", []string{"notify.trust[1]"}}}},
	"notify.from_name":          {none: "any text"},
	"notify.template_dir":       {none: "a folder without templates is refused by check"},
	"notify.state_dir":          {none: "any folder"},
	"notify.rate.per_sender":    {cases: []idleCase{{"notify: {dsn: never, rate: {per_sender: 2/1h}}", []string{"notify.rate.per_sender: has no effect: notify.dsn is never"}}}},
	"notify.rate.global":        {none: "any rate"},
	"reply.fail":                {cases: replyCases("fail")},
	"reply.nokey":               {cases: replyCases("nokey")},
	"reply.none":                {cases: replyCases("none")},
	"reply.permerror":           {cases: replyCases("permerror")},
	"reply.temperror":           {cases: replyCases("temperror")},
	"notify.rate.per_recipient": {none: "any rate"},
	"log.level":                 {none: "each word"},
	"log.format":                {none: "each word"},
	"metrics.listen":            {none: "named as not acted on"},
	"control.socket":            {none: "named as not acted on"},
	"limits.connections":        {none: "any number"},
	"limits.idle_timeout":       {none: "any duration"},
	"limits.recipients":         {none: "any number"},
	"attach.domains": {cases: []idleCase{{"submission: {authenticated: false}\nattach: {domains: [DOMAIN]}", []string{"attach.domains: has no effect: with submission.authenticated: false"}},
		{"attach: {domains: [{domain: a.test, source: 'secret:/s', addresses: any, to: [b.test, B.test]}]}", []string{"attach.domains[0].to[1]"}},
		{"attach: {domains: [DOMAIN]}", nil}}},
	"attach.authorize": {cases: []idleCase{{"attach: {authorize: 'map:/m'}", []string{"attach.authorize: has no effect: attach.domains is empty"}}}},
	"attach.networks": {cases: []idleCase{{"attach: {networks: [192.0.2.0/24]}", []string{"attach.networks: has no effect: attach.domains is empty"}},
		{"attach: {networks: [192.0.2.0/24, 127.0.0.1], domains: [DOMAIN]}", []string{"attach.networks[0]: has no effect: 192.0.2.0/24 is not in submission.networks"}},
		{"submission: {networks: [192.0.2.0/25]}\nattach: {networks: [192.0.2.0/24, 192.0.2.1], domains: [DOMAIN]}", []string{"attach.networks[1]: has no effect: 192.0.2.1/32 is in a network before it"}},
		{"exempt: {networks: [192.0.2.0/24]}\nsubmission: {networks: [192.0.0.0/16]}\nattach: {networks: [192.0.2.1], domains: [DOMAIN]}", []string{"attach.networks[0]: has no effect: 192.0.2.1/32 is in exempt.networks"}}}},
	"attach.allow_inet": {cases: []idleCase{{"attach: {allow_inet: true}", []string{"attach.allow_inet: has no effect: attach.domains is empty"}},
		{"listen: ['unix:/a']\nattach: {allow_inet: true, domains: [DOMAIN]}", []string{"attach.allow_inet: has no effect: listen has no inet: socket"}},
		{"listen: ['inet:1']\nattach: {allow_inet: true, domains: [DOMAIN]}", nil},
		{"listen: []\nattach: {allow_inet: true, domains: [DOMAIN]}", []string{"listen: has no effect"}}}},
	"attach.allow_open_secrets": {cases: []idleCase{{"attach: {allow_open_secrets: true}", []string{"attach.allow_open_secrets: has no effect: attach.domains is empty"}}}},
	"exempt.keep_results":       {cases: []idleCase{{"exempt: {keep_results: true}", []string{"exempt.keep_results: has no effect: exempt.networks is empty"}}}},
	"attach.on_error":           {cases: []idleCase{{"attach: {on_error: tempfail}", []string{"attach.on_error: has no effect: attach.domains is empty"}}}},
}

func mildestFloor(result string) idleKey {
	return idleKey{cases: []idleCase{{fmt.Sprintf("policy: {floor: {%s: accept}}", result),
		[]string{fmt.Sprintf("policy.floor.%s: has no effect: accept is the least strict action anyway", result)}}}}
}

func floorCases(result string) []idleCase {
	return []idleCase{
		{fmt.Sprintf("policy: {%s: mark, floor: {%s: reject}}", result, result), []string{fmt.Sprintf("policy.%s: has no effect: policy.floor.%s, reject, is stricter", result, result)}},
		{fmt.Sprintf("policy: {%s: reject, floor: {%s: mark}}", result, result), nil},
		{fmt.Sprintf("policy: {floor: {%s: reject}}", result), nil}, // the default is nobody's mistake
	}
}

func fromCases(result string) []idleCase {
	return []idleCase{
		{fmt.Sprintf("from: {actions: {%s: reject}}", result), []string{fmt.Sprintf("from.actions.%s: has no effect: from.check is not enforce", result)}},
		{fmt.Sprintf("from: {check: enforce, actions: {%s: reject}}", result), nil},
	}
}

func replyCases(result string) []idleCase {
	var all []idleCase
	for text, refused := range map[string]bool{
		"550 5.7.1 no": true, "550 no": true, "550-no": true, "5.7.1 no": true, "451 4.7.1 later": true, "  ": true,
		"no": false, "550th in the queue": false, "5.7.1.9 is our address": false, "use port 587": false, "5 or more": false,
	} {
		want := []string{"reply." + result}
		if !refused {
			want = nil
		}
		all = append(all, idleCase{fmt.Sprintf("reply: {%s: %q}", result, text), want})
	}
	return all
}

// serverIdle is the same for server.yaml.
var serverIdle = map[string][]idleCase{
	"allow_open_secrets": {{"allow_open_secrets: true", []string{"allow_open_secrets: has no effect: domains is empty"}}},
	"host":               nil,
	"listen": {{"listen: []", []string{"listen: has no effect: it names no socket"}},
		{"listen: ['tcp:1', 'tcp:1']", []string{"listen[1]: has no effect: the socket is named before"}}},
	"tls.cert": {{"listen: ['tcp:1']\ntls: {cert: /c, key: /k}", []string{"tls.cert: has no effect: listen has no tls: socket", "tls.key: has no effect: listen has no tls: socket"}},
		{"listen: ['tls:1']\ntls: {cert: /c, key: /k}", nil},
		{"tls: {cert: /c, key: /k}", []string{"tls.cert: listen is not set: only a socket that systemd passes under the name tls uses it"}},
		{"listen: []\ntls: {cert: /c, key: /k}", []string{"listen: has no effect"}}},
	"tls.key": nil, // with tls.cert
	"domains": {{"domains: []", []string{"domains: has no effect: it is empty"}},
		{"domains: [{name: a.test, secret_file: /s, addresses: any, avt: 1h, grace: 1h, ttl: 3h}]", []string{"domains[0].ttl: has no effect: no key lives longer than avt and grace, 2h0m0s"}}},
	"limits.connections": nil, "limits.outstanding": nil, "limits.per_client": nil, "limits.idle_timeout": nil,
	"log.level": nil, "log.format": nil, "metrics.listen": nil,
}

// TestIdle goes through every key: what is accepted and does nothing is refused, or named
// with the reason.
func TestIdle(t *testing.T) {
	prepare := strings.NewReplacer("DOMAIN", "{domain: a.test, source: 'secret:/s', addresses: any}", "TRUST", "mx.test/dkim")
	check := func(file, yaml string, load func(path string) ([]Fault, error), want []string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, []byte(yaml+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		idle, err := load(path)
		var got []string
		for _, f := range idle {
			got = append(got, f.Error())
		}
		if err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		ok := len(got) == len(want)
		for i := range want {
			ok = ok && strings.Contains(got[i], want[i])
		}
		if !ok {
			t.Errorf("%s\n got %q\nwant %q", yaml, got, want)
		}
	}
	for _, k := range milterSchema(new(Config)).keys {
		entry, ok := milterIdle[k.name]
		if !ok || (entry.none == "") != (len(entry.cases) > 0) {
			t.Errorf("%s: can a value of it have no effect?", k.name)
		}
		for _, c := range entry.cases {
			check("milter.yaml", prepare.Replace(c.yaml), func(path string) ([]Fault, error) {
				loaded, err := Load(path, nil)
				if err != nil {
					return nil, err
				}
				return loaded.Idle(), nil
			}, c.want)
		}
	}
	for _, k := range serverSchema(new(Server)).keys {
		cases, ok := serverIdle[k.name]
		if !ok {
			t.Errorf("%s: can a value of it have no effect?", k.name)
		}
		for _, c := range cases {
			check("server.yaml", c.yaml, func(path string) ([]Fault, error) {
				loaded, err := LoadServer(path, nil)
				if err != nil {
					return nil, err
				}
				return loaded.Idle(), nil
			}, c.want)
		}
	}
	if loaded := mustLoad(t, ""); len(loaded.Idle()) > 0 {
		t.Errorf("defaults: %v", loaded.Idle())
	}
	if loaded := mustLoad(t, "", "AUTHKEY_MILTER_PREFERENCES_ON_ERROR=tempfail"); len(loaded.Idle()) != 1 || !strings.HasPrefix(loaded.Idle()[0].Error(), "$AUTHKEY_MILTER_PREFERENCES_ON_ERROR: ") {
		t.Errorf("environment: %v", loaded.Idle())
	}
}

// A file in which nothing has an effect is not listed without end.
func TestManyIdle(t *testing.T) {
	loaded := mustLoad(t, "trusted_authserv_ids: ["+strings.Repeat("mx.example.com, ", 2*maxIdle)+"]\nauthserv_id: mx.example.com\nexempt: {networks: [192.0.2.1], keep_results: true}\n")
	if got := len(loaded.Idle()); got != maxIdle {
		t.Errorf("%d, want %d", got, maxIdle)
	}
}
