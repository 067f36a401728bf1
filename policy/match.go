package policy

import (
	"strings"

	"github.com/authkey/authkey/internal/esmtp"
)

// A Matcher is a set of patterns for mailboxes: an address, a domain, or .domain
// for the subdomains of one. A look-up takes the same time for ten thousand patterns as
// for one. It does not change, and is safe for concurrent use.
type Matcher struct {
	addresses map[mailbox]int32
	domains   map[string]int32
	suffixes  map[string]int32 // without the dot in front
	isAddress []bool           // by id
}

// NewMatcher returns the Matcher of patterns: addresses in the form that Fold makes, domains
// in A-labels. It does not check them; one in another form matches nothing.
func NewMatcher(patterns []string) *Matcher {
	m := new(Matcher)
	for _, p := range patterns {
		m.add(p)
	}
	return m
}

// Match reports whether a mailbox, in the form that Fold makes, matches any of the patterns.
// A sub-address (user+tag) matches the pattern of its user.
func (m *Matcher) Match(folded string) bool {
	var buf [maxIDs]int32
	return len(m.find(splitMailbox(folded), buf[:0])) > 0
}

// maxIDs is how many patterns a mailbox usually matches at most; more are found too.
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

// find appends the ids of the patterns that match a mailbox, the most specific
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
	if len(m.suffixes) == 0 || len(box.domain) > esmtp.MaxDomain { // no longer one can have mail
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
