package stubdns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// exchange asks one server once: over UDP, without EDNS if that is the trouble,
// and over TCP if the answer does not fit.
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
// port under a random id.
func send(ctx context.Context, network string, server netip.AddrPort, q question, edns bool) (Answer, error) {
	var random [2]byte
	rand.Read(random[:]) // never fails
	id := binary.BigEndian.Uint16(random[:])
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
	// Whatever ends the question ends the wait.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return exchangeStream(conn, packet, q, id)
	}
	return exchangePackets(conn, packet, q, id)
}

// exchangePackets waits for the answer among whatever arrives: a packet that is no
// answer to the question must not end the wait, or anybody could end it.
func exchangePackets(conn net.Conn, packet []byte, q question, id uint16) (Answer, error) {
	if _, err := conn.Write(packet); err != nil {
		return Answer{}, err
	}
	buf := make([]byte, 4096) // some send more than they were asked to
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return Answer{}, err
		}
		a, err := parseAnswer(buf[:n], q, id)
		if !errors.Is(err, errNotOurs) {
			return a, err
		}
	}
}

func exchangeStream(conn net.Conn, packet []byte, q question, id uint16) (Answer, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packet)), uint16(len(packet)))
	if _, err := conn.Write(append(framed, packet...)); err != nil {
		return Answer{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return Answer{}, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return Answer{}, err
	}
	return parseAnswer(answer, q, id)
}
