package policy

import "strings"

// maxDomain is the length in octets up to which a domain's suffixes are looked
// up: no longer one can have mail.
const maxDomain = 253

// A Matcher is a set of patterns for mailboxes: an address, a domain, or .domain
// for the subdomains of one. It is made for ten thousands of patterns: a mailbox
// is looked up, the patterns are not gone through.
type Matcher struct {
	addresses map[mailbox]int32
	domains   map[string]int32
	suffixes  map[string]int32 // without the dot in front
	isAddress []bool           // by id
}

// NewMatcher returns the Matcher of patterns in folded form.
func NewMatcher(patterns []string) *Matcher {
	m := new(Matcher)
	for _, p := range patterns {
		m.add(p)
	}
	return m
}

// Match reports whether a mailbox in folded form fits any of the patterns. A
// sub-address (user+tag) fits the pattern of its user.
func (m *Matcher) Match(folded string) bool {
	var buf [maxIDs]int32
	return len(m.find(splitMailbox(folded), buf[:0])) > 0
}

// A mailbox is a folded address, taken apart.
type mailbox struct{ local, domain string }

func splitMailbox(folded string) mailbox {
	at := strings.LastIndexByte(folded, '@')
	if at < 0 {
		return mailbox{local: folded}
	}
	return mailbox{folded[:at], folded[at+1:]}
}

// SubaddressSeparator begins the tag of a sub-address in a local part.
const SubaddressSeparator = '+'

// user returns the mailbox that a sub-address belongs to; ok is false for one
// that is no sub-address.
func (m mailbox) user() (user mailbox, ok bool) {
	i := strings.IndexByte(m.local, SubaddressSeparator)
	if i <= 0 {
		return mailbox{}, false
	}
	return mailbox{m.local[:i], m.domain}, true
}

// CutSubaddress returns the address that a folded sub-address (user+tag@domain)
// belongs to; ok is false for an address that is none.
func CutSubaddress(folded string) (user string, ok bool) {
	m, ok := splitMailbox(folded).user()
	if !ok {
		return "", false
	}
	if m.domain == "" {
		return m.local, true
	}
	return m.local + "@" + m.domain, true
}

// maxIDs is how many patterns a mailbox usually fits at most; more are found too.
const maxIDs = 8

// add returns the id of a pattern, the same for the same one. Ids count from 0.
func (m *Matcher) add(pattern string) int32 {
	pattern = strings.ToLower(pattern)
	id := int32(len(m.isAddress))
	known := id
	switch {
	case strings.Contains(pattern, "@"):
		known = addTo(&m.addresses, splitMailbox(pattern), id)
	case strings.HasPrefix(pattern, "."):
		known = addTo(&m.suffixes, pattern[1:], id)
	default:
		known = addTo(&m.domains, pattern, id)
	}
	if known == id {
		m.isAddress = append(m.isAddress, strings.Contains(pattern, "@"))
	}
	return known
}

func addTo[K comparable](set *map[K]int32, key K, id int32) int32 {
	if *set == nil {
		*set = make(map[K]int32)
	}
	if known, ok := (*set)[key]; ok {
		return known
	}
	(*set)[key] = id
	return id
}

// find appends the ids of the patterns that a mailbox fits, the most specific
// first: the address, that of its user, the domain, the longest suffix.
func (m *Matcher) find(box mailbox, ids []int32) []int32 {
	if len(m.addresses) > 0 {
		if id, ok := m.addresses[box]; ok {
			ids = append(ids, id)
		}
		if user, ok := box.user(); ok {
			if id, ok := m.addresses[user]; ok {
				ids = append(ids, id)
			}
		}
	}
	if len(m.domains) > 0 {
		if id, ok := m.domains[box.domain]; ok {
			ids = append(ids, id)
		}
	}
	if len(m.suffixes) == 0 || len(box.domain) > maxDomain {
		return ids
	}
	for rest := box.domain; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return ids
		}
		rest = rest[dot+1:]
		if id, ok := m.suffixes[rest]; ok {
			ids = append(ids, id)
		}
	}
}
