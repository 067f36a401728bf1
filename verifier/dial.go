package verifier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/authkey/authkey/internal/wire"
)

const (
	// maxAddresses is how many addresses of one AS are tried.
	maxAddresses = 4
	// privilegedPorts end below this: refused unless configured, so that no
	// record of a stranger makes us talk to an SMTP or DNS server.
	privilegedPorts = 1024
)

// rules say where we go at all. Hosts and ports come from a stranger's DNS.
type rules struct {
	networks   []netip.Prefix // allowed although not globally reachable
	ports      []uint16       // allowed although below privilegedPorts
	requireTLS bool
}

// server checks what can be said of a server by its record alone.
func (r rules) server(s wire.Server) error {
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
func (r rules) address(addr netip.Addr) error {
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

// A lookuper asks DNS. It is the resolver, or a test's idea of one.
type lookuper interface {
	// lookup returns the records of a name; none is no error.
	lookup(ctx context.Context, name string, kind recordType) (dnsAnswer, error)
	// addresses returns the IP addresses of a host, in the order in which to try
	// them; none is no error.
	addresses(ctx context.Context, host string) ([]netip.Addr, error)
}

// A dialer makes connections to AS.
type dialer struct {
	rules   rules
	dns     lookuper
	dead    *sieve[error]      // Records.deadHosts
	lookups singleflight.Group // by host
	budget  *budget
	roots   *x509.CertPool // nil: the system's
	timeout time.Duration  // of TCP and TLS together, over all addresses
	connect func(ctx context.Context, peer netip.AddrPort) (net.Conn, error)
	stats   *counters
}

// A link is an established connection.
type link struct {
	net.Conn          // what to read and write
	raw      net.Conn // below TLS; closes at once
	peer     netip.AddrPort
}

// dialTCP is what a dialer's connect is but in tests. It gets an address, never a
// name, so that the address which was checked is the one that is dialled.
func dialTCP(ctx context.Context, peer netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", peer.String())
}

// dial connects to a server. The error is a *failure, or one of DNS.
func (d *dialer) dial(ctx context.Context, s wire.Server) (link, error) {
	addrs, err := d.resolve(ctx, s.Host)
	if err != nil {
		return link{}, err
	}
	// The wait for the first admission is not the server's fault and has a time of
	// its own; everything after it shares the connect timeout.
	admission, cancelAdmission := context.WithTimeout(ctx, d.timeout)
	defer cancelAdmission()
	var failed error
	var deadline time.Time
	for i, addr := range addrs {
		peer := netip.AddrPortFrom(addr, s.Port)
		release, err := d.budget.admit(admission, peer)
		if err != nil {
			d.stats.budgetRefusals.Add(1)
			if failed == nil {
				failed = err
			}
			return link{}, failed
		}
		now := time.Now()
		if i == 0 {
			deadline = now.Add(d.timeout)
			admission, cancelAdmission = context.WithDeadline(ctx, deadline)
			defer cancelAdmission()
		}
		// One dead address must leave time for the others.
		share, cancel := context.WithTimeout(ctx, deadline.Sub(now)/time.Duration(len(addrs)-i))
		l, err := d.dialAddress(share, s, peer)
		cancel()
		release()
		if err == nil {
			return l, nil
		}
		failed = err
	}
	return link{}, failed
}

// resolve returns the addresses at which to try a host: those that we may dial.
func (d *dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	var found []netip.Addr
	if addr, err := netip.ParseAddr(host); err == nil {
		found = []netip.Addr{addr}
	} else if found, err = d.lookup(ctx, host); err != nil {
		return nil, err
	}
	var allowed []netip.Addr
	var refused error
	for _, addr := range found {
		if err := d.rules.address(addr); err != nil {
			refused = err
		} else if addr = addr.Unmap(); !slices.Contains(allowed, addr) && len(allowed) < maxAddresses {
			allowed = append(allowed, addr)
		}
	}
	if len(allowed) == 0 {
		return nil, &failure{ReasonASForbidden, errors.Unwrap(refused), host != found[0].String()}
	}
	return allowed, nil
}

// lookup returns the addresses of a host, at least one. DNS is asked once for all who
// want to know, and for a while not at all about a name that led nowhere.
func (d *dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if err, _, dead := d.dead.get(host, time.Now()); dead {
		d.stats.deadHostHits.Add(1)
		return nil, err
	}
	found, err, _ := d.lookups.Do(host, func() (any, error) {
		addrs, err := d.dns.addresses(ctx, host)
		now := time.Now()
		switch {
		case err != nil && ctx.Err() != nil: // it says nothing about the host
		case err != nil:
			d.dead.put(host, err, now, now.Add(failureTTL))
		case len(addrs) == 0:
			err = &failure{ReasonASNoHost, fmt.Errorf("%s has no address", host), true}
			d.dead.put(host, err, now, now.Add(noHostTTL))
		}
		return addrs, err
	})
	if err != nil {
		return nil, err
	}
	return found.([]netip.Addr), nil
}

// dialAddress connects to one address, TLS included where the record says so.
func (d *dialer) dialAddress(ctx context.Context, s wire.Server, peer netip.AddrPort) (link, error) {
	d.stats.dials.Add(1)
	raw, err := d.connect(ctx, peer)
	if err != nil {
		d.stats.dialFailures.Add(1)
		return link{}, failuref(connectReason(ctx, err, ReasonASRefused), "connect to %v: %w", s, err)
	}
	if !s.TLS {
		return link{raw, raw, peer}, nil
	}
	secure := tls.Client(raw, &tls.Config{
		ServerName: s.Host,
		RootCAs:    d.roots,
		MinVersion: tls.VersionTLS12,
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		d.stats.dialFailures.Add(1)
		return link{}, failuref(connectReason(ctx, err, ReasonASTLS), "TLS with %v at %v: %w", s, peer, &tlsError{err})
	}
	return link{secure, raw, peer}, nil
}

// A tlsError is why TLS failed. Its text says nothing that the server chose, such as
// the names in its certificate: whoever was told keys before could put one there.
type tlsError struct{ err error }

func (e *tlsError) Unwrap() error { return e.err }

func (e *tlsError) Error() string {
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   *net.OpError
		verify  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(e.err, &name):
		return "the certificate is for another name"
	case errors.As(e.err, &unknown):
		return "the certificate is signed by nobody we trust, or its intermediate is not sent"
	case errors.As(e.err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate is over, or not valid yet"
	case errors.As(e.err, &invalid), errors.As(e.err, &verify):
		return "the certificate is not valid"
	case errors.As(e.err, &record):
		return "the server does not speak TLS"
	case errors.As(e.err, &alert) && alert.Op == "remote error":
		return "the server refuses: " + alert.Err.Error() // a word for a number
	case errors.Is(e.err, io.EOF), errors.Is(e.err, syscall.ECONNRESET):
		return "the server hung up"
	case errors.Is(e.err, context.DeadlineExceeded), errors.Is(e.err, os.ErrDeadlineExceeded):
		return "no answer in time"
	}
	return "the handshake failed"
}

// connectReason tells a timeout from anything else that went wrong.
func connectReason(ctx context.Context, err error, other Reason) Reason {
	var timeout net.Error
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return ReasonASTimeout
	}
	return other
}
