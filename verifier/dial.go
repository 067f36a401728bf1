package verifier

import (
	"cmp"
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

	"github.com/authkey/authkey/internal/stubdns"
)

// maxAddresses is how many addresses of one AS are tried.
const maxAddresses = 4

// A resolver asks DNS. It is a stubdns.Resolver, or a test's double.
type resolver interface {
	// TXT returns the TXT records of a name; none is no error.
	TXT(ctx context.Context, name string) (stubdns.Answer, error)
	// Addresses returns the IP addresses of a host, in the order in which to try
	// them; none is no error.
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
}

// A dialer makes connections to AS.
type dialer struct {
	rules       dialRules
	dns         resolver
	unreachable *boundedMap[error] // Records.unreachable
	lookups     singleflight.Group // by host
	limiter     *dialLimiter
	roots       *x509.CertPool // nil: the system's
	timeout     time.Duration  // of TCP and TLS together, over all addresses
	connect     func(ctx context.Context, peer netip.AddrPort) (net.Conn, error)
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
func (d *dialer) dial(ctx context.Context, s Server) (link, error) {
	addrs, err := d.resolve(ctx, s.Host)
	if err != nil {
		return link{}, err
	}
	// The wait for the limiter's first permission is not the server's fault and has a time
	// of its own; everything after it shares the connect timeout.
	permission, cancelPermission := context.WithTimeout(ctx, d.timeout)
	defer cancelPermission()
	var failed error
	var deadline time.Time
	for i, addr := range addrs {
		peer := netip.AddrPortFrom(addr, s.Port)
		release, err := d.limiter.wait(permission, peer)
		if err != nil {
			return link{}, cmp.Or(failed, err)
		}
		now := time.Now()
		if i == 0 {
			deadline = now.Add(d.timeout)
			permission, cancelPermission = context.WithDeadline(ctx, deadline)
			defer cancelPermission()
		}
		// An address that does not answer must leave time for the others.
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

// lookup returns the addresses of a host, at least one. Calls about the same host at the
// same time are one lookup, and DNS is not asked again soon about a name without address.
func (d *dialer) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if err, _, known := d.unreachable.get(host, time.Now()); known {
		return nil, err
	}
	found, err, _ := d.lookups.Do(host, func() (any, error) {
		addrs, err := d.dns.Addresses(ctx, host)
		now := time.Now()
		switch {
		case err != nil && ctx.Err() != nil: // it says nothing about the host
		case err != nil:
			d.unreachable.put(host, err, now, now.Add(failureTTL))
		case len(addrs) == 0:
			err = &failure{ReasonASNoHost, fmt.Errorf("%s has no address", host), true}
			d.unreachable.put(host, err, now, now.Add(noAddressTTL))
		}
		return addrs, err
	})
	if err != nil {
		return nil, err
	}
	return found.([]netip.Addr), nil
}

// dialAddress connects to one address, TLS included where the record says so.
func (d *dialer) dialAddress(ctx context.Context, s Server, peer netip.AddrPort) (link, error) {
	raw, err := d.connect(ctx, peer)
	if err != nil {
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
		return link{}, failuref(connectReason(ctx, err, ReasonASTLS), "TLS with %v at %v: %w", s, peer, &tlsError{err})
	}
	return link{secure, raw, peer}, nil
}

// A tlsError is why TLS failed. Its text has nothing that the server chose, such as the
// names in its certificate: a server that was told keys before could put a key there.
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
		return "the certificate is not signed by a trusted CA, or its intermediate is not sent"
	case errors.As(e.err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate is over, or not valid yet"
	case errors.As(e.err, &invalid), errors.As(e.err, &verify):
		return "the certificate is not valid"
	case errors.As(e.err, &record):
		return "the server does not speak TLS"
	case errors.As(e.err, &alert) && alert.Op == "remote error":
		return "the server refuses: " + alert.Err.Error() // a word for a number
	case errors.Is(e.err, io.EOF), errors.Is(e.err, syscall.ECONNRESET):
		return "the server closed the connection"
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
