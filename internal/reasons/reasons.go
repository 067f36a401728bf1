// Package reasons has the list of all words that the milter's log and Authentication-Results
// give as reason= and note=, with their meaning and what to do about them. The manual page
// authkey-reasons(7) and docs/reasons.md are generated from it; its test compares it with
// the words that the other packages use.
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

// theirs is what to do where only the domain's administrator can do something.
const theirs = "Only the domain's administrator can repair it; `authkey-milter lookup DOMAIN --connect` shows what recipients see."

// Groups returns every word, in the order in which the page lists them.
func Groups() []Group {
	return []Group{
		{"Reasons of fail", "The sender is not authenticated.", []Entry{
			{"invalid-key", "The domain's Authentication Server (AS) says that the key does not belong to the address, or is no longer valid.", "A forgery, or mail that was in a queue for longer than the key is valid. If it is your own domain's mail: try `authkey-server verify`, and check that the sending machine has the same secret and time as the server."},
			{"bad-key", "No AS can have issued this key: it contains blanks or other forbidden characters, is too long, or the message has two different keys.", "Find out what changes the header on the way; `authkey-milter explain FILE.eml` reads a message as the milter does."},
			{"required", "The message has no key, and the domain says `req=yes`: every message from it has one.", "A forgery, or mail that the domain sends through a service that attaches no keys, such as a newsletter service."},
		}},
		{"Reasons of none", "The domain does not take part, or the address cannot have a key.", []Entry{
			{"no-as", "The domain publishes no AS record.", "If it should have one: `authkey-milter lookup DOMAIN` shows records that are almost, but not quite, AS records."},
			{"no-domain", "The address has no domain.", ""},
			{"domain-literal", "The domain is an IP address in brackets.", ""},
			{"bad-domain", "The domain is not a valid host name.", ""},
			{"bad-address", "The address cannot be converted to the canonical form that is sent to an AS.", ""},
		}},
		{"Reasons of temperror", "The key cannot be verified now. The next message from the domain is tried again.", []Entry{
			{"dns-timeout", "No name server answered in time.", "`authkey-milter doctor` tries each of your name servers; `dns.timeout` is the time limit."},
			{"dns-failure", "Every name server failed, refused or sent an unusable answer (SERVFAIL, REFUSED, a lame server), for the domain or for the host name of its AS.", "If it happens for one domain, its DNS is broken. If it happens for all, run `authkey-milter doctor`."},
			{"as-timeout", "The connection to the AS took too long, or the AS was connected and did not answer in time.", theirs},
			{"as-refused", "No connection to the AS: refused, no route, or the AS closed it.", theirs},
			{"as-tls", "TLS with the AS failed: its certificate has expired, is for another name or not signed by a trusted CA, or the AS does not use TLS.", theirs},
			{"as-violation", "The AS sent an answer that the protocol does not allow.", theirs},
			{"as-tempfail", "The AS says that it cannot answer now, or gives an unknown error code.", theirs},
			{"as-busy", "The AS says that we ask too many questions.", "Its administrator can raise `limits.per_client`."},
			{"as-left-alone", "The AS failed five times in a row and is not asked for a time, from 30 seconds to five minutes.", theirs},
			{"dial-budget", "Too many new connections were opened in the last moments, in total or to this network. The limit is there so that no sender can use us to attack others.", "Rare. If it happens often, find out whose records name so many servers."},
			{"overload", "Too many verifications are running.", "Find out what is slow: `dns_ms` and `as_ms` in the log."},
			{"cancelled", "The verification was not needed any more: the client disconnected, or the milter was stopped.", ""},
			{"internal-error", "A bug in the milter. The message is deferred, whatever the policy says, and the log has a line that says where it happened.", "Report that line."},
		}},
		{"Reasons of permerror", "What the domain publishes cannot be used.", []Entry{
			{"as-record", "None of the domain's AS records is well-formed.", "`authkey-milter lookup DOMAIN` says what is wrong with each."},
			{"as-no-host", "The host name of the AS does not exist or has no address. After two such names no other name is looked up.", theirs},
			{"as-forbidden", "The milter does not connect to the address or port of the AS: the address is not globally reachable, or the port is below 1024.", "If it is an AS in your own network: `verify.allow_networks`, `verify.allow_ports`."},
			{"as-clear-text", "The AS does not use TLS, and `verify.require_tls` is set.", ""},
			{"as-not-served", "The AS says that it does not serve the domain whose record names it.", theirs},
			{"as-syntax", "The AS says that it cannot read our question.", theirs},
		}},
		{"Reasons of skipped", "The message is not checked.", []Entry{
			{"submission", "It is mail from our own users: the client logged in, or is in `submission.networks`, or the message was created on this machine.", "If mail from outside is skipped with this reason, something in front of the MTA (a proxy, fetchmail, NAT) hides the client's address: see operations.md."},
			{"exempt", "The client is in `exempt.networks`.", ""},
			{"null-sender", "There is no envelope sender: a bounce.", ""},
			{"trusted", "The From field is not checked: the sender or client is in `from.trusted`.", ""},
		}},
		{"Reasons of the From field", "They are in from_reason=, as are those above.", []Entry{
			{"key-is-envelope-senders", "The message has a key, but it belongs to the envelope sender, and From has another domain. The AS of the From domain is not asked.", "Usual for mailing services and lists; put those that you trust into `from.trusted`."},
			{"key-is-ambiguous", "From has addresses of several domains, so it is not known whose key it is.", ""},
			{"bad-from", "There is no From field, or no address in it that can be read.", "Report it to the authors of the program that sent it; `from.actions.permerror` is the action."},
			{"from-limit", "The From fields are larger than legitimate mail needs: more than 16 384 octets, 4 fields or 8 addresses.", "A forgery."},
		}},
		{"Reasons in the log only", "The milter refused or deferred the message by itself.", []Entry{
			{"filter-error", "A bug in the milter, or the MTA began in the middle of a message. The message is deferred (451).", "If the log has a line with a panic, report it."},
			{"shutdown", "The milter was stopping. The message is deferred.", ""},
			{"too-many-recipients", "More recipients than `limits.recipients`. The message is deferred.", "Raise `limits.recipients`, or lower the MTA's own limit."},
			{"too-many-fields", "More than 256 header fields would have to be removed. The message is refused.", "Legitimate mail does not have so many."},
			{"not-handed-over", "A notice or delivery status notification could not be handed to `notify.smtp`. The message is deferred, and the client tries again.", "`authkey-milter doctor` tries `notify.smtp`."},
			{"no-key-now", "No key could be attached, and `attach.on_error` is tempfail.", "See note= in the same line."},
		}},
		{"Notes", "note= is a list, separated by commas. It says what happened to the message that its result and the policy do not explain.", []Entry{
			{"no-quarantine", "The MTA cannot hold mail: marked instead.", "`quarantine.mailbox` only needs an MTA that lets filters change recipients."},
			{"no-delete", "The MTA does not let filters remove recipients: marked instead.", ""},
			{"no-readdress", "The recipient's copy could not be sent to another address.", "Check that `mark.readdress` or `quarantine.mailbox` gives a valid address for this recipient."},
			{"no-dsn", "The message was to be rejected for this recipient only, and no DSN may be sent to its sender: marked instead.", "`notify.dsn` and `notify.trust` say who may get a DSN."},
			{"held-for-all", "Also held for recipients whose action was to deliver it: the MTA can only hold the whole message.", "`quarantine.mailbox`, or `policy.recipients: separate`."},
			{"marked-for-all", "Also marked for recipients whose action was `accept`: all copies have the same header.", "`policy.mark_conflict`, `mark.readdress`, or `policy.recipients: separate`."},
			{"not-marked", "Not marked, because other recipients have `accept` (`policy.mark_conflict: accept`).", "As for `marked-for-all`."},
			{"preference-failed", "The recipient's preference could not be looked up; `preferences.on_error` decided.", "The log line `preferences could not be looked up` says why."},
			{"preference-not-allowed", "The recipient's preference is not in `policy.allowed`, and was ignored.", "`authkey-milter check` lists the lines."},
		}},
		{"Notes on our own users' mail", "If `attach` is configured: why a submission got a key, or none.", []Entry{
			{"key-attached", "It got the key of its sender.", ""},
			{"other-domain", "Neither MAIL FROM nor From is of a domain in `attach.domains`.", ""},
			{"bad-sender", "MAIL FROM cannot be converted to the canonical form from which keys are derived.", ""},
			{"bad-from", "There is no From field, or one that cannot be read.", "Correct the program that sent it."},
			{"several-from", "The key would be that of the From address, and From has several.", ""},
			{"no-login", "There was no login, and the client is not in `attach.networks`.", "Submit on a port that asks for a login, or add the client to `attach.networks`."},
			{"login-is-no-address", "The login is not an address, and with `attach.authorize: login` a login may only use the address that it is.", "Use logins that are addresses, or `attach.authorize: map:FILE`."},
			{"login-not-canonical", "The login is another spelling of an address (a sub-address, or letters that only look alike), and only the login that is spelled like the address gets its key.", "Spell the login as in the address list, or use a map."},
			{"line-not-canonical", "The same for the address in the line of the map.", "Spell the address in the map as in the address list."},
			{"sender-not-allowed", "The login may not use the MAIL FROM address.", "If it should be allowed: add it to the address's line in the map."},
			{"from-not-allowed", "The login may not use the From address.", "As for `sender-not-allowed`."},
			{"recipient-not-listed", "The domain of a recipient is not in `to`.", ""},
			{"not-listed", "The address is not in the address list.", "`authkey-server address add ADDRESS`, then copy the list to every machine."},
			{"no-list", "The address list could not be read yet.", "`authkey-milter check` says why."},
		}},
	}
}

// Markdown is docs/reasons.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Reasons and notes\n\n" +
		"This page explains `reason=` and `note=` in the milter's log, and `reason=` in\n" +
		"Authentication-Results. In Authentication-Results `nokey` is written as `none` with\n" +
		"`reason=\"no AuthKey\"`, because its readers do not know `nokey`. A `pass` has no reason, and\n" +
		"neither has a plain `nokey` (the domain publishes an Authentication Server, the message has\n" +
		"no key, and the domain does not require one). `man authkey-reasons` has the same text.\n")
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
