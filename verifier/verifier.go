package verifier

import (
	"cmp"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/authkey/authkey/internal/stubdns"
)

// Defaults of Options (docs/protocol.md sections 4 and 6).
const (
	DefaultDNSTimeout     = 3 * time.Second
	DefaultTimeout        = 10 * time.Second
	DefaultConnectTimeout = 2 * time.Second
	DefaultReplyTimeout   = 5 * time.Second
	DefaultTTL            = 5 * time.Minute
	DefaultMaxTTL         = time.Hour
)

const (
	// maxVerifications bounds the verifications under way, also those whose caller has
	// stopped waiting.
	maxVerifications = 10_000
	// maxPrefetches bounds the lookups of Prefetch, for which no verification waits yet.
	maxPrefetches = 256
)

// Options say how to verify. The zero value of each field means its default.
type Options struct {
	// Resolvers are the name servers to ask, the best first. Default: those of
	// /etc/resolv.conf, which is read again when it changes.
	Resolvers []netip.AddrPort
	// DNSTimeout is for one DNS lookup, over all servers and retries. Default:
	// DefaultDNSTimeout.
	DNSTimeout time.Duration

	// Timeout is for one verification, over DNS and every AS that is asked. Default:
	// DefaultTimeout.
	Timeout time.Duration
	// ConnectTimeout is for one AS, TCP and TLS over all of its addresses. Default:
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// ReplyTimeout is for one AS to answer once it is connected. Default:
	// DefaultReplyTimeout.
	ReplyTimeout time.Duration

	// AllowNetworks may be dialled although they are not globally reachable, and are exempt
	// from the limit of new connections to one network. Default: none.
	AllowNetworks []netip.Prefix
	// AllowPorts may be dialled although they are below 1024. Default: none.
	AllowPorts []uint16
	// RequireTLS refuses servers that offer clear text only. Default: they are asked.
	RequireTLS bool
	// Roots sign the servers' certificates. Default: the system's.
	Roots *x509.CertPool

	// DefaultTTL is for how long a key counts as valid when the AS does not say. Default:
	// the constant DefaultTTL.
	DefaultTTL time.Duration
	// MaxTTL is the longest that a key counts as valid without being asked about. Default:
	// DefaultMaxTTL.
	MaxTTL time.Duration
	// Cache remembers valid keys. Default: a new one for DefaultEntries addresses.
	Cache *Cache
	// Records remembers what DNS said. Default: a new one.
	Records *Records

	// Logger gets faults of the Verifier's own, a warning where /etc/resolv.conf cannot be
	// read, and at level debug what failed. It never gets a key. Default: nothing is logged.
	Logger *slog.Logger
}

// A Verifier verifies AuthKeys. It is safe for concurrent use.
type Verifier struct {
	timeout            time.Duration
	defaultTTL, maxTTL time.Duration
	cache              *Cache
	records            *Records
	dns                resolver
	pool               *pool
	life               *lifecycle
	log                *slog.Logger

	verifications singleflight.Group // by digest
	lookups       singleflight.Group // by domain
	underway      chan struct{}      // a semaphore of verifications
	prefetches    chan struct{}      // and of prefetches
}

// New makes a Verifier. It starts nothing and touches no network. Call Close when it is
// not needed any more.
func New(o Options) *Verifier {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{
		timeout:    cmp.Or(o.Timeout, DefaultTimeout),
		defaultTTL: cmp.Or(o.DefaultTTL, DefaultTTL),
		maxTTL:     cmp.Or(o.MaxTTL, DefaultMaxTTL),
		cache:      o.Cache,
		records:    o.Records,
		dns:        stubdns.New(nameServers(o, log), cmp.Or(o.DNSTimeout, DefaultDNSTimeout), log),
		life:       newLifecycle(log),
		log:        log,
		underway:   make(chan struct{}, maxVerifications),
		prefetches: make(chan struct{}, maxPrefetches),
	}
	if v.cache == nil {
		v.cache = NewCache(DefaultEntries)
	}
	if v.records == nil {
		v.records = NewRecords()
	}
	v.pool = &pool{
		dialer: &dialer{
			rules:       dialRules{networks: o.AllowNetworks, ports: o.AllowPorts, requireTLS: o.RequireTLS},
			dns:         v.dns,
			unreachable: v.records.unreachable,
			limiter:     newDialLimiter(o.AllowNetworks...),
			roots:       o.Roots,
			timeout:     cmp.Or(o.ConnectTimeout, DefaultConnectTimeout),
			connect:     dialTCP,
		},
		replyTimeout: cmp.Or(o.ReplyTimeout, DefaultReplyTimeout),
		life:         v.life,
		targets:      make(map[Server]*target),
	}
	return v
}

// NameServers lists the name servers that a Verifier with these options asks now, in order
// of preference.
func NameServers(o Options) []netip.AddrPort {
	return nameServers(o, slog.New(slog.DiscardHandler))()
}

// nameServers returns the function that says which name servers to ask.
func nameServers(o Options, log *slog.Logger) func() []netip.AddrPort {
	if len(o.Resolvers) == 0 {
		return stubdns.FromResolvConf(stubdns.ResolvConf, log)
	}
	return func() []netip.AddrPort { return o.Resolvers }
}

// Close lets the calls which are under way finish, each within its time, then closes the
// connections and returns when nothing runs any more. Afterwards Verify answers from the
// cache alone, and everything else gives a TempError or an error. Close may be called more
// than once.
func (v *Verifier) Close() { v.life.close(v.pool.close) }
