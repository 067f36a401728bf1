package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/authkey/authkey/policy"
)

// This file finds settings that are valid but have no effect, because of other settings. It
// refuses nothing, since a file is often written in steps.

// maxIdle bounds what is found of one file.
const maxIdle = 100

// An idler gathers what has no effect.
type idler struct {
	s     Settings
	found []Fault
}

// add notes that a key, or a part of one such as policy.rules[2].fail, has no effect.
func (i *idler) add(key, why string, args ...any) {
	i.warn(key, "has no effect: "+why, args...)
}

// warn notes the effect of a key, where that was probably not intended.
func (i *idler) warn(key, what string, args ...any) {
	if len(i.found) < maxIdle {
		i.found = append(i.found, i.s.Fault(key, fmt.Sprintf(what, args...), ""))
	}
}

// without notes those of keys that are set although a key on which they depend is not.
func (i *idler) without(why string, keys ...string) {
	for _, key := range keys {
		if i.changed(key) {
			i.add(key, "%s", why)
		}
	}
}

// changed reports whether a key is set to something else than its default.
func (i *idler) changed(key string) bool {
	return i.s.IsSet(key) && i.s.changed(i.s.schema.byName[key])
}

// findIdle is for milter.yaml.
func (l *Loaded) findIdle() []Fault {
	i := &idler{s: l.Settings}
	c := &l.Config
	i.sockets(c)
	i.clients(c)
	i.verification(c)
	i.policy(c)
	i.layers(c)
	i.attach(c)
	slices.SortStableFunc(i.found, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key)) })
	return i.found
}

func (i *idler) sockets(c *Config) {
	if i.s.IsSet("listen") && len(c.Listen) == 0 {
		i.add("listen", "it names no socket, so that only those are served that systemd passes")
		return
	}
	unix := slices.ContainsFunc(c.Listen, func(l Listen) bool { return l.Network == "unix" })
	const write = 0o222 // the permission that connecting needs
	switch {
	case !unix:
		i.without("listen has no unix: socket", "socket.mode", "socket.group")
	case c.Socket.Mode&write == 0:
		i.warn("socket.mode", "%#o allows no connection: write permission is missing", uint32(c.Socket.Mode))
	}
	for n, l := range c.Listen {
		if slices.Index(c.Listen, l) < n {
			i.add(fmt.Sprintf("listen[%d]", n), "the socket is named before")
		}
	}
}

func (i *idler) clients(c *Config) {
	if !c.Exempt.KeepResults {
		i.without("exempt.keep_results is false, so that x-authkey results are removed under every id", "trusted_authserv_ids")
	}
	if len(c.Exempt.Networks) == 0 {
		i.without("exempt.networks is empty", "exempt.keep_results")
	}
	for key, networks := range map[string][]netip.Prefix{"exempt.networks": c.Exempt.Networks, "submission.networks": c.Submission.Networks} {
		for n, network := range networks {
			if network.Bits() == 0 {
				i.warn(fmt.Sprintf("%s[%d]", key, n), "%v is every client: nobody's mail is checked", network)
			}
		}
	}
	for n, id := range c.TrustedAuthservIDs {
		if strings.EqualFold(id, c.AuthservID) {
			i.add(fmt.Sprintf("trusted_authserv_ids[%d]", n), "%s is authserv_id, our own", id)
		}
	}
	// The first class that matches decides: exempt before submission.
	for n, network := range c.Submission.Networks {
		if within(network, c.Exempt.Networks) && i.s.IsSet("submission.networks") {
			i.add(fmt.Sprintf("submission.networks[%d]", n), "%v is in exempt.networks, which comes first", network)
		}
	}
	for n, t := range c.From.Trusted {
		if t.MailFrom == "" && t.Client.Bits() == 0 {
			i.warn(fmt.Sprintf("from.trusted[%d].client", n), "%v is every client: nobody's From is checked", t.Client)
		}
		if t.MailFrom == "" && (within(t.Client, c.Exempt.Networks) || within(t.Client, c.Submission.Networks)) {
			i.add(fmt.Sprintf("from.trusted[%d].client", n), "the From of exempt clients and of our own submissions is not checked anyway")
		}
	}
	for key, networks := range map[string][]netip.Prefix{"exempt.networks": c.Exempt.Networks, "submission.networks": c.Submission.Networks, "verify.allow_networks": c.Verify.AllowNetworks} {
		for n, network := range networks {
			if within(network, networks[:n]) {
				i.add(fmt.Sprintf("%s[%d]", key, n), "%v is in a network before it", network)
			}
		}
	}
}

// within reports whether one of networks holds all of a network.
func within(network netip.Prefix, networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool {
		return n.Bits() <= network.Bits() && n.Contains(network.Addr())
	})
}

func (i *idler) verification(c *Config) {
	v := c.Verify
	for _, t := range []struct {
		key  string
		long bool
	}{
		{"dns.timeout", c.DNS.Timeout > v.Timeout}, {"verify.connect_timeout", v.ConnectTimeout > v.Timeout}, {"verify.reply_timeout", v.ReplyTimeout > v.Timeout},
	} {
		if t.long && i.s.IsSet(t.key) {
			i.add(t.key, "verify.timeout, %v, ends before it", v.Timeout)
		}
	}
	if c.Cache.DefaultTTL > c.Cache.MaxTTL && i.s.IsSet("cache.default_ttl") {
		i.add("cache.default_ttl", "cache.max_ttl, %v, ends before it", c.Cache.MaxTTL)
	}
	const privileged = 1024
	for n, port := range v.AllowPorts {
		if port >= privileged {
			i.add(fmt.Sprintf("verify.allow_ports[%d]", n), "ports from %d on are allowed anyway", privileged)
		}
	}
}

// milder reports whether an action is less strict than a floor; an unset one is not.
func milder(action, floor policy.Action) bool { return action != policy.Unset && action < floor }

func (i *idler) policy(c *Config) {
	for _, result := range results {
		floor := *action(&c.Policy.Floor, result)
		if floor == policy.Accept {
			i.add("policy.floor."+result, "%s is the least strict action anyway", floor)
		}
		if key := "policy." + result; i.s.IsSet(key) && milder(*action(&c.Policy.Actions, result), floor) {
			i.add(key, "policy.floor.%s, %s, is stricter", result, floor)
		}
	}
	first := map[string]int{} // rule by pattern and result
	for n, rule := range c.Policy.Rules {
		pattern := rule.Recipient + "\n" + rule.Sender
		for _, result := range results {
			chosen, floor := *action(&rule.Actions, result), *action(&c.Policy.Floor, result)
			key := fmt.Sprintf("policy.rules[%d].%s", n, result)
			if chosen == policy.Unset {
				continue
			}
			if before, twice := first[pattern+"\n"+result]; twice {
				i.add(key, "policy.rules[%d] is for the same, and comes first", before)
			} else if first[pattern+"\n"+result] = n; milder(chosen, floor) {
				i.add(key, "policy.floor.%s, %s, is stricter", result, floor)
			}
		}
	}
	if c.Mark.Readdress != "" && strings.EqualFold(c.Mark.Readdress, "{local}@{domain}") {
		i.add("mark.readdress", "it is the recipient's own address")
	}
	if strings.EqualFold(c.Quarantine.Mailbox, "{local}@{domain}") {
		i.add("quarantine.mailbox", "it is the recipient's own address: what is quarantined is delivered")
	}
	for _, key := range []string{"policy.allowed", "local_domains", "trusted_authserv_ids", "submission.daemons", "dns.servers", "notify.trust"} {
		i.twice(key, i.s.values[key].raw)
	}
}

// twice notes the texts of a list that are in it before.
func (i *idler) twice(key string, list any) {
	texts, _ := list.([]any)
	for n, text := range texts {
		same := func(other any) bool { return strings.EqualFold(other.(string), text.(string)) }
		if slices.IndexFunc(texts, same) < n {
			i.add(fmt.Sprintf("%s[%d]", key, n), "%s is there before", text)
		}
	}
}

// layers looks at the From field, preferences and notices.
func (i *idler) layers(c *Config) {
	if c.From.Check != "enforce" {
		for _, result := range results {
			i.without("from.check is not enforce", "from.actions."+result)
		}
	}
	if c.From.Check == "off" {
		i.without("from.check is off", "from.trusted")
	}
	first := map[string]int{}
	for n, t := range c.From.Trusted {
		name := t.MailFrom
		if name == "" {
			name = t.Client.String()
		}
		if before, twice := first[name]; twice {
			i.add(fmt.Sprintf("from.trusted[%d]", n), "from.trusted[%d] is the same", before)
		} else {
			first[name] = n
		}
	}
	if c.Preferences.Source == "" {
		i.without("preferences.source is empty", "preferences.query", "preferences.on_error", "preferences.timeout", "preferences.cache")
		allowed := slices.Sorted(slices.Values(c.Policy.Allowed))
		if !slices.Equal(allowed, slices.Sorted(slices.Values(allowedActions))) { // whatever their order
			i.without("preferences.source is empty", "policy.allowed")
		}
	} else if len(c.Policy.Allowed) == 0 {
		i.add("preferences.source", "policy.allowed is empty, so that recipients may choose nothing")
	}
	if c.Notify.DSN != "authenticated" {
		i.without("notify.dsn is not authenticated", "notify.trust")
	}
	if c.Notify.DSN == "never" {
		i.without("notify.dsn is never", "notify.rate.per_sender")
	}
}

// attach looks at the sender's side.
func (i *idler) attach(c *Config) {
	a := c.Attach
	if len(a.Domains) == 0 {
		i.without("attach.domains is empty", "attach.authorize", "attach.networks", "attach.on_error", "attach.allow_inet", "attach.allow_open_secrets")
		return
	}
	inet := slices.ContainsFunc(c.Listen, func(l Listen) bool { return l.Network != "unix" })
	if i.s.IsSet("listen") && len(c.Listen) > 0 && !inet {
		i.without("listen has no inet: socket", "attach.allow_inet")
	}
	if !c.Submission.Authenticated && len(a.Networks) == 0 {
		i.add("attach.domains", "with submission.authenticated: false a login is no submission of ours, and attach.networks is empty")
	}
	for n, network := range a.Networks {
		overlaps := func(other netip.Prefix) bool { return other.Overlaps(network) }
		switch {
		case within(network, c.Exempt.Networks):
			i.add(fmt.Sprintf("attach.networks[%d]", n), "%v is in exempt.networks, whose mail is no submission", network)
		case !slices.ContainsFunc(c.Submission.Networks, overlaps):
			i.add(fmt.Sprintf("attach.networks[%d]", n), "%v is not in submission.networks, so that its mail is no submission", network)
		case within(network, a.Networks[:n]):
			i.add(fmt.Sprintf("attach.networks[%d]", n), "%v is in a network before it", network)
		}
	}
	for n, d := range a.Domains {
		i.twice(fmt.Sprintf("attach.domains[%d].to", n), anyList(d.To))
	}
}

// findIdle is for server.yaml.
func (l *LoadedServer) findIdle() []Fault {
	i := &idler{s: l.Settings}
	c := &l.Config
	if i.s.IsSet("listen") && len(c.Listen) == 0 {
		i.add("listen", "it names no socket, so that only those are served that systemd passes")
	}
	secure := slices.ContainsFunc(c.Listen, func(l ServerListen) bool { return l.TLS })
	switch {
	case secure:
	case !i.s.IsSet("listen"): // systemd may pass one, and then nothing else is listened on
		if i.changed("tls.cert") {
			i.warn("tls.cert", "listen is not set: only a socket that systemd passes under the name tls uses it")
		}
	case len(c.Listen) > 0:
		i.without("listen has no tls: socket", "tls.cert", "tls.key")
	}
	if len(c.Domains) == 0 {
		i.without("domains is empty", "allow_open_secrets")
	}
	for n, socket := range c.Listen {
		if slices.Index(c.Listen, socket) < n {
			i.add(fmt.Sprintf("listen[%d]", n), "the socket is named before")
		}
	}
	if i.s.IsSet("domains") && len(c.Domains) == 0 {
		i.add("domains", "it is empty, so that nobody's keys are verified")
	}
	for n, d := range c.Domains {
		if d.TTL > d.AVT+d.Grace {
			i.add(fmt.Sprintf("domains[%d].ttl", n), "no key lives longer than avt and grace, %v", d.AVT+d.Grace)
		}
	}
	return i.found
}
