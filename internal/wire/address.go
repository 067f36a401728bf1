package wire

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
)

// MaxAddress is the greatest length in octets of an address in canonical,
// encoded form (docs/protocol.md section 3).
const MaxAddress = 1024

// maxMailbox bounds what ParseAddress reads at all. Only needless quoting, a
// source route, NFC and IDNA's mapping make an address shorter: four times the
// limit leaves room for every address in use that could still fit.
const maxMailbox = 4 * MaxAddress

// Errors of ParseAddress. Each says why no domain can vouch for the address;
// the recipient's side answers all of them with the result "none".
var (
	ErrNullSender    = errors.New("null sender")
	ErrNoDomain      = errors.New("address has no domain")
	ErrNoLocalPart   = errors.New("address has no local part")
	ErrDomainLiteral = errors.New("address has a domain literal")
	ErrDomain        = errors.New("domain is not a valid host name")
	ErrAddressSize   = errors.New("address is too long")
	ErrEncoding      = errors.New("address is not in canonical encoding")
)

// An Address is a mailbox in the protocol's canonical form: domain in lower-case
// A-labels, local part as received with needless quoting undone. The zero
// Address is no address. Addresses may be compared with ==.
type Address struct {
	encoded string // local part percent-encoded, "@", domain
	at      int    // where the "@" is in encoded
}

// ParseAddress brings a mailbox, as MAIL FROM or a From field has it without
// angle brackets, to canonical form (docs/protocol.md section 3). A source
// route is dropped. The error is one of this package's, wrapped with detail.
func ParseAddress(mailbox string) (Address, error) {
	if mailbox == "" {
		return Address{}, ErrNullSender
	}
	if len(mailbox) > maxMailbox {
		return Address{}, ErrAddressSize
	}
	local, domain, _ := esmtp.CutUnquoted(esmtp.DropSourceRoute(mailbox))
	if domain == "" {
		return Address{}, ErrNoDomain
	}
	if local == "" {
		return Address{}, ErrNoLocalPart
	}
	domain, err := ParseDomain(domain)
	if err != nil {
		return Address{}, err
	}
	local = encode(esmtp.QuoteLocal(norm.NFC.String(esmtp.UnquoteLocal(local))))
	if len(local)+1+len(domain) > MaxAddress {
		return Address{}, ErrAddressSize
	}
	return Address{encoded: local + "@" + domain, at: len(local)}, nil
}

// DomainAddress returns an address that stands for the domain of a mailbox alone: "@"
// and the domain in canonical form, which is a pvalue of RFC 8601 too. It is for
// mailboxes without a local part and for those that are too long for the protocol:
// they can have no key, but their domain may require one.
func DomainAddress(mailbox string) (Address, error) {
	_, domain, _ := esmtp.Cut(esmtp.DropSourceRoute(mailbox))
	domain, err := ParseDomain(domain) // ErrNoDomain too where there is no "@"
	if err != nil {
		return Address{}, err
	}
	return Address{encoded: "@" + domain}, nil
}

// IsDomain reports whether a stands for a domain alone (DomainAddress).
func (a Address) IsDomain() bool { return a.encoded != "" && a.at == 0 }

// DecodeAddress reads an address as a VERIFY line has it. Once the encoding is undone it
// takes every form that ParseAddress takes, so that a client whose canonical form is slightly
// different is understood. A reply must repeat the spelling of the line.
func DecodeAddress(s string) (Address, error) {
	if len(s) > MaxAddress {
		return Address{}, ErrAddressSize
	}
	mailbox, err := decode(s)
	if err != nil {
		return Address{}, err
	}
	return ParseAddress(mailbox)
}

// String returns the canonical encoded form, the one sent in a VERIFY line.
// It holds only octets 0x21 to 0x7E.
func (a Address) String() string { return a.encoded }

// IsZero reports whether a is no address at all.
func (a Address) IsZero() bool { return a.encoded == "" }

// Domain returns the domain in lower-case A-labels without a trailing dot.
func (a Address) Domain() string {
	if a.IsZero() {
		return ""
	}
	return a.encoded[a.at+1:]
}

// Local returns the local part as a person means it: UTF-8, no encoding, no
// quotes and no backslashes.
func (a Address) Local() string {
	local, err := decode(a.encoded[:a.at])
	if err != nil { // impossible for an Address made by this package
		return ""
	}
	return esmtp.UnquoteLocal(local)
}

// Mailbox returns the address as people write it: UTF-8, with the least quoting, and the
// domain in A-labels.
func (a Address) Mailbox() string {
	mailbox, err := decode(a.encoded)
	if err != nil { // impossible for an Address made by this package
		return ""
	}
	return mailbox
}

func isVisible(c byte) bool { return c >= 0x21 && c <= 0x7E }

const upperHex = "0123456789ABCDEF"

// encode writes every octet outside 0x21-0x7E, and "%", as "%" and two
// upper-case hexadecimal digits: nothing in an address can end a line.
func encode(s string) string {
	plain := true
	for i := 0; i < len(s); i++ {
		if !isVisible(s[i]) || s[i] == '%' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		b = appendOctet(b, s[i], s[i] == '%')
	}
	return string(b)
}

// appendOctet appends an octet, percent-encoded if it is outside 0x21-0x7E or encode is set.
func appendOctet(dst []byte, c byte, encode bool) []byte {
	if isVisible(c) && !encode {
		return append(dst, c)
	}
	return append(dst, '%', upperHex[c>>4], upperHex[c&15])
}

func decode(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isVisible(c) {
			return "", ErrEncoding
		}
		if c == '%' {
			if i+2 >= len(s) {
				return "", ErrEncoding
			}
			hi := strings.IndexByte(upperHex, s[i+1])
			lo := strings.IndexByte(upperHex, s[i+2])
			if hi < 0 || lo < 0 {
				return "", ErrEncoding
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// uts46 is the mapping of docs/protocol.md section 3: UTS-46, non-transitional.
var uts46 = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.BidiRule(),
	idna.VerifyDNSLength(true),
)

// maxLabel is the length of a label of a domain name in octets (RFC 1035 section 2.3.4).
const maxLabel = 63

// ParseDomain returns a domain in lower-case A-labels without a trailing dot.
// The error wraps ErrNoDomain, ErrDomainLiteral or ErrDomain.
func ParseDomain(s string) (string, error) {
	s = trimRootDot(s)
	if s == "" {
		return "", ErrNoDomain
	}
	if s[0] == '[' {
		return "", ErrDomainLiteral
	}
	if len(s) > maxMailbox {
		return "", ErrDomain
	}
	if !esmtp.IsASCII(s) {
		ascii, err := uts46.ToASCII(s)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrDomain, err)
		}
		s = ascii
	}
	s = strings.ToLower(s)
	if len(s) > esmtp.MaxDomain {
		return "", fmt.Errorf("%w: longer than %d octets", ErrDomain, esmtp.MaxDomain)
	}
	for label := range strings.SplitSeq(s, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	return s, nil
}

// trimRootDot removes one trailing dot, also in the three forms which UTS-46
// maps to one: whether package idna lets it pass depends on its Unicode version.
func trimRootDot(s string) string {
	for _, dot := range []string{".", "\u3002", "\uff0e", "\uff61"} {
		if t, ok := strings.CutSuffix(s, dot); ok {
			return t
		}
	}
	return s
}

// checkLabel takes letters, digits, hyphens and underscores. It is not left to
// IDNA alone, whose rule against hyphens in third and fourth place would keep
// out names that exist.
func checkLabel(label string) error {
	if label == "" {
		return fmt.Errorf("%w: empty label", ErrDomain)
	}
	if len(label) > maxLabel {
		return fmt.Errorf("%w: label longer than %d octets", ErrDomain, maxLabel)
	}
	for i := 0; i < len(label); i++ {
		if c := label[i]; !esmtp.IsAlnum(c) && c != '-' && c != '_' {
			return fmt.Errorf("%w: character %q", ErrDomain, c)
		}
	}
	if strings.HasPrefix(label, "xn--") {
		if _, err := uts46.ToUnicode(label); err != nil {
			return fmt.Errorf("%w: %w", ErrDomain, err)
		}
	}
	return nil
}
