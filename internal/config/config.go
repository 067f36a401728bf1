// Package config reads the configuration of the programs: defaults, then a YAML
// file, then the environment, each over the one before.
//
// One table of keys for each file (milter.go for milter.yaml, server.go for
// server.yaml) says everything about a key once: the field it sets, its type and
// check, its default, its name in the environment, whether it is implemented, and
// what `config --describe` and the manual page print. To add a key is to add a field
// and a row. A text is parsed once, into the type of its field. Every fault of a file
// is reported, with its line, not only the first.
//
// The package touches no network and reads no file but the one it is given;
// whether a named file, group or socket exists is for those who open it.
package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"time"

	"github.com/authkey/authkey/policy"
)

// Config is the whole of milter.yaml. What each key means is said once, in the
// table of keys; Describe lists it.
type Config struct {
	Mode               string // enforce or test
	Listen             []Listen
	Socket             Socket
	AuthservID         string // empty: the MTA's {j}, else the host name
	TrustedAuthservIDs []string
	LocalDomains       []string // A-labels in lower case
	Exempt             Exempt
	Submission         Submission

	DNS    DNS
	Verify Verify
	Cache  Cache

	Policy      Policy
	From        From
	Preferences Preferences
	Mark        Mark
	Quarantine  Quarantine
	Notify      Notify
	Reply       Reply

	Log     Log
	Metrics Metrics
	Control Control
	Limits  Limits
	Attach  Attach
}

// Socket says how a unix socket of ours is made.
type Socket struct {
	Mode  fs.FileMode // permission bits only
	Group string      // a name or a number; empty: the process's own
}

// Exempt clients are not checked.
type Exempt struct {
	Networks    []netip.Prefix
	KeepResults bool // they verify keys, and remove forged results, themselves
}

// Submission says which mail is our own users'.
type Submission struct {
	Authenticated bool
	Networks      []netip.Prefix
	Daemons       []string
}

// DNS is the resolver; no servers means those of /etc/resolv.conf.
type DNS struct {
	Servers []netip.AddrPort
	Timeout time.Duration
}

// Verify bounds a verification and where it may dial.
type Verify struct {
	Timeout        time.Duration
	ConnectTimeout time.Duration
	ReplyTimeout   time.Duration
	AllowNetworks  []netip.Prefix
	AllowPorts     []int // 1 to 65535
	RequireTLS     bool
	CAFile         string // empty: the system's roots
}

// Cache bounds the cache of valid keys.
type Cache struct {
	Entries    int
	DefaultTTL time.Duration
	MaxTTL     time.Duration
}

// Actions has one action for each result. policy.Unset means that nothing is said here; what
// follows from that depends on where the Actions are used.
type Actions = policy.Actions

// Policy turns results into actions. Of its own Actions only TempError can be
// empty: accept, or tempfail for a domain whose record says req=yes.
type Policy struct {
	Actions
	Rules        []Rule
	Allowed      []policy.Action
	Floor        Actions // empty: no floor for that result
	Recipients   string
	MarkConflict string
}

// Rule is one entry of policy.rules. At least one of Recipient and Sender is
// set: an address, a domain, or .domain for its subdomains, in folded form (policy.Fold).
// An action that is not set asks the next rule.
type Rule struct {
	Recipient string
	Sender    string
	Actions
}

// From is the check of the From field.
type From struct {
	Check   string // off, report or enforce
	Actions Actions
	Trusted []Trusted
}

// Trusted is one entry of from.trusted; exactly one of the two is set.
type Trusted struct {
	MailFrom string // in folded form, as in a Rule
	Client   netip.Prefix
}

// Preferences is where recipients' preferences are kept; an empty source means
// that there are none.
type Preferences struct {
	Source  DSN
	Query   string // empty: the columns of authkey_preferences
	OnError string
	Timeout time.Duration
	Cache   time.Duration // 0: not cached
}

// Mark says how mail is marked.
type Mark struct {
	Header    string
	Value     string
	Readdress string // an address with {local} and {domain}; empty: not readdressed
}

// Quarantine is the mailbox for quarantined mail; empty: the MTA holds it.
type Quarantine struct {
	Mailbox string
}

// Notify is how notices and DSNs are sent, and to whom.
type Notify struct {
	SMTP        string // HOST:PORT
	DSN         string // never, authenticated or always
	Trust       []Voucher
	FromName    string
	TemplateDir string
	StateDir    string // empty: $STATE_DIRECTORY, else nowhere
	Rate        NotifyRate
}

// Voucher is one entry of notify.trust: a filter before us, by its authserv-id, and its
// method that authenticates senders, spf or dkim.
type Voucher struct{ ID, Method string }

// NotifyRate bounds notices and DSNs.
type NotifyRate struct {
	PerSender    Rate
	PerRecipient Rate
	Global       Rate
}

// Reply holds texts in place of the standard ones; empty: the standard one.
type Reply = policy.Texts

// Log is what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // text or json
}

// Metrics is where metrics are served; empty: nowhere.
type Metrics struct {
	Listen string // [HOST]:PORT
}

// Control is the control socket; empty: none.
type Control struct {
	Socket string
}

// Limits bounds what MTAs may ask of us.
type Limits struct {
	Connections int
	IdleTimeout time.Duration
	Recipients  int // of one message
}

// Attach is the sender's side: keys put on our own users' mail.
type Attach struct {
	Domains   []AttachDomain
	Authorize string // login, or map:FILE
	Networks  []netip.Prefix
	OnError   string // send or tempfail

	AllowInet        bool
	AllowOpenSecrets bool
}

// AttachDomain is one entry of attach.domains.
type AttachDomain struct {
	Domain        string
	Source        string // secret:FILE
	Addresses     string // file:FILE, or any
	AVT           time.Duration
	CaseSensitive bool
	Subaddress    string   // the separator; empty: no sub-addresses
	To            []string // recipient domains; nil: every domain
}
