package verifier

import (
	"context"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/authkey/authkey/internal/wire"
	"golang.org/x/sync/singleflight"
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
	// maxFlights bounds the verifications under way, those included whose caller
	// has left.
	maxFlights = 10_000
	// maxPrefetches bounds the lookups that nobody waits for yet.
	maxPrefetches = 256
	// maxUselessHosts is how many AS names of one domain may lead to no address that we
	// may dial. Those behind them are not looked up: they may be names in the zone of
	// somebody who has nothing to do with the domain (compare RFC 7208 section 4.6.4).
	maxUselessHosts = 2
)

// Options say how to verify. The zero value of each means its default.
type Options struct {
	// Resolvers are the name servers to ask, as "IP:PORT", the best first. Empty:
	// those of ResolvConf, which is read again when it changes.
	Resolvers  []string
	ResolvConf string // default /etc/resolv.conf
	// DNSTimeout is for one DNS lookup, over all servers and retries.
	DNSTimeout time.Duration

	// Timeout is for one verification, over DNS and every AS that is asked.
	Timeout time.Duration
	// ConnectTimeout is for one AS, TCP and TLS over all of its addresses.
	ConnectTimeout time.Duration
	// ReplyTimeout is for one AS to answer once it is connected.
	ReplyTimeout time.Duration

	// AllowNetworks may be dialled although they are not globally reachable.
	AllowNetworks []netip.Prefix
	// AllowPorts may be dialled although they are below 1024.
	AllowPorts []uint16
	// RequireTLS refuses servers that offer clear text only.
	RequireTLS bool
	// Roots sign the servers' certificates; nil means the system's.
	Roots *x509.CertPool

	// DefaultTTL is for how long a key counts as valid when the AS does not say.
	DefaultTTL time.Duration
	// MaxTTL is the longest that a key counts as valid without being asked about.
	MaxTTL time.Duration
	// Cache remembers valid keys; nil means a new one for DefaultEntries.
	Cache *Cache
	// Records remembers what DNS said; nil means a new one.
	Records *Records

	// Logger gets a rare warning about name servers, and what failed at level
	// debug; nil means nobody.
	Logger *slog.Logger
}

// A Verifier verifies AuthKeys. It is safe for concurrent use.
type Verifier struct {
	timeout            time.Duration
	defaultTTL, maxTTL time.Duration
	cache              *Cache
	records            *Records
	dns                lookuper
	pool               *pool
	life               *life
	stats              *counters
	log                *slog.Logger

	flights    singleflight.Group // by digest
	lookups    singleflight.Group // by domain
	underway   chan struct{}      // a semaphore of flights
	prefetches chan struct{}      // and of prefetches
}

// New makes a Verifier. It starts nothing and touches no network. Call Close when
// no more questions are asked.
func New(o Options) *Verifier {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{
		timeout:    or(o.Timeout, DefaultTimeout),
		defaultTTL: or(o.DefaultTTL, DefaultTTL),
		maxTTL:     or(o.MaxTTL, DefaultMaxTTL),
		cache:      o.Cache,
		records:    o.Records,
		life:       newLife(log),
		stats:      new(counters),
		log:        log,
		underway:   make(chan struct{}, maxFlights),
		prefetches: make(chan struct{}, maxPrefetches),
	}
	if v.cache == nil {
		v.cache = NewCache(DefaultEntries)
	}
	if v.records == nil {
		v.records = NewRecords()
	}
	v.dns = newResolver(nameServers(o, log), or(o.DNSTimeout, DefaultDNSTimeout), v.stats, v.life)
	v.pool = &pool{
		dialer: &dialer{
			rules:   rules{networks: o.AllowNetworks, ports: o.AllowPorts, requireTLS: o.RequireTLS},
			dns:     v.dns,
			dead:    v.records.deadHosts,
			budget:  newBudget(o.AllowNetworks...),
			roots:   o.Roots,
			timeout: or(o.ConnectTimeout, DefaultConnectTimeout),
			connect: dialTCP,
			stats:   v.stats,
		},
		replyTimeout: or(o.ReplyTimeout, DefaultReplyTimeout),
		stats:        v.stats,
		life:         v.life,
		targets:      make(map[wire.Server]*target),
	}
	return v
}

func or(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// nameServers returns the function that says which name servers to ask.
func nameServers(o Options, log *slog.Logger) func() []netip.AddrPort {
	if len(o.Resolvers) == 0 {
		path := o.ResolvConf
		if path == "" {
			path = resolvConfPath
		}
		return (&resolvConf{path: path, log: log}).current
	}
	var servers []netip.AddrPort
	for _, text := range o.Resolvers {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			log.Warn("name server is not IP:PORT and not used", "server", text, "err", err)
			continue
		}
		servers = append(servers, server)
	}
	return func() []netip.AddrPort { return servers }
}

// Close lets the questions which are under way finish, each within its deadline,
// then closes the connections and returns when nothing runs any more. A Verify
// after it gives a TempError.
func (v *Verifier) Close() { v.life.close(v.pool.close) }

// Verify says whether q.Key is q.Address's AuthKey, or what its absence means. It
// takes no longer than the configured timeout, and ends with ctx.
func (v *Verifier) Verify(ctx context.Context, q Query) Result {
	if q.Address.IsZero() {
		return Result{Status: None, Reason: ReasonBadAddress}
	}
	if q.Address.IsDomain() {
		q.Key = wire.Key{} // it can have none
	}
	if q.Key.IsZero() || q.Key.Bad() {
		return v.verifyAbsent(ctx, q)
	}
	d := v.cache.digest(q.Address, q.Key)
	if r, ok := v.cached(q, d); ok {
		return r
	}
	if !v.life.question() {
		return Result{Status: TempError, Reason: ReasonCancelled}
	}
	defer v.life.answered()
	return v.join(ctx, q, d)
}

// join waits for the flight that asks about the pair, which it starts unless it is
// in the air. The flight is under a context of its own: whoever joins must not
// suffer from the first one's leaving.
func (v *Verifier) join(ctx context.Context, q Query, d digest) Result {
	own := false
	flight := v.flights.DoChan(string(d[:]), func() (any, error) {
		own = true
		return v.fly(q, d), nil
	})
	select {
	case r := <-flight:
		if !own {
			v.stats.joined.Add(1)
		}
		return r.Val.(Result)
	case <-ctx.Done():
		return Result{Status: TempError, Reason: ReasonCancelled}
	}
}

// Prefetch starts to find out about the domain of an address whose message has
// just begun, unless a key of it is in the cache. It never blocks, and does
// nothing where much is going on already.
func (v *Verifier) Prefetch(address wire.Address) {
	if address.IsZero() || v.cache.knows(address) {
		return
	}
	domain := address.Domain()
	if s := v.records.domains.find(domain); s != nil {
		if _, ok, _ := s.value.usable(time.Now()); ok {
			return
		}
	}
	select {
	case v.prefetches <- struct{}{}:
	default:
		return
	}
	started := v.life.spawn(func() {
		defer func() { <-v.prefetches }()
		v.lookups.Do(domain, func() (any, error) { return v.refresh(domain) })
	})
	if !started {
		<-v.prefetches
	}
}

// verifyAbsent is Verify for a message without a key, or with one that no AS could
// have issued: nobody is asked but DNS.
func (v *Verifier) verifyAbsent(ctx context.Context, q Query) Result {
	if !v.life.question() {
		return Result{Status: TempError, Reason: ReasonCancelled}
	}
	defer v.life.answered()
	limited, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	st, r, ok := v.standing(limited, q)
	if ctx.Err() != nil && !ok && r.Status == TempError {
		r.Reason = ReasonCancelled
		return r
	}
	switch {
	case q.Key.Bad() && (ok || r.Status == PermError): // published is published, usable or not
		r.Status, r.Reason = Fail, ReasonBadKey
	case !ok:
	case st.set.Required:
		r.Status, r.Reason = Fail, ReasonRequired
	default:
		r.Status = NoKey
	}
	return r
}

// standing finds out what DNS says of the domain. ok: it has servers to ask.
// Otherwise r is the result, except for a key that is bad anyway.
func (v *Verifier) standing(ctx context.Context, q Query) (st standing, r Result, ok bool) {
	began := time.Now()
	domain := q.Address.Domain()
	st, err := v.discover(ctx, domain)
	r.DNSTime = time.Since(began)
	if err != nil {
		v.log.Debug("no records", "domain", domain, "err", bounded(err))
		r.Status, r.Reason = TempError, reasonOf(err)
		return st, r, false
	}
	r.Required, r.Stale, r.AD = st.set.Required, st.stale, st.ad
	switch {
	case !st.published:
		r.Status, r.Reason = None, ReasonNoAS
	case len(st.set.Records) == 0:
		r.Status, r.Reason = PermError, ReasonASRecord
	default:
		ok = true
	}
	return st, r, ok
}

// fly is the walk of one (address, key) for all who want to know.
func (v *Verifier) fly(q Query, d digest) (r Result) {
	if !v.life.task() {
		return Result{Status: TempError, Reason: ReasonCancelled}
	}
	defer v.life.done()
	select {
	case v.underway <- struct{}{}:
		defer func() { <-v.underway }()
	default:
		v.stats.overloads.Add(1)
		return Result{Status: TempError, Reason: ReasonOverload, Required: v.requires(q.Address.Domain())}
	}
	v.stats.flights.Add(1)
	var err error
	defer func() {
		if err != nil {
			r = Result{Status: TempError, Reason: reasonOf(err), Required: r.Required}
		}
	}()
	defer v.life.rescue(&err)
	ctx, cancel := context.WithTimeout(v.life.ctx, v.timeout)
	defer cancel()
	st, r, ok := v.standing(ctx, q)
	if !ok {
		return r
	}
	began := time.Now()
	v.askServers(ctx, q, st, &r)
	r.ASTime = time.Since(began)
	if r.Status == Pass {
		v.cache.found(q.Address, d, r.TTL)
	}
	return r
}

// askServers asks one server after the other until one gives a verdict. When none
// does, any temporary cause makes it a temperror (docs/protocol.md section 3).
func (v *Verifier) askServers(ctx context.Context, q Query, st standing, r *Result) {
	r.Status = PermError
	var useless []string
	for _, server := range st.set.Order(rand.Shuffle) {
		if len(useless) == maxUselessHosts && !server.IsAddress() && !slices.Contains(useless, server.Host) {
			continue
		}
		reply, err := v.pool.ask(ctx, server, q.Address, q.Key)
		name := net.JoinHostPort(server.Host, strconv.Itoa(int(server.Port)))
		if err == nil {
			switch reply.Verdict {
			case wire.ValidKey:
				r.Status, r.Reason, r.Server, r.TTL = Pass, "", name, v.ttl(reply)
				return
			case wire.InvalidKey:
				r.Status, r.Reason, r.Server = Fail, ReasonInvalidKey, name
				return
			}
			err = refusal(reply)
		}
		v.log.Debug("no verdict", "as", name, "err", bounded(err))
		reason := reasonOf(err)
		if uselessHost(err) && !slices.Contains(useless, server.Host) {
			useless = append(useless, server.Host)
		}
		switch {
		case !reason.permanent():
			r.Status, r.Reason, r.Server = TempError, reason, name
		case r.Status == PermError:
			r.Reason, r.Server = reason, name
		}
		if ctx.Err() != nil { // the rest were not asked, which may pass
			if r.Status == PermError {
				r.Status, r.Reason = TempError, ReasonASTimeout
			}
			return
		}
	}
}

// refusal says why an answer is no verdict.
func refusal(reply wire.Reply) error {
	switch reply.Code {
	case wire.CodeNotServed:
		return failuref(ReasonASNotServed, "the server does not serve the domain")
	case wire.CodeSyntax, wire.CodeTooLong:
		return failuref(ReasonASSyntax, "the server cannot read the question: ERROR %s", codeName(reply.Code))
	case wire.CodeBusy:
		return failuref(ReasonASBusy, "the server is busy")
	}
	return failuref(ReasonASTempFail, "the server cannot tell now")
}

// codeName is the code of an ERROR line for a log. The AS was told a key and may say
// it, or a part of it, in a code or text: neither is repeated.
func codeName(c wire.Code) string {
	if c.Known() {
		return string(c)
	}
	return "with an unknown code"
}

// ttl returns for how long a VALIDKEY may be relied on.
func (v *Verifier) ttl(reply wire.Reply) time.Duration {
	ttl := v.defaultTTL
	if reply.HasTTL {
		ttl = reply.TTL
	}
	return min(ttl, v.maxTTL)
}

// bounded returns the text of an error, cut: part of it came from outside.
func bounded(err error) string {
	const most = 300
	text := err.Error()
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
