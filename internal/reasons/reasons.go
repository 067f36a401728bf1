// Package reasons is the one list of the words that the milter's log and
// Authentication-Results give as reason= and note=, with what each means and what there
// is to do about it. The manual page authkey-reasons(7) and docs/reasons.md are made of
// it; its test holds it against the words that the other packages have.
package reasons

import (
	"fmt"
	"strings"
)

// An Entry is one word.
type Entry struct {
	Word    string
	Meaning string
	Do      string // what there is to do; empty: nothing
}

// A Group is words that come together.
type Group struct {
	Title   string
	About   string
	Entries []Entry
}

// theirs is what to do where only those who run the domain can do something.
const theirs = "Only those who run the domain can repair it; `authkey-milter lookup DOMAIN --connect` shows what recipients see."

// Groups returns every word, in the order in which the page lists them.
func Groups() []Group {
	return []Group{
		{"Reasons of fail", "The sender is not authenticated.", []Entry{
			{"invalid-key", "The domain's Authentication Server (AS) says that the key is not the address's, or no longer.", "A forgery, or mail that was in a queue for longer than the key lives. If it is your own domain's mail: `authkey-server verify`, and check that the sending side has the server's secret, and the right time."},
			{"bad-key", "No AS can have issued this key: it has spaces or other forbidden characters, is too long, or the message has two different ones.", "Look at what changes the header on the way; `authkey-milter explain FILE.eml` reads a message as the milter does."},
			{"required", "The message has no key, and the domain says `req=yes`: each of its messages has one.", "A forgery, or mail that the domain sends by a way that attaches no keys, such as a newsletter service."},
		}},
		{"Reasons of none", "The domain takes no part, or the address cannot.", []Entry{
			{"no-as", "The domain publishes no AS record.", "If it is meant to: `authkey-milter lookup DOMAIN` shows records that only look like one."},
			{"no-domain", "The address has no domain.", ""},
			{"domain-literal", "The domain is an IP address in brackets.", ""},
			{"bad-domain", "The domain can be no host name.", ""},
			{"bad-address", "The address cannot be brought to the form in which servers are asked.", ""},
		}},
		{"Reasons of temperror", "It is not known now. The next message of the domain is tried again.", []Entry{
			{"dns-timeout", "No name server answered in time.", "`authkey-milter doctor` tries each of yours; `dns.timeout` is how long it may take."},
			{"dns-failure", "Every name server failed, refused or answered nonsense (SERVFAIL, REFUSED, a lame server), for the domain or for the name of its AS.", "If it is one domain: its DNS is broken. If it is all: `authkey-milter doctor`."},
			{"as-timeout", "The AS did not answer in time, or no connection to it could be made in time.", theirs},
			{"as-refused", "The AS cannot be connected to: refused, no route, or it hung up.", theirs},
			{"as-tls", "TLS with the AS failed: its certificate has expired, is for another name or is signed by nobody whom we trust; or it does not speak TLS.", theirs},
			{"as-violation", "The AS answered what the protocol does not allow.", theirs},
			{"as-tempfail", "The AS says that it cannot tell now, or gives a code that is not known.", theirs},
			{"as-busy", "The AS says that we ask too many questions.", "Whoever runs the AS can raise `limits.per_client`."},
			{"as-left-alone", "The AS failed five times in a row and is not asked for half a minute to five minutes.", theirs},
			{"dial-budget", "Too many new connections were begun just now, in all or to this network, so that no sender can use us against others.", "Rare. If it is often, look who names so many servers."},
			{"overload", "Too many verifications are under way.", "Look at what is slow: `dns_ms`, `as_ms` in the log."},
			{"cancelled", "Whoever asked stopped waiting: the client left, or the milter was stopped.", ""},
			{"internal-error", "A fault of ours. The message is deferred, whatever the policy says, and the log has a line with the place.", "Report that line."},
		}},
		{"Reasons of permerror", "What the domain publishes cannot be used.", []Entry{
			{"as-record", "None of the domain's AS records is well-formed.", "`authkey-milter lookup DOMAIN` says what is wrong with each."},
			{"as-no-host", "The AS's name does not exist or has no address. After two such names no further one is looked up.", theirs},
			{"as-forbidden", "The AS's address or port is one that is not dialled: not globally reachable, or a port below 1024.", "An AS in your own house: `verify.allow_networks`, `verify.allow_ports`."},
			{"as-clear-text", "The AS offers no TLS, and `verify.require_tls` is set.", ""},
			{"as-not-served", "The AS says that it does not serve the domain that names it.", theirs},
			{"as-syntax", "The AS says that it cannot read our question.", theirs},
		}},
		{"Reasons of skipped", "The message is not checked.", []Entry{
			{"submission", "It is our own users' mail: the client logged in, or is in `submission.networks`, or the message was made on this machine.", "If strangers' mail is skipped so, something in front (a proxy, fetchmail, NAT) hides them: see operations.md."},
			{"exempt", "The client is in `exempt.networks`.", ""},
			{"null-sender", "There is no envelope sender: a bounce.", ""},
			{"trusted", "The From field is not checked: the sender or client is in `from.trusted`.", ""},
		}},
		{"Reasons of the From field", "They stand in from_reason=, beside those above.", []Entry{
			{"key-is-envelope-senders", "The message has a key, but it is the envelope sender's, whose domain is another one than From's. The From domain's AS is not asked.", "Usual for mailing services and lists; `from.trusted` is for those that you trust."},
			{"key-is-ambiguous", "There are addresses of several domains in From, so that the key is nobody's.", ""},
			{"bad-from", "There is no From field, or no address in it that can be read.", "Report it to whoever writes the program that sent it; `from.actions.permerror` says what is done."},
			{"from-limit", "There are more octets, From fields or addresses in them than honest mail has: 16 384, 4, 8.", "A forgery."},
		}},
		{"Reasons in the log only", "The milter refused or deferred the message by itself.", []Entry{
			{"filter-error", "A fault of ours, or the MTA began in the middle of a message. It is deferred (451).", "If there is a line with a panic, report it."},
			{"shutdown", "The milter was being stopped. The message is deferred.", ""},
			{"too-many-recipients", "More recipients than `limits.recipients`. The message is deferred.", "Raise `limits.recipients`, or lower the MTA's own limit."},
			{"too-many-fields", "More than 256 header fields would have to be removed. The message is refused.", "No honest mail has so many."},
			{"not-handed-over", "A notice or delivery status notification could not be handed to `notify.smtp`. The message is deferred, and comes again.", "`authkey-milter doctor` tries `notify.smtp`."},
			{"no-key-now", "No key could be attached, and `attach.on_error` is tempfail.", "See the note of the same line."},
		}},
		{"Notes", "note=, commas between several: what else was done with the message, or could not be done.", []Entry{
			{"no-quarantine", "The MTA cannot hold mail: marked instead.", "`quarantine.mailbox` needs nothing of the MTA but another recipient."},
			{"no-delete", "The MTA does not let recipients be taken off: marked instead.", ""},
			{"no-readdress", "The recipient's copy could not be sent to another address.", "Look whether `mark.readdress` or `quarantine.mailbox` makes an address of this recipient."},
			{"no-dsn", "The message was to be refused for this recipient only, and its sender may not be told: marked instead.", "`notify.dsn` and `notify.trust` say who may be told."},
			{"held-for-all", "Held for recipients who wanted it delivered too: the MTA can hold whole messages only.", "`quarantine.mailbox`, or `policy.recipients: separate`."},
			{"marked-for-all", "Marked for recipients who wanted it unmarked: there is one header.", "`policy.mark_conflict`, `mark.readdress`, or `policy.recipients: separate`."},
			{"not-marked", "Left unmarked for the sake of other recipients (`policy.mark_conflict: accept`).", "The same."},
			{"preference-failed", "The recipient's preference could not be looked up; `preferences.on_error` decided.", "The line with `preferences could not be looked up` says why."},
			{"preference-not-allowed", "The recipient's preference is none of `policy.allowed`, and was ignored.", "`authkey-milter check` lists the lines."},
		}},
		{"Notes on our own users' mail", "Where attach: is set: why a submission was given a key, or none.", []Entry{
			{"key-attached", "It was given the key of its sender.", ""},
			{"other-domain", "Neither MAIL FROM nor From is of a domain in `attach.domains`.", ""},
			{"bad-sender", "MAIL FROM cannot be brought to the form in which servers are asked.", ""},
			{"bad-from", "There is no From field, or one that cannot be read.", "The program that sent it."},
			{"several-from", "The key would be the From address's, and there are several.", ""},
			{"no-login", "There was no login, and the client is not in `attach.networks`.", "Submission over the port that asks for a login, or `attach.networks`."},
			{"login-is-no-address", "The login is no address, and with `attach.authorize: login` it can only use the address that it is.", "Logins that are addresses, or `attach.authorize: map:FILE`."},
			{"login-not-canonical", "The login is another spelling of an address (a sub-address, or letters that only look alike), and an address's key is for its own login.", "The login in the spelling of the address list, or a map."},
			{"line-not-canonical", "The same of the address in the line of the map.", "The address in the map as the address list has it."},
			{"sender-not-allowed", "The login may not use the MAIL FROM address.", "Its line in the map, if it may."},
			{"from-not-allowed", "The login may not use the From address.", "The same."},
			{"recipient-not-listed", "A recipient is in none of the domains of `to`.", ""},
			{"not-listed", "The address list does not have the address.", "`authkey-server address add ADDRESS`, and the list on every machine."},
			{"no-list", "The address list could not be read yet.", "`authkey-milter check` says why."},
		}},
	}
}

// Markdown is docs/reasons.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Reasons and notes\n\n" +
		"What `reason=` and `note=` in the milter's log mean, and `reason=` in\n" +
		"Authentication-Results; there `nokey` is `none` with `reason=\"no AuthKey\"`, since its\n" +
		"readers know no such word. A pass has no reason, nor has a plain `nokey`: the domain\n" +
		"publishes an Authentication Server and the message has no key. The same is on the\n" +
		"machine: `man authkey-reasons`.\n")
	for _, g := range Groups() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", g.Title, g.About)
		for _, e := range g.Entries {
			text := "- `" + e.Word + "`: " + e.Meaning
			if e.Do != "" {
				text += " *" + e.Do + "*"
			}
			b.WriteString(wrap(text))
		}
	}
	return b.String()
}

// wrap breaks an item of a list at 92 columns.
func wrap(text string) string {
	const width = 92
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > width:
			b.WriteString("\n ")
			column = 1
			fallthrough
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String() + "\n"
}
