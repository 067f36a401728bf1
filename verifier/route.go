package verifier

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"github.com/authkey/authkey/internal/wire"
)

// Connect says whether Route connects.
type Connect int

// What Route does with the addresses that it finds.
const (
	ConnectNot     Connect = iota // nothing
	ConnectAllowed                // connects to those that we may dial
	ConnectAll                    // to the others too: the server is the caller's own
)

// A Route is where a server's name leads and, where that was wanted, what came of
// connecting, for people.
type Route struct {
	Server wire.Server
	// Err says why there is no way to the server: its record, its name or all of its
	// addresses are not to be used, or DNS failed (it wraps ErrDNSTimeout or
	// ErrDNSFailure) or, where Route connected, no connection came about.
	Err error
	// Addresses are all that the name has, in the order in which they are tried.
	Addresses []RouteAddress
}

// A RouteAddress is one address of a Route.
type RouteAddress struct {
	Addr    netip.Addr
	Refused error // why a verification does not dial it, nil if it does

	Tried bool // Route connected, or tried to
	Err   error
	Took  time.Duration // TCP and TLS
	// TLS is the version spoken, such as "TLS 1.3", empty for clear text; CertificateEnds,
	// until when the server's certificate is valid.
	TLS             string
	CertificateEnds time.Time
}

// errSurplus says why an address is not dialled.
var errSurplus = errors.New("only the first 4 addresses that may be dialled are tried")

// Route asks DNS about the addresses of a server, whatever is remembered, says which of
// them a verification dials, and connects if that is wanted: each address once, and no
// question is asked. It takes at most the times for DNS and for connecting.
func (v *Verifier) Route(ctx context.Context, s wire.Server, connect Connect) Route {
	r := Route{Server: s}
	if !v.life.question() {
		r.Err = context.Canceled
		return r
	}
	defer v.life.answered()
	d := v.pool.dialer
	forbidden := plain(d.rules.server(s))
	var found []netip.Addr
	if addr, err := netip.ParseAddr(s.Host); err == nil {
		found = []netip.Addr{addr}
	} else if found, r.Err = d.dns.addresses(ctx, s.Host); r.Err != nil {
		return r
	}
	if len(found) == 0 {
		r.Err = errors.New("the name has no address")
		return r
	}
	r.Err = forbidden
	usable := 0
	for _, addr := range found {
		a := RouteAddress{Addr: addr.Unmap(), Refused: plain(d.rules.address(addr))}
		switch {
		case a.Refused != nil && r.Err == nil && usable == 0:
			r.Err = a.Refused
		case a.Refused == nil && usable == maxAddresses:
			a.Refused = errSurplus
		case a.Refused == nil:
			if usable++; forbidden == nil {
				r.Err = nil
			}
		}
		r.Addresses = append(r.Addresses, a)
	}
	if connect == ConnectNot || connect == ConnectAllowed && forbidden != nil {
		return r
	}
	reached := false
	var failed error
	for i := range r.Addresses {
		a := &r.Addresses[i]
		if a.Refused != nil && (connect == ConnectAllowed || a.Refused == errSurplus) {
			continue
		}
		d.try(ctx, s, a)
		reached = reached || a.Err == nil
		failed = a.Err
	}
	if r.Err == nil && !reached {
		r.Err = failed
	}
	return r
}

// try connects to one address and hangs up.
func (d *dialer) try(ctx context.Context, s wire.Server, a *RouteAddress) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	a.Tried = true
	began := time.Now()
	l, err := d.dialAddress(ctx, s, netip.AddrPortFrom(a.Addr, s.Port))
	a.Took = time.Since(began)
	if err != nil {
		var secure *tlsError
		if a.Err = plain(err); errors.As(err, &secure) {
			a.Err = secure.err // whoever asked may see what the certificate says
		}
		return
	}
	defer l.raw.Close()
	if secure, ok := l.Conn.(*tls.Conn); ok {
		state := secure.ConnectionState()
		a.TLS = tls.VersionName(state.Version)
		a.CertificateEnds = state.PeerCertificates[0].NotAfter
	}
}

// plain is an error without its Reason, whose place is the log.
func plain(err error) error {
	var f *failure
	if errors.As(err, &f) {
		return f.err
	}
	return err
}
