package authserver

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// maxIdleClients is how many clients without a connection are remembered while
// their buckets fill up again, so that to connect anew gains nothing.
const maxIdleClients = 65536

// clients holds a token bucket for each client that is connected, or was lately.
type clients struct {
	mu    sync.Mutex
	limit Rate
	all   map[netip.Prefix]*client
	idle  int // those without a connection
}

type client struct {
	prefix netip.Prefix
	bucket *rate.Limiter
	conns  atomic.Int32 // written under clients.mu
}

func newClients(limit Rate) *clients {
	return &clients{limit: limit, all: make(map[netip.Prefix]*client)}
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
		c.bucket.SetLimitAt(now, limit.perSecond())
		c.bucket.SetBurstAt(now, limit.Questions)
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
	prefix, err := ip.Prefix(bits)
	if err != nil { // no address at all
		return netip.Prefix{}
	}
	return prefix
}

// enter returns the client behind a new connection.
func (t *clients) enter(addr net.Addr) *client {
	prefix := clientPrefix(addr)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.all[prefix]
	if c == nil {
		c = &client{prefix: prefix, bucket: rate.NewLimiter(t.limit.perSecond(), t.limit.Questions)}
		t.all[prefix] = c
	} else if c.conns.Load() == 0 {
		t.idle--
	}
	c.conns.Add(1)
	return c
}

// leave is told that one of the client's connections has ended.
func (t *clients) leave(c *client, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.conns.Add(-1) > 0 {
		return
	}
	t.idle++
	if t.full(c, now) {
		t.drop(c)
	} else if t.idle > maxIdleClients {
		t.makeRoom(now)
	}
}

// makeRoom drops idle clients: of a few taken at random those whose bucket is
// full again, and one in any case. To look at all of them would cost more than
// the limit saves.
func (t *clients) makeRoom(now time.Time) {
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
}

// allow takes a token for one question.
func (c *client) allow(now time.Time) bool { return c.bucket.AllowN(now, 1) }
