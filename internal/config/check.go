package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
)

// The checks of text values. Each error completes a sentence that begins with
// the value.

// Limits of text, in octets.
const (
	maxReply      = 400 // leaves room for the codes in the 512 of an SMTP reply line
	maxHeaderName = 76
	maxAuthservID = 255
)

// checkPrintable takes text of one line without control characters.
func checkPrintable(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("has a line break or another control character")
	}
	return nil
}

// checkVisible is checkPrintable for names that are compared: everything in them must be
// visible to a person who reads the file.
func checkVisible(s string) error {
	if err := checkPrintable(s); err != nil {
		return err
	}
	return diskfile.CheckText(s)
}

// errWildcard is for names that are compared as they are.
var errWildcard = errors.New("has a wildcard, and matches nothing")

// checkQuery is checkPrintable for text that may have several lines.
func checkQuery(s string) error {
	return checkPrintable(strings.NewReplacer("\n", " ", "\t", " ").Replace(s))
}

// checkToken takes a name without blanks, as MTAs have them in macros and
// systems for groups.
func checkToken(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return errors.New("has a blank")
	}
	if strings.Contains(s, "*") {
		return errWildcard
	}
	return checkVisible(s)
}

// checkASCII takes printable ASCII, blanks included.
func checkASCII(s string) error {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return errors.New("has a character outside ASCII")
		case c < ' ' || c == 0x7f:
			return errors.New("has a line break or another control character")
		}
	}
	return nil
}

// checkReply takes the text of an SMTP reply.
func checkReply(s string) error {
	if len(s) > maxReply {
		return fmt.Errorf("has %d octets", len(s))
	}
	return checkASCII(s)
}

// replyCode is how a reply begins that has its codes with it.
var replyCode = regexp.MustCompile(`^\s*(?:[245][0-9]{2}[ -]|(?:[245][0-9]{2}[ -])?[245]\.[0-9]{1,3}\.[0-9]{1,3}(?:\s|$))`)

// checkReplyText takes the text of an SMTP reply without its codes.
func checkReplyText(s string) error {
	if replyCode.MatchString(s) {
		return errors.New("begins with a reply code, which is put before the text anyway")
	}
	if strings.TrimSpace(s) == "" {
		return errors.New("is blank")
	}
	return checkReply(s)
}

// checkMarkValue takes the value of the header field that marks mail.
func checkMarkValue(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("is empty")
	}
	return checkReply(s)
}

// reservedFields are header fields whose removal or addition would break mail
// or this filter; reservedPrefixes are whole families of such.
var (
	reservedFields = []string{
		"auto-submitted", "bcc", "cc", "comments", "date", "delivered-to", "dkim-signature", "from",
		"in-reply-to", "keywords", "message-id", "mime-version", "precedence", "received", "received-spf",
		"references", "reply-to", "return-path", "sender", "subject", "to",
		"authentication-results", "x-auth-key", "x-new-auth-key", "x-auth-agent", "x-authkey-quarantine",
	}
	reservedPrefixes = []string{"arc-", "content-", "list-", "resent-"}
)

// checkMarkHeader takes the name of a header field (RFC 5322 section 3.6.8) which can be
// added to mail, and removed from mail of strangers, without harm.
func checkMarkHeader(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > maxHeaderName {
		return fmt.Errorf("has %d octets", len(s))
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ':' {
			return errors.New("is not the name of a header field")
		}
	}
	lower := strings.ToLower(s)
	reserved := slices.Contains(reservedFields, lower)
	for _, p := range reservedPrefixes {
		reserved = reserved || strings.HasPrefix(lower, p)
	}
	if reserved {
		return errors.New("has a meaning of its own in mail")
	}
	return nil
}

// checkAuthservID takes a token of RFC 2045 section 5.1: an authserv-id that needs no quotes
// (RFC 8601 section 2.2).
func checkAuthservID(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > maxAuthservID {
		return fmt.Errorf("has %d octets", len(s))
	}
	if strings.Contains(s, "*") {
		return errWildcard
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`()<>@,;:\"/[]?=`, c) >= 0 {
			return errors.New("has a character that an authserv-id cannot have")
		}
	}
	return nil
}

// parseVoucher reads an authserv-id, a slash, and a method that authenticates senders.
func parseVoucher(s string) (v Voucher, err error) {
	id, method, found := strings.Cut(s, "/")
	if !found {
		return v, errors.New("names no method")
	}
	if err := checkAuthservID(id); err != nil {
		return v, err
	}
	if method != "spf" && method != "dkim" {
		return v, errors.New("has another method than spf or dkim")
	}
	return Voucher{id, method}, nil
}

// checkDomain takes a domain name, which an IP address is not; U-labels are taken as they
// come.
func checkDomain(s string) error {
	_, err := parseDomain(s)
	return err
}

// parseDomain is checkDomain, and returns the form in which domains are compared.
func parseDomain(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty")
	}
	bad := errors.New("is not a domain name")
	// No other spelling of a dot or letter, and no root's dot: the name is shown as it is.
	odd := func(r rune) bool {
		return r >= utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r)
	}
	dotted := "." + s + "."
	if strings.ContainsFunc(s, odd) || strings.Contains(dotted, ".-") || strings.Contains(dotted, "-.") || strings.HasSuffix(s, ".") {
		return "", bad
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", bad
	}
	domain, err := wire.ParseDomain(s)
	if err != nil {
		return "", bad
	}
	return domain, nil
}

// parsePattern is checkMatch, and returns the form in which the policy compares.
func parsePattern(s string) (string, error) {
	if err := checkMatch(s); err != nil {
		return "", err
	}
	if strings.Contains(s, "@") {
		return policy.Fold(s), nil
	}
	domain, subdomains := strings.CutPrefix(s, ".")
	domain, err := parseDomain(domain)
	if err == nil && subdomains {
		domain = "." + domain
	}
	return domain, err
}

// checkMatch takes what a rule matches: an address, a domain, or .domain.
func checkMatch(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	local, domain, isAddress := esmtp.Cut(s)
	if !isAddress {
		domain := strings.TrimPrefix(s, ".")
		switch {
		case strings.ContainsAny(s, "*%"):
			return errors.New("has a wildcard, and matches nothing (.example.com is for the subdomains of example.com)")
		case checkDomain(domain) != nil:
			return errors.New("is neither an address nor a domain")
		case domain == s && !strings.Contains(domain, ".") && !strings.EqualFold(domain, "localhost"):
			return errors.New("is a word without a dot, and matches nothing")
		}
		return nil
	}
	switch quoted := strings.HasPrefix(local, `"`); {
	case strings.ContainsAny(domain, "*%"):
		return errors.New("has a wildcard, and matches nothing (.example.com is for the subdomains of example.com)")
	case esmtp.HasWildcard(local):
		return fmt.Errorf("has a wildcard, and matches nothing (perhaps %s is meant, the domain)", domain)
	case !quoted && !esmtp.IsDotAtom(local):
		return errors.New("is not an address")
	}
	return checkAddress(s)
}

// checkAddress takes local@domain, without display name or brackets.
func checkAddress(s string) error {
	local, domain, found := esmtp.Cut(s)
	if !found {
		return errors.New("has no @")
	}
	if local == "" || strings.ContainsAny(local, "<>") {
		return errors.New("is not an address")
	}
	literal := strings.HasPrefix(domain, "[") && strings.HasSuffix(domain, "]")
	if !literal && checkDomain(domain) != nil {
		return errors.New("has no domain name after its @")
	}
	return checkVisible(s)
}

// checkTemplate takes an address that may hold {local} and {domain}.
func checkTemplate(s string) error {
	rest := s
	for {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			break
		}
		end := strings.IndexByte(rest[open:], '}')
		if rest[open] == '}' || end < 0 {
			return errors.New("has a brace without its partner")
		}
		if name := rest[open : open+end+1]; name != "{local}" && name != "{domain}" {
			return fmt.Errorf("has the unknown placeholder %s", quote(name))
		}
		rest = rest[open+end+1:]
	}
	// Parts of an address replace the placeholders, so that any example will do.
	return checkAddress(strings.NewReplacer("{local}", "local", "{domain}", "example.com").Replace(s))
}

// checkHostPort takes HOST:PORT; checkListenPort lets the host be empty too.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("is not HOST:PORT")
	}
	if _, err := parsePort(port); err != nil {
		return err
	}
	return checkHost(host)
}

func checkListenPort(s string) error {
	if port, ok := strings.CutPrefix(s, ":"); ok {
		_, err := parsePort(port)
		return err
	}
	return checkHostPort(s)
}

// checkPrefixed takes PREFIX followed by a path.
func checkPrefixed(prefix string) func(string) error {
	return func(s string) error {
		path, ok := strings.CutPrefix(s, prefix)
		if !ok {
			return fmt.Errorf("does not begin with %s", prefix)
		}
		if path == "" {
			return errors.New("has no path")
		}
		return checkPrintable(s)
	}
}

// checkSubaddress takes the separator of sub-addresses: one character that can
// stand in a local part without quotes and is no letter or digit.
func checkSubaddress(s string) error {
	if len(s) != 1 || strings.Trim(s, "!#$%&'*+-/=?^_`{|}~") != "" {
		return errors.New("is not a separator")
	}
	return nil
}

// checkPath takes the name of a file or folder.
func checkPath(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	return checkPrintable(s)
}

// parseAddrPort reads IP:PORT.
func parseAddrPort(s string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return addr, errors.New("is not IP:PORT")
	case addr.Port() == 0:
		return addr, errors.New("has a port outside 1 to 65535")
	}
	return addr, nil
}

// checkAuthorize takes login or map:FILE.
func checkAuthorize(s string) error {
	if s == "login" {
		return nil
	}
	return checkPrefixed("map:")(s)
}

// checkAddresses takes any or file:FILE.
func checkAddresses(s string) error {
	if s == "any" {
		return nil
	}
	return checkPrefixed("file:")(s)
}
