package verifier

import (
	"net/netip"
	"slices"
)

// privilegedPorts end below this: refused unless configured, so that no record of a
// stranger makes us talk to an SMTP or DNS server.
const privilegedPorts = 1024

// dialRules say what may be dialled at all (docs/protocol.md section 4). Hosts and ports
// come from a stranger's DNS.
type dialRules struct {
	networks   []netip.Prefix // allowed although not globally reachable
	ports      []uint16       // allowed although below privilegedPorts
	requireTLS bool
}

// server checks what can be said of a server by its record alone.
func (r dialRules) server(s Server) error {
	if r.requireTLS && !s.TLS {
		return failuref(ReasonASClearText, "%v offers no TLS, and it is required", s)
	}
	if s.Port < privilegedPorts && !slices.Contains(r.ports, s.Port) {
		return failuref(ReasonASForbidden, "port %d is below %d and not allowed", s.Port, privilegedPorts)
	}
	if addr, err := netip.ParseAddr(s.Host); err == nil {
		return r.address(addr)
	}
	return nil
}

// address checks an address before it is dialled.
func (r dialRules) address(addr netip.Addr) error {
	addr = addr.Unmap()
	for _, network := range r.networks {
		if network.Contains(addr) {
			return nil
		}
	}
	if nat64.Contains(addr) {
		b := addr.As16()
		return r.address(netip.AddrFrom4([4]byte(b[12:])))
	}
	if !globallyReachable(addr) {
		return failuref(ReasonASForbidden, "address %v is not globally reachable", addr)
	}
	return nil
}

// nat64 is the prefix that carries all of IPv4 (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// globalUnicast6 is all of IPv6 that is assigned as such. Outside lie loopback,
// unique local, link-local, multicast and the mapped forms of IPv4.
var globalUnicast6 = netip.MustParsePrefix("2000::/3")

// specialPurpose are the networks of the IANA special-purpose address registries
// (RFC 6890) that are not globally reachable, and those that carry IPv4 addresses
// to somewhere else.
var specialPurpose = prefixes(
	"0.0.0.0/8",       // this host
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, broadcast
	"2001::/23",       // protocol assignments, Teredo (which embeds IPv4) among them
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4 (embeds IPv4)
	"3fff::/20",       // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

// globallyReachable reports whether an unmapped address can be anywhere on the Internet.
func globallyReachable(addr netip.Addr) bool {
	if addr.Zone() != "" || addr.Is6() && !globalUnicast6.Contains(addr) {
		return false
	}
	for _, network := range specialPurpose {
		if network.Contains(addr) {
			return false
		}
	}
	return addr.IsValid()
}
