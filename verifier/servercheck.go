package verifier

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"time"
)

// Connect says whether CheckServer connects.
type Connect int

// To which addresses CheckServer connects.
const (
	ConnectNone    Connect = iota // to none
	ConnectAllowed                // to those that a verification dials
	ConnectAll                    // to the others too: the server is the caller's own
)

// A ServerCheck says what a server's name resolves to and, if CheckServer was to connect,
// whether it could. It is for people.
type ServerCheck struct {
	Server Server
	// Err says why a verification cannot reach the server: its record, its name or all of
	// its addresses are not to be used, or DNS failed (Err wraps ErrDNSTimeout or
	// ErrDNSFailure) or, where CheckServer was to connect, it could not.
	Err error
	// Addresses are all that the name has, in the order in which they are tried.
	Addresses []AddressCheck
}

// An AddressCheck is one address of a ServerCheck.
type AddressCheck struct {
	Addr    netip.Addr
	Refused error // why a verification does not dial it, nil if it does

	Tried bool          // CheckServer connected, or tried to; the rest is zero otherwise
	Err   error         // why there was no connection
	Took  time.Duration // TCP and TLS
	// TLS is the version in use, such as "TLS 1.3"; empty for clear text. CertificateEnds is
	// when the server's certificate expires.
	TLS             string
	CertificateEnds time.Time
}

// errSurplus says why an address is not dialled.
var errSurplus = errors.New("only the first 4 addresses that may be dialled are tried")

// CheckServer asks DNS about the addresses of a server, also where they are remembered, and
// says which of them a verification dials. Where connect says so it connects to each
// address once, and asks the server nothing. It takes at most Options.DNSTimeout, and
// Options.ConnectTimeout for each address.
func (v *Verifier) CheckServer(ctx context.Context, s Server, connect Connect) ServerCheck {
	c := ServerCheck{Server: s}
	if !v.life.beginCall() {
		c.Err = context.Canceled
		return c
	}
	defer v.life.calls.Done()
	d := v.pool.dialer
	var found []netip.Addr
	if addr, err := netip.ParseAddr(s.Host); err == nil {
		found = []netip.Addr{addr}
	} else if found, c.Err = d.dns.Addresses(ctx, s.Host); c.Err != nil {
		return c
	}
	if len(found) == 0 {
		c.Err = errors.New("the name has no address")
		return c
	}
	usable := c.fill(found, d.rules)
	forbidden := withoutReason(d.rules.server(s))
	switch {
	case forbidden != nil:
		c.Err = forbidden
	case !usable:
		c.Err = c.Addresses[0].Refused
	}
	if connect == ConnectAll || connect == ConnectAllowed && forbidden == nil {
		c.connect(ctx, d, connect)
	}
	return c
}

// fill says which addresses are dialled, and why the others are not.
func (c *ServerCheck) fill(found []netip.Addr, rules dialRules) (usable bool) {
	allowed := 0
	for _, addr := range found {
		a := AddressCheck{Addr: addr.Unmap(), Refused: withoutReason(rules.address(addr))}
		if a.Refused == nil {
			if allowed++; allowed > maxAddresses {
				a.Refused = errSurplus
			}
		}
		c.Addresses = append(c.Addresses, a)
	}
	return allowed > 0
}

// connect tries the addresses. Err is set if none can be reached, unless it is already.
func (c *ServerCheck) connect(ctx context.Context, d *dialer, connect Connect) {
	reached := false
	var failed error
	for i := range c.Addresses {
		a := &c.Addresses[i]
		if a.Refused != nil && (connect == ConnectAllowed || a.Refused == errSurplus) {
			continue
		}
		a.try(ctx, d, c.Server)
		reached = reached || a.Err == nil
		failed = a.Err
	}
	if c.Err == nil && !reached {
		c.Err = failed
	}
}

// try connects to the address and closes the connection.
func (a *AddressCheck) try(ctx context.Context, d *dialer, s Server) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	a.Tried = true
	began := time.Now()
	l, err := d.dialAddress(ctx, s, netip.AddrPortFrom(a.Addr, s.Port))
	a.Took = time.Since(began)
	if err != nil {
		var secure *tlsError
		if a.Err = withoutReason(err); errors.As(err, &secure) {
			a.Err = secure.err // a person asked, who may see what the certificate says
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
