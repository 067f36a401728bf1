package mtaconf

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// A Filter is an entry of a list of milters.
type Filter struct {
	Text   string // as it is written
	Socket Socket // zero where Text cannot be read
	// DefaultAction is what the MTA does while the filter cannot be asked: accept,
	// tempfail, reject … In lists it is the entry's own, empty where it has none.
	DefaultAction string
	// ContentTimeout is the entry's own milter_content_timeout, empty where it has none.
	ContentTimeout string
	// Ours: it is authkey.
	Ours bool
	// WrongPath: it names authkey's socket as others see it, but the MTA's process, which
	// is or is not chrooted, looks for it elsewhere.
	WrongPath bool
	// OldSocket: Apply put it there, for a socket on which the milter listened then.
	OldSocket bool
}

// leadsNowhere reports whether the filter is an entry of authkey's at which no socket is
// found.
func (f Filter) leadsNowhere() bool { return f.WrongPath || f.OldSocket }

// parseList reads a value of smtpd_milters: sockets, or { socket, name=value … },
// with blanks or commas between.
func parseList(value string) []Filter {
	var filters []Filter
	for _, text := range splitList(value) {
		f := Filter{Text: text}
		socket := text
		if inner, ok := strings.CutPrefix(text, "{"); ok {
			parts := splitList(strings.TrimSuffix(inner, "}"))
			socket = ""
			if len(parts) > 0 {
				socket = parts[0]
				f.DefaultAction = attribute(parts[1:], "default_action")
				f.ContentTimeout = attribute(parts[1:], "content_timeout")
			}
		}
		f.Socket, _ = parsePostfix(socket) // zero where it cannot be read
		filters = append(filters, f)
	}
	return filters
}

// attribute finds name=value, or {name = value}.
func attribute(parts []string, name string) string {
	for _, part := range parts {
		key, value, _ := strings.Cut(strings.Trim(part, "{}"), "=")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// splitList splits at blanks and commas outside of braces.
func splitList(s string) []string {
	var parts []string
	depth, start := 0, -1
	for i, c := range s {
		blank := strings.ContainsRune(", \t\r\n", c)
		switch {
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		}
		if start < 0 && !blank {
			start = i
		}
		if start >= 0 && blank && depth == 0 {
			parts = append(parts, s[start:i])
			start = -1
		}
	}
	if start >= 0 {
		parts = append(parts, s[start:])
	}
	return parts
}

// hasOurs reports whether one of them is authkey.
func hasOurs(filters []Filter) bool {
	return slices.ContainsFunc(filters, func(f Filter) bool { return f.Ours })
}

// A Misplacement is a filter on the wrong side of authkey.
type Misplacement struct {
	Filter Filter
	Why    string
	Before bool // authkey runs before it, and should run after it
}

// A role is what a filter does, as far as its place beside authkey depends on it.
type role int

const (
	unknown  role = iota
	dkim          // signs, verifies, or both
	verifier      // SPF or DMARC
	sealer        // ARC
	scanner       // for spam or viruses, or it signs after having changed mail
)

// wellKnown are parts of sockets' names, and ports of packages' defaults.
var wellKnown = []struct {
	part, port string
	role       role
}{
	{"dmarc", "8893", verifier},
	{"spf", "", verifier},
	{"openarc", "8894", sealer},
	{"dkim", "8891", dkim},
	{"rspamd", "11332", scanner},
	{"spamass", "", scanner},
	{"clam", "", scanner},
	{"amavis", "", scanner},
	{"mimedefang", "", scanner},
}

func (f Filter) role() role {
	address := strings.ToLower(f.Socket.Address)
	port := ""
	if f.Socket.Network == "inet" {
		_, port, _ = net.SplitHostPort(address)
	}
	for _, known := range wellKnown {
		if strings.Contains(address, known.part) || port != "" && port == known.port {
			return known.role
		}
	}
	return unknown
}

// A traffic is whose mail passes a list of filters.
type traffic int

const (
	strangers traffic = iota // mail from outside
	users                    // submissions of our own users
	everybody                // both, and keys are put on the latter
)

const changedAfterwards = "what it signs or judges is changed by authkey afterwards"

// place says on which side of authkey a filter belongs: -1 before it, 1 after it, 0
// on either; and why.
func (f Filter) place(mail traffic, dkimMode string) (side int, why string) {
	signs, verifies := strings.Contains(dkimMode, "s"), strings.Contains(dkimMode, "v")
	switch f.role() {
	case sealer, scanner:
		return 1, changedAfterwards
	case dkim:
		switch {
		case signs && (mail == users || !verifies):
			return 1, "a DKIM signer must see the header as authkey leaves it"
		case signs && mail == everybody: // one of the two is not served; nothing breaks
		case mail != users:
			return -1, "authkey reads the results of DKIM verification"
		}
	case verifier:
		if mail != users {
			return -1, "authkey reads the results of SPF and DMARC"
		}
	}
	return 0, ""
}

// misplaced finds the first filter on the wrong side of authkey; nil: none is.
func misplaced(filters []Filter, mail traffic, dkimMode string) *Misplacement {
	at := slices.IndexFunc(filters, func(f Filter) bool { return f.Ours })
	if at < 0 {
		return nil
	}
	for i, f := range filters {
		side, why := f.place(mail, dkimMode)
		if !f.Ours && (side > 0 && i < at || side < 0 && i > at) {
			return &Misplacement{Filter: f, Why: why, Before: i > at}
		}
	}
	return nil
}

// arrange puts ours where it belongs: after the last filter that must run before it, else
// before the first that must run after it, else at the end. A filter that must run after
// ours, but is listed before one that must run before ours, is moved after ours. No other
// filter changes its place.
func arrange(filters []Filter, ours Filter, mail traffic, dkimMode string) (list, moved []Filter) {
	side := func(f Filter) int {
		side, _ := f.place(mail, dkimMode)
		return side
	}
	at := len(filters)
	for i := len(filters) - 1; i >= 0; i-- {
		if side(filters[i]) < 0 {
			at = i + 1
			break
		}
		if side(filters[i]) > 0 {
			at = i
		}
	}
	if at == 0 || side(filters[at-1]) >= 0 { // nothing must run before ours
		return slices.Insert(slices.Clone(filters), at, ours), nil
	}
	for _, f := range filters[:at] {
		if side(f) > 0 {
			moved = append(moved, f)
		} else {
			list = append(list, f)
		}
	}
	return slices.Concat(list, []Filter{ours}, moved, filters[at:]), moved
}

// moves says that filters of others change their place, and why.
func moves(moved []Filter) []string {
	var lines []string
	for _, f := range moved {
		lines = append(lines, fmt.Sprintf("moves %s behind authkey: %s", f.Text, changedAfterwards))
	}
	return lines
}
