package milter

import "strings"

// vouches reports whether an Authentication-Results field, written under one of
// ids, says spf or dkim pass for a domain. The ids are those of filters before us
// that delete forgeries of themselves. It reads less liberally than claimsAuthKey
// does: here a field that can be understood in two ways must not count.
func vouches(value string, ids []string, domain string) bool {
	toks, whole := authTokens(value)
	if !whole || domain == "" || len(toks) == 0 || !toks[0].word || !matchesID(toks[0].text, ids) {
		return false
	}
	start := -1
	for i := 1; i <= len(toks); i++ {
		if i < len(toks) && (toks[i].word || toks[i].text != ";") {
			continue
		}
		if start >= 0 && passes(toks[start:i], domain) {
			return true
		}
		start = i + 1
	}
	return false
}

// passes reads one result: method "=" "pass" and properties.
func passes(toks []authToken, domain string) bool {
	if len(toks) < 3 || !toks[0].word || !assigns(toks[1:]) {
		return false
	}
	method := strings.ToLower(toks[0].text)
	for toks[1].text != "=" || toks[1].word { // a version
		toks = toks[1:]
	}
	if len(toks) < 3 || !toks[2].word || !strings.EqualFold(toks[2].text, "pass") {
		return false
	}
	found := false
	for toks = toks[3:]; len(toks) > 0; {
		if len(toks) < 3 || !toks[0].word || toks[1].word || toks[1].text != "=" {
			return false
		}
		// Two words in a row have a blank between them, so that the value ends there.
		// An "=" could belong to it as well as to another property.
		end := 2
		for end < len(toks) && (end == 2 || !toks[end].word || !toks[end-1].word) {
			if !toks[end].word && toks[end].text == "=" {
				return false
			}
			end++
		}
		if strings.EqualFold(propDomain(method, strings.ToLower(toks[0].text), toks[2:end]), domain) {
			found = true
		}
		toks = toks[end:]
	}
	return found
}

// propDomain is the domain that a property of a method is about, if it is one of
// those that name the authenticated domain.
func propDomain(method, property string, value []authToken) string {
	switch method + " " + property {
	case "spf smtp.mailfrom", "dkim header.d", "dkim header.i":
	default:
		return ""
	}
	last := value[len(value)-1]
	switch {
	case !last.word:
		return ""
	case len(value) == 1: // a domain, or a quoted address
		return strings.TrimSuffix(last.text[strings.LastIndexByte(last.text, '@')+1:], ".")
	case len(value) == 2 && value[0].text == "@", len(value) == 3 && value[0].word && value[1].text == "@":
		return strings.TrimSuffix(last.text, ".")
	}
	return ""
}
