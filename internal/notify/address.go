package notify

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxPath bounds an address that we write to. RFC 5321 has 256 octets.
const maxPath = 500

var errMailbox = errors.New("address cannot be written to")

// toASCII brings a domain to A-labels, so that an address with an ASCII local
// part can do without SMTPUTF8.
var toASCII = idna.New(idna.MapForLookup(), idna.Transitional(false))

// mailbox brings an address of the envelope to a form that can stand between
// angle brackets in an SMTP command and in a header field: without source route,
// its domain in A-labels. What could end either is refused; MTAs hand over
// control characters in quoted local parts, among other things.
func mailbox(path string) (string, error) {
	path = dropRoute(path)
	if path == "" || len(path) > maxPath || !utf8.ValidString(path) || strings.ContainsFunc(path, isControl) {
		return "", errMailbox
	}
	at, quoted := -1, false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			if i++; i == len(path) {
				return "", errMailbox
			}
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '@' && at < 0:
			at = i
		case c == '@':
			return "", errMailbox
		case at < 0 && strings.IndexByte(" ()<>[]:;,\\", c) >= 0:
			return "", errMailbox
		}
	}
	if quoted || at == 0 || at == len(path)-1 {
		return "", errMailbox
	}
	if at < 0 { // the MTA knows how to complete a bare name
		return path, nil
	}
	domain, err := domainName(path[at+1:])
	return path[:at+1] + domain, err
}

// domainName takes host names and address literals. Letters above ASCII are mapped
// first: some of them stand for characters that are not allowed.
func domainName(domain string) (string, error) {
	if literal, ok := strings.CutPrefix(domain, "["); ok {
		literal, ok = strings.CutSuffix(literal, "]")
		if !ok || !isDomain(strings.ReplaceAll(literal, ":", "x")) {
			return "", errMailbox
		}
		return domain, nil
	}
	domain = strings.TrimSuffix(domain, ".")
	if !isASCII(domain) {
		ascii, err := toASCII.ToASCII(domain)
		if err != nil {
			return "", errMailbox
		}
		domain = ascii
	}
	if !isDomain(domain) {
		return "", errMailbox
	}
	return domain, nil
}

// isDomain reports whether a domain has no empty label and none but the usual
// characters.
func isDomain(domain string) bool {
	last := byte('.')
	for i := 0; i < len(domain); i++ {
		c := domain[i]
		switch {
		case c == '.' && last == '.':
			return false
		case c == '.', c == '-', c == '_', '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		default:
			return false
		}
		last = c
	}
	return last != '.'
}

// dropRoute drops the source route of RFC 5321 section 4.1.2, "@a,@b:".
func dropRoute(path string) string {
	if strings.HasPrefix(path, "@") && !strings.Contains(path, `"`) {
		if _, after, ok := strings.Cut(path, ":"); ok {
			return after
		}
	}
	return path
}

// domainOf is the domain of an address, or all of it if it has none.
// hostName returns a host's name as it stands in mail addresses.
func hostName(name string) (string, error) {
	host, err := mailbox("postmaster@" + name)
	if err != nil || !isASCII(host) {
		return "", errMailbox
	}
	return domainOf(host), nil
}

func domainOf(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }

// Address types of RFC 3461 and RFC 6533.
const (
	typeRFC822 = "rfc822"
	typeUTF8   = "utf-8"
)

// maxTyped keeps an address of a delivery status on one line.
const maxTyped = 900

// typedAddress writes an address as the fields of a delivery status have it. In a
// message/global-delivery-status, wide, UTF-8 stands as it is.
func typedAddress(kind, addr string, wide bool) string {
	if kind == typeRFC822 && !isASCII(addr) {
		kind = typeUTF8
	}
	if kind != typeUTF8 {
		return kind + "; " + cutOctets(printable(addr), maxTyped)
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(addr, "?") {
		switch {
		case r > 0x20 && r < 0x7F && r != '+' && r != '=' && r != '\\', r >= 0x80 && wide && !isControl(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return kind + "; " + cutOctets(b.String(), maxTyped)
}
