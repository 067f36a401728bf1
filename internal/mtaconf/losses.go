package mtaconf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Concern is what a Loss takes away.
type Concern int

const (
	Asked   Concern = iota // the milter is not asked, or not about the header
	Class                  // strangers' mail counts as our users', or the other way round
	Changes                // what the milter reads or writes is changed by somebody else
	Waiting                // its answer is not waited for
)

// A Loss is a setting by which mail is not seen by the milter, or by which the milter does
// not get what it needs, or its changes are undone. Sources: postconf(5), MILTER_README and
// SMTPD_PROXY_README of Postfix.
type Loss struct {
	Concern Concern
	Doubt   bool // it depends on the network, which no file shows
	What    string
	Why     string
	Mend    string // commands, one a line
}

const (
	unchecked = "mail that comes in there is not checked, and keys are not removed"
	takenOver = "nothing of it is checked, and keys stay in it: the milter takes it for our users' mail"
	// progress is how often the milter tells an MTA that it still works, and a bit more.
	progress = 4 * time.Second
)

// Milter says what of the milter's configuration matters to what may be lost.
type Milter struct {
	Networks      []netip.Prefix // submission.networks
	Authenticated bool           // submission.authenticated
	MarkHeader    string         // mark.header and mark.value
	MarkValue     string
	AuthservID    string
	Timeout       time.Duration // verify.timeout
	Notify        string        // notify.smtp, to which no content filter hands mail back
}

// Losses looks for every setting of Postfix by which the milter cannot do its work, or a part
// of it, for mail from outside and, with attach, for mail of our users.
func (p *Postfix) Losses(ctx context.Context, m Milter) []Loss {
	var all []Loss
	add := func(l ...Loss) { all = append(all, l...) }
	for _, s := range p.Services {
		if !s.Inbound() && (!s.Submission || !p.attach) {
			continue
		}
		if s.Asks() {
			add(p.proxied(s, m)...)
			add(p.mapped(ctx, s, m)...)
			add(p.twice(ctx, s)...)
			add(p.impatient(s, m)...)
			add(p.rewritten(ctx, s, m)...)
			add(p.dropped(s)...)
			add(p.macroless(s, m)...)
			add(p.softened(s)...)
		}
		if s.Inbound() {
			add(p.switchedOff(s)...)
			add(p.renamed(s)...)
			add(p.defaultMacros(s, m)...)
			add(p.anyClient(s, m)...)
		}
	}
	add(p.stripped(ctx)...)
	add(p.undelivered(ctx, m)...)
	add(p.qmqp()...)
	add(p.behindProxy(m)...)
	add(p.optedOut()...)
	add(p.furtherInstances()...)
	return distinct(all)
}

// distinct drops what several services have in common.
func distinct(all []Loss) []Loss {
	var kept []Loss
	for _, l := range all {
		if !slices.Contains(kept, l) {
			kept = append(kept, l)
		}
	}
	return kept
}

// reload ends the commands of a Mend.
func (p *Postfix) reload(commands ...string) string {
	return strings.Join(append(commands, p.Command("postfix", "reload")), "\n")
}

// unset is the command that takes a setting away from where a service has it.
func (p *Postfix) unset(s Service, name string) string {
	if _, own := s.own[name]; own {
		return p.Command("postconf", "-PX", s.Name+"/"+name)
	}
	return p.Command("postconf", "-X", name)
}

// set is the command that changes a setting where a service has it.
func (p *Postfix) set(s Service, name, value string) string {
	if _, own := s.own[name]; own {
		return p.Command("postconf", "-P", s.Name+"/"+name+"="+compact(value))
	}
	return p.Command("postconf", "-e", name+" = "+value)
}

// switchedOff: no_milters on port 25 itself.
func (p *Postfix) switchedOff(s Service) []Loss {
	if !s.Port25() || !s.NoMilters {
		return nil
	}
	return []Loss{{Asked, false, s.Name + " has no_milters in receive_override_options", unchecked,
		p.reload(p.Command("postconf", "-P", s.Name+"/receive_override_options="+s.OtherOverrides))}}
}

// proxied: with smtpd_proxy_filter milters see the envelope only, and may change
// nothing.
func (p *Postfix) proxied(s Service, m Milter) []Loss {
	filter := p.value(s.own, "smtpd_proxy_filter")
	if filter == "" {
		return nil
	}
	behind := slices.DeleteFunc(slices.Clone(p.Services), func(o Service) bool {
		return o.Name == s.Name || o.Name == m.Notify+"/inet" || o.Submission || !p.loopback(o) || p.value(o.own, "smtpd_proxy_filter") != ""
	})
	// Where loopback does not count as our own, the milter behind the filter does the work.
	asksNot := func(o Service) bool { return !o.Asks() }
	if len(behind) > 0 && !slices.ContainsFunc(behind, asksNot) && !Covers(m.Networks, netip.AddrFrom4([4]byte{127, 0, 0, 1})) {
		return nil
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(filter, "inet:"))
	if err != nil {
		host, port = "127.0.0.1", strings.TrimPrefix(filter, "inet:")
	}
	content := fmt.Sprintf("content_filter=smtp:[%s]:%s", strings.Trim(host, "[]"), port)
	if strings.HasPrefix(filter, "unix:") {
		content = "content_filter=lmtp:" + filter
	}
	commands := []string{p.unset(s, "smtpd_proxy_filter")}
	if _, own := s.own["smtpd_proxy_filter"]; own {
		commands = append(commands, p.Command("postconf", "-P", s.Name+"/"+content))
	} else {
		name, value, _ := strings.Cut(content, "=")
		commands = append(commands, p.Command("postconf", "-e", name+" = "+value))
	}
	for _, o := range behind {
		commands = append(commands, p.Command("postconf", "-P", o.Name+"/content_filter=", o.Name+"/smtpd_milters="))
	}
	return []Loss{{Asked, false, fmt.Sprintf("%s hands mail to a filter before it is queued (smtpd_proxy_filter = %s): no milter sees its header", s.Name, filter),
		unchecked + ". Let the filter work after the queue", p.reload(commands...)}}
}

// twice: the second time the key is gone, and its result is the one that stays.
func (p *Postfix) twice(ctx context.Context, s Service) []Loss {
	ours := 0
	for _, f := range s.Milters {
		if f.Ours {
			ours++
		}
	}
	if ours < 2 {
		return nil
	}
	var kept []Filter
	for _, f := range s.Milters {
		if !f.Ours || !hasOurs(kept) {
			kept = append(kept, f)
		}
	}
	return []Loss{{Changes, false, s.Name + " asks the milter more than once about a message",
		"the second time the key is gone: the result becomes none or nokey, whatever it was", p.reload(p.set(s, "smtpd_milters", render(kept)))}}
}

// impatient: Postfix goes on with the default action.
func (p *Postfix) impatient(s Service, m Milter) []Loss {
	for _, f := range s.Milters {
		if !f.Ours {
			continue
		}
		text, own := f.ContentTimeout, f.ContentTimeout != ""
		if !own {
			text = p.value(s.own, "milter_content_timeout")
		}
		wait, ok := postfixTime(text)
		if !ok || wait >= min(progress, m.Timeout) {
			continue
		}
		mend := p.unset(s, "milter_content_timeout")
		if own {
			list := slices.Clone(s.Milters)
			at := slices.IndexFunc(list, func(o Filter) bool { return o.Text == f.Text })
			list[at].Text = strings.Replace(f.Text, text, "300s", 1)
			mend = p.set(s, "smtpd_milters", render(list))
		}
		return []Loss{{Waiting, false, fmt.Sprintf("%s waits for the milter for %v only (milter_content_timeout), and it says every 3 s that it still works", s.Name, wait),
			"where an Authentication Server is slow, Postfix gives up and takes its default action", p.reload(mend)}}
	}
	return nil
}

// postfixTime reads a number and a unit, of which seconds is the default.
func postfixTime(s string) (time.Duration, bool) {
	if strings.Trim(s, "0123456789smhdw") != "" || s == "" {
		return 0, false
	}
	return sendmailTime(s), true
}

// renamed: milter_macro_daemon_name says that strangers' mail is a submission.
func (p *Postfix) renamed(s Service) []Loss {
	name := p.value(s.own, "milter_macro_daemon_name")
	if !p.isDaemon(name) {
		return nil
	}
	commands := []string{p.unset(s, "milter_macro_daemon_name")}
	if _, own := s.own["milter_macro_daemon_name"]; !own {
		for _, o := range p.Services {
			if _, own := o.own["milter_macro_daemon_name"]; o.Submission && !own {
				commands = append(commands, p.Command("postconf", "-P", o.Name+"/milter_macro_daemon_name="+name))
			}
		}
	}
	return []Loss{{Class, false, fmt.Sprintf("%s calls itself %s (milter_macro_daemon_name), which is one of submission.daemons", s.Name, name), takenOver, p.reload(commands...)}}
}

// defaultMacros: a macro that is there for everybody looks like a login.
func (p *Postfix) defaultMacros(s Service, m Milter) []Loss {
	value := p.value(s.own, "milter_macro_defaults")
	var kept []string
	found := false
	for _, pair := range splitList(value) {
		name, _, _ := strings.Cut(strings.Trim(pair, "{}"), "=")
		if strings.Trim(strings.TrimSpace(name), "{}") == "auth_authen" {
			found = true
			continue
		}
		kept = append(kept, pair)
	}
	if !found || !m.Authenticated {
		return nil
	}
	mend := p.unset(s, "milter_macro_defaults")
	if len(kept) > 0 {
		mend = p.set(s, "milter_macro_defaults", strings.Join(kept, ", "))
	}
	return []Loss{{Class, false, s.Name + " gives every client a login (auth_authen in milter_macro_defaults)", takenOver, p.reload(mend)}}
}

// macroless: before version 6 of the protocol a milter cannot ask for macros, and gets the
// login only where Postfix is configured to send it.
func (p *Postfix) macroless(s Service, m Milter) []Loss {
	macros, protocol := p.value(s.own, "milter_mail_macros"), p.value(s.own, "milter_protocol")
	if protocol >= "6" || strings.Contains(macros, "auth_authen") || !m.Authenticated {
		return nil
	}
	return []Loss{{Class, false, fmt.Sprintf("%s does not tell the milter who has logged in (milter_protocol = %s, and milter_mail_macros lacks {auth_authen})", s.Name, protocol),
		"our users' mail is checked like mail from outside, gets no keys, and loses those that it has", p.reload(p.unset(s, "milter_mail_macros"))}}
}

// softened: a refusal becomes a deferral.
func (p *Postfix) softened(s Service) []Loss {
	if p.value(s.own, "soft_bounce") != "yes" {
		return nil
	}
	return []Loss{{Changes, true, s.Name + " makes every 5xx reply a 4xx (soft_bounce = yes)",
		"what the milter refuses is not refused: it comes again for days", p.reload(p.unset(s, "soft_bounce"))}}
}

// wide are what no network of one's own covers.
var wide = []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("193.0.0.1"), netip.MustParseAddr("2600::1"), netip.MustParseAddr("2a00::1")}

// anyClient: XCLIENT names any client address and any login.
func (p *Postfix) anyClient(s Service, m Milter) []Loss {
	for _, pattern := range splitList(p.value(s.own, "smtpd_authorized_xclient_hosts")) {
		network, err := netip.ParsePrefix(strings.NewReplacer("[", "", "]", "").Replace(pattern))
		if pattern == "static:all" || err == nil && slices.ContainsFunc(wide, network.Contains) {
			return []Loss{{Class, false, fmt.Sprintf("%s lets clients from outside say who they are (smtpd_authorized_xclient_hosts has %s)", s.Name, pattern),
				"who claims an address of submission.networks, or a login, is not checked", p.reload(p.unset(s, "smtpd_authorized_xclient_hosts"))}}
		}
	}
	return nil
}

// qmqp: mail that comes in by QMQP passes no smtpd_milters.
func (p *Postfix) qmqp() []Loss {
	for _, o := range p.others {
		if clients := p.value(o.own, "qmqpd_authorized_clients"); o.program == "qmqpd" && clients != "" {
			return []Loss{{Asked, false, fmt.Sprintf("%s takes mail by QMQP from %s, and asks no milter of smtpd_milters", o.name, clients),
				unchecked, p.reload(p.Command("postconf", "-MX", o.name))}}
		}
	}
	return nil
}

// behindProxy: who comes by a proxy or relay on this machine looks like this machine.
func (p *Postfix) behindProxy(m Milter) []Loss {
	if !Covers(m.Networks, netip.AddrFrom4([4]byte{127, 0, 0, 1})) && !Covers(m.Networks, netip.IPv6Loopback()) {
		return nil
	}
	var names []string
	for _, s := range p.Services {
		switch {
		case !s.Inbound() || !s.Asks():
		case p.loopback(s) && p.value(s.own, "smtpd_upstream_proxy_protocol") == "" && p.main["postscreen_upstream_proxy_protocol"] == "":
			names = append(names, s.Name)
		default:
			return nil // strangers come in there
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Loss{{Class, true, fmt.Sprintf("mail comes in from this machine only (%s), and loopback is in submission.networks", strings.Join(names, ", ")),
		"if a proxy, a tunnel or fetchmail brings mail from outside, all of it counts as our users', and none is checked",
		"let the proxy say whose mail it is: " + p.Command("postconf", "-P", names[0]+"/smtpd_upstream_proxy_protocol=haproxy") + "\n" +
			"in milter.yaml, if it cannot: submission: {networks: []}"}}
}

// optedOut: services on other ports which say for themselves that they ask nobody.
func (p *Postfix) optedOut() []Loss {
	var all []Loss
	for _, s := range p.Services {
		if s.Inbound() && !s.Port25() && !s.Asks() && s.OptsOut() && !p.loopback(s) {
			all = append(all, Loss{Asked, true, s.Name + " does not ask the milter, by its own options in master.cf",
				"if mail from outside comes in there, it is not checked, and keys are not removed", p.reload(p.Command("postconf", "-PX", s.Name+"/"+s.outBy()))})
		}
	}
	return all
}

// outBy is the option by which a service opts out.
func (s Service) outBy() string {
	if s.NoMilters {
		return "receive_override_options"
	}
	return "smtpd_milters"
}

// furtherInstances have configurations of their own.
func (p *Postfix) furtherInstances() []Loss {
	var all []Loss
	for _, dir := range splitList(p.main["multi_instance_directories"]) {
		all = append(all, Loss{Asked, true, "there is a further instance of Postfix, configured in " + dir + ", which this does not look at",
			"if mail from outside comes in there, it has to ask the milter too", "authkey-milter doctor --postfix-config " + Quote(dir)})
	}
	return all
}

// loopback reports whether only this machine can connect to a service.
func (p *Postfix) loopback(s Service) bool {
	_, kind, _ := strings.Cut(s.Name, "/")
	if kind == "unix" || kind == "fifo" {
		return true
	}
	local := func(host string) bool { return isLoopback(host) || host == "loopback-only" }
	if host, _ := s.listens(); host != "" {
		return local(host)
	}
	interfaces := splitList(p.value(s.own, "inet_interfaces"))
	return len(interfaces) > 0 && !slices.ContainsFunc(interfaces, func(i string) bool { return !local(strings.Trim(i, "[]")) })
}

// Covers reports whether one of the networks has an address.
func Covers(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// TooWide is the first network that strangers are in too; ok is false where there is
// none.
func TooWide(networks []netip.Prefix) (network netip.Prefix, ok bool) {
	at := slices.IndexFunc(networks, func(n netip.Prefix) bool { return slices.ContainsFunc(wide, n.Contains) })
	if at < 0 {
		return netip.Prefix{}, false
	}
	return networks[at], true
}
