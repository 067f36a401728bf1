package stubdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// maxUDPSize is the longest answer that is read over UDP: some servers send more than
// ednsSize, which they were asked for.
const maxUDPSize = 4096

// exchange asks one server once: over UDP, without EDNS if the server does not understand
// that, and over TCP if the answer does not fit.
func (r *Resolver) exchange(ctx context.Context, server netip.AddrPort, q question) (a Answer, err error) {
	defer r.recoverAs(&err)
	a, err = send(ctx, "udp", server, q, true)
	edns := !errors.Is(err, errNoEDNS)
	if !edns {
		a, err = send(ctx, "udp", server, q, false)
	}
	if errors.Is(err, errTruncated) {
		a, err = send(ctx, "tcp", server, q, edns)
	}
	a.Server = server
	return a, err
}

// send asks over a socket of its own, so that each question comes from a random
// port under a random id. Over UDP it waits for the answer among whatever arrives: a
// packet that is no answer to the question must not end the wait, or anybody could end it.
func send(ctx context.Context, network string, server netip.AddrPort, q question, edns bool) (Answer, error) {
	id := dns.Id()
	packet, err := packQuery(q, id, edns)
	if err != nil {
		return Answer{}, fmt.Errorf("question cannot be written: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	// The end of the context ends the wait, for whatever reason.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	messages := &dns.Conn{Conn: conn} // puts a length before each one over TCP
	if _, err := messages.Write(packet); err != nil {
		return Answer{}, err
	}
	size := maxUDPSize
	if network == "tcp" {
		size = dns.MaxMsgSize
	}
	for buf := make([]byte, size); ; {
		n, err := messages.Read(buf)
		if err != nil {
			return Answer{}, err
		}
		if a, err := parseAnswer(buf[:n], q, id); network == "tcp" || !errors.Is(err, errNotOurs) {
			return a, err
		}
	}
}
