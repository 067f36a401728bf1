package testdns

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxFollowed bounds how many CNAME records one answer follows.
const maxFollowed = 64

// zone is the data the server answers from, by canonical owner name. It has no
// lock of its own.
type zone map[string][]dns.RR

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }

// set parses records and lets each record set replace the one of before.
func (z zone) set(lines []string) error {
	var parsed []dns.RR
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			return fmt.Errorf("record %q: %w", line, err)
		}
		if rr == nil {
			return fmt.Errorf("record %q: empty", line)
		}
		rr.Header().Name = canonical(rr.Header().Name)
		parsed = append(parsed, rr)
	}
	for _, rr := range parsed {
		z.remove(rr.Header().Name, rr.Header().Rrtype)
	}
	for _, rr := range parsed {
		name := rr.Header().Name
		z[name] = append(z[name], rr)
	}
	return nil
}

func (z zone) remove(name string, qtype uint16) {
	name = canonical(name)
	left := slices.DeleteFunc(slices.Clone(z[name]), func(rr dns.RR) bool {
		return qtype == dns.TypeANY || rr.Header().Rrtype == qtype
	})
	if len(left) == 0 {
		delete(z, name)
		return
	}
	z[name] = left
}

// find returns copies of the records, owned by the name as it was asked.
func (z zone) find(name string, qtype uint16) []dns.RR {
	var found []dns.RR
	for _, rr := range z[canonical(name)] {
		if rr.Header().Rrtype == qtype || qtype == dns.TypeANY {
			rr = dns.Copy(rr)
			rr.Header().Name = name
			found = append(found, rr)
		}
	}
	return found
}

// exists tells whether the name has records, or a name below it has (an empty
// non-terminal, RFC 8020).
func (z zone) exists(name string) bool {
	name = canonical(name)
	if _, ok := z[name]; ok || name == "." {
		return true
	}
	for owner := range z {
		if strings.HasSuffix(owner, "."+name) {
			return true
		}
	}
	return false
}

// answer follows CNAME records from name and returns what to put into the
// answer section, the response code, and the name at the end of the chain.
func (z zone) answer(name string, qtype uint16) (answer []dns.RR, rcode int, last string) {
	seen := map[string]bool{}
	for len(answer) < maxFollowed {
		if seen[canonical(name)] {
			return answer, dns.RcodeSuccess, name
		}
		seen[canonical(name)] = true
		if rrs := z.find(name, qtype); len(rrs) > 0 {
			return append(answer, rrs...), dns.RcodeSuccess, name
		}
		alias := z.find(name, dns.TypeCNAME)
		if len(alias) == 0 {
			break
		}
		answer = append(answer, alias[0])
		name = alias[0].(*dns.CNAME).Target
	}
	if z.exists(name) {
		return answer, dns.RcodeSuccess, name
	}
	return answer, dns.RcodeNameError, name
}

// authority is the SOA record for a negative answer about name (RFC 2308): that
// of the closest zone set, or else one of the root with the given TTL.
func (z zone) authority(name string, ttl uint32) dns.RR {
	for rest := canonical(name); ; {
		if soa := z.find(rest, dns.TypeSOA); len(soa) > 0 {
			h := soa[0].Header()
			h.Ttl = min(h.Ttl, soa[0].(*dns.SOA).Minttl)
			return soa[0]
		}
		i, end := dns.NextLabel(rest, 0)
		if end || rest == "." {
			break
		}
		rest = rest[i:]
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.testdns.invalid.", Mbox: "hostmaster.testdns.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}
