package wire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
)

// Limits and defaults of docs/protocol.md section 1.
const (
	// DefaultPri is the priority of a record which gives none; lower is tried first.
	DefaultPri = 10
	// MaxServers is how many records of one domain are used.
	MaxServers = 8
	// maxRecord bounds one TXT record; DNS itself ends at 65535.
	maxRecord = 65535
	// maxRefusal is how much of a record is repeated where it is refused.
	maxRefusal = 255
)

// Errors of ParseRecord.
var (
	// ErrNotRecord says that a TXT record is not an AS record of this version of
	// the protocol. It is to be ignored.
	ErrNotRecord = errors.New("not an AS record of version 1")
	// ErrMalformed says that an AS record breaks the grammar. It is not used.
	ErrMalformed = errors.New("malformed AS record")
)

// A Server is where an AS listens. It is comparable and names one pool of
// connections, whichever domain pointed there.
type Server struct {
	Host string // domain name in A-labels, or an IP address without brackets
	Port uint16
	TLS  bool
}

// String returns host and port as in a record, with "tls:" before it where TLS is wanted.
func (s Server) String() string {
	hostport := net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
	if s.TLS {
		return "tls:" + hostport
	}
	return hostport
}

// IsAddress reports whether the host is an IP address, so that no DNS is needed.
func (s Server) IsAddress() bool {
	_, err := netip.ParseAddr(s.Host)
	return err == nil
}

// A Record is one well-formed AS record.
type Record struct {
	Server
	Pri      uint16
	Required bool // req=yes: every message of the domain carries a key
}

// String returns the record as it is published, in the spelling of docs/protocol.md.
func (r Record) String() string {
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	s := "AS=" + host + ":" + strconv.Itoa(int(r.Port))
	if r.Pri != DefaultPri {
		s += "; pri=" + strconv.Itoa(int(r.Pri))
	}
	if r.TLS {
		s += "; tls=yes"
	}
	if r.Required {
		s += "; req=yes"
	}
	return s
}

// ParseRecord parses the text of one TXT record, its character strings joined.
// The error wraps ErrNotRecord (ignore the record) or ErrMalformed (docs/protocol.md section 1).
func ParseRecord(txt string) (Record, error) {
	if len(txt) < 3 || !strings.EqualFold(txt[:3], "AS=") {
		return Record{}, ErrNotRecord
	}
	if len(txt) > maxRecord {
		return Record{}, fmt.Errorf("%w: longer than %d octets", ErrMalformed, maxRecord)
	}
	// Another version may have another grammar; therefore its mark is looked for
	// before the record is parsed.
	if otherVersion(txt) {
		return Record{}, ErrNotRecord
	}
	target, rest, more := strings.Cut(strings.TrimRight(txt[3:], " \t"), ";")
	server, err := parseTarget(strings.TrimRight(target, " \t"))
	if err != nil {
		return Record{}, err
	}
	rec := Record{Server: server, Pri: DefaultPri}
	seen := make(map[string]bool)
	for more && rest != "" {
		var field string
		field, rest, more = strings.Cut(rest, ";")
		if err := rec.setTag(strings.Trim(field, " \t"), seen); err != nil {
			return Record{}, err
		}
	}
	return rec, nil
}

// otherVersion reports whether the record carries a v tag whose value is not 1.
func otherVersion(txt string) bool {
	_, rest, _ := strings.Cut(txt, ";")
	for field := range strings.SplitSeq(rest, ";") {
		tag, value, ok := strings.Cut(strings.Trim(field, " \t"), "=")
		if ok && strings.EqualFold(tag, "v") && value != "1" {
			return true
		}
	}
	return false
}

func (r *Record) setTag(field string, seen map[string]bool) error {
	tag, value, ok := strings.Cut(field, "=")
	if !ok || tag == "" {
		return fmt.Errorf("%w: %s is not tag=value", ErrMalformed, quoteShort(field))
	}
	for i := 0; i < len(field); i++ {
		if !isVisible(field[i]) {
			return fmt.Errorf("%w: blank or control character in %s", ErrMalformed, quoteShort(field))
		}
	}
	tag, value = strings.ToLower(tag), strings.ToLower(value)
	switch tag {
	case "pri", "tls", "req", "v":
		if seen[tag] {
			return fmt.Errorf("%w: tag %s given twice", ErrMalformed, tag)
		}
		seen[tag] = true
	}
	switch tag {
	case "pri":
		n, err := parseUint16(value)
		if err != nil {
			return fmt.Errorf("%w: pri=%s is not 0 to 65535", ErrMalformed, quoteShort(value))
		}
		r.Pri = n
	case "tls", "req":
		if value != "yes" && value != "no" {
			return fmt.Errorf("%w: %s=%s is neither yes nor no", ErrMalformed, tag, quoteShort(value))
		}
		if tag == "tls" {
			r.TLS = value == "yes"
		} else {
			r.Required = value == "yes"
		}
	}
	return nil
}

// parseTarget parses host ":" port.
func parseTarget(s string) (Server, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return Server{}, fmt.Errorf("%w: %s has no port", ErrMalformed, quoteShort(s))
	}
	host, portText := s[:colon], s[colon+1:]
	port, err := parseUint16(portText)
	if err != nil || port == 0 {
		return Server{}, fmt.Errorf("%w: port %s is not 1 to 65535", ErrMalformed, quoteShort(portText))
	}
	host, err = parseHost(host)
	if err != nil {
		return Server{}, err
	}
	return Server{Host: host, Port: port}, nil
}

func parseHost(host string) (string, error) {
	bad := fmt.Errorf("%w: host %s is neither a name nor an IP address", ErrMalformed, quoteShort(host))
	if strings.HasPrefix(host, "[") {
		inner, ok := strings.CutSuffix(host[1:], "]")
		addr, err := netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", bad
		}
		return addr.String(), nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if !addr.Is4() {
			return "", bad
		}
		return addr.String(), nil
	}
	if !esmtp.IsASCII(host) { // a record is ASCII: A-labels
		return "", bad
	}
	name, err := ParseDomain(host)
	if err != nil {
		return "", bad
	}
	// No top-level domain is all digits, so that 1.2.3 or 1.2.3.400 are mistyped
	// addresses and not names.
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "", bad
	}
	return name, nil
}

// parseUint16 takes decimal digits without sign or leading zero.
func parseUint16(s string) (uint16, error) {
	if s == "" || len(s) > 1 && s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

// quoteShort quotes what came from DNS for an error text, cut to a bound.
func quoteShort(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

// A Refusal is a TXT record that begins as an AS record and is not used.
type Refusal struct {
	Text string // cut to a bound, not quoted
	Why  error
}

// A Set is what the TXT records of one domain say together.
type Set struct {
	// Records are the usable ones, lowest pri first, at least one unless the
	// domain publishes none that can be used. Those with the same pri are in the order
	// received; Order mixes them.
	Records []Record
	// Required: some well-formed record says req=yes.
	Required bool
	// Refused are records of ours which are not used, and why.
	Refused []Refusal
}

// Published reports whether the domain publishes an AS at all, usable or not.
func (s Set) Published() bool { return len(s.Records) > 0 || len(s.Refused) > 0 }

// ErrDowngrade is the reason why a clear-text record is not used beside one that says tls=yes.
var ErrDowngrade = errors.New("clear text, while another record of the domain says tls=yes")

// ParseSet makes a Set of the texts of all TXT records of a domain (docs/protocol.md section 1).
func ParseSet(txts []string) Set {
	var set Set
	var all []Record
	secure := false
	for _, txt := range txts {
		rec, err := ParseRecord(txt)
		switch {
		case errors.Is(err, ErrNotRecord):
			continue
		case err != nil:
			set.refuse(txt, err)
			continue
		}
		all = append(all, rec)
		secure = secure || rec.TLS
		set.Required = set.Required || rec.Required
	}
	for _, rec := range all {
		if secure && !rec.TLS {
			set.refuse(rec.String(), ErrDowngrade)
			continue
		}
		set.Records = append(set.Records, rec)
	}
	slices.SortStableFunc(set.Records, func(a, b Record) int { return int(a.Pri) - int(b.Pri) })
	set.Records = slices.CompactFunc(set.Records, func(a, b Record) bool { return a == b })
	return set
}

func (s *Set) refuse(txt string, why error) {
	const mostRefused = 32
	if len(s.Refused) >= mostRefused {
		return
	}
	if len(txt) > maxRefusal {
		txt = txt[:maxRefusal]
	}
	s.Refused = append(s.Refused, Refusal{Text: txt, Why: why})
}

// Order returns the servers to ask, in the order in which to ask them: by pri,
// equals mixed by shuffle (which is rand.Shuffle but in tests), each server
// once, at most MaxServers.
func (s Set) Order(shuffle func(n int, swap func(i, j int))) []Server {
	recs := slices.Clone(s.Records)
	for start := 0; start < len(recs); {
		end := start + 1
		for end < len(recs) && recs[end].Pri == recs[start].Pri {
			end++
		}
		if group := recs[start:end]; len(group) > 1 {
			shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		}
		start = end
	}
	servers := make([]Server, 0, min(len(recs), MaxServers))
	for _, rec := range recs {
		if len(servers) == MaxServers {
			break
		}
		if !slices.Contains(servers, rec.Server) {
			servers = append(servers, rec.Server)
		}
	}
	return servers
}
