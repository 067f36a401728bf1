package testmta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/authkey/authkey/internal/testdaemon"
)

const (
	// mailbox is the one maildir into which virtual(8) delivers everything.
	mailbox = "all"
	// mailboxUser owns it: nobody.
	mailboxUser = 65534
	// milterProtocol is Postfix's own default.
	milterProtocol = 6
)

// complete fills in defaults and refuses what would break the configuration.
func (o *PostfixOptions) complete() error {
	if o.Hostname == "" {
		o.Hostname = DefaultHostname
	}
	if len(o.RecipientDomains) == 0 {
		o.RecipientDomains = []string{DefaultRecipientDomain}
	}
	if o.MilterProtocol == 0 {
		o.MilterProtocol = milterProtocol
	}
	if o.DefaultAction == "" {
		o.DefaultAction = "tempfail"
	}
	o.Main = maps.Clone(o.Main)
	seen := map[string]bool{smtpListener: true}
	for _, l := range o.Listeners {
		if l.Name == "" || seen[l.Name] || strings.ContainsAny(l.Name, " \t\n{}") {
			return fmt.Errorf("listener name %q: empty, taken or malformed", l.Name)
		}
		seen[l.Name] = true
	}
	// The main listener is first, and a listener like the others.
	o.Listeners = append([]Listener{{Name: smtpListener}}, o.Listeners...)
	return nil
}

// layout is where the files of a private Postfix are, and Postfix's own.
type layout struct {
	dir        string // everything of ours
	postfix    string // the command postfix(1)
	commandDir string
	daemonDir  string
	owner      string // mail_owner
	group      string // setgid_group
	guard      *testdaemon.Guard
}

// guardScript ends the Postfix $1 of the folder $2 and removes the folder. The
// lock is that of "postfix start", which must not go on meanwhile.
const guardScript = `flock -w 30 "$2" true; [ ! -s "$2/etc/main.cf" ] || "$1" -c "$2/etc" stop; rm -rf "$2"`

func (l layout) etc() string                { return filepath.Join(l.dir, "etc") }
func (l layout) queue() string              { return filepath.Join(l.dir, "queue") }
func (l layout) data() string               { return filepath.Join(l.dir, "data") }
func (l layout) mail() string               { return filepath.Join(l.dir, "mail") }
func (l layout) log() string                { return filepath.Join(l.dir, "mail.log") }
func (l layout) command(name string) string { return filepath.Join(l.commandDir, name) }

// newLayout makes the folder and asks the installed Postfix for its places.
func newLayout(ctx context.Context) (layout, error) {
	postfix, err := postfixCommand()
	if err != nil {
		return layout{}, err
	}
	dir, err := testdaemon.TempDir("authkey-postfix-")
	if err != nil {
		return layout{}, err
	}
	guard, err := testdaemon.NewGuard(guardScript, postfix, dir)
	if err != nil {
		os.RemoveAll(dir)
		return layout{}, err
	}
	l := layout{dir: dir, postfix: postfix, guard: guard}
	if err := l.fill(ctx); err != nil {
		return layout{}, errors.Join(err, l.remove())
	}
	return l, nil
}

func (l layout) remove() error {
	return errors.Join(l.guard.Release(), os.RemoveAll(l.dir))
}

func (l *layout) fill(ctx context.Context) error {
	for _, sub := range []string{l.etc(), l.queue(), l.data(), l.mail()} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			return err
		}
		// The umask may have taken away what Postfix's users need.
		if err := os.Chmod(sub, 0o755); err != nil {
			return err
		}
	}
	// postconf(1) prints built-in defaults, but wants to see a main.cf.
	if err := os.WriteFile(filepath.Join(l.etc(), "main.cf"), nil, 0o644); err != nil {
		return err
	}
	postconf := filepath.Join(filepath.Dir(l.postfix), "postconf")
	out, err := exec.CommandContext(ctx, postconf, "-c", l.etc(), "-d", "-h",
		"command_directory", "daemon_directory", "mail_owner", "setgid_group").Output()
	if err != nil {
		return fmt.Errorf("postconf: %w", err)
	}
	places := strings.Fields(string(out))
	if len(places) != 4 {
		return fmt.Errorf("postconf: unexpected answer %q", out)
	}
	l.commandDir, l.daemonDir, l.owner, l.group = places[0], places[1], places[2], places[3]
	owner, err := user.Lookup(l.owner)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return err
	}
	if err := os.Chown(l.data(), uid, -1); err != nil {
		return err
	}
	return os.Chown(l.mail(), mailboxUser, mailboxUser)
}

func (p *Postfix) writeConfiguration() error {
	main, err := mainCF(p.layout, p.options)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.layout.etc(), "main.cf"), []byte(main), 0o644); err != nil {
		return err
	}
	master, err := masterCF(p.options, p.addrs)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.layout.etc(), "master.cf"), []byte(master), 0o644)
}

func mainCF(l layout, o PostfixOptions) (string, error) {
	transport := "virtual"
	if o.Discard {
		transport = "discard"
	}
	parameters := map[string]string{
		"compatibility_level":   "3.6",
		"queue_directory":       l.queue(),
		"data_directory":        l.data(),
		"command_directory":     l.commandDir,
		"daemon_directory":      l.daemonDir,
		"mail_owner":            l.owner,
		"setgid_group":          l.group,
		"maillog_file":          l.log(),
		"maillog_file_prefixes": l.dir,

		"myhostname":            o.Hostname,
		"mydestination":         "",
		"inet_interfaces":       "127.0.0.1",
		"inet_protocols":        "ipv4",
		"mynetworks":            "127.0.0.2/32",
		"alias_maps":            "",
		"alias_database":        "",
		"disable_dns_lookups":   "yes",
		"smtpd_peername_lookup": "no",
		"biff":                  "no",

		// Everything ends in one maildir, whoever it is for.
		"local_transport":         transport,
		"virtual_transport":       transport,
		"relay_transport":         transport,
		"default_transport":       transport,
		"virtual_mailbox_domains": strings.Join(o.RecipientDomains, ", "),
		"virtual_mailbox_base":    l.mail(),
		"virtual_mailbox_maps":    "static:" + mailbox + "/",
		"virtual_mailbox_limit":   "0",
		"virtual_uid_maps":        "static:" + strconv.Itoa(mailboxUser),
		"virtual_gid_maps":        "static:" + strconv.Itoa(mailboxUser),

		"smtpd_relay_restrictions":       "permit_mynetworks, reject_unauth_destination",
		"smtpd_recipient_restrictions":   "permit",
		"smtpd_authorized_xclient_hosts": "127.0.0.0/8",
		// Tests misbehave on purpose: no slowing down, no limits by count.
		"smtpd_error_sleep_time":              "0",
		"smtpd_soft_error_limit":              "10000",
		"smtpd_hard_error_limit":              "10000",
		"smtpd_junk_command_limit":            "10000",
		"smtpd_client_connection_count_limit": "0",
		// Nothing is added to or rewritten in what a loopback client sends.
		"local_header_rewrite_clients": "",

		"smtpd_milters":         strings.Join(o.Milters, ", "),
		"milter_default_action": o.DefaultAction,
		"milter_protocol":       strconv.Itoa(o.MilterProtocol),
	}
	maps.Copy(parameters, o.Main)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		value := parameters[name]
		if name == "" || strings.ContainsAny(name, " \t\n=#") || strings.Contains(value, "\n") {
			return "", fmt.Errorf("main.cf parameter %q: malformed name or line break in the value", name)
		}
		fmt.Fprintf(&b, "%s = %s\n", name, value)
	}
	return b.String(), nil
}

// stockServices is Postfix's master.cf without network listeners and chroot.
const stockServices = `pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

func masterCF(o PostfixOptions, addrs map[string]string) (string, error) {
	var b strings.Builder
	b.WriteString(stockServices)
	for _, l := range o.Listeners {
		fmt.Fprintf(&b, "%s inet n - n - - smtpd\n", addrs[l.Name])
		if l.Name != smtpListener {
			fmt.Fprintf(&b, "  -o syslog_name=postfix/%s\n", l.Name)
		}
		for _, option := range l.Options {
			name, value, ok := strings.Cut(option, "=")
			if !ok || strings.ContainsAny(option, "\n{}") {
				return "", fmt.Errorf("listener %s: option %q is not parameter=value", l.Name, option)
			}
			fmt.Fprintf(&b, "  -o { %s = %s }\n", strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	for _, line := range o.Master {
		b.WriteString(line + "\n")
	}
	return b.String(), nil
}
