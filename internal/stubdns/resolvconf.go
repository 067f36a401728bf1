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
	// resolvConfCheck is how often the file is looked at for a change.
	resolvConfCheck = time.Second
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
	seen    os.FileInfo // of the version that servers are from; nil: none
	checked time.Time
}

// FromResolvConf returns a function that returns the name servers of a resolv.conf(5), this
// host if it names none. The file is read again when it changes, and looked at once a
// second at most. One that cannot be read changes nothing; if it never could be, the log
// says so.
func FromResolvConf(path string, log *slog.Logger) func() []netip.AddrPort {
	return (&resolvConf{path: path, log: log}).current
}

// current returns the servers, reading the file again if it changed. A file that
// cannot be read changes nothing.
func (c *resolvConf) current() []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.servers != nil && now.Sub(c.checked) < resolvConfCheck {
		return c.servers
	}
	c.checked = now
	info, err := os.Stat(c.path)
	if err == nil && !c.changed(info) {
		return c.servers
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(c.path)
	}
	if err == nil {
		c.servers, c.seen = parseResolvConf(string(text)), info
		return c.servers
	}
	if c.servers == nil {
		c.log.Warn("no name servers from the system, asking this host", "file", c.path, "err", err)
		c.servers = parseResolvConf("")
	}
	return c.servers
}

func (c *resolvConf) changed(info os.FileInfo) bool {
	return c.seen == nil || !os.SameFile(c.seen, info) || !c.seen.ModTime().Equal(info.ModTime()) || c.seen.Size() != info.Size()
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
