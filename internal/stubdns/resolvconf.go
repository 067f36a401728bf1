package stubdns

import (
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// ResolvConf is where the system says which name servers to ask.
	ResolvConf = "/etc/resolv.conf"
	// resolvConfInterval is how often the file is read at most.
	resolvConfInterval = time.Second
	// maxServers is how many servers of it are used (MAXNS of resolv.conf(5)).
	maxServers = 3
	dnsPort    = 53
)

// A resolvConf follows the name servers of a resolv.conf(5). Search domains and
// options are ignored: all names here are fully qualified, and timeouts our own.
type resolvConf struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	servers []netip.AddrPort
	read    time.Time // when the file was read last
}

// FromResolvConf returns a function that returns the name servers of a resolv.conf(5), this
// host if it names none. It reads the file once a second at most. A file that cannot be
// read changes nothing; if it never could be, the log says so.
func FromResolvConf(path string, log *slog.Logger) func() []netip.AddrPort {
	return (&resolvConf{path: path, log: log}).current
}

// current returns the servers.
func (c *resolvConf) current() []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.servers != nil && now.Sub(c.read) < resolvConfInterval {
		return c.servers
	}
	c.read = now
	text, err := os.ReadFile(c.path)
	switch {
	case err == nil:
		c.servers = parseResolvConf(string(text))
	case c.servers == nil:
		c.log.Warn("no name servers from the system, asking this host", "file", c.path, "err", err)
		c.servers = parseResolvConf("")
	}
	return c.servers
}

// parseResolvConf returns the name servers, and as resolv.conf(5) says this host
// where none is named.
func parseResolvConf(text string) []netip.AddrPort {
	var servers []netip.AddrPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(servers) == maxServers {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, netip.AddrPortFrom(addr, dnsPort))
		}
	}
	if len(servers) == 0 {
		servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	return servers
}
