package config

import "strings"

// What this build does with a key.
const (
	acted = true
	later = false // accepted and checked, and reported by NotActedOn where it is set
)

// Upper bounds of counts, so that a slip of the finger does not ask for more
// memory than a machine has.
const (
	maxCacheEntries = 100_000_000
	maxConnections  = 1_000_000
	maxRecipients   = 10_000_000
)

// milterSchema is the table of milter.yaml.
var milterSchema = newSchema("milter.yaml", "AUTHKEY_MILTER_", []key{
	{"mode", oneOf("enforce", "test"), "enforce", acted, "test: verify, remove keys and log what would be done, but change no verdict"},
	{"listen", listOf("sockets", listenKind()), []any{"unix:/run/authkey/milter.sock"}, acted, "sockets to listen on: unix:PATH, inet:PORT@HOST, inet6:PORT@[ADDR]; inet:PORT is loopback; those passed by systemd come first"},
	{"socket.mode", kind{name: "octal mode", want: `three or four octal digits in quotes, such as "0660"`, parse: parsed(parseFileMode)}, "0660", acted, "mode of our unix sockets"},
	{"socket.group", orEmpty(textKind("group", "the name or number of a group", checkToken)), "", acted, "group of our unix sockets; empty: the process's own"},
	{"authserv_id", orEmpty(authservIDKind()), "", acted, "our name in Authentication-Results; empty: the MTA's {j}, else the host name"},
	{"trusted_authserv_ids", listOf("authserv-ids", authservIDKind()), []any{}, acted, "further ids, of other servers of yours, under which exempt.keep_results keeps results"},
	{"local_domains", listOf("domains", domainKind()), []any{}, acted, "domains whose mail stays here: the key of a submission only to these is removed"},
	{"exempt.networks", listOf("networks", networkKind()), []any{}, acted, "clients that are not checked, such as a backup MX"},
	{"exempt.keep_results", boolKind(), false, acted, "true: x-authkey results of exempt clients stay; they must check, and remove forged ones, by themselves"},
	{"submission.authenticated", boolKind(), true, acted, "authenticated clients are our own submissions"},
	{"submission.networks", listOf("networks", networkKind()), []any{"127.0.0.0/8", "::1/128"}, acted, "clients that are our own submissions; [] means none"},
	{"submission.daemons", listOf("names", textKind("name", "a name without blanks", checkToken)), []any{"ORIGINATING"}, acted, "daemon names of the MTA whose mail is our own submissions"},

	{"dns.servers", listOf("IP:PORT", textKind("IP:PORT", "IP:PORT such as 192.0.2.53:53 or [2001:db8::53]:53", checkAddrPort)), []any{}, acted, "DNS servers to ask; [] means those of /etc/resolv.conf"},
	{"dns.timeout", positiveDuration(), "3s", acted, "how long a DNS lookup may take"},
	{"verify.timeout", positiveDuration(), "10s", acted, "how long a verification may take in all"},
	{"verify.connect_timeout", positiveDuration(), "2s", acted, "how long connecting to an Authentication Server may take, TLS included"},
	{"verify.reply_timeout", positiveDuration(), "5s", acted, "how long an Authentication Server may take to reply"},
	{"verify.allow_networks", listOf("networks", networkKind()), []any{}, acted, "addresses to dial although they are not globally reachable"},
	{"verify.allow_ports", integerListKind("ports", 1, 65535), []any{}, acted, "ports below 1024 to dial"},
	{"verify.require_tls", boolKind(), false, acted, "true: an Authentication Server without TLS is permerror"},
	{"verify.ca_file", orEmpty(pathKind()), "", acted, "certificates to trust in place of the system's roots"},
	{"cache.entries", integerKind(1, maxCacheEntries), 1_000_000, acted, "how many sender addresses the cache of valid keys holds"},
	{"cache.default_ttl", positiveDuration(), "5m", acted, "how long a key is cached where the reply does not say"},
	{"cache.max_ttl", positiveDuration(), "1h", acted, "how long a key is cached at most"},

	{"policy.pass", actionKind(actions), "accept", acted, "action for result pass"},
	{"policy.none", actionKind(actions), "accept", acted, "action for result none: the domain publishes no Authentication Server"},
	{"policy.nokey", actionKind(actions), "accept", acted, "action for result nokey: the domain publishes one, the message has no key"},
	{"policy.fail", actionKind(actions), "mark", acted, "action for result fail: the key is invalid, or missing where the domain requires one"},
	{"policy.permerror", actionKind(actions), "accept", acted, "action for result permerror: the domain's records are unusable"},
	{"policy.temperror", orEmpty(actionKind(actions)), "", acted, "action for result temperror; empty: accept, or tempfail for a domain whose record says req=yes"},
	{"policy.rules", objects("rules", ruleFields(), checkRule), []any{}, acted, "actions for recipients or senders; the most specific wins"},
	{"policy.allowed", listOf("actions", actionKind(allowedActions)), anyList(allowedActions), acted, "actions that recipients may choose; tempfail is none of them"},
	{"policy.floor.pass", orEmpty(actionKind(actions)), "", acted, "mildest action that anybody may choose for pass; empty: no floor"},
	{"policy.floor.none", orEmpty(actionKind(actions)), "", acted, "mildest action that anybody may choose for none; empty: no floor"},
	{"policy.floor.nokey", orEmpty(actionKind(actions)), "", acted, "mildest action that anybody may choose for nokey; empty: no floor"},
	{"policy.floor.fail", orEmpty(actionKind(actions)), "", acted, "mildest action that anybody may choose for fail; empty: no floor"},
	{"policy.floor.permerror", orEmpty(actionKind(actions)), "", acted, "mildest action that anybody may choose for permerror; empty: no floor"},
	{"policy.floor.temperror", orEmpty(actionKind(actions)), "", acted, "mildest action that anybody may choose for temperror; empty: no floor"},
	{"policy.recipients", oneOf("merge", "separate"), "merge", acted, "recipients of one message who differ: merge their actions, or separate them into transactions of their own"},
	{"policy.mark_conflict", oneOf("mark", "accept"), "mark", acted, "what all get where some recipients want mark and some accept"},

	{"from.check", oneOf("off", "report", "enforce"), "report", acted, "check the From field too: report writes the result, enforce acts on it"},
	{"from.actions.pass", actionKind(actions), "accept", acted, "action for From result pass"},
	{"from.actions.none", actionKind(actions), "accept", acted, "action for From result none"},
	{"from.actions.nokey", actionKind(actions), "accept", acted, "action for From result nokey"},
	{"from.actions.fail", actionKind(actions), "mark", acted, "action for From result fail"},
	{"from.actions.permerror", actionKind(actions), "mark", acted, "action for From result permerror"},
	{"from.actions.temperror", actionKind(actions), "accept", acted, "action for From result temperror"},
	{"from.trusted", objects("lists and forwarders", trustedFields(), checkTrusted), []any{}, acted, "lists and forwarders whose From is not checked"},

	{"preferences.source", dsnKind(), "", acted, "recipients' preferences: file:PATH, sqlite:PATH, postgres://… or mysql://…; empty: none"},
	{"preferences.query", orEmpty(textKind("SQL", "an SQL query", checkQuery)), "", later, "query for one recipient; empty: the columns of authkey_preferences WHERE recipient = ?"},
	{"preferences.on_error", oneOf("default", "tempfail"), "default", acted, "where a lookup fails: the administrator's choice, or tempfail"},
	{"preferences.timeout", positiveDuration(), "2s", later, "how long a lookup may take"},
	{"preferences.cache", anyDuration(), "1m", later, "how long a preference is cached; 0s: not at all"},

	{"mark.header", textKind("header name", "the name of a header field such as X-Spam-Flag, and none that mail gives a meaning", checkMarkHeader), "X-Spam-Flag", acted, "header field that marks mail; strangers' fields of that name are removed"},
	{"mark.value", textKind("header value", "printable ASCII of at most 400 octets", checkMarkValue), "YES", acted, "value of that field"},
	{"mark.readdress", orEmpty(templateKind()), "", acted, "address that marked mail goes to, such as {local}+spam@{domain}; empty: the recipient's own"},
	{"quarantine.mailbox", orEmpty(templateKind()), "", acted, "address that quarantined mail goes to; empty: the MTA holds it"},

	{"notify.smtp", textKind("HOST:PORT", "HOST:PORT such as 127.0.0.1:25", checkHostPort), "127.0.0.1:25", acted, "SMTP listener that takes our notices and DSNs"},
	{"notify.dsn", oneOf("never", "authenticated", "always"), "authenticated", acted, "which senders get DSNs"},
	{"notify.trust", listOf("id/method", voucherKind()), []any{}, acted, "filters before us, and which of their methods (spf or dkim) authenticates a sender for a DSN"},
	{"notify.from_name", orEmpty(textKind("text", "text on one line", checkPrintable)), "", acted, "display name in the From of notices and DSNs"},
	{"notify.template_dir", orEmpty(pathKind()), "", acted, "folder of templates in place of the built-in texts"},
	{"notify.state_dir", orEmpty(pathKind()), "", acted, "folder that remembers what was sent, across restarts; empty: systemd's state directory, else nothing is remembered"},
	{"notify.rate.per_sender", rateKind(), "1/1h", acted, "DSNs to one sender"},
	{"notify.rate.per_recipient", rateKind(), "10/1h", acted, "notices to one recipient"},
	{"notify.rate.global", rateKind(), "100/1m", acted, "notices and DSNs in all"},

	{"reply.fail", replyKind(), "", acted, "text of the SMTP reply in place of the standard one, for fail"},
	{"reply.nokey", replyKind(), "", acted, "text of the SMTP reply in place of the standard one, for nokey and for a key that is required"},
	{"reply.none", replyKind(), "", acted, "text of the SMTP reply in place of the standard one, for none"},
	{"reply.permerror", replyKind(), "", acted, "text of the SMTP reply in place of the standard one, for permerror"},
	{"reply.temperror", replyKind(), "", acted, "text of the SMTP reply in place of the standard one, for temperror"},

	logLevelKey(),
	logFormatKey(),
	metricsListenKey(),
	{"control.socket", orEmpty(textKind("path", "the path of a socket, at most 107 octets", checkSocketPath)), "", later, "control socket, such as /run/authkey/milter.ctl; empty: none"},
	{"limits.connections", integerKind(1, maxConnections), 2000, acted, "connections of MTAs at a time; more are closed at once"},
	{"limits.idle_timeout", positiveDuration(), "10m", acted, "how long a connection may be idle"},
	{"limits.recipients", integerKind(1, maxRecipients), 50_000, acted, "recipients of one message; more: 451"},

	{"attach.domains", objects("domains", attachFields(), nil), []any{}, acted, "our own domains whose mail gets keys"},
	{"attach.authorize", textKind("login|map:FILE", "login, or map:FILE", checkAuthorize), "login", acted, "which addresses a login may use: those equal to it, or those of a map"},
	{"attach.networks", listOf("networks", networkKind()), []any{}, acted, "clients without login whose mail gets keys"},
	{"attach.on_error", oneOf("send", "tempfail"), "send", acted, "where no key can be had"},
	{"attach.allow_inet", boolKind(), false, acted, "true: attach keys although a socket is inet: or inet6:, where whoever connects can claim any login"},
	{"attach.allow_open_secrets", boolKind(), false, acted, "true: take secret files that everybody may read, such as Docker Compose's"},
})

// ruleFields are the fields of policy.rules.
func ruleFields() []field {
	match := textKind("address or domain", "an address, a domain, or .domain for its subdomains", checkMatch)
	fields := []field{
		{name: "recipient", kind: match, doc: "recipient's address, domain, or .domain for its subdomains"},
		{name: "sender", kind: match, doc: "envelope sender's address, domain, or .domain for its subdomains"},
	}
	for _, result := range results {
		fields = append(fields, field{name: result, kind: actionKind(actions), doc: "action for result " + result + "; not set: the next rule says"})
	}
	return fields
}

// results is the vocabulary of what a verification finds.
var results = []string{"pass", "none", "nokey", "fail", "permerror", "temperror"}

func checkRule(rule map[string]any) (problem, want string) {
	_, recipient := rule["recipient"]
	_, sender := rule["sender"]
	if !recipient && !sender {
		return "matches nobody", "recipient or sender"
	}
	for _, result := range results {
		if _, ok := rule[result]; ok {
			return "", ""
		}
	}
	return "has no action", "an action for " + oneOfText(results)
}

// trustedFields are the fields of from.trusted.
func trustedFields() []field {
	return []field{
		{name: "mail_from", kind: textKind("address or domain", "an address, a domain, or .domain for its subdomains", checkMatch), doc: "envelope sender that itself passed"},
		{name: "client", kind: networkKind(), doc: "client's network"},
	}
}

func checkTrusted(entry map[string]any) (problem, want string) {
	_, mailFrom := entry["mail_from"]
	_, client := entry["client"]
	switch {
	case mailFrom && client:
		return "has both mail_from and client", "one of them an entry"
	case !mailFrom && !client:
		return "trusts nobody", "mail_from or client"
	}
	return "", ""
}

// attachFields are the fields of attach.domains.
func attachFields() []field {
	to := listOf("domains", domainKind())
	to.word, to.filled, to.name = "all", true, "all or list of domains"
	return []field{
		{name: "domain", kind: domainKind(), required: true, doc: "domain of the sender's address"},
		{name: "source", kind: textKind("secret:FILE", "secret:FILE", checkPrefixed("secret:")), required: true, doc: "where keys come from: the secret of the domain's Authentication Server"},
		{name: "addresses", kind: addressesKind(), required: true, doc: "which addresses get keys: those of a file, or any of the domain"},
		{name: "avt", kind: positiveDuration(), def: "24h", doc: "AuthKey Valid Time: how long one key is attached"},
		{name: "case_sensitive", kind: boolKind(), def: false, doc: "true: local parts differ by case"},
		{name: "subaddress", kind: subaddressKind(), def: "+", doc: "separator of sub-addresses; empty: none"},
		{name: "to", kind: to, def: "all", doc: "recipient domains that get keys"},
	}
}

// allowedActions are those that recipients may be allowed: not tempfail, with
// which one of them could hold up everybody else's copy.
var allowedActions = []string{"accept", "mark", "discard", "reject", "discard-notify", "reject-notify", "quarantine"}

// The keys that both programs have.

func logLevelKey() key {
	return key{"log.level", oneOf("debug", "info", "warn", "error"), "info", acted, "least level that is logged"}
}

func logFormatKey() key {
	return key{"log.format", oneOf("text", "json"), "text", acted, "form of log lines: text is logfmt"}
}

func metricsListenKey() key {
	return key{"metrics.listen", orEmpty(textKind("[HOST]:PORT", "[HOST]:PORT such as 127.0.0.1:9796", checkListenPort)), "", later, "where /metrics, /healthz and /readyz are served; empty: nowhere"}
}

func addressesKind() kind { return textKind("file:FILE|any", "file:FILE, or any", checkAddresses) }

func subaddressKind() kind {
	return orEmpty(textKind("separator", "one character such as +", checkSubaddress))
}

func listenKind() kind {
	return kind{name: "socket", want: "unix:PATH, inet:PORT@HOST or inet6:PORT@[ADDR]", parse: parsed(parseListen)}
}

func authservIDKind() kind {
	return textKind("authserv-id", "a name such as mx.example.com (a token of RFC 2045)", checkAuthservID)
}

func voucherKind() kind {
	return textKind("id/method", "an authserv-id and spf or dkim, such as mx.example.com/dkim", checkVoucher)
}

func domainKind() kind { return textKind("domain", "a domain such as example.com", checkDomain) }

func pathKind() kind { return textKind("path", "a path", checkPath) }

func replyKind() kind {
	return orEmpty(textKind("reply text", "printable ASCII of at most 400 octets", checkReplyText))
}

func templateKind() kind {
	return textKind("address template", "an address, in which {local} and {domain} stand for the recipient's", checkTemplate)
}

func dsnKind() kind {
	k := orEmpty(textKind("DSN", "file:PATH, sqlite:PATH, postgres://… or mysql://…", checkDSN))
	k.secret = true
	k.partly = func(source string) string {
		if strings.HasPrefix(source, "file:") {
			return ""
		}
		return "preferences in SQL"
	}
	return k
}

func anyList(words []string) []any {
	list := make([]any, len(words))
	for i, w := range words {
		list[i] = w
	}
	return list
}
