package doctor

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/authkey/authkey/internal/mtaconf"
)

// Milter is what Losses has to know of Config and Hostname.
func (o Options) Milter() mtaconf.Milter {
	c := o.Config
	id := c.AuthservID
	if id == "" {
		id = o.Hostname
	}
	return mtaconf.Milter{Networks: c.Submission.Networks, Authenticated: c.Submission.Authenticated,
		MarkHeader: c.Mark.Header, MarkValue: c.Mark.Value, AuthservID: id, Timeout: c.Verify.Timeout, Notify: c.Notify.SMTP}
}

// checkOf is the check under which a loss is found.
var checkOf = map[mtaconf.Concern]string{mtaconf.Asked: CheckListed, mtaconf.Class: CheckOwnMail, mtaconf.Changes: CheckChanges, mtaconf.Waiting: CheckTimeout}

// lost is what Postfix's configuration takes from the milter, of one concern.
func (c *checks) lost(concern mtaconf.Concern) []Finding {
	var found []Finding
	for _, l := range c.losses {
		if l.Concern != concern {
			continue
		}
		status := Fault
		if l.Doubt {
			status = Warning
		}
		mend := strings.ReplaceAll(l.Mend, "in milter.yaml", "in "+c.file())
		found = append(found, Finding{checkOf[concern], status, l.What, l.Why, mend})
	}
	return found
}

// changes looks at what others change of the header before and after the milter.
func (c *checks) changes(context.Context) []Finding {
	if s := c.Sendmail; s != nil {
		ours := 0
		for _, f := range s.Filters {
			if f.Ours {
				ours++
			}
		}
		if ours > 1 {
			return []Finding{{CheckChanges, Fault, "InputMailFilters has the milter more than once",
				"the second time the key is gone: the result becomes none or nokey, whatever it was", c.mendSendmail()}}
		}
	}
	if c.Postfix == nil {
		return nil
	}
	if found := c.lost(mtaconf.Changes); len(found) > 0 {
		return found
	}
	return []Finding{Okf(CheckChanges, "Postfix leaves to the milter what it reads, and what it writes")}
}

// ownMail looks whether strangers' mail can be taken for our users', which is not
// checked.
func (c *checks) ownMail(context.Context) []Finding {
	const own = "it counts as our users' mail: it is not checked, and keys stay in it"
	found := c.lost(mtaconf.Class)
	if c.Sendmail != nil {
		for _, d := range c.Sendmail.Daemons {
			if d.Renamed {
				found = append(found, Finding{CheckOwnMail, Fault, fmt.Sprintf("the daemon %s has a name of submission.daemons, and takes mail from everybody", d.Name), own,
					"in sendmail.mc: another Name in the DAEMON_OPTIONS of " + d.Name + ", or the modifier a, which wants a login\n" + mtaconf.SendmailCommands})
			}
		}
	}
	found = append(found, c.loopbackOnly(own)...)
	for _, list := range []struct {
		key, why string
		networks []netip.Prefix
	}{
		{"submission.networks", own, c.Config.Submission.Networks},
		{"exempt.networks", "it is not checked", c.Config.Exempt.Networks},
	} {
		if network, wide := mtaconf.TooWide(list.networks); wide {
			found = append(found, Finding{CheckOwnMail, Fault, fmt.Sprintf("%s has %s, which includes clients from outside", list.key, network), list.why,
				c.reread(list.key + ": name your own networks only")})
		}
	}
	for _, gateway := range c.Gateways {
		if mtaconf.Covers(c.Config.Submission.Networks, gateway) {
			found = append(found, Finding{CheckOwnMail, Warning,
				fmt.Sprintf("this machine's default gateway %s is in submission.networks", gateway),
				"if it translates addresses (NAT, a published port of a container, a load balancer), clients from outside come with its address: " + own,
				"send a mail from outside, and look for client= in the milter's log: it must be the sender's address\n" +
					c.reread(fmt.Sprintf("submission: {networks: [...]}   # without %s, if it is not", gateway))})
		}
	}
	if len(found) == 0 {
		return []Finding{Okf(CheckOwnMail, "nothing makes mail from outside look like our users', as far as configuration shows")}
	}
	return found
}

// loopbackOnly warns where every daemon of Sendmail that takes mail from strangers can
// be reached from this machine only. For Postfix it is one of the losses.
func (c *checks) loopbackOnly(own string) []Finding {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if c.Sendmail == nil || !mtaconf.Covers(c.Config.Submission.Networks, loopback) {
		return nil
	}
	var names []string
	for _, d := range c.Sendmail.Daemons {
		switch {
		case d.Submission:
		case !d.Loopback:
			return nil
		default:
			names = append(names, d.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []Finding{{CheckOwnMail, Warning, fmt.Sprintf("mail comes in from this machine only (%s), and loopback is in submission.networks", strings.Join(names, ", ")),
		"if a proxy, a tunnel or fetchmail brings mail from outside, " + own, c.reread("submission: {networks: []}   # if it does")}}
}

// reread says how to change milter.yaml where a reload suffices.
func (c *checks) reread(line string) string {
	return "in " + c.file() + ": " + line + "\nsystemctl reload authkey-milter"
}

// Gateways are the default gateways of this machine, as the kernel's table of IPv4
// routes has them.
func Gateways() []netip.Addr { return gatewaysIn("/proc/net/route") }

func gatewaysIn(path string) []netip.Addr {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []netip.Addr
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// Iface Destination Gateway …, in hexadecimal and the byte order of the machine.
		field := strings.Fields(lines.Text())
		if len(field) < 3 || field[1] != "00000000" {
			continue
		}
		b, err := hex.DecodeString(field[2])
		if err != nil || len(b) != 4 || field[2] == "00000000" {
			continue
		}
		var a [4]byte
		binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
		all = append(all, netip.AddrFrom4(a))
	}
	return all
}
