package config

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// Upper bounds of counts, so that a typing error does not ask for more memory than a machine
// has.
const (
	maxCacheEntries = 100_000_000
	maxConnections  = 1_000_000
	maxRecipients   = 10_000_000
)

// What can be done with a message. Recipients may be allowed everything but tempfail, with
// which one recipient could delay the copies of all others.
var (
	allowedActions = []policy.Action{
		policy.Accept, policy.Mark, policy.Discard, policy.Reject, policy.DiscardNotify, policy.RejectNotify, policy.Quarantine,
	}
	anyAction = actionKind(append(slices.Clip(allowedActions), policy.TempFail))
)

// milterSchema is the table of milter.yaml, bound to c.
func milterSchema(c *Config) *schema {
	return newSchema("milter.yaml", "AUTHKEY_MILTER_", slices.Concat([]key{
		row("mode", &c.Mode, oneOf("enforce", "test"), "enforce", "test: verify, remove keys and log what would be done, but change no verdict"),
		row("listen", &c.Listen, listOf("sockets", listenKind), []any{"unix:/run/authkey/milter.sock"}, "sockets to listen on: unix:PATH, inet:PORT@HOST, inet6:PORT@[ADDR]; inet:PORT is loopback; those passed by systemd come first"),
		row("socket.mode", &c.Socket.Mode, parsedKind("octal mode", `three or four octal digits in quotes, such as "0660"`, parseFileMode), "0660", "mode of our unix sockets"),
		row("socket.group", &c.Socket.Group, orEmpty(textKind("group", "the name or number of a group", checkToken)), "", "group of our unix sockets; empty: the process's own"),
		row("authserv_id", &c.AuthservID, orEmpty(authservIDKind), "", "our name in Authentication-Results; empty: the MTA's {j}, else the host name"),
		row("trusted_authserv_ids", &c.TrustedAuthservIDs, listOf("authserv-ids", authservIDKind), []any{}, "further ids, of other servers of yours, under which exempt.keep_results keeps results"),
		row("local_domains", &c.LocalDomains, listOf("domains", canonicalDomain), []any{}, "domains whose mail stays here: the key of a submission only to these is removed"),
		row("exempt.networks", &c.Exempt.Networks, listOf("networks", networkKind), []any{}, "clients that are not checked, such as a backup MX"),
		row("exempt.keep_results", &c.Exempt.KeepResults, yesNo, false, "true: x-authkey results of exempt clients stay; they must check, and remove forged ones, by themselves"),
		row("submission.authenticated", &c.Submission.Authenticated, yesNo, true, "authenticated clients are our own submissions"),
		row("submission.networks", &c.Submission.Networks, listOf("networks", networkKind), []any{"127.0.0.0/8", "::1/128"}, "clients that are our own submissions; [] means none"),
		row("submission.daemons", &c.Submission.Daemons, listOf("names", textKind("name", "a name without blanks", checkToken)), []any{"ORIGINATING"}, "daemon names of the MTA whose mail is our own submissions"),

		row("dns.servers", &c.DNS.Servers, listOf("IP:PORT", parsedKind("IP:PORT", "IP:PORT such as 192.0.2.53:53 or [2001:db8::53]:53", parseAddrPort)), []any{}, "DNS servers to ask; [] means those of /etc/resolv.conf"),
		row("dns.timeout", &c.DNS.Timeout, positiveDuration, short(verifier.DefaultDNSTimeout), "how long a DNS lookup may take"),
		row("verify.timeout", &c.Verify.Timeout, positiveDuration, short(verifier.DefaultTimeout), "how long a verification may take in all"),
		row("verify.connect_timeout", &c.Verify.ConnectTimeout, positiveDuration, short(verifier.DefaultConnectTimeout), "how long connecting to an Authentication Server may take, TLS included"),
		row("verify.reply_timeout", &c.Verify.ReplyTimeout, positiveDuration, short(verifier.DefaultReplyTimeout), "how long an Authentication Server may take to reply"),
		row("verify.allow_networks", &c.Verify.AllowNetworks, listOf("networks", networkKind), []any{}, "addresses to dial although they are not globally reachable"),
		row("verify.allow_ports", &c.Verify.AllowPorts, listOf("ports", integerKind(1, 65535)), []any{}, "ports below 1024 to dial"),
		row("verify.require_tls", &c.Verify.RequireTLS, yesNo, false, "true: an Authentication Server without TLS is permerror"),
		row("verify.ca_file", &c.Verify.CAFile, orEmpty(pathKind), "", "certificates to trust in place of the system's roots"),
		row("cache.entries", &c.Cache.Entries, integerKind(1, maxCacheEntries), verifier.DefaultEntries, "how many sender addresses the cache of valid keys holds"),
		row("cache.default_ttl", &c.Cache.DefaultTTL, positiveDuration, short(verifier.DefaultTTL), "how long a key is cached where the reply does not say"),
		row("cache.max_ttl", &c.Cache.MaxTTL, positiveDuration, short(verifier.DefaultMaxTTL), "how long a key is cached at most"),

		row("policy.pass", &c.Policy.Pass, anyAction, "accept", "action for result pass"),
		row("policy.none", &c.Policy.None, anyAction, "accept", "action for result none: the domain publishes no Authentication Server"),
		row("policy.nokey", &c.Policy.NoKey, anyAction, "accept", "action for result nokey: the domain publishes one, the message has no key"),
		row("policy.fail", &c.Policy.Fail, anyAction, "mark", "action for result fail: the key is invalid, or missing where the domain requires one"),
		row("policy.permerror", &c.Policy.PermError, anyAction, "accept", "action for result permerror: the domain's records are unusable"),
		row("policy.temperror", &c.Policy.TempError, orEmpty(anyAction), "", "action for result temperror; empty: accept, or tempfail for a domain whose record says req=yes"),
		row("policy.rules", &c.Policy.Rules, objects("rules", ruleFields, checkRule), []any{}, "actions for recipients or senders; the most specific wins"),
		row("policy.allowed", &c.Policy.Allowed, listOf("actions", actionKind(allowedActions)), anyList(actionNames(allowedActions)), "actions that recipients may choose; tempfail is not allowed"),
	}, eachResult(func(result string) key {
		return row("policy.floor."+result, action(&c.Policy.Floor, result), orEmpty(anyAction), "", "least strict action for "+result+"; empty: no floor")
	}), []key{
		row("policy.recipients", &c.Policy.Recipients, oneOf("merge", "separate"), "merge", "recipients of one message who differ: merge their actions, or separate them into transactions of their own"),
		row("policy.mark_conflict", &c.Policy.MarkConflict, oneOf("mark", "accept"), "mark", "what all get where some recipients want mark and some accept"),

		row("from.check", &c.From.Check, oneOf("off", "report", "enforce"), "report", "check the From field too: report writes the result, enforce acts on it"),
	}, eachResult(func(result string) key {
		def := policy.Accept
		if result == "fail" || result == "permerror" {
			def = policy.Mark
		}
		return row("from.actions."+result, action(&c.From.Actions, result), anyAction, def.String(), "action for From result "+result)
	}), []key{
		row("from.trusted", &c.From.Trusted, objects("lists and forwarders", trustedFields, checkTrusted), []any{}, "lists and forwarders whose From is not checked"),

		row("preferences.source", &c.Preferences.Source, sourceKind(), "", "recipients' preferences: file:PATH, sqlite:PATH, postgres://… or mysql://…; empty: none"),
		row("preferences.query", &c.Preferences.Query, orEmpty(textKind("SQL", "an SQL query", checkQuery)), "", "query for one recipient; empty: the columns of authkey_preferences WHERE recipient = ?").notImplemented(),
		row("preferences.on_error", &c.Preferences.OnError, oneOf("default", "tempfail"), "default", "where a lookup fails: the administrator's choice, or tempfail"),
		row("preferences.timeout", &c.Preferences.Timeout, positiveDuration, "2s", "how long a lookup may take").notImplemented(),
		row("preferences.cache", &c.Preferences.Cache, anyDuration, "1m", "how long a preference is cached; 0s: not at all").notImplemented(),

		row("mark.header", &c.Mark.Header, textKind("header name", "the name of a header field such as X-Spam-Flag, and none that mail gives a meaning", checkMarkHeader), "X-Spam-Flag", "header field that marks mail; fields of that name from outside are removed"),
		row("mark.value", &c.Mark.Value, textKind("header value", "printable ASCII of at most 400 octets", checkMarkValue), "YES", "value of that field"),
		row("mark.readdress", &c.Mark.Readdress, templateKind, "", "address that marked mail goes to, such as {local}+spam@{domain}; empty: the recipient's own"),
		row("quarantine.mailbox", &c.Quarantine.Mailbox, templateKind, "", "address that quarantined mail goes to; empty: the MTA holds it"),

		row("notify.smtp", &c.Notify.SMTP, textKind("HOST:PORT", "HOST:PORT such as 127.0.0.1:25", checkHostPort), "127.0.0.1:25", "SMTP listener that takes our notices and DSNs"),
		row("notify.dsn", &c.Notify.DSN, oneOf("never", "authenticated", "always"), "authenticated", "which senders get DSNs"),
		row("notify.trust", &c.Notify.Trust, listOf("id/method", voucherKind), []any{}, "filters before us, and which of their methods (spf or dkim) authenticates a sender for a DSN"),
		row("notify.from_name", &c.Notify.FromName, orEmpty(textKind("text", "text on one line", checkPrintable)), "", "display name in the From of notices and DSNs"),
		row("notify.template_dir", &c.Notify.TemplateDir, orEmpty(pathKind), "", "folder of templates in place of the built-in texts"),
		row("notify.state_dir", &c.Notify.StateDir, orEmpty(pathKind), "", "folder that remembers what was sent, across restarts; empty: systemd's state directory, else nothing is remembered"),
		row("notify.rate.per_sender", &c.Notify.Rate.PerSender, rateKind, "1/1h", "DSNs to one sender"),
		row("notify.rate.per_recipient", &c.Notify.Rate.PerRecipient, rateKind, "10/1h", "notices to one recipient"),
		row("notify.rate.global", &c.Notify.Rate.Global, rateKind, "100/1m", "notices and DSNs in all"),

		replyRow("fail", &c.Reply.Fail, "fail"),
		replyRow("nokey", &c.Reply.NoKey, "nokey and for a key that is required"),
		replyRow("none", &c.Reply.None, "none"),
		replyRow("permerror", &c.Reply.PermError, "permerror"),
		replyRow("temperror", &c.Reply.TempError, "temperror"),

		logLevelKey(&c.Log),
		logFormatKey(&c.Log),
		metricsListenKey(&c.Metrics),
		row("control.socket", &c.Control.Socket, orEmpty(textKind("path", "the path of a socket, at most 107 octets", checkSocketPath)), "", "control socket, such as /run/authkey/milter.ctl; empty: none").notImplemented(),
		row("limits.connections", &c.Limits.Connections, integerKind(1, maxConnections), 2000, "connections of MTAs at a time; more are closed at once"),
		row("limits.idle_timeout", &c.Limits.IdleTimeout, positiveDuration, "10m", "how long a connection may be idle"),
		row("limits.recipients", &c.Limits.Recipients, integerKind(1, maxRecipients), 50_000, "recipients of one message; more: 451"),

		row("attach.domains", &c.Attach.Domains, objects("domains", attachFields, nil), []any{}, "our own domains whose mail gets keys"),
		row("attach.authorize", &c.Attach.Authorize, textKind("login|map:FILE", "login, or map:FILE", checkAuthorize), "login", "which addresses a login may use: those equal to it, or those of a map"),
		row("attach.networks", &c.Attach.Networks, listOf("networks", networkKind), []any{}, "clients without login whose mail gets keys"),
		row("attach.on_error", &c.Attach.OnError, oneOf("send", "tempfail"), "send", "where no key can be had"),
		row("attach.allow_inet", &c.Attach.AllowInet, yesNo, false, "true: attach keys although a socket is inet: or inet6:, where whoever connects can claim any login"),
		row("attach.allow_open_secrets", &c.Attach.AllowOpenSecrets, yesNo, false, "true: accept secret files that everybody may read, such as Docker Compose's"),
	}))
}

// results is the vocabulary of what a verification finds.
var results = []string{"pass", "none", "nokey", "fail", "permerror", "temperror"}

func eachResult(row func(result string) key) []key {
	keys := make([]key, len(results))
	for i, result := range results {
		keys[i] = row(result)
	}
	return keys
}

// action is that of one result.
func action(a *Actions, result string) *policy.Action {
	switch result {
	case "pass":
		return &a.Pass
	case "none":
		return &a.None
	case "nokey":
		return &a.NoKey
	case "fail":
		return &a.Fail
	case "permerror":
		return &a.PermError
	}
	return &a.TempError
}

func replyRow(result string, field *string, reason string) key {
	kind := orEmpty(textKind("reply text", "printable ASCII of at most 400 octets", checkReplyText))
	return row("reply."+result, field, kind, "", "text of the SMTP reply in place of the standard one, for "+reason)
}

func ruleFields(r *Rule) []key {
	return append([]key{
		bind("recipient", &r.Recipient, patternKind, "recipient's address, domain, or .domain for its subdomains"),
		bind("sender", &r.Sender, patternKind, "envelope sender's address, domain, or .domain for its subdomains"),
	}, eachResult(func(result string) key {
		return bind(result, action(&r.Actions, result), anyAction, "action for result "+result+"; not set: the next rule says")
	})...)
}

func checkRule(r Rule) (problem, want string) {
	switch {
	case r.Recipient == "" && r.Sender == "":
		return "matches nothing", "recipient or sender"
	case r.Actions == Actions{}:
		return "has no action", "an action for " + oneOfText(results)
	}
	return "", ""
}

func trustedFields(t *Trusted) []key {
	return []key{
		bind("mail_from", &t.MailFrom, patternKind, "envelope sender that itself passed"),
		bind("client", &t.Client, networkKind, "client's network"),
	}
}

func checkTrusted(t Trusted) (problem, want string) {
	switch {
	case t.MailFrom != "" && t.Client.IsValid():
		return "has both mail_from and client", "one of them an entry"
	case t.MailFrom == "" && !t.Client.IsValid():
		return "trusts nobody", "mail_from or client"
	}
	return "", ""
}

func attachFields(d *AttachDomain) []key {
	to := listOf("domains", domainKind)
	to.keyword, to.nonEmpty, to.name = "all", true, "all or list of domains"
	return []key{
		bind("domain", &d.Domain, domainKind, "domain of the sender's address").mustBeSet(),
		bind("source", &d.Source, textKind("secret:FILE", "secret:FILE", checkPrefixed("secret:")), "where keys come from: the secret of the domain's Authentication Server").mustBeSet(),
		bind("addresses", &d.Addresses, addressesKind, "which addresses get keys: those of a file, or any of the domain").mustBeSet(),
		row("avt", &d.AVT, positiveDuration, short(keyring.DefaultAVT), "AuthKey Valid Time: how long one key is attached"),
		row("case_sensitive", &d.CaseSensitive, yesNo, false, "true: local parts differ by case"),
		row("subaddress", &d.Subaddress, subaddressKind, "+", "separator of sub-addresses; empty: none"),
		row("to", &d.To, to, "all", "recipient domains that get keys"),
	}
}

// The keys that both programs have.

func logLevelKey(l *Log) key {
	level := func(name string) (level slog.Level) {
		_ = level.UnmarshalText([]byte(name)) // it knows each of these names
		return level
	}
	return row("log.level", &l.Level, converted(oneOf("debug", "info", "warn", "error"), level), "info", "least level that is logged")
}

func logFormatKey(l *Log) key {
	return row("log.format", &l.Format, oneOf("text", "json"), "text", "form of log lines: text is logfmt")
}

func metricsListenKey(m *Metrics) key {
	return row("metrics.listen", &m.Listen, orEmpty(textKind("[HOST]:PORT", "[HOST]:PORT such as 127.0.0.1:9796", checkListenPort)), "", "where /metrics, /healthz and /readyz are served; empty: nowhere").notImplemented()
}

// Kinds of several keys.
var (
	pathKind        = textKind("path", "a path", checkPath)
	domainKind      = textKind("domain", "a domain such as example.com", checkDomain)
	canonicalDomain = parsedKind("domain", "a domain such as example.com", parseDomain)
	patternKind     = parsedKind("address or domain", "an address, a domain, or .domain for its subdomains", parsePattern)
	addressesKind   = textKind("file:FILE|any", "file:FILE, or any", checkAddresses)
	subaddressKind  = orEmpty(textKind("separator", "one character such as +", checkSubaddress))
	listenKind      = parsedKind("socket", "unix:PATH, inet:PORT@HOST or inet6:PORT@[ADDR]", parseListen)
	authservIDKind  = textKind("authserv-id", "a name such as mx.example.com (a token of RFC 2045)", checkAuthservID)
	voucherKind     = parsedKind("id/method", "an authserv-id and spf or dkim, such as mx.example.com/dkim", parseVoucher)
	templateKind    = orEmpty(textKind("address template", "an address, in which {local} and {domain} stand for the recipient's", checkTemplate))
)

func sourceKind() kindOf[DSN] {
	k := orEmpty(parsedKind("DSN", "file:PATH, sqlite:PATH, postgres://… or mysql://…", func(s string) (DSN, error) { return DSN(s), checkDSN(s) }))
	k.secret = true
	k.unsupported = func(source string) string {
		if _, isFile := DSN(source).File(); isFile || source == "" {
			return ""
		}
		return "preferences in SQL"
	}
	return k
}

// short is a duration without the zeros at its end: 5m for 5m0s.
func short(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-len(zero)+1]
		}
	}
	return s
}

func anyList(words []string) []any {
	list := make([]any, len(words))
	for i, w := range words {
		list[i] = w
	}
	return list
}
