package authserver

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// maxIdleClients is how many clients without a connection are remembered while their
// buckets fill up again: to connect again does not give a client a full bucket.
const maxIdleClients = 65536

// Clients of one network may belong to one owner: a customer with one IPv6 address can
// usually have a whole /48, a provider a /32; with IPv4 it is a /24. A network may ask more
// questions than one client, but not as many as all its clients together.
const (
	networkShare  = 4  // times a client's rate, of an IPv6 /48 or an IPv4 /24
	providerShare = 16 // of an IPv6 /32
)

// clients holds a token bucket for each client that is connected, or was lately, and for
// the networks they are in.
type clients struct {
	mu       sync.Mutex
	limit    Rate
	all      map[netip.Prefix]*client
	networks map[netip.Prefix]*network
	idle     int // clients without a connection
}

// A network is several clients' addresses.
type network struct {
	prefix  netip.Prefix
	share   int // its rate, as a multiple of a client's
	bucket  *rate.Limiter
	clients atomic.Int32 // of clients.all; written under clients.mu
	conns   atomic.Int32 // theirs; written under clients.mu
}

type client struct {
	prefix netip.Prefix
	bucket *rate.Limiter
	conns  atomic.Int32 // written under clients.mu
	in     []*network   // the widest first; none for a peer without an address
}

func newClients(limit Rate) *clients {
	return &clients{limit: limit, all: make(map[netip.Prefix]*client), networks: make(map[netip.Prefix]*network)}
}

// times is a rate as a multiple of r.
func (r Rate) times(share int) Rate { return Rate{Questions: r.Questions * share, Per: r.Per} }

// newBucket returns a full bucket of the rate.
func (r Rate) newBucket() *rate.Limiter { return rate.NewLimiter(r.perSecond(), r.Questions) }

func (r Rate) apply(bucket *rate.Limiter, now time.Time) {
	bucket.SetLimitAt(now, r.perSecond())
	bucket.SetBurstAt(now, r.Questions)
}

// perSecond is how fast the rate fills a bucket.
func (r Rate) perSecond() rate.Limit {
	if r.Questions == 0 {
		return rate.Inf
	}
	return rate.Limit(float64(r.Questions) / r.Per.Seconds())
}

// setLimit replaces the limit of all clients. What one of them has used up stays so.
func (t *clients) setLimit(limit Rate, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limit == limit {
		return
	}
	t.limit = limit
	for _, c := range t.all {
		limit.apply(c.bucket, now)
	}
	for _, n := range t.networks {
		limit.times(n.share).apply(n.bucket, now)
	}
}

// clientPrefix returns what counts as one client. A peer without an IP address
// is one with all others like it.
func clientPrefix(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64 // what one customer gets; single addresses are free to take
	}
	prefix, _ := ip.Prefix(bits) // without an address it is the zero Prefix; only wrong bits are an error
	return prefix
}

// networksOf returns the networks of a client's prefix, the widest first, and their shares.
func networksOf(prefix netip.Prefix) (networks []netip.Prefix, shares []int) {
	widths, shares := []int{24}, []int{networkShare}
	if prefix.Addr().Is6() {
		widths, shares = []int{32, 48}, []int{providerShare, networkShare}
	}
	for _, bits := range widths {
		wider, _ := prefix.Addr().Prefix(bits)
		networks = append(networks, wider)
	}
	return networks, shares
}

// enter returns the client behind a new connection.
func (t *clients) enter(addr net.Addr) *client {
	prefix := clientPrefix(addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.all[prefix]
	if c == nil {
		c = &client{prefix: prefix, bucket: t.limit.newBucket()}
		t.all[prefix] = c
		t.join(c)
	} else if c.conns.Load() == 0 {
		t.idle--
	}
	c.conns.Add(1)
	for _, n := range c.in {
		n.conns.Add(1)
	}
	return c
}

// join finds or makes the networks of a new client. t.mu is held.
func (t *clients) join(c *client) {
	prefixes, shares := networksOf(c.prefix)
	for i, prefix := range prefixes {
		n := t.networks[prefix]
		if n == nil {
			n = &network{prefix: prefix, share: shares[i], bucket: t.limit.times(shares[i]).newBucket()}
			t.networks[prefix] = n
		}
		n.clients.Add(1)
		c.in = append(c.in, n)
	}
}

// leave counts that one of the client's connections has ended.
func (t *clients) leave(c *client, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range c.in {
		n.conns.Add(-1)
	}
	if c.conns.Add(-1) > 0 {
		return
	}
	t.idle++
	if t.full(c, now) {
		t.drop(c)
	} else if t.idle > maxIdleClients {
		t.forgetSome(now)
	}
}

// forgetSome drops idle clients: of a few taken at random those whose bucket is full again,
// and at least one. To look at all of them would take too long.
func (t *clients) forgetSome(now time.Time) {
	const look = 16
	looked, dropped := 0, false
	for _, c := range t.all {
		if c.conns.Load() > 0 {
			continue
		}
		if looked++; looked > look {
			break
		}
		if t.full(c, now) || looked == look && !dropped {
			t.drop(c)
			dropped = true
		}
	}
}

func (t *clients) full(c *client, now time.Time) bool {
	return c.bucket.TokensAt(now) >= float64(t.limit.Questions)
}

func (t *clients) drop(c *client) {
	delete(t.all, c.prefix)
	t.idle--
	for _, n := range c.in {
		if n.clients.Add(-1) == 0 {
			delete(t.networks, n.prefix)
		}
	}
}

// allow takes a token for one question, the client's own and its networks'. A network of
// one client is that client: it cannot have asked more.
func (c *client) allow(now time.Time) bool {
	if !c.bucket.AllowN(now, 1) {
		return false
	}
	for _, n := range c.in {
		if n.clients.Load() > 1 && !n.bucket.AllowN(now, 1) {
			return false
		}
	}
	return true
}

// An order is compared from its first number on: a connection of the client with the greatest
// order is ended first.
type order [4]int32

// held is how many connections each network of the client has, the widest first, and the
// client itself.
func (c *client) held() (h order) {
	for i := range h[:3] {
		h[i] = c.conns.Load()
		if i < len(c.in) {
			h[i] = c.in[i].conns.Load()
		}
	}
	h[3] = c.conns.Load()
	return h
}

// yields reports whether a connection of c may be ended for a new one of another client:
// in the widest network that they do not share, c's has at least as many connections as the
// other's, the new one counted.
func (c *client) yields(to *client) bool {
	if c == to {
		return false
	}
	for i, n := range c.in {
		if i >= len(to.in) || n == to.in[i] {
			continue
		}
		return n.conns.Load() >= to.in[i].conns.Load()
	}
	return c.conns.Load() >= to.conns.Load()
}
