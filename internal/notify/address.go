package notify

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
)

// maxPath bounds an address that we write to. RFC 5321 section 4.5.3.1.3 allows 256 octets.
const maxPath = 500

var errMailbox = errors.New("address cannot be written to")

// mailbox brings an address of the envelope to a form that can be written between angle
// brackets in an SMTP command and in a header field: without source route, its domain in
// A-labels. An address that could end the command or the field is refused: MTAs hand over,
// among other things, control characters in quoted local parts.
func mailbox(path string) (string, error) {
	path = esmtp.DropSourceRoute(path)
	if path == "" || len(path) > maxPath || !utf8.ValidString(path) || strings.ContainsFunc(path, esmtp.IsControl) {
		return "", errMailbox
	}
	local, domain, ok := esmtp.CutUnquoted(path)
	if !ok || local == "" || esmtp.IndexUnquoted(local, ` ()<>[]:;,\@`) >= 0 {
		return "", errMailbox
	}
	if local == path { // the MTA knows how to complete a bare name
		return path, nil
	}
	domain, err := domainName(domain)
	return local + "@" + domain, err
}

// domainName takes host names and address literals (RFC 5321 sections 4.1.2 and 4.1.3).
func domainName(domain string) (string, error) {
	if literal, ok := strings.CutPrefix(domain, "["); ok {
		literal, ok = strings.CutSuffix(literal, "]")
		if _, err := wire.ParseDomain(strings.ReplaceAll(literal, ":", "x")); !ok || err != nil || !esmtp.IsASCII(literal) {
			return "", errMailbox
		}
		return domain, nil
	}
	ascii, err := wire.ParseDomain(domain)
	if err != nil {
		return "", errMailbox
	}
	if esmtp.IsASCII(domain) {
		return strings.TrimSuffix(domain, "."), nil // in the case in which it came
	}
	return ascii, nil
}

// hostName returns a host's name as it is written in mail addresses.
func hostName(name string) (string, error) {
	host, err := mailbox("postmaster@" + name)
	if err != nil || !esmtp.IsASCII(host) {
		return "", errMailbox
	}
	return domainOf(host), nil
}

// domainOf is the domain of an address, or all of it if it has none.
func domainOf(addr string) string { return addr[strings.LastIndexByte(addr, '@')+1:] }

// typeRFC822 is the address type for addresses in ASCII (RFC 3461 section 4.2, RFC 3464
// section 2.3.1).
const typeRFC822 = "rfc822"

// maxTyped keeps an address of a delivery status, its type included, on one line.
const maxTyped = 900

// typedAddress writes an address as the fields of a delivery status have it: address type,
// ";", and the address in the encoding of the type (RFC 3464 section 2.3.1, RFC 6533 section
// 3). In a message/global-delivery-status (wide) UTF-8 is written as it is.
func typedAddress(kind, addr string, wide bool) string {
	if kind == typeRFC822 && !esmtp.IsASCII(addr) {
		kind = esmtp.TypeUTF8
	}
	if kind != esmtp.TypeUTF8 {
		return cutOctets(kind+"; "+printable(addr), maxTyped)
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(addr, "?") {
		switch {
		case r > 0x20 && r < 0x7F && r != '+' && r != '=' && r != '\\', r >= 0x80 && wide && !esmtp.IsControl(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\x{%X}`, r)
		}
	}
	return cutOctets(kind+"; "+b.String(), maxTyped)
}
