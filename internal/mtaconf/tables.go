package mtaconf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
)

// lookup asks one lookup table of Postfix, as postmap(1) does; found is false where it
// has nothing.
func (p *Postfix) lookup(ctx context.Context, table, key string) (value string, found bool, err error) {
	out, complaint, err := p.command(ctx, "postmap", "-q", key, table)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return strings.TrimSpace(out), true, nil
	case errors.As(err, &exit) && exit.ExitCode() == 1 && !strings.Contains(complaint, "fatal") && !strings.Contains(complaint, "error"):
		return "", false, nil
	}
	return "", false, fmt.Errorf("%s: %w", table, err)
}

// first asks tables in their order, as Postfix does.
func (p *Postfix) first(ctx context.Context, tables []string, key string) (table, value string, found bool, err error) {
	for _, table := range tables {
		if value, found, err = p.lookup(ctx, table, key); found || err != nil {
			return table, value, found, err
		}
	}
	return "", "", false, nil
}

// clientsOf are the clients that a table for client addresses names, as far as it is a
// text that can be read: a file, or what main.cf holds itself.
func clientsOf(table string) []string {
	kind, rest, _ := strings.Cut(table, ":")
	var lines []string
	switch {
	case !slices.Contains([]string{"cidr", "inline", "texthash", "hash", "btree", "lmdb", "cdb", "dbm"}, kind):
		return nil
	case strings.HasPrefix(rest, "{"):
		for _, entry := range splitList(strings.TrimSuffix(strings.TrimPrefix(rest, "{"), "}")) {
			lines = append(lines, strings.TrimSpace(strings.Trim(entry, "{}")))
		}
	default:
		text, _ := readConf(rest)
		lines = strings.Split(text, "\n")
	}
	var clients []string
	for _, line := range lines {
		if line == "" || strings.ContainsRune("# \t", rune(line[0])) {
			continue
		}
		if end := strings.IndexAny(line, " \t="); end > 0 && len(clients) < maxClients {
			clients = append(clients, line[:end])
		}
	}
	return clients
}

// maxClients bounds how many entries of a table are looked at.
const maxClients = 500

// samples stand for strangers in tables that cannot be read: RFC 5737 and RFC 3849 keep
// these addresses for documentation.
var samples = []string{"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"}

// mapped: smtpd_milter_maps gives clients other milters, or none.
func (p *Postfix) mapped(ctx context.Context, s Service, m Milter) []Loss {
	tables := splitList(p.value(s.own, "smtpd_milter_maps"))
	var all []Loss
	for _, table := range tables {
		for _, client := range slices.Concat(clientsOf(table), samples) {
			network, err := netip.ParsePrefix(client)
			if err != nil {
				a, err := netip.ParseAddr(client)
				if err != nil {
					continue // no address matches it
				}
				network = netip.PrefixFrom(a, a.BitLen())
			}
			from, value, found, err := p.first(ctx, tables, network.Addr().String())
			switch {
			case err != nil:
				return append(all, Loss{Asked, true, fmt.Sprintf("%s: smtpd_milter_maps cannot be looked into: %v", s.Name, err),
					"a client that is in it may have other milters, or none", "correct the table, or " + p.unset(s, "smtpd_milter_maps")})
			case !found || from != table || p.hasOursText(value, s) || p.isOwn(network, m):
				continue
			}
			what := value
			if strings.EqualFold(value, "DISABLE") {
				what = "no milter at all"
			}
			mend := p.reload(p.unset(s, "smtpd_milter_maps"))
			if kind, file, _ := strings.Cut(table, ":"); !strings.HasPrefix(file, "{") && strings.Contains(file, "/") && kind != "inline" {
				mend = fmt.Sprintf("in %s: give %s the milter too, or take the entry out\n", file, client)
				if kind != "cidr" && kind != "texthash" && kind != "regexp" && kind != "pcre" {
					mend += p.Command("postmap", table) + "\n"
				}
				mend += p.reload()
			}
			all = append(all, Loss{Asked, false, fmt.Sprintf("%s has %s for the client %s (smtpd_milter_maps)", s.Name, what, client),
				"its mail is not checked, and keys are not removed", mend})
			break // one of a table is enough to see
		}
	}
	return all
}

// isOwn reports whether the milter takes all of a network for our users anyway.
func (p *Postfix) isOwn(network netip.Prefix, m Milter) bool {
	return slices.ContainsFunc(m.Networks, func(n netip.Prefix) bool {
		return n.Bits() <= network.Bits() && n.Contains(network.Addr())
	})
}

// hasOursText reports whether a list of milters has ours, as the service sees it.
func (p *Postfix) hasOursText(list string, s Service) bool {
	return slices.ContainsFunc(parseList(list), func(f Filter) bool {
		return slices.ContainsFunc(p.ours, p.OnHost(f.Socket, s.Chroot).same)
	})
}

// cleanupOf are the parameters of the cleanup service that a service hands mail to.
func (p *Postfix) cleanupOf(s Service) (name string, own map[string]string) {
	name = p.value(s.own, "cleanup_service_name") + "/unix"
	if at := slices.IndexFunc(p.others, func(o process) bool { return o.name == name }); at >= 0 {
		return name, p.others[at].own
	}
	return name, nil
}

// A probe is a header field that tables may take away.
type probe struct {
	parameter, field string
	actions          []string // those that do harm
	why              string
}

// rewritten: header_checks run before the milter sees a field, milter_header_checks
// after it has written one; no_header_body_checks switches the former off, not the
// latter.
func (p *Postfix) rewritten(ctx context.Context, s Service, m Milter) []Loss {
	name, own := p.cleanupOf(s)
	probes := append([]probe{{"header_checks", keyField, []string{"IGNORE", "STRIP", "REPLACE", "REJECT", "DISCARD"}, neverSeen}},
		written("milter_header_checks", m)...)
	var all []Loss
	for _, probe := range probes {
		if probe.parameter == "header_checks" && strings.Contains(s.OtherOverrides, "no_header_body_checks") {
			continue
		}
		all = append(all, p.probed(ctx, Service{Name: name, own: own}, probe)...)
	}
	return all
}

// dropped: fields that message_drop_headers names are gone before a milter sees them.
func (p *Postfix) dropped(s Service) []Loss {
	const parameter, field = "message_drop_headers", "X-Auth-Key"
	name, own := p.cleanupOf(s)
	cleanup := Service{Name: name, own: own}
	names := splitList(p.value(own, parameter))
	rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.EqualFold(n, field) })
	if len(rest) == len(names) {
		return nil
	}
	return []Loss{{Changes, false, fmt.Sprintf("%s drops %s (%s)", name, field, parameter), neverSeen,
		p.reload(p.set(cleanup, parameter, strings.Join(rest, ", ")))}}
}

const neverSeen = "the milter never sees the key: mail of those who have one looks like mail without"

// written are the fields that the milter writes, for a table that sees them.
func written(parameter string, m Milter) []probe {
	probes := []probe{{parameter, "Authentication-Results: " + m.AuthservID + "; x-authkey=pass smtp.mailfrom=alice@example.com",
		[]string{"IGNORE", "STRIP", "REPLACE", "REJECT", "DISCARD"}, "what the milter found out is not in the mail, or the mail is refused"}}
	if m.MarkHeader != "" {
		probes = append(probes, probe{parameter, m.MarkHeader + ": " + m.MarkValue, []string{"IGNORE", "STRIP"}, "mail that is marked looks like any other"})
	}
	return probes
}

// undelivered: lmtp_header_checks take off what the milter has written, on the way into
// mailboxes.
func (p *Postfix) undelivered(ctx context.Context, m Milter) []Loss {
	if !slices.ContainsFunc(p.Services, func(s Service) bool { return s.Inbound() && s.Asks() }) {
		return nil
	}
	var all []Loss
	for _, o := range p.others {
		if o.program != "lmtp" {
			continue
		}
		for _, probe := range written("lmtp_header_checks", m) {
			all = append(all, p.probed(ctx, Service{Name: o.name, own: o.own}, probe)...)
		}
	}
	return all
}

// keyField is a field with a key that is none.
const keyField = "X-Auth-Key: authkey-doctor-asks-what-becomes-of-this"

// stripped: smtp_header_checks take off what attach has put on.
func (p *Postfix) stripped(ctx context.Context) []Loss {
	if !p.attach {
		return nil
	}
	var all []Loss
	for _, o := range p.others {
		if o.program == "smtp" && !strings.HasPrefix(o.name, "lmtp/") {
			all = append(all, p.probed(ctx, Service{Name: o.name, own: o.own}, probe{"smtp_header_checks", keyField,
				[]string{"IGNORE", "STRIP", "REPLACE"}, "keys that are attached to our users' mail do not leave this machine"})...)
		}
	}
	return all
}

func (p *Postfix) probed(ctx context.Context, s Service, probe probe) []Loss {
	tables := splitList(p.value(s.own, probe.parameter))
	field, _, _ := strings.Cut(probe.field, ":")
	table, value, found, err := p.first(ctx, tables, probe.field)
	action, _, _ := strings.Cut(value, " ")
	switch {
	case err != nil:
		return []Loss{{Changes, true, fmt.Sprintf("%s: %s cannot be looked into: %v", s.Name, probe.parameter, err),
			"if it acts on " + field + ", " + probe.why, "correct the table"}}
	case !found || !slices.Contains(probe.actions, strings.ToUpper(action)):
		return nil
	}
	mend := p.reload(p.unset(s, probe.parameter))
	if _, file, _ := strings.Cut(table, ":"); strings.HasPrefix(file, "/") {
		mend = fmt.Sprintf("in %s: take out the line that does %s on %s\n%s", file, strings.ToUpper(action), field, p.reload())
	}
	return []Loss{{Changes, false, fmt.Sprintf("%s does %s on %s (%s)", s.Name, strings.ToUpper(action), field, probe.parameter), probe.why, mend}}
}
