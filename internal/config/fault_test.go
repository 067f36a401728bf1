package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	wantAction    = "one of accept, mark, discard, reject, discard-notify, reject-notify, quarantine, tempfail"
	wantPositive  = "a duration above zero with its unit, such as 3s or 5m"
	wantNetwork   = "a network such as 192.0.2.0/24 or 2001:db8::/32, or an address"
	wantListen    = "unix:PATH, inet:PORT@HOST or inet6:PORT@[ADDR]"
	wantMode      = `three or four octal digits in quotes, such as "0660"`
	wantAddrPort  = "IP:PORT such as 192.0.2.53:53 or [2001:db8::53]:53"
	wantVoucher   = "an authserv-id and spf or dkim, such as mx.example.com/dkim"
	wantAuthserv  = "a name such as mx.example.com (a token of RFC 2045)"
	wantHeader    = "the name of a header field such as X-Spam-Flag, and none that mail gives a meaning"
	wantValue     = "printable ASCII of at most 400 octets"
	wantReply     = wantValue + `, or ""`
	wantTemplate  = `an address, in which {local} and {domain} stand for the recipient's, or ""`
	wantRate      = "COUNT/DURATION such as 10/1h"
	wantMatch     = "an address, a domain, or .domain for its subdomains"
	wantDSN       = `file:PATH, sqlite:PATH, postgres://… or mysql://…, or ""`
	wantSocket    = `the path of a socket, at most 107 octets, or ""`
	wantHostPort  = "HOST:PORT such as 127.0.0.1:25"
	wantRuleField = "one of recipient, sender, pass, none, nokey, fail, permerror, temperror"
	wantRule      = "recipient, sender, pass, none, nokey, fail, permerror, temperror"
)

// Each file has the faults below it, without the name of the file.
func TestFaults(t *testing.T) {
	long := strings.Repeat("x", 401)
	tests := []struct {
		file string
		want []string
	}{
		// Names.
		{"Mode: test", []string{"1: Mode: is not a key; want perhaps mode"}},
		{"dns: {tmeout: 3s}", []string{"1: dns.tmeout: is not a key; want perhaps dns.timeout"}},
		{"polcy: {}", []string{"1: polcy: is not a key; want perhaps policy"}},
		{"verify: {connect-timeout: 3s}", []string{"1: verify.connect-timeout: is not a key; want perhaps verify.connect_timeout"}},
		{"zzzzzzzzzz: 1", []string{"1: zzzzzzzzzz: is not a key; want one of the keys that config --describe lists"}},
		{"\"a\\nb\": 1", []string{`1: "a\nb": is not a key; want one of the keys that config --describe lists`}},
		{"dns.timeout: 3s", []string{"1: dns.timeout: is written with dots; want each part nested in the one before"}},
		{"policy.rules.x: 3s", []string{"1: policy.rules.x: is not a key; want perhaps policy.rules"}},
		{"1: 2", []string{"1: has a key that is no name; want keys such as mode"}},
		{"dns: {true: 2}", []string{"1: dns: has a key that is no name; want keys such as mode"}},
		{"mode: test\n\nmode: test", []string{"3: mode: is set twice, first in line 1; want it once"}},
		{"dns: {}\ndns: {}", []string{"2: dns: is set twice, first in line 1; want it once"}},
		{"dns:\n  timeout: 1s\n  timeout: 2s", []string{"3: dns.timeout: is set twice, first in line 2; want it once"}},

		// Types.
		{"- mode", []string{"1: is a list; want keys and their values"}},
		{"hello", []string{"1: is text; want keys and their values"}},
		{"dns: [3s]", []string{"1: dns: is a list; want keys and their values"}},
		{"mode: [test]", []string{"1: mode: is a list; want one of enforce, test"}},
		{"mode:", []string{"1: mode: is without a value; want one of enforce, test"}},
		{"mode: true", []string{"1: mode: is true or false; want one of enforce, test"}},
		{"mode: 2024-01-01", []string{"1: mode: is a date; want one of enforce, test"}},
		{"mode: !x test", []string{"1: mode: is of a type of its own; want one of enforce, test"}},
		{"mode: prod", []string{`1: mode: "prod" is not known here; want one of enforce, test`}},
		{"local_domains: example.com", []string{"1: local_domains: is text; want a list in brackets, each a domain such as example.com"}},
		{"submission: {networks: }", []string{"1: submission.networks: is without a value; want a list in brackets, each " + wantNetwork}},
		{"verify: {require_tls: yes}", []string{"1: verify.require_tls: is text; want true or false"}},
		{"verify: {require_tls: 1}", []string{"1: verify.require_tls: is a number; want true or false"}},
		{"limits: {connections: '5'}", []string{"1: limits.connections: is text; want a whole number from 1 to 1000000"}},
		{"limits: {connections: 1.5}", []string{"1: limits.connections: is a number; want a whole number from 1 to 1000000"}},
		{"mark: {value: 1}", []string{"1: mark.value: is a number; want " + wantValue + ", in quotes"}},
		{"mode: &a test\nauthserv_id: *a", []string{`2: authserv_id: is an alias, which is not taken here; want ` + wantAuthserv + `, or ""`}},
		{"dns: &d {timeout: 3s}\nverify: {<<: *d}", []string{"2: verify: has a key that is no name; want keys such as mode"}},
		{"mode: test\n---\nmode: test", []string{"2: holds a second document; want one document"}},

		// Numbers and durations.
		{"limits: {connections: 0}", []string{"1: limits.connections: 0 is below 1; want a whole number from 1 to 1000000"}},
		{"cache: {entries: -1}", []string{"1: cache.entries: -1 is below 1; want a whole number from 1 to 100000000"}},
		{"cache: {entries: 99999999999999999999}", []string{"1: cache.entries: is a number; want a whole number from 1 to 100000000"}},
		{"cache: {entries: 9999999999999999999}", []string{"1: cache.entries: is a number too large; want a whole number from 1 to 100000000"}},
		{"verify: {allow_ports: [0, 25, 65536, x]}", []string{
			"1: verify.allow_ports[0]: 0 is below 1; want a whole number from 1 to 65535",
			"1: verify.allow_ports[2]: 65536 is above 65535; want a whole number from 1 to 65535",
			"1: verify.allow_ports[3]: is text; want a whole number from 1 to 65535"}},
		{"verify: {timeout: 300}", []string{"1: verify.timeout: 300 has no unit; want " + wantPositive}},
		{"verify: {timeout: '300'}", []string{`1: verify.timeout: "300" has no unit; want ` + wantPositive}},
		{"verify: {timeout: 0s}", []string{`1: verify.timeout: "0s" is not more than zero; want ` + wantPositive}},
		{"verify: {connect_timeout: -1s}", []string{`1: verify.connect_timeout: "-1s" is not more than zero; want ` + wantPositive}},
		{"verify: {reply_timeout: soon}", []string{`1: verify.reply_timeout: "soon" is not a duration; want ` + wantPositive}},
		{"preferences: {cache: -1s}", []string{`1: preferences.cache: "-1s" is below zero; want a duration with its unit, such as 0s or 5m`}},
		{"notify: {rate: {global: 5, per_sender: 0/1h, per_recipient: 1/5}}", []string{
			"1: notify.rate.global: 5 is not a rate; want " + wantRate,
			`1: notify.rate.per_sender: "0/1h" has no count from 1 to 1000000000; want ` + wantRate,
			`1: notify.rate.per_recipient: "1/5" has a span that has no unit; want ` + wantRate}},

		{"notify: {rate: {global: 1/0s}}", []string{`1: notify.rate.global: "1/0s" has a span that is not more than zero; want ` + wantRate}},
		{"notify: {smtp: 'mx.example.com:0'}", []string{`1: notify.smtp: "mx.example.com:0" has a port outside 1 to 65535; want ` + wantHostPort}},
		{"metrics: {listen: x}", []string{`1: metrics.listen: "x" is not HOST:PORT; want [HOST]:PORT such as 127.0.0.1:9796, or ""`}},
		{"submission: {daemons: ['']}", []string{`1: submission.daemons[0]: "" is empty; want a name without blanks`}},

		// Actions and rules.
		{"policy: {rules: [{recipient: '', fail: mark}]}", []string{`1: policy.rules[0].recipient: "" is empty; want ` + wantMatch}},
		{"policy: {fail: rejekt}", []string{`1: policy.fail: "rejekt" is not an action; want ` + wantAction}},
		{"policy: {fail: ''}", []string{`1: policy.fail: "" is not an action; want ` + wantAction}},
		{"policy: {floor: {skipped: mark, fail: Mark}}", []string{
			"1: policy.floor.skipped: is not a key; want one of the keys that config --describe lists",
			`1: policy.floor.fail: "Mark" is not an action; want ` + wantAction + `, or ""`}},
		{"policy: {allowed: [accept, tempfail]}", []string{`1: policy.allowed[1]: "tempfail" is not allowed here; want one of accept, mark, discard, reject, discard-notify, reject-notify, quarantine`}},
		{"policy:\n  rules:\n    ceo@example.com: {fail: reject}", []string{"3: policy.rules: is a group of keys; want a list of objects with " + wantRule}},
		{"policy:\n  rules:\n    - ceo@example.com\n    - {recipent: a@b.example, fail: reject}\n    - {fail: reject}\n    - {sender: a@b.example}\n" +
			"    - {sender: '@b.example', fail: drop}\n    - {sender: a b, fail: mark, fail: mark}\n    - {recipient: 'a@[192.0.2.1]', qqqqq: x, fail: mark}", []string{
			"3: policy.rules[0]: is text; want an object with " + wantRule,
			"4: policy.rules[1].recipent: is not a key; want perhaps recipient",
			"5: policy.rules[2]: matches nothing; want recipient or sender",
			"6: policy.rules[3]: has no action; want an action for one of pass, none, nokey, fail, permerror, temperror",
			`7: policy.rules[4].sender: "@b.example" is not an address; want ` + wantMatch,
			`7: policy.rules[4].fail: "drop" is not an action; want ` + wantAction,
			`8: policy.rules[5].sender: "a b" is neither an address nor a domain; want ` + wantMatch,
			"8: policy.rules[5].fail: is set twice, first in line 8; want it once",
			"9: policy.rules[6].qqqqq: is not a key; want " + wantRuleField}},
		{"from: {trusted: [{}, {mail_from: a.example, client: 192.0.2.1}, {client: x}]}", []string{
			"1: from.trusted[0]: trusts nobody; want mail_from or client",
			"1: from.trusted[1]: has both mail_from and client; want one of them an entry",
			`1: from.trusted[2].client: "x" is not a network; want ` + wantNetwork}},
		{"attach: {domains: [{domain: example.com, source: derive, avt: 0s, subaddress: ab, to: []}]}", []string{
			`1: attach.domains[0].source: "derive" does not begin with secret:; want secret:FILE`,
			`1: attach.domains[0].avt: "0s" is not more than zero; want ` + wantPositive,
			`1: attach.domains[0].subaddress: "ab" is not a separator; want one character such as +, or ""`,
			"1: attach.domains[0].to: is an empty list; want all, or a list in brackets, each a domain such as example.com",
			"1: attach.domains[0].addresses: is not set; want file:FILE, or any"}},
		{"attach: {domains: [{domain: example.com, source: 'secret:', addresses: some, to: every}], authorize: anybody}", []string{
			`1: attach.domains[0].source: "secret:" has no path; want secret:FILE`,
			`1: attach.domains[0].addresses: "some" does not begin with file:; want file:FILE, or any`,
			"1: attach.domains[0].to: is text; want all, or a list in brackets, each a domain such as example.com",
			`1: attach.authorize: "anybody" does not begin with map:; want login, or map:FILE`}},

		// Networks, sockets, hosts.
		{"exempt: {networks: [10.0.0.1/8, 10.0.0.0/33, mx, '::ffff:10.0.0.0/104', '::ffff:10.0.0.1', 'fe80::1%eth0']}", []string{
			`1: exempt.networks[0]: "10.0.0.1/8" has bits set beyond its length (perhaps 10.0.0.0/8 is meant); want ` + wantNetwork,
			`1: exempt.networks[1]: "10.0.0.0/33" is not a network; want ` + wantNetwork,
			`1: exempt.networks[2]: "mx" is not a network; want ` + wantNetwork,
			`1: exempt.networks[3]: "::ffff:10.0.0.0/104" is an IPv4 network in the form of an IPv6 one; want ` + wantNetwork,
			`1: exempt.networks[4]: "::ffff:10.0.0.1" is an IPv4 address in the form of an IPv6 one; want ` + wantNetwork,
			`1: exempt.networks[5]: "fe80::1%eth0" has a zone; want ` + wantNetwork}},
		{"listen: ['/run/s', 'tcp:25', 'unix:', 'inet:smtp', 'inet:0', 'inet:65536@localhost', 'inet:25@', 'inet:25@::1', 'inet6:25@[::1', 'inet6:25@[mx]', 'inet6:25@127.0.0.1', 'inet:25@a b']", []string{
			`1: listen[0]: "/run/s" is not a listen address; want ` + wantListen,
			`1: listen[1]: "tcp:25" begins with neither unix: nor inet: nor inet6: as it should; want ` + wantListen,
			`1: listen[2]: "unix:" has no path; want ` + wantListen,
			`1: listen[3]: "inet:smtp" has no port number where one belongs; want ` + wantListen,
			`1: listen[4]: "inet:0" has a port outside 1 to 65535; want ` + wantListen,
			`1: listen[5]: "inet:65536@localhost" has a port outside 1 to 65535; want ` + wantListen,
			`1: listen[6]: "inet:25@" has no host name or address where one belongs; want ` + wantListen,
			`1: listen[7]: "inet:25@::1" has an address that is not of the family that inet: has; want ` + wantListen,
			`1: listen[8]: "inet6:25@[::1" has a bracket that is not closed; want ` + wantListen,
			`1: listen[9]: "inet6:25@[mx]" has no IPv6 address in its brackets; want ` + wantListen,
			`1: listen[10]: "inet6:25@127.0.0.1" has an address that is not of the family that inet6: has; want ` + wantListen,
			`1: listen[11]: "inet:25@a b" has no host name or address where one belongs; want ` + wantListen}},
		{"control: {socket: /" + strings.Repeat("s", 107) + "}", []string{`1: control.socket: "/` + strings.Repeat("s", 79) + `…" has a path of 108 octets, and a socket's can have 107; want ` + wantSocket}},
		{"socket: {mode: 0660, group: 'mail users'}", []string{
			"1: socket.mode: is a number; want " + wantMode,
			`1: socket.group: "mail users" has a blank; want the name or number of a group, or ""`}},
		{"socket: {mode: '1660'}", []string{`1: socket.mode: "1660" has more than permission bits; want ` + wantMode}},
		{"socket: {mode: '068'}", []string{`1: socket.mode: "068" is not a mode; want ` + wantMode}},
		{"socket: {mode: 'rw'}", []string{`1: socket.mode: "rw" is not a mode; want ` + wantMode}},
		{"dns: {servers: [192.0.2.1, 'localhost:53', '192.0.2.1:0', '']}", []string{
			`1: dns.servers[0]: "192.0.2.1" is not IP:PORT; want ` + wantAddrPort,
			`1: dns.servers[1]: "localhost:53" is not IP:PORT; want ` + wantAddrPort,
			`1: dns.servers[2]: "192.0.2.1:0" has a port outside 1 to 65535; want ` + wantAddrPort,
			`1: dns.servers[3]: "" is not IP:PORT; want ` + wantAddrPort}},
		{"notify: {smtp: ':25'}", []string{`1: notify.smtp: ":25" has no host name or address where one belongs; want ` + wantHostPort}},
		{"notify: {smtp: 'localhost'}", []string{`1: notify.smtp: "localhost" is not HOST:PORT; want ` + wantHostPort}},
		{"metrics: {listen: ':70000'}", []string{`1: metrics.listen: ":70000" has a port outside 1 to 65535; want [HOST]:PORT such as 127.0.0.1:9796, or ""`}},

		// Text.
		{"authserv_id: 'mx example'", []string{`1: authserv_id: "mx example" has a character that an authserv-id cannot have; want ` + wantAuthserv + `, or ""`}},
		{"notify: {trust: [mx.example.com, mx.example.com/dmarc, mx.example.com/DKIM, mx;x/spf, /spf, mx.example.com/, a/b/spf]}", []string{
			`1: notify.trust[0]: "mx.example.com" names no method; want ` + wantVoucher,
			`1: notify.trust[1]: "mx.example.com/dmarc" has another method than spf or dkim; want ` + wantVoucher,
			`1: notify.trust[2]: "mx.example.com/DKIM" has another method than spf or dkim; want ` + wantVoucher,
			`1: notify.trust[3]: "mx;x/spf" has a character that an authserv-id cannot have; want ` + wantVoucher,
			`1: notify.trust[4]: "/spf" is empty; want ` + wantVoucher,
			`1: notify.trust[5]: "mx.example.com/" has another method than spf or dkim; want ` + wantVoucher,
			`1: notify.trust[6]: "a/b/spf" has another method than spf or dkim; want ` + wantVoucher}},
		{"trusted_authserv_ids: ['', mx;x, müx]", []string{
			`1: trusted_authserv_ids[0]: "" is empty; want ` + wantAuthserv,
			`1: trusted_authserv_ids[1]: "mx;x" has a character that an authserv-id cannot have; want ` + wantAuthserv,
			`1: trusted_authserv_ids[2]: "müx" has a character that an authserv-id cannot have; want ` + wantAuthserv}},
		{"local_domains: [a..b, '-a', 'a@b', '.example.com', '']", []string{
			`1: local_domains[0]: "a..b" is not a domain name; want a domain such as example.com`,
			`1: local_domains[1]: "-a" is not a domain name; want a domain such as example.com`,
			`1: local_domains[2]: "a@b" is not a domain name; want a domain such as example.com`,
			`1: local_domains[3]: ".example.com" is not a domain name; want a domain such as example.com`,
			`1: local_domains[4]: "" is empty; want a domain such as example.com`}},
		{"mark: {header: 'X Spam', value: ''}", []string{
			`1: mark.header: "X Spam" is not the name of a header field; want ` + wantHeader,
			`1: mark.value: "" is empty; want ` + wantValue}},
		{"mark: {header: x-auth-key}", []string{`1: mark.header: "x-auth-key" has a meaning of its own in mail; want ` + wantHeader}},
		{"mark: {header: Authentication-Results}", []string{`1: mark.header: "Authentication-Results" has a meaning of its own in mail; want ` + wantHeader}},
		{"mark: {header: Resent-From}", []string{`1: mark.header: "Resent-From" has a meaning of its own in mail; want ` + wantHeader}},
		{"mark: {header: 'X:Y'}", []string{`1: mark.header: "X:Y" is not the name of a header field; want ` + wantHeader}},
		{"mark: {header: ''}", []string{`1: mark.header: "" is empty; want ` + wantHeader}},
		{"mark: {readdress: '{user}@{domain}'}", []string{`1: mark.readdress: "{user}@{domain}" has the unknown placeholder "{user}"; want ` + wantTemplate}},
		{"mark: {readdress: '{local@{domain}'}", []string{`1: mark.readdress: "{local@{domain}" has the unknown placeholder "{local@{domain}"; want ` + wantTemplate}},
		{"mark: {readdress: 'local}@{domain}'}", []string{`1: mark.readdress: "local}@{domain}" has a brace without its partner; want ` + wantTemplate}},
		{"quarantine: {mailbox: 'quarantine'}", []string{`1: quarantine.mailbox: "quarantine" has no @; want ` + wantTemplate}},
		{"quarantine: {mailbox: '@example.com'}", []string{`1: quarantine.mailbox: "@example.com" is not an address; want ` + wantTemplate}},
		{"quarantine: {mailbox: '<q>@example.com'}", []string{`1: quarantine.mailbox: "<q>@example.com" is not an address; want ` + wantTemplate}},
		{"quarantine: {mailbox: 'q@{domain}.'}", []string{`1: quarantine.mailbox: "q@{domain}." has no domain name after its @; want ` + wantTemplate}},
		{"reply:\n  fail: \"a\\r\\nb\"\n  none: nö\n  nokey: " + long + "\n  permerror: \"a\\0\"", []string{
			`2: reply.fail: "a\r\nb" has a line break or another control character; want ` + wantReply,
			`3: reply.none: "nö" has a character outside ASCII; want ` + wantReply,
			`4: reply.nokey: "` + long[:80] + `…" has 401 octets; want ` + wantReply,
			`5: reply.permerror: "a\x00" has a line break or another control character; want ` + wantReply}},
		{"notify: {from_name: \"a\\nBcc: x\"}", []string{`1: notify.from_name: "a\nBcc: x" has a line break or another control character; want text on one line, or ""`}},

		{"preferences: {source: 'sqlite:'}", []string{"1: preferences.source: the value has no path; want " + wantDSN}},
		{"preferences: {source: 'file://host/list'}", []string{"1: preferences.source: the value has a host where only a path belongs; want " + wantDSN}},
		{"preferences: {source: \"file:/a\\nb\"}", []string{"1: preferences.source: the value has a line break or another control character; want " + wantDSN}},

		// No password in any fault.
		{"preferences: {source: 'postgres://u:s3cret@h/p@th'}", []string{"1: preferences.source: the value has a raw # or @ in its password, path or query (percent-encode it); want " + wantDSN}},
		{"preferences: {source: 'postgres://u:12/s3cret@h/d'}", []string{"1: preferences.source: the value has a raw # or @ in its password, path or query (percent-encode it); want " + wantDSN}},
		{"preferences: {source: 'mysql://u:s3cret%@h'}", []string{"1: preferences.source: the value is not a URL (percent-encode special characters of the password); want " + wantDSN}},
		{"preferences: {source: 'oracle://u:s3cret@h'}", []string{"1: preferences.source: the value is of an unknown kind; want " + wantDSN}},
		{"preferences: {source: s3cret}", []string{"1: preferences.source: the value names no kind of source; want " + wantDSN}},
		{"preferences: {source: 12345}", []string{"1: preferences.source: is a number; want " + wantDSN + ", in quotes"}},
		{"preferences: {source: {'postgres://u:s3cret@h': x}}", []string{"1: preferences.source: is a group of keys; want " + wantDSN}},
		{"preferences: {query: x, 'postgres://u:s3cret@h': x}", []string{`1: "preferences.postgres://xxxxx@h": is not a key; want one of the keys that config --describe lists`}},
		{"verify: {ca_file: \"postgres://u:s3cret@h\\n\"}", []string{`1: verify.ca_file: "postgres://xxxxx@h\n" has a line break or another control character; want a path, or ""`}},

		// All faults, in the order of the file.
		{"mode: x\ndns: {timeout: 1}\nmode: test\nfoo: 1", []string{
			`1: mode: "x" is not known here; want one of enforce, test`,
			"2: dns.timeout: 1 has no unit; want " + wantPositive,
			"3: mode: is set twice, first in line 1; want it once",
			"4: foo: is not a key; want one of the keys that config --describe lists"}},

		// YAML.
		{"mode: [test", []string{"1: is not YAML: did not find expected ',' or ']'"}},
		{"mode: test\n\tdns: {}", []string{"2: a tab indents here; want blanks"}},
		{"mode: test\nsubmission:\n\tnetworks: []", []string{"3: a tab indents here; want blanks"}},
		{"mode: test\nsubmission:\n  \tnetworks: []", []string{"3: a tab indents here; want blanks"}},
		{"mode: \xff", []string{"1: is not YAML: it has characters that are not UTF-8"}},
		{"# caf\u00e9\nlocal_domains: [b\xfc.test]", []string{"2: is not YAML: it has characters that are not UTF-8"}},
		{"# @\nmode: test\nauthserv_id: @x", []string{"3: is not YAML: a value begins with @; want it in quotes"}},
		{"mode: test\nlisten: [a, `b`]", []string{"2: is not YAML: a value begins with `; want it in quotes"}},
		{"mode: test\nlocal_domains:\n  - *.a.test", []string{"3: is not YAML: a value begins with *; want it in quotes"}},
		{"mode: test\nlog:\n  level: info\n\n # x\n format: text", []string{"6: is not indented as the lines before it are"}},
		{"mode: test\nlog: level: info", []string{"2: is not YAML: a second colon with a blank in one line, or a line that is indented too far; want each key on a line of its own, or the value in quotes"}},
	}
	for _, tc := range tests {
		path := writeFile(t, tc.file)
		_, err := Load(path, nil)
		if err == nil {
			t.Errorf("%s: no fault, want %q", tc.file, tc.want)
			continue
		}
		got := strings.Split(err.Error(), "\n")
		for i, line := range got {
			got[i] = strings.TrimPrefix(line, path+":")
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.file, diff)
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: a password in %q", tc.file, err)
		}
	}
}

// The longest text that a key takes, and one octet more.
func TestLongTexts(t *testing.T) {
	for _, tt := range []struct {
		before, after string
		most          int
	}{
		{"authserv_id: ", "\n", maxAuthservID},
		{"trusted_authserv_ids: [", "]\n", maxAuthservID},
		{"mark: {header: ", "}\n", maxHeaderName},
		{"mark: {value: ", "}\n", maxReply},
		{"reply: {fail: ", "}\n", maxReply},
	} {
		mustLoad(t, tt.before+strings.Repeat("x", tt.most)+tt.after)
		_, err := Load(writeFile(t, tt.before+strings.Repeat("x", tt.most+1)+tt.after), nil)
		if want := fmt.Sprintf(" has %d octets; want ", tt.most+1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want%s", tt.before, err, want)
		}
	}
}

func TestEnvironmentFaults(t *testing.T) {
	environ := []string{
		"AUTHKEY_MILTER_DNS_TIMEOUT=3",
		"AUTHKEY_MILTER_MODE=",
		"AUTHKEY_MILTER_VERIFY_REQUIRE_TLS=1",
		"AUTHKEY_MILTER_LIMITS_CONNECTIONS=many",
		"AUTHKEY_MILTER_VERIFY_ALLOW_PORTS=25,x",
		"AUTHKEY_MILTER_EXEMPT_NETWORKS=192.0.2.1,,y",
		"AUTHKEY_MILTER_POLICY_RULES=[]",
		"AUTHKEY_MILTER_POLICY=reject",
		"AUTHKEY_MILTER_VERIFY_CONECT_TIMEOUT=1s",
		"AUTHKEY_MILTER_=1",
		"AUTHKEY_MILTER_NOTIFY_FROM_NAME=b\xfc",
		"AUTHKEY_MILTER_PREFERENCES_SOURCE=postgress://u:s3cret@h/d",
	}
	want := []string{
		"$AUTHKEY_MILTER_MODE: mode: \"\" is not known here; want one of enforce, test",
		`$AUTHKEY_MILTER_EXEMPT_NETWORKS: exempt.networks: "" is not a network; want ` + wantNetwork,
		`$AUTHKEY_MILTER_EXEMPT_NETWORKS: exempt.networks: "y" is not a network; want ` + wantNetwork,
		`$AUTHKEY_MILTER_DNS_TIMEOUT: dns.timeout: "3" has no unit; want ` + wantPositive,
		`$AUTHKEY_MILTER_VERIFY_ALLOW_PORTS: verify.allow_ports: "x" is not a whole number; want a whole number from 1 to 65535`,
		`$AUTHKEY_MILTER_VERIFY_REQUIRE_TLS: verify.require_tls: "1" is neither true nor false; want true or false`,
		"$AUTHKEY_MILTER_POLICY_RULES: policy.rules: is a list of objects, which an environment variable cannot hold; want it in the file",
		"$AUTHKEY_MILTER_PREFERENCES_SOURCE: preferences.source: the value is of an unknown kind; want " + wantDSN,
		`$AUTHKEY_MILTER_NOTIFY_FROM_NAME: notify.from_name: "b\xfc" is not UTF-8; want text on one line, or ""`,
		`$AUTHKEY_MILTER_LIMITS_CONNECTIONS: limits.connections: "many" is not a whole number; want a whole number from 1 to 1000000`,
		"$AUTHKEY_MILTER_: is not a key of milter.yaml; want AUTHKEY_MILTER_ and a key in capitals, with _ for .",
		"$AUTHKEY_MILTER_POLICY: is not a key of milter.yaml; want AUTHKEY_MILTER_ and a key in capitals, with _ for .",
		"$AUTHKEY_MILTER_VERIFY_CONECT_TIMEOUT: is not a key of milter.yaml; want perhaps AUTHKEY_MILTER_VERIFY_CONNECT_TIMEOUT",
	}
	_, err := Load("", environ)
	if err == nil {
		t.Fatal("no faults")
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Faults of the file and of the environment are reported together.
	path := writeFile(t, "log: {level: loud}")
	_, err = Load(path, []string{"AUTHKEY_MILTER_LOG_FORMAT=xml"})
	faults := Faults{}
	if !errors.As(err, &faults) {
		t.Fatalf("error %T is no Faults", err)
	}
	if diff := cmp.Diff(Faults{
		{path, 1, "log.level", `"loud" is not known here`, "one of debug, info, warn, error", nil},
		{"$AUTHKEY_MILTER_LOG_FORMAT", 0, "log.format", `"xml" is not known here`, "one of text, json", nil},
	}, faults); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFileFaults(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, []byte("#"+strings.Repeat(" ", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.yaml")
	for path, want := range map[string]string{
		missing:             missing + ": does not exist",
		filepath.Dir(large): dir + ": cannot be read: is a directory",
		large:               large + ": is too large; want at most 1048576 octets",
		"a\nb":              `"a\nb": does not exist`,
	} {
		loaded, err := Load(path, nil)
		if err == nil || err.Error() != want || loaded != nil {
			t.Errorf("Load(%q) = %v, %v; want %s", path, loaded, err, want)
		}
	}
	if err := os.Truncate(large, maxFile); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large, nil); err != nil {
		t.Errorf("a file of the largest size: %v", err)
	}
}

// A file of nothing but faults is not listed without end.
func TestManyFaults(t *testing.T) {
	_, err := Load(writeFile(t, "listen: ["+strings.Repeat("x,", 10*maxFaults)+"]"), nil)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxFaults+1 || !strings.HasSuffix(lines[maxFaults], ": may have more faults; want those above put right first") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}
