// Package config reads the configuration of the programs: defaults, then a YAML
// file, then the environment, each over the one before.
//
// One table of keys for each file (milter.go for milter.yaml, server.go for
// server.yaml) drives everything that is said about a key: its default, its validation, its name in the environment, what
// `config` and `config --describe` print and the manual page. Every fault of a
// file is reported, with its line, not only the first.
//
// The package touches no network and reads no file but the one it is given;
// whether a named file, group or socket exists is for those who open it. It
// imports no other package of the project: actions, results and modes are
// strings here, checked against their vocabulary.
package config

import (
	"io/fs"
	"net/netip"
	"time"
)

// Config is the whole of milter.yaml. What each key means is said once, in the
// table of keys; Describe lists it.
type Config struct {
	Mode               string     `mapstructure:"mode"` // enforce or test
	Listen             []Listen   `mapstructure:"listen"`
	Socket             Socket     `mapstructure:"socket"`
	AuthservID         string     `mapstructure:"authserv_id"` // empty: the MTA's {j}, else the host name
	TrustedAuthservIDs []string   `mapstructure:"trusted_authserv_ids"`
	LocalDomains       []string   `mapstructure:"local_domains"`
	Exempt             Exempt     `mapstructure:"exempt"`
	Submission         Submission `mapstructure:"submission"`

	DNS    DNS    `mapstructure:"dns"`
	Verify Verify `mapstructure:"verify"`
	Cache  Cache  `mapstructure:"cache"`

	Policy      Policy      `mapstructure:"policy"`
	From        From        `mapstructure:"from"`
	Preferences Preferences `mapstructure:"preferences"`
	Mark        Mark        `mapstructure:"mark"`
	Quarantine  Quarantine  `mapstructure:"quarantine"`
	Notify      Notify      `mapstructure:"notify"`
	Reply       Reply       `mapstructure:"reply"`

	Log     Log     `mapstructure:"log"`
	Metrics Metrics `mapstructure:"metrics"`
	Control Control `mapstructure:"control"`
	Limits  Limits  `mapstructure:"limits"`
	Attach  Attach  `mapstructure:"attach"`
}

// Socket says how a unix socket of ours is made.
type Socket struct {
	Mode  fs.FileMode `mapstructure:"mode"`  // permission bits only
	Group string      `mapstructure:"group"` // a name or a number; empty: the process's own
}

// Exempt clients are not checked.
type Exempt struct {
	Networks    []netip.Prefix `mapstructure:"networks"`
	KeepResults bool           `mapstructure:"keep_results"` // they check and clean by themselves
}

// Submission says which mail is our own users'.
type Submission struct {
	Authenticated bool           `mapstructure:"authenticated"`
	Networks      []netip.Prefix `mapstructure:"networks"`
	Daemons       []string       `mapstructure:"daemons"`
}

// DNS is the resolver; no servers means those of /etc/resolv.conf.
type DNS struct {
	Servers []string      `mapstructure:"servers"` // IP:PORT
	Timeout time.Duration `mapstructure:"timeout"`
}

// Verify bounds a verification and where it may dial.
type Verify struct {
	Timeout        time.Duration  `mapstructure:"timeout"`
	ConnectTimeout time.Duration  `mapstructure:"connect_timeout"`
	ReplyTimeout   time.Duration  `mapstructure:"reply_timeout"`
	AllowNetworks  []netip.Prefix `mapstructure:"allow_networks"`
	AllowPorts     []int          `mapstructure:"allow_ports"` // 1 to 65535
	RequireTLS     bool           `mapstructure:"require_tls"`
	CAFile         string         `mapstructure:"ca_file"` // empty: the system's roots
}

// Cache bounds the cache of valid keys.
type Cache struct {
	Entries    int           `mapstructure:"entries"`
	DefaultTTL time.Duration `mapstructure:"default_ttl"`
	MaxTTL     time.Duration `mapstructure:"max_ttl"`
}

// Actions holds one action a result. Empty means: not said here, and what that
// comes to depends on where the Actions stand.
type Actions struct {
	Pass      string `mapstructure:"pass"`
	None      string `mapstructure:"none"`
	NoKey     string `mapstructure:"nokey"`
	Fail      string `mapstructure:"fail"`
	PermError string `mapstructure:"permerror"`
	TempError string `mapstructure:"temperror"`
}

// Policy turns results into actions. Of its own Actions only TempError can be
// empty: accept, or tempfail for a domain whose record says req=yes.
type Policy struct {
	Actions      `mapstructure:",squash"`
	Rules        []Rule   `mapstructure:"rules"`
	Allowed      []string `mapstructure:"allowed"`
	Floor        Actions  `mapstructure:"floor"` // empty: no floor for that result
	Recipients   string   `mapstructure:"recipients"`
	MarkConflict string   `mapstructure:"mark_conflict"`
}

// Rule is one entry of policy.rules. At least one of Recipient and Sender is
// set: an address, a domain, or .domain for its subdomains. An empty action
// asks the next rule.
type Rule struct {
	Recipient string `mapstructure:"recipient"`
	Sender    string `mapstructure:"sender"`
	Actions   `mapstructure:",squash"`
}

// From is the check of the From field.
type From struct {
	Check   string    `mapstructure:"check"` // off, report or enforce
	Actions Actions   `mapstructure:"actions"`
	Trusted []Trusted `mapstructure:"trusted"`
}

// Trusted is one entry of from.trusted; exactly one of the two is set.
type Trusted struct {
	MailFrom string       `mapstructure:"mail_from"`
	Client   netip.Prefix `mapstructure:"client"`
}

// Preferences is where recipients' preferences are kept; an empty source means
// that there are none.
type Preferences struct {
	Source  DSN           `mapstructure:"source"`
	Query   string        `mapstructure:"query"` // empty: the columns of authkey_preferences
	OnError string        `mapstructure:"on_error"`
	Timeout time.Duration `mapstructure:"timeout"`
	Cache   time.Duration `mapstructure:"cache"` // 0: not cached
}

// Mark says how mail is marked.
type Mark struct {
	Header    string `mapstructure:"header"`
	Value     string `mapstructure:"value"`
	Readdress string `mapstructure:"readdress"` // an address with {local} and {domain}; empty: not readdressed
}

// Quarantine is the mailbox for quarantined mail; empty: the MTA holds it.
type Quarantine struct {
	Mailbox string `mapstructure:"mailbox"`
}

// Notify is how notices and DSNs are sent, and to whom.
type Notify struct {
	SMTP        string     `mapstructure:"smtp"`  // HOST:PORT
	DSN         string     `mapstructure:"dsn"`   // never, authenticated or always
	Trust       []string   `mapstructure:"trust"` // id/method
	FromName    string     `mapstructure:"from_name"`
	TemplateDir string     `mapstructure:"template_dir"`
	StateDir    string     `mapstructure:"state_dir"` // empty: $STATE_DIRECTORY, else nowhere
	Rate        NotifyRate `mapstructure:"rate"`
}

// NotifyRate bounds notices and DSNs.
type NotifyRate struct {
	PerSender    Rate `mapstructure:"per_sender"`
	PerRecipient Rate `mapstructure:"per_recipient"`
	Global       Rate `mapstructure:"global"`
}

// Reply holds texts in place of the standard ones; empty: the standard one.
type Reply struct {
	Fail      string `mapstructure:"fail"`
	NoKey     string `mapstructure:"nokey"`
	None      string `mapstructure:"none"`
	PermError string `mapstructure:"permerror"`
	TempError string `mapstructure:"temperror"`
}

// Log is what is logged and how.
type Log struct {
	Level  string `mapstructure:"level"`  // debug, info, warn or error
	Format string `mapstructure:"format"` // text or json
}

// Metrics is where metrics are served; empty: nowhere.
type Metrics struct {
	Listen string `mapstructure:"listen"` // [HOST]:PORT
}

// Control is the control socket; empty: none.
type Control struct {
	Socket string `mapstructure:"socket"`
}

// Limits bounds what MTAs may ask of us.
type Limits struct {
	Connections int           `mapstructure:"connections"`
	IdleTimeout time.Duration `mapstructure:"idle_timeout"`
	Recipients  int           `mapstructure:"recipients"` // of one message
}

// Attach is the sender's side: keys put on our own users' mail.
type Attach struct {
	Domains   []AttachDomain `mapstructure:"domains"`
	Authorize string         `mapstructure:"authorize"` // login, or map:FILE
	Networks  []netip.Prefix `mapstructure:"networks"`
	OnError   string         `mapstructure:"on_error"` // send or tempfail

	AllowInet        bool `mapstructure:"allow_inet"`
	AllowOpenSecrets bool `mapstructure:"allow_open_secrets"`
}

// AttachDomain is one entry of attach.domains.
type AttachDomain struct {
	Domain        string           `mapstructure:"domain"`
	Source        string           `mapstructure:"source"`    // secret:FILE
	Addresses     string           `mapstructure:"addresses"` // file:FILE, or any
	AVT           time.Duration    `mapstructure:"avt"`
	CaseSensitive bool             `mapstructure:"case_sensitive"`
	Subaddress    string           `mapstructure:"subaddress"` // the separator; empty: no sub-addresses
	To            RecipientDomains `mapstructure:"to"`
}

// RecipientDomains is a list of recipient domains; nil means every domain.
type RecipientDomains []string
