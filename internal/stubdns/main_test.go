package stubdns

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what comes: longer than the busiest machine
// takes. soon is the timeout of what never comes.
const (
	patience = 30 * time.Second
	soon     = 400 * time.Millisecond
)

// A nameServer is a DNS server on loopback that sends whatever its handler says.
type nameServer struct {
	addr    string
	handler func(network string, req *dns.Msg) [][]byte
}

func startNameServer(t testing.TB, handler func(network string, req *dns.Msg) [][]byte) *nameServer {
	t.Helper()
	pc, l := listenBoth(t)
	s := &nameServer{addr: pc.LocalAddr().String(), handler: handler}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.serveUDP(pc) })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				s.serveTCP(c)
			})
		}
	})
	t.Cleanup(func() {
		pc.Close()
		l.Close()
		cancel()
		wg.Wait()
	})
	return s
}

// listenBoth listens on one free port for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (s *nameServer) respond(network string, packet []byte) [][]byte {
	req := new(dns.Msg)
	if req.Unpack(packet) != nil {
		return nil
	}
	return s.handler(network, req)
}

func (s *nameServer) serveUDP(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, p := range s.respond("udp", buf[:n]) {
			pc.WriteTo(p, from)
		}
	}
}

func (s *nameServer) serveTCP(c net.Conn) {
	defer c.Close()
	var size [2]byte
	for {
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		for _, p := range s.respond("tcp", buf) {
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...))
		}
	}
}

// reply makes the answer to req that change makes of an empty success.
func reply(req *dns.Msg, change func(*dns.Msg)) [][]byte {
	m := new(dns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = true
	if change != nil {
		change(m)
	}
	p, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return [][]byte{p}
}

func rcode(code int) func(string, *dns.Msg) [][]byte {
	return func(_ string, req *dns.Msg) [][]byte {
		return reply(req, func(m *dns.Msg) { m.Rcode = code })
	}
}

func silence(string, *dns.Msg) [][]byte { return nil }

func rr(t testing.TB, text string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(text)
	if err != nil || r == nil {
		t.Fatalf("bad record %q: %v", text, err)
	}
	return r
}

// zone answers from records in zone file form, as a resolver does: CNAMEs followed,
// names that do not exist denied with an SOA of 300 s.
func zone(t testing.TB, lines ...string) func(string, *dns.Msg) [][]byte {
	t.Helper()
	records := make(map[string][]dns.RR)
	for _, line := range lines {
		r := rr(t, line)
		name := strings.ToLower(r.Header().Name)
		records[name] = append(records[name], r)
	}
	soa := rr(t, "test. 600 IN SOA ns.test. host.test. 1 3600 600 86400 300")
	return func(network string, req *dns.Msg) [][]byte {
		packets := reply(req, func(m *dns.Msg) {
			owner, q := strings.ToLower(req.Question[0].Name), req.Question[0]
			for range 20 {
				rrs, ok := records[owner]
				if !ok {
					m.Rcode = dns.RcodeNameError
				}
				next := ""
				for _, r := range rrs {
					if r.Header().Rrtype == q.Qtype {
						m.Answer = append(m.Answer, r)
					} else if c, ok := r.(*dns.CNAME); ok {
						m.Answer = append(m.Answer, c)
						next = strings.ToLower(c.Target)
					}
				}
				if next == "" {
					break
				}
				owner = next
			}
			if len(m.Answer) == 0 {
				m.Ns = append(m.Ns, soa)
			}
		})
		if network == "udp" && len(packets[0]) > ednsSize {
			return reply(req, func(m *dns.Msg) { m.Truncated = true })
		}
		return packets
	}
}
