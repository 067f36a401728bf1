package prefs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/policy"
)

// Limits of a file of preferences.
const (
	// maxFile is its greatest size in octets.
	maxFile = 256 << 20
	// maxEntries is how many recipients it can be for.
	maxEntries = 2_000_000
	// maxChunk is how much of it goes to the YAML parser at once where its entries
	// begin on lines of their own. The parser's tree of a whole file is twenty times
	// its size.
	maxChunk = 64 << 10
	// maxLanguage is the greatest length of a language.
	maxLanguage = 16
	// maxFaults is how many faults of one file are listed.
	maxFaults = 20
)

// A LineError says which line of a file cannot be used and why.
type LineError = diskfile.LineError

// A table is a file in memory. It does not change once it is built. There are no
// pointers in it for the garbage collector to follow.
type table struct {
	seed    maphash.Seed
	first   map[uint64]uint32 // the last entry of each hash, 1-based
	entries []entry
	text    []byte // the folded recipients
	choices []policy.Preference

	last      byte // the last octet of the file; 0 for an empty one
	saysEmpty bool // a line says that there are no preferences on purpose
}

// An entry is small, since there are many of them, and few different preferences.
type entry struct {
	at     uint32 // in table.text
	length uint16 // there
	choice uint32 // index in table.choices
	line   uint32
	next   uint32 // with the same hash; 0 for the last one
}

func newTable() *table {
	return &table{seed: maphash.MakeSeed(), first: make(map[uint64]uint32)}
}

func (t *table) find(recipient string) (entry, bool) {
	for i := t.first[maphash.String(t.seed, recipient)]; i > 0; i = t.entries[i-1].next {
		if e := t.entries[i-1]; string(t.recipient(e)) == recipient {
			return e, true
		}
	}
	return entry{}, false
}

func (t *table) recipient(e entry) []byte { return t.text[e.at : e.at+uint32(e.length)] }

// add adds a recipient that is not there yet.
func (t *table) add(recipient string, choice, line uint32) {
	hash := maphash.String(t.seed, recipient)
	t.entries = append(t.entries, entry{uint32(len(t.text)), uint16(len(recipient)), choice, line, t.first[hash]})
	t.text = append(t.text, recipient...)
	t.first[hash] = uint32(len(t.entries))
}

func (t *table) lookup(recipient string) (policy.Preference, bool) {
	e, ok := t.find(recipient)
	if !ok {
		return policy.Preference{}, false
	}
	return t.choices[e.choice], true
}

// A parser builds a table and gathers what is wrong with the file.
type parser struct {
	path   string
	table  *table
	known  map[policy.Preference]uint32 // index in table.choices
	before int                          // lines before the chunk
	faults []error
}

// parse reads a YAML list of preferences.
func parse(path string, data []byte) (*table, error) {
	p := &parser{path: path, table: newTable(), known: make(map[policy.Preference]uint32)}
	for len(data) > 0 && len(p.faults) < maxFaults {
		chunk := data[:endOfChunk(data)]
		p.chunk(chunk)
		p.before += bytes.Count(chunk, []byte("\n"))
		data = data[len(chunk):]
	}
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return p.table, nil
}

// endOfChunk finds where an entry begins on a line of its own. In a list that
// begins in the first column nothing else can begin so.
func endOfChunk(data []byte) int {
	if len(data) <= maxChunk {
		return len(data)
	}
	if i := bytes.Index(data[maxChunk:], []byte("\n- ")); i >= 0 {
		return maxChunk + i + 1
	}
	return len(data)
}

func (p *parser) fault(line int, format string, args ...any) {
	if len(p.faults) == maxFaults {
		return
	}
	if line > 0 {
		line += p.before
	}
	p.faults = append(p.faults, &LineError{Path: p.path, Line: line, Err: fmt.Errorf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

func (p *parser) chunk(data []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // nothing but comments
	}
	if err == nil {
		if err = decoder.Decode(&next); err == nil {
			p.fault(next.Line, "a second document begins here")
			return
		}
	}
	if !errors.Is(err, io.EOF) {
		problem, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
		if m := yamlLine.FindStringSubmatch(problem); m != nil {
			line, _ = strconv.Atoi(m[1]) // the pattern takes digits only
			problem = problem[len(m[0]):]
		}
		p.fault(line, "not YAML: %s", strings.Join(strings.Fields(problem), " "))
		return
	}
	list := doc.Content[0]
	switch {
	case list.Kind == yaml.ScalarNode && list.ShortTag() == "!!null":
	case list.Kind != yaml.SequenceNode:
		p.fault(list.Line, "not a list of preferences, such as - {recipient: bob@example.com, fail: reject}")
	default:
		for _, n := range list.Content {
			p.entry(n)
		}
	}
}

// entry reads one element of the list.
func (p *parser) entry(n *yaml.Node) {
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		p.fault(n.Line, "not a preference, such as {recipient: bob@example.com, fail: reject}")
		return
	}
	var recipient string
	var chosen policy.Preference
	var names [8]string // as many as there can be
	seen := names[:0]
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := key.Value
		if key.Kind != yaml.ScalarNode {
			p.fault(key.Line, "a key that is no name")
			return
		}
		if slices.Contains(seen, name) {
			p.fault(key.Line, "%s is set twice", diskfile.Quote(name))
			return
		}
		seen = append(seen, name)
		if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" && value.ShortTag() != "!!null" {
			p.fault(value.Line, "%s is no text", diskfile.Quote(name))
			return
		}
		text := value.Value
		if value.ShortTag() == "!!null" {
			text = "" // not set
		}
		if err := diskfile.CheckText(text); name != "recipient" && utf8.ValidString(text) && err != nil {
			p.fault(value.Line, "%.40s: %w", name, err)
			return
		}
		if err := set(&recipient, &chosen, name, text); err != nil {
			p.fault(value.Line, "%w", err)
			return
		}
	}
	if recipient == "" {
		p.fault(n.Line, "no recipient")
		return
	}
	p.put(n.Line, recipient, chosen)
}

// set sets one field of a preference.
func set(recipient *string, chosen *policy.Preference, name, value string) (err error) {
	var action *policy.Action
	switch name {
	case "recipient":
		*recipient = value
		return checkRecipient(value)
	case "language":
		chosen.Language = value
		return checkLanguage(value)
	case "pass":
		action = &chosen.Pass
	case "none":
		action = &chosen.None
	case "nokey":
		action = &chosen.NoKey
	case "fail":
		action = &chosen.Fail
	case "permerror":
		action = &chosen.PermError
	case "temperror":
		action = &chosen.TempError
	default:
		return fmt.Errorf("%s is none of recipient, pass, none, nokey, fail, permerror, temperror, language", diskfile.Quote(name))
	}
	if *action, err = policy.ParseAction(value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// checkRecipient takes an address.
func checkRecipient(s string) error {
	local, domain, _ := esmtp.Cut(s)
	switch {
	case local == "" || domain == "" || strings.ContainsAny(s, "<>") ||
		!utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("recipient %s is no address; what is for a whole domain belongs in policy.rules", diskfile.Quote(s))
	case esmtp.HasWildcard(local) || strings.Contains(domain, "*"):
		return fmt.Errorf("recipient %s has a wildcard, and matches nothing; what is for a whole domain belongs in policy.rules", diskfile.Quote(s))
	case len(s) > MaxRecipient:
		return fmt.Errorf("recipient %s is longer than %d octets", diskfile.Quote(s), MaxRecipient)
	}
	if err := diskfile.CheckName(s); err != nil {
		return fmt.Errorf("recipient %s %w", diskfile.Quote(s), err)
	}
	return nil
}

// checkLanguage takes a language tag in the form of RFC 5646, without looking it up.
func checkLanguage(s string) error {
	other := func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	if len(s) > maxLanguage || strings.ContainsFunc(s, other) {
		return fmt.Errorf("language %s is none, such as de or pt-BR", diskfile.Quote(s))
	}
	return nil
}

// put adds an entry to the table.
func (p *parser) put(line int, recipient string, chosen policy.Preference) {
	folded := policy.Fold(recipient)
	if first, twice := p.table.find(folded); twice {
		p.fault(line, "recipient %s is there twice, first in line %d", diskfile.Quote(recipient), first.line)
		return
	}
	if len(p.table.entries) == maxEntries {
		p.fault(line, "more than %d preferences", maxEntries)
		return
	}
	choice, ok := p.known[chosen]
	if !ok {
		choice = uint32(len(p.table.choices))
		p.known[chosen] = choice
		p.table.choices = append(p.table.choices, chosen)
	}
	p.table.add(folded, choice, uint32(line+p.before))
}
