package stubdns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ednsSize is the UDP payload that fits everywhere without fragments.
const ednsSize = 1232

// maxTTL is the longest that DNS can say (RFC 2181 section 8).
const maxTTL = (1<<31 - 1) * time.Second

// maxCNAMEs bounds how many CNAMEs lead from a name to its records. A loop ends there.
const maxCNAMEs = 8

// maxFollowed bounds how many of them are asked about one by one. A recursive server
// follows them all by itself; one that does not must not make one lookup many.
const maxFollowed = 3

// A recordType is a DNS RR type.
type recordType uint16

const (
	typeA    = recordType(dns.TypeA)
	typeAAAA = recordType(dns.TypeAAAA)
	typeTXT  = recordType(dns.TypeTXT)
)

// A question asks for the records of one type of a fully qualified name.
type question struct {
	name string // with its last dot
	kind recordType
}

func (q question) String() string {
	return strings.TrimSuffix(q.name, ".") + " " + dns.Type(q.kind).String()
}

func (a *Answer) empty() bool { return len(a.Texts) == 0 && len(a.addrs) == 0 }

// What parseAnswer finds wrong with a packet, other than what a server says of
// itself by a response code.
var (
	errNotOurs    = errors.New("not an answer to this question") // wait for another
	errTruncated  = errors.New("answer is truncated")            // ask over TCP
	errNoEDNS     = errors.New("server does not understand EDNS")
	errUnreadable = errors.New("answer cannot be read")
	errLame       = errors.New("server is lame")
	errCNAMEs     = errors.New("CNAME chain is too long or a loop")
)

// packQuery returns the packet that asks q of a resolver. The AD bit asks to be
// told about validation (RFC 6840 section 5.7).
func packQuery(q question, id uint16, edns bool) ([]byte, error) {
	m := dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: id, RecursionDesired: true, AuthenticatedData: true},
		Question: []dns.Question{{Name: q.name, Qtype: uint16(q.kind), Qclass: dns.ClassINET}},
	}
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	return m.Pack()
}

// parseAnswer reads a packet that came when q was asked under id. An error that is
// errNotOurs says nothing about the server: anybody may have sent the packet.
func parseAnswer(packet []byte, q question, id uint16) (Answer, error) {
	const headerSize = 12
	var m dns.Msg
	err := m.Unpack(packet)
	if len(packet) < headerSize || m.Id != id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return Answer{}, errNotOurs
	}
	silent := len(m.Question) == 0 // some refuse without repeating the question
	if !silent && !sameQuestion(m.Question, q) || silent && (err != nil || m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError) {
		return Answer{}, errNotOurs
	}
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeBadVers:
		return Answer{}, errNoEDNS
	default:
		return Answer{}, fmt.Errorf("response code %s", rcodeName(m.Rcode))
	}
	if m.Truncated { // and possibly cut in the middle of a record
		return Answer{}, errTruncated
	}
	if err != nil {
		return Answer{}, errUnreadable
	}
	return readSections(&m, q)
}

func sameQuestion(asked []dns.Question, q question) bool {
	return len(asked) == 1 && asked[0].Qtype == uint16(q.kind) && asked[0].Qclass == dns.ClassINET &&
		strings.EqualFold(asked[0].Name, q.name)
}

func rcodeName(rcode int) string {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return fmt.Sprint(rcode)
}

// readSections follows the CNAMEs of an answer from the name asked for to records
// of the type asked for. Records of any other owner are ignored.
func readSections(m *dns.Msg, q question) (Answer, error) {
	a := Answer{AD: m.AuthenticatedData, TTL: maxTTL}
	owner := q.name
	for {
		target := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, owner) {
				continue
			}
			switch {
			case h.Rrtype == uint16(q.kind):
				a.add(rr)
			case h.Rrtype == dns.TypeCNAME && target == "":
				target = rr.(*dns.CNAME).Target
			default:
				continue
			}
			a.TTL = min(a.TTL, ttlOf(h.Ttl))
		}
		if !a.empty() {
			return a, nil
		}
		if target == "" {
			return a.absent(m, owner)
		}
		if len(a.CNAMEs) == maxCNAMEs {
			return Answer{}, errCNAMEs
		}
		a.CNAMEs = append(a.CNAMEs, target)
		owner = target
	}
}

func (a *Answer) add(rr dns.RR) {
	switch rr := rr.(type) {
	case *dns.TXT:
		a.Texts = append(a.Texts, joinText(rr.Txt))
	case *dns.A:
		if addr, ok := netip.AddrFromSlice(rr.A); ok {
			a.addrs = append(a.addrs, addr.Unmap())
		}
	case *dns.AAAA:
		if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
			a.addrs = append(a.addrs, addr)
		}
	}
}

// absent completes an answer without records of the type: do they not exist, does
// the answer only lead to owner, or is the server not the one to ask?
func (a Answer) absent(m *dns.Msg, owner string) (Answer, error) {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok { // RFC 2308 section 5
			a.TTL = min(a.TTL, ttlOf(soa.Hdr.Ttl), ttlOf(soa.Minttl))
			return a, nil
		}
	}
	if m.Rcode == dns.RcodeSuccess {
		for _, rr := range m.Ns {
			if rr.Header().Rrtype == dns.TypeNS {
				return Answer{}, errLame
			}
		}
		if !m.RecursionAvailable && !m.Authoritative {
			return Answer{}, errLame
		}
		if len(a.CNAMEs) > 0 {
			a.next = owner
			return a, nil
		}
	}
	a.TTL = 0 // RFC 2308: without an SOA, not to be kept; the clamp is the records cache's
	return a, nil
}

// ttlOf reads a TTL; RFC 2181 section 8 takes those with the top bit for 0.
func ttlOf(seconds uint32) time.Duration {
	if seconds > uint32(maxTTL/time.Second) {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// joinText joins the character strings of a TXT record and undoes the library's
// presentation format: \DDD for an octet, \X for itself.
func joinText(parts []string) string {
	s := strings.Join(parts, "")
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + (s[i+3] - '0'))
			i += 3
			continue
		}
		i++
		b.WriteByte(s[i])
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
