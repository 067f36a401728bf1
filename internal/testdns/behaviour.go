package testdns

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// A Behaviour changes what the server does with a query; see Server.Behave.
type Behaviour func(x *exchange)

// exchange is one query and what is going to be answered.
type exchange struct {
	query  *dns.Msg
	udp    bool
	closed <-chan struct{} // of the server

	reply  *dns.Msg // the right answer, for behaviours to change
	raw    []byte   // sent in place of reply where not nil
	silent bool     // nothing is sent
	hangUp bool     // a TCP connection is closed instead
}

func (x *exchange) send(w dns.ResponseWriter) error {
	switch {
	case x.hangUp && !x.udp:
		return w.Close()
	case x.silent || x.hangUp:
		return nil
	case x.raw != nil:
		_, err := w.Write(x.raw)
		return err
	}
	size := dns.MaxMsgSize
	if x.udp {
		size = dns.MinMsgSize
		if opt := x.query.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDPSize)
		}
	}
	x.reply.Truncate(size)
	return w.WriteMsg(x.reply)
}

// questionName is the name as it was asked.
func (x *exchange) questionName() string { return x.query.Question[0].Name }

// First limits a behaviour to the first n queries.
func First(n int, b Behaviour) Behaviour {
	var seen atomic.Int64
	return func(x *exchange) {
		if seen.Add(1) <= int64(n) {
			b(x)
		}
	}
}

// WrongID answers with another message id, as a blind forger does.
func WrongID() Behaviour {
	return func(x *exchange) { x.reply.Id ^= 0xffff }
}

// WrongQuestion answers rightly, but repeats another question.
func WrongQuestion() Behaviour {
	return func(x *exchange) { x.reply.Question[0].Name = "other.invalid." }
}

// NotAResponse leaves the QR bit out: the answer looks like a query.
func NotAResponse() Behaviour {
	return func(x *exchange) { x.reply.Response = false }
}

// Truncated answers over UDP with TC and nothing else, and fully over TCP.
func Truncated() Behaviour {
	return func(x *exchange) {
		if x.udp {
			x.reply.Truncated = true
			x.reply.Answer, x.reply.Ns = nil, nil
		}
	}
}

// TruncatedWithoutTCP answers over UDP with TC, and closes TCP connections
// without an answer. For connections that are refused see Server.CloseTCP.
func TruncatedWithoutTCP() Behaviour {
	truncated := Truncated()
	return func(x *exchange) {
		truncated(x)
		x.hangUp = !x.udp
	}
}

// Rcode answers with a response code, such as dns.RcodeServerFailure, and no
// records.
func Rcode(code int) Behaviour {
	return func(x *exchange) {
		x.reply.Rcode = code
		x.reply.Answer, x.reply.Ns = nil, nil
	}
}

// Silent never answers.
func Silent() Behaviour {
	return func(x *exchange) { x.silent = true }
}

// Late answers once release is closed, or never if the server closes before.
func Late(release <-chan struct{}) Behaviour {
	return func(x *exchange) {
		select {
		case <-release:
		case <-x.closed:
			x.silent = true
		}
	}
}

// Garbage answers the query's id and then bytes that are no DNS message.
func Garbage() Behaviour {
	return Raw(append([]byte{0, 0, 0x81, 0x80}, slices.Repeat([]byte{0xff}, 60)...))
}

// Raw answers the bytes, the first two replaced by the query's id.
func Raw(b []byte) Behaviour {
	return func(x *exchange) {
		x.raw = append(make([]byte, 0, len(b)), b...)
		if len(b) >= 2 {
			x.raw[0], x.raw[1] = byte(x.query.Id>>8), byte(x.query.Id)
		}
	}
}

func cname(owner, target string) dns.RR {
	return &dns.CNAME{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 60}, Target: target}
}

// CNAMEOnly answers with the first CNAME record, and does not follow it.
func CNAMEOnly() Behaviour {
	return func(x *exchange) {
		x.reply.Ns = nil
		for i, rr := range x.reply.Answer {
			if rr.Header().Rrtype == dns.TypeCNAME {
				x.reply.Answer = x.reply.Answer[i : i+1]
				return
			}
		}
	}
}

// CNAMELoop answers with two CNAME records that point at each other.
func CNAMELoop() Behaviour {
	return func(x *exchange) {
		name := x.questionName()
		x.reply.Ns, x.reply.Rcode = nil, dns.RcodeSuccess
		x.reply.Answer = []dns.RR{cname(name, "loop."+name), cname("loop."+name, name)}
	}
}

// CNAMEChain puts n CNAME records before the right answer, which then belongs
// to the last one's target.
func CNAMEChain(n int) Behaviour {
	return func(x *exchange) {
		owner := x.questionName()
		var chain []dns.RR
		for i := range n {
			target := fmt.Sprintf("c%d.%s", i+1, x.questionName())
			chain = append(chain, cname(owner, target))
			owner = target
		}
		renameOwner(x.reply.Answer, x.questionName(), owner)
		x.reply.Answer = append(chain, x.reply.Answer...)
	}
}

// WrongOwner gives the answer's records another owner name.
func WrongOwner(owner string) Behaviour {
	return func(x *exchange) { renameOwner(x.reply.Answer, x.questionName(), dns.Fqdn(owner)) }
}

func renameOwner(rrs []dns.RR, from, to string) {
	for _, rr := range rrs {
		if strings.EqualFold(rr.Header().Name, from) {
			rr.Header().Name = to
		}
	}
}

// ManyTXT puts n unrelated TXT records before the right answer.
func ManyTXT(n int) Behaviour {
	return func(x *exchange) {
		var many []dns.RR
		for i := range n {
			many = append(many, &dns.TXT{
				Hdr: dns.RR_Header{Name: x.questionName(), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
				Txt: []string{fmt.Sprintf("unrelated=%d", i)},
			})
		}
		x.reply.Answer = append(many, x.reply.Answer...)
		x.reply.Ns, x.reply.Rcode = nil, dns.RcodeSuccess
	}
}

// SplitTXT cuts the text of each TXT record in the answer into strings of size
// characters, for a size of 1 to 255.
func SplitTXT(size int) Behaviour {
	return func(x *exchange) {
		for _, rr := range x.reply.Answer {
			if txt, ok := rr.(*dns.TXT); ok {
				txt.Txt = split(txt.Txt, size)
			}
		}
	}
}

// split works on the presentation format, where \DDD and \c are one character.
func split(parts []string, size int) []string {
	var out []string
	var b strings.Builder
	n := 0
	text := strings.Join(parts, "")
	for len(text) > 0 {
		width := 1
		if text[0] == '\\' {
			width = 2
			if len(text) >= 4 && text[1] >= '0' && text[1] <= '9' {
				width = 4
			}
		}
		width = min(width, len(text))
		b.WriteString(text[:width])
		text = text[width:]
		if n++; n == size || text == "" {
			out = append(out, b.String())
			b.Reset()
			n = 0
		}
	}
	return out
}

// Lame answers like a server that knows nothing of the zone: NOERROR, no
// records, no SOA, neither AA nor RA.
func Lame() Behaviour {
	return func(x *exchange) {
		x.reply.Rcode = dns.RcodeSuccess
		x.reply.Answer, x.reply.Ns = nil, nil
		x.reply.Authoritative, x.reply.RecursionAvailable = false, false
	}
}

// NoEDNS answers FORMERR to a query with EDNS, as very old servers do, and
// rightly to one without.
func NoEDNS() Behaviour {
	return func(x *exchange) {
		if x.query.IsEdns0() == nil {
			return
		}
		formErr := new(dns.Msg)
		x.reply = formErr.SetRcode(x.query, dns.RcodeFormatError)
	}
}

// Authenticated sets AD, as a validating resolver does for signed data, where
// the query asks for it with AD or DO (RFC 6840 section 5.7).
func Authenticated() Behaviour {
	return func(x *exchange) {
		opt := x.query.IsEdns0()
		x.reply.AuthenticatedData = x.query.AuthenticatedData || opt != nil && opt.Do()
	}
}
