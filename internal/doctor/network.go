package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/authkey/authkey/internal/notify"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/verifier"
)

const (
	// probeDomain is what name servers are asked about, and where mail is said to
	// go: RFC 2606 keeps it for such uses.
	probeDomain = "example.com"
	// atOnce bounds the questions that are open at a time.
	atOnce = 8
)

// dns asks every name server by itself: one that does not answer delays a lookup by a second
// now and then, and is not noticed otherwise.
func (c *checks) dns(ctx context.Context) []Finding {
	servers := verifier.NameServers(c.Verifier)
	source := "dns.servers in " + c.file()
	if len(c.Verifier.Resolvers) == 0 {
		source = "/etc/resolv.conf"
	}
	if len(servers) == 0 {
		return []Finding{{CheckDNS, Fault, "there is no name server", "every verification ends in temperror", "put one into " + source}}
	}
	found := make([]Finding, len(servers))
	var all sync.WaitGroup
	for i, server := range servers {
		all.Go(func() {
			opts := c.Verifier
			opts.Resolvers = []netip.AddrPort{server}
			v := verifier.New(opts)
			defer v.Close()
			d := v.Discover(ctx, probeDomain)
			if d.Err == nil && len(d.Texts) == 0 {
				found[i] = Finding{CheckDNS, Warning, fmt.Sprintf("name server %s answers, and knows no TXT record of %s, which has some", server, probeDomain),
					"a server that knows its own network only, or hides TXT records, makes every domain seem not to take part",
					"dig @" + server.Addr().String() + " " + probeDomain + " TXT   # and of a domain that takes part: authkey-milter lookup DOMAIN"}
				return
			}
			if d.Err == nil {
				found[i] = Okf(CheckDNS, "name server %s answers, after %.1f ms", server, float64(d.Took.Microseconds())/1000)
				return
			}
			why := "lookups that ask it first are late"
			if len(servers) == 1 {
				why = "every verification ends in temperror"
			}
			found[i] = Finding{CheckDNS, Fault, fmt.Sprintf("name server %s: %v", server, d.Err), why,
				fmt.Sprintf("repair that server, or take %s out of %s", server.Addr(), source)}
		})
	}
	all.Wait()
	return found
}

// notified are addresses to which there may be a DSN and a notice.
func (c *checks) notified() (recipients []string) {
	if c.Config.Notify.DSN != "never" {
		recipients = append(recipients, "postmaster@"+probeDomain) // a DSN goes to a stranger
	}
	if len(c.Config.LocalDomains) > 0 {
		// A notice stays here.
		if local := "postmaster@" + c.Config.LocalDomains[0]; !slices.Contains(recipients, local) {
			recipients = append(recipients, local)
		}
	}
	return recipients
}

// notify begins a transaction with notify.smtp as for a notice and as for a DSN, and sends
// no message.
func (c *checks) notify(ctx context.Context) []Finding {
	address := c.Config.Notify.SMTP
	recipients := c.notified()
	if len(recipients) == 0 {
		return []Finding{Inapplicablef(CheckNotify, "notify.dsn is never and local_domains is empty, so that it is not known to whom %s has to relay", address)}
	}
	at, err := notify.Probe(ctx, address, c.Hostname, recipients)
	if err == nil {
		return []Finding{Okf(CheckNotify, "%s takes mail from the null sender to %s", address, strings.Join(recipients, " and "))}
	}
	var refusal *notify.Refusal
	if !errors.As(err, &refusal) {
		return []Finding{{CheckNotify, Fault, fmt.Sprintf("notify.smtp %s: %v", address, err),
			"notices and DSNs cannot be handed over: mail that needs one is deferred",
			c.setting(`notify: {smtp: "HOST:PORT"}   # an SMTP server of yours`)}}
	}
	return []Finding{c.refusedBy(address, recipients[at], recipients[at] != "postmaster@"+probeDomain, refusal)}
}

// probeKey is nobody's AuthKey.
const probeKey = "authkey-doctor-asks-whether-you-are-there"

// A target is one of our own domains.
type target struct {
	name     string
	attached bool       // its mail gets keys
	keys     *keyDomain // nil: none can be made, or need be
}

// targets are local_domains and attach.domains.
func (c *checks) targets(keys []keyDomain) []target {
	var all []target
	add := func(text string, attached bool) {
		name, err := wire.ParseDomain(text)
		if err != nil { // the configuration would not have been taken
			return
		}
		at := slices.IndexFunc(all, func(t target) bool { return t.name == name })
		if at < 0 {
			at = len(all)
			all = append(all, target{name: name})
		}
		all[at].attached = all[at].attached || attached
	}
	for _, name := range c.Config.LocalDomains {
		add(name, false)
	}
	for _, d := range c.Config.Attach.Domains {
		add(d.Domain, true)
	}
	for i := range keys {
		at := slices.IndexFunc(all, func(t target) bool { return t.name == keys[i].Name() })
		all[at].keys = &keys[i]
	}
	return all
}

// domains looks at our own domains: at what their keys are made from, and at every AS
// of theirs.
func (c *checks) domains(ctx context.Context) []Finding {
	all, keys := c.attachments()
	targets := c.targets(keys)
	if len(targets) == 0 {
		return append(all, Inapplicablef(CheckAS, "local_domains is empty"))
	}
	found := make([][]Finding, len(targets))
	v := verifier.New(c.Verifier)
	defer v.Close()
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, t := range targets {
		group.Go(func() error {
			found[i] = c.ownServers(ctx, v, t)
			return nil
		})
	}
	_ = group.Wait() // no function of the group returns an error
	for _, f := range found {
		all = append(all, f...)
	}
	return append(all, c.signer()...)
}

// ownServers asks every AS of a domain about a key that is none: who asks us from
// outside gets no better answer. Then, where keys are attached, about those.
func (c *checks) ownServers(ctx context.Context, v *verifier.Verifier, t target) []Finding {
	const cannot = "others cannot verify our users' mail: it is deferred, or taken for forged where the domain says req=yes"
	look := "authkey-milter lookup " + t.name
	d := v.Discover(ctx, t.name)
	switch {
	case d.Err != nil:
		return []Finding{Inapplicablef(CheckAS, "%s: %v", t.name, d.Err)} // that is dns's fault
	case !d.Published && t.attached:
		return []Finding{{CheckAS, Fault, t.name + " publishes no Authentication Server, and its mail gets keys", "nobody can verify them",
			"on the Authentication Server: authkey-server dns " + t.name + "   # prints the record to publish\n" + look}}
	case !d.Published:
		return []Finding{Inapplicablef(CheckAS, "%s publishes no Authentication Server", t.name)}
	case len(d.Used) == 0:
		return []Finding{{CheckAS, Fault, fmt.Sprintf("%s publishes AS records, and none can be used: %v", t.name, d.Refused[0].Why), cannot, look}}
	}
	address, err := wire.ParseAddress("postmaster@" + t.name)
	if err != nil {
		return []Finding{Inapplicablef(CheckAS, "%s: %v", t.name, err)}
	}
	key, err := wire.ParseKey(probeKey)
	if err != nil {
		return []Finding{Inapplicablef(CheckAS, "%v", err)}
	}
	var found, keys []Finding
	for _, record := range d.Used {
		r := v.Ask(ctx, record.Server, verifier.Query{Address: address, Key: key})
		if r.Reason != verifier.ReasonInvalidKey {
			found = append(found, Finding{CheckAS, Fault, fmt.Sprintf("%s: Authentication Server %s: %s", t.name, record.Server, reason(r)), cannot, c.mendAS(r, look)})
			continue
		}
		found = append(found, Okf(CheckAS, "%s: %s answers, after %.1f ms", t.name, record.Server, float64(r.ASTime.Microseconds())/1000))
		if t.keys != nil {
			keys = append(keys, keyCheck{v, record.Server, *t.keys, c.Now()}.examine(ctx))
		}
	}
	return append(found, keys...)
}

func reason(r verifier.Result) string {
	if r.Reason == "" {
		return string(r.Status) + " for an invalid key"
	}
	return string(r.Status) + ", " + string(r.Reason)
}

// mendAS says where to look for what a question to an AS came to.
func (c *checks) mendAS(r verifier.Result, look string) string {
	switch r.Reason {
	case verifier.ReasonASForbidden:
		return c.setting("verify: {allow_networks: [...], allow_ports: [...]}   # if it is meant for this network only")
	case verifier.ReasonASNotServed:
		return "on the Authentication Server, add the domain to server.yaml: domains\n" + look
	}
	return "on the Authentication Server: systemctl status authkey-server\n" + look
}
