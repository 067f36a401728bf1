package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/notify"
)

// A cause is why an SMTP server refused what notify.smtp is to take.
type cause int

const (
	causeRelay     cause = iota // it does not relay for us
	causeLater                  // not now
	causeMailbox                // it knows the domain, and not the mailbox
	causeDomain                 // it finds no such domain
	causeName                   // it does not accept our name in EHLO
	causeLogin                  // it wants a login, or TLS
	causeSender                 // it does not take the null sender
	causeElsewhere              // something else
)

// causeOf reads the reply: RFC 3463 for the enhanced status, and what Postfix, Sendmail
// and Exim say where there is none or where it is used for several things.
func causeOf(r *notify.Refusal) cause {
	text, status := strings.ToLower(r.Message), r.Status()
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	switch {
	case says("helo command rejected", "ehlo") || r.Command == "EHLO" || status == "5.5.2" && r.Code == 504:
		return causeName
	case status == "5.7.0" && says("starttls", "authentication", "authenticate") || r.Code == 530 || r.Code == 535:
		return causeLogin
	case says("relay"): // Relay access denied, Relaying denied, relay not permitted
		return causeRelay
	case status == "4.1.2" || status == "5.1.2" || status == "5.4.4" || says("domain not found", "host unknown", "host not found"):
		return causeDomain
	case r.Code < 500:
		return causeLater
	case status == "5.1.1" || status == "5.1.0" || status == "5.1.10" || says("user unknown", "unknown user", "no such user", "unrouteable address"):
		return causeMailbox
	case r.Command == "MAIL":
		return causeSender
	case strings.HasPrefix(status, "5.7.") || status == "":
		return causeRelay
	}
	return causeElsewhere
}

// refusedBy is the finding about a refusal. to is the recipient at that time, local
// whether it is one of our own domain's.
func (c *checks) refusedBy(address, to string, local bool, r *notify.Refusal) Finding {
	const deferred = "mail that needs a notice or a DSN is deferred on each retry"
	f := Finding{CheckNotify, Fault, fmt.Sprintf("notify.smtp %s does not relay for us to %s: %v", address, to, r), deferred, c.mendRelay()}
	elsewhere := c.setting(`notify: {smtp: "HOST:PORT"}   # an SMTP server that takes mail of this host`)
	switch causeOf(r) {
	case causeLater:
		f.What = fmt.Sprintf("notify.smtp %s accepts no mail from us now: %v", address, r)
		f.Why = "while it lasts (greylisting, a limit, a service of its own that is down) " + deferred
		f.Mend = "look into the log of that server\n" + elsewhere
	case causeMailbox:
		f.What = fmt.Sprintf("notify.smtp %s knows no %s: %v", address, to, r)
		if local {
			f.Status = Warning
			f.Why = "every domain has to have one (RFC 5321, section 4.5.1); notices to those who exist are taken"
			f.Mend = "in the aliases of the mail system: postmaster: root\nnewaliases"
			break
		}
		f.Why = "it treats other domains as its own: " + deferred
		f.Mend = elsewhere
	case causeDomain:
		f.What = fmt.Sprintf("notify.smtp %s finds no domain of %s: %v", address, to, r)
		f.Mend = "look into the DNS of that server: does it resolve names of others?\n" + elsewhere
	case causeName:
		f.What = fmt.Sprintf("notify.smtp %s rejects this host's name %s: %v", address, c.Hostname, r)
		f.Mend = "hostnamectl set-hostname NAME   # the full one, such as mx.example.com\nsystemctl restart authkey-milter\n" + elsewhere
	case causeLogin:
		f.What = fmt.Sprintf("notify.smtp %s wants a login or TLS: %v", address, r)
	case causeSender:
		f.What = fmt.Sprintf("notify.smtp %s does not take the null sender: %v", address, r)
		f.Why = "notices and DSNs have it, so that nobody answers them: " + deferred
	case causeElsewhere:
		f.What = fmt.Sprintf("notify.smtp %s refuses mail of ours: %v", address, r)
		f.Mend = "look into the log of that server\n" + elsewhere
	}
	return f
}

// mendRelay says how to have a place that relays for this host.
func (c *checks) mendRelay() string {
	if c.Postfix == nil {
		return c.setting(`notify: {smtp: "HOST:PORT"}   # one that relays for this host`)
	}
	return strings.Join([]string{
		c.Postfix.Command("postconf", "-M", "127.0.0.1:10026/inet=127.0.0.1:10026 inet n - n - - smtpd"),
		c.Postfix.Command("postconf", "-P", "127.0.0.1:10026/inet/smtpd_milters=", "127.0.0.1:10026/inet/mynetworks=127.0.0.0/8"),
		c.Postfix.Command("postfix", "reload"), c.setting(`notify: {smtp: "127.0.0.1:10026"}`)}, "\n")
}
