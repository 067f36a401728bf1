package milter

import (
	"regexp"
	"slices"
	"strings"
)

// vouchedFor reports whether a filter that runs before this milter, and that the
// administrator trusts, says in the header that spf or dkim passed for a sender's domain.
func vouchedFor(header []Field, vouchers []Voucher, domain string) bool {
	return slices.ContainsFunc(header, func(f Field) bool {
		return isField(f.Name, authResField) && vouches(f.Value, vouchers, domain)
	})
}

// Limits of a field that vouches for somebody. A filter does not delete a forgery that it
// cannot read, so that a field near its limits must not count. OpenDKIM stops at 4096 octets
// and at 512 tokens, of which each of vouchMarks is one and may end another, and holds only
// a few results.
const (
	maxVouchOctets     = 2000
	maxVouchMarks      = 200
	vouchMarks         = ";=. \t\r\n"
	maxVouchResults    = 8
	maxVouchProperties = 8 // of one result
)

// The one form in which filters write, and which all of them can read: that of RFC 8601
// section 2.2 in lower case, with blanks around comments and between properties, and with
// the property types of section 2.3; no version, no escape, no nested comment, no empty
// result.
const (
	vouchBlank    = `[ \t\r\n]`
	vouchComment  = `\([ \t!-'*-\[\]-~]*\)`
	vouchProperty = `(?:reason|(?:smtp|header|body|policy)\.[a-z0-9-]+)=(?:"[ !#-\[\]-~]*"|[!#-'*-:<>-\[\]-~]+)`
)

var (
	vouchResult = regexp.MustCompile(`^` + vouchBlank + `*([a-z][a-z0-9-]*)=([a-z]+)((?:` +
		vouchBlank + `+(?:` + vouchComment + `|` + vouchProperty + `))*)` + vouchBlank + `*(?:;|$)`)
	vouchPart = regexp.MustCompile(vouchComment + `|` + vouchProperty)
)

// vouches reports whether the value of an Authentication-Results field is one of a
// voucher's in which its method says pass for a domain.
//
// Such filters delete fields that claim to be theirs, as far as they can read them. A field
// that a forger wrote so that they cannot read it must not count. Therefore the id must be
// spelt exactly as configured, and the field must have the form in which filters write. A
// field with anything else in it, in whatever part, vouches for nobody.
func vouches(value string, vouchers []Voucher, domain string) bool {
	if domain == "" || len(value) > maxVouchOctets || countAny(value, vouchMarks) > maxVouchMarks {
		return false
	}
	for _, v := range vouchers {
		if rest, ok := strings.CutPrefix(value, v.ID+";"); ok && v.passes(rest, domain) {
			return true
		}
	}
	return false
}

func countAny(s, chars string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(chars, s[i]) >= 0 {
			n++
		}
	}
	return n
}

// passes reads the results that follow the id.
func (v Voucher) passes(rest, domain string) (found bool) {
	own := 0
	for n, more := 0, true; more; n++ {
		m := vouchResult.FindStringSubmatch(rest)
		if m == nil || n == maxVouchResults {
			return false
		}
		more = strings.HasSuffix(m[0], ";")
		rest = rest[len(m[0]):]
		properties, ok := vouchProperties(m[3])
		if !ok {
			return false
		}
		if m[1] != v.Method {
			continue
		}
		own++
		about, ok := authenticated(v.Method, properties)
		if !ok || v.Method == "spf" && own > 1 { // a message has one envelope sender
			return false
		}
		found = found || m[2] == "pass" && about != "" && strings.EqualFold(about, domain)
	}
	return found
}

// vouchProperties reads the properties of a result, and its comments as the property "". ok
// is false where a property is there twice: the second could be part of a value that the
// filter took from the message without quoting it.
func vouchProperties(s string) (properties map[string]string, ok bool) {
	properties = make(map[string]string)
	for _, part := range vouchPart.FindAllString(s, -1) {
		if part[0] == '(' {
			properties[""] += part
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if _, twice := properties[name]; twice {
			return nil, false
		}
		properties[name] = strings.Trim(value, `"`)
	}
	return properties, len(properties) <= maxVouchProperties
}

// authenticated is the domain that a result of the method is about, "" for none: that of
// smtp.mailfrom for spf, header.d for dkim (RFC 8601 sections 2.7.2 and 2.7.1). ok is false
// where there is something in it that a sender could have made the filter write.
func authenticated(method string, properties map[string]string) (domain string, ok bool) {
	if method == "spf" {
		mailFrom := properties["smtp.mailfrom"]
		if strings.Contains(mailFrom, "=") {
			return "", true
		}
		return strings.TrimSuffix(mailFrom[strings.LastIndexByte(mailFrom, '@')+1:], "."), true
	}
	// Whoever made a valid signature chose all these values. The identity (header.i) may
	// have anything before its "@"; its domain must be header.d or below it (RFC 6376
	// section 3.5).
	domain = properties["header.d"]
	for name, value := range properties {
		switch name {
		case "header.d", "header.s":
			ok = strings.Trim(strings.ToLower(value), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
		case "header.i":
			at := strings.LastIndexByte(value, '@')
			identity := strings.ToLower(value[at+1:])
			ok = at >= 0 && !strings.Contains(value, "=") &&
				(strings.EqualFold(identity, domain) || strings.HasSuffix(identity, "."+strings.ToLower(domain)))
		default:
			ok = !strings.Contains(value, "@")
		}
		if !ok {
			return "", false
		}
	}
	return domain, true
}
