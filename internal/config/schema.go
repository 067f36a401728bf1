package config

import (
	"fmt"
	"strings"
)

// key is one row of a table: everything that is known of one key, or of one field of the
// objects in a list.
type key struct {
	name        string // such as dns.timeout
	kind        kind
	def         value // of a field that has no default: nothing
	required    bool  // of a field: an object must have it
	implemented bool  // the programs do what the key says; false: it is accepted, checked and reported
	doc         string
	set         func(parsed any) // puts a value into the key's field of the configuration
}

// row binds a key to a field of a configuration, with its default as a file has it.
func row[T any](name string, field *T, k kindOf[T], def any, doc string) key {
	r := bind(name, field, k, doc)
	var err error
	if r.def, err = k.read(def); err != nil {
		panic(fmt.Sprintf("config: default of %s: %v %v", name, def, err))
	}
	return r
}

// bind binds a field of an object that has no default.
func bind[T any](name string, field *T, k kindOf[T], doc string) key {
	return key{name: name, kind: k.kind, implemented: true, doc: doc, set: func(parsed any) { *field = parsed.(T) }}
}

// notImplemented is k as a key that does nothing yet.
func (k key) notImplemented() key {
	k.implemented = false
	return k
}

// mustBeSet is k as a field that every object has to have.
func (k key) mustBeSet() key {
	k.required = true
	return k
}

// env is whether the key can be set in the environment.
func (k key) env() bool { return !k.kind.isObjects() }

// schema is a file's table of keys, bound to one configuration.
type schema struct {
	prefix   string // of environment names
	file     string // what the file is called in faults
	keys     []key
	byName   map[string]key
	sections map[string]bool // names that hold keys: dns, policy, policy.floor …
}

func newSchema(file, prefix string, keys []key) *schema {
	s := &schema{prefix: prefix, file: file, keys: keys, byName: map[string]key{}, sections: map[string]bool{}}
	for _, k := range keys {
		s.byName[k.name] = k
		for i, c := range k.name {
			if c == '.' {
				s.sections[k.name[:i]] = true
			}
		}
	}
	return s
}

// envName is the name of a key in the environment.
func (s *schema) envName(k key) string {
	return s.prefix + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

// names lists every key and section.
func (s *schema) names() []string {
	all := make([]string, 0, len(s.keys)+len(s.sections))
	for _, k := range s.keys {
		all = append(all, k.name)
	}
	for name := range s.sections {
		all = append(all, name)
	}
	return all
}

// Nearest returns the one of names that a misspelt word was probably meant to be, or
// "" where none is close: at most a third of its letters wrong, and at most 3.
func Nearest(wrong string, names []string) string {
	// Beyond this length no name of ours is near.
	const maxWrong = 100
	if len(wrong) > maxWrong {
		return ""
	}
	wrong = strings.ToLower(wrong)
	best, bestDistance := "", min(3, len(wrong)/3)+1
	for _, name := range names {
		d := distance(wrong, strings.ToLower(name))
		if d < bestDistance || d == bestDistance && best != "" && name < best {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
