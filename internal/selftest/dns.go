package selftest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// recordTTL is that of every record: longer than any self-test.
const recordTTL = 300

// maxQuestion bounds the questions that are read. A question with EDNS is shorter.
const maxQuestion = 1232

// A resolver answers for a few names, over UDP: TXT and A records of IN, and that
// there are no others.
type resolver struct {
	conn  net.PacketConn
	done  chan struct{}
	texts map[string]string     // by name with its last dot
	hosts map[string]netip.Addr // likewise
}

// startResolver answers on a free port of 127.0.0.1.
func startResolver(texts map[string]string, hosts map[string]netip.Addr) (*resolver, error) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start DNS: %w", err)
	}
	r := &resolver{conn: conn, done: make(chan struct{}), texts: texts, hosts: hosts}
	go r.serve()
	return r, nil
}

func (r *resolver) addr() netip.AddrPort { return r.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (r *resolver) close() error {
	err := r.conn.Close()
	<-r.done
	return err
}

func (r *resolver) serve() {
	defer close(r.done)
	packet := make([]byte, maxQuestion)
	for {
		n, client, err := r.conn.ReadFrom(packet)
		if err != nil { // closed
			return
		}
		if answer, err := r.answer(packet[:n]); err == nil {
			_, _ = r.conn.WriteTo(answer, client) // who does not get it asks again
		}
	}
}

// answer makes the packet that answers a question. An error means that it is none.
func (r *resolver) answer(packet []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(packet)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(q.Name.String())
	text, hasText := r.texts[name]
	host, hasHost := r.hosts[name]
	reply := dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true}
	if !hasText && !hasHost {
		reply.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, reply)
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	of := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: recordTTL}
	switch {
	case hasText && q.Type == dnsmessage.TypeTXT:
		err = b.TXTResource(of, dnsmessage.TXTResource{TXT: []string{text}})
	case hasHost && q.Type == dnsmessage.TypeA:
		err = b.AResource(of, dnsmessage.AResource{A: host.As4()})
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}
