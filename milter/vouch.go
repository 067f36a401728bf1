package milter

import (
	"regexp"
	"slices"
	"strings"
)

// vouchedFor reports whether a filter before us, whom the administrator trusts, says in
// the header spf or dkim pass for a sender's domain.
func vouchedFor(header []Field, vouchers []Voucher, domain string) bool {
	return slices.ContainsFunc(header, func(f Field) bool {
		return isField(f.Name, authResField) && vouches(f.Value, vouchers, domain)
	})
}

// Limits of a field that vouches for somebody. What a filter cannot read it does not
// delete: OpenDKIM gives up on 4096 octets and on 512 tokens, of which each of
// vouchMarks is one and may end another, and has room for a few results.
const (
	maxVouchOctets     = 2000
	maxVouchMarks      = 200
	vouchMarks         = ";=. \t\r\n"
	maxVouchResults    = 8
	maxVouchProperties = 8 // of one result
)

// The one form in which filters write, which all of them can read: lower case, blanks
// around comments and between properties, the property types of RFC 8601; no version,
// no escape, no nested comment, no empty result.
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
// Such filters delete what claims to be theirs, as far as they can read it: what a
// forger writes so that they cannot must not count. Hence the id to the letter, and no
// more than the form in which they write themselves. A field with anything else in it
// vouches for nobody, in whatever part of it that is.
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

// vouchProperties reads the properties of a result; comments stand under no name. ok
// is false where one is there twice: the second could be part of a value that the
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

// authenticated is the domain that a result of the method is about, "" for none. ok is
// false where there is something in it that a sender could have made the filter write.
func authenticated(method string, properties map[string]string) (domain string, ok bool) {
	if method == "spf" {
		mailFrom := properties["smtp.mailfrom"]
		if strings.Contains(mailFrom, "=") {
			return "", true
		}
		return strings.TrimSuffix(mailFrom[strings.LastIndexByte(mailFrom, '@')+1:], "."), true
	}
	// Of a signature that verifies, whoever signed chose all that follows, of which the
	// identity may hold anything before its "@"; the domain behind that is theirs.
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
