package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Settings answers what the values of a configuration are and where they come
// from.
type Settings struct {
	Content
	schema  *schema
	file    string           // its path
	lines   map[string]int   // of what the file sets, by key, section, field or element
	values  map[string]value // by key
	sources map[string]string

	idle []Fault
}

// Warnings says what may be wrong with the file, though it can be used.
func (s Settings) Warnings() (all []string) {
	switch {
	case s.file == "":
	case len(s.data) == 0:
		all = append(all, s.file+": is empty, so that every key has its default")
	case s.data[len(s.data)-1] != '\n':
		all = append(all, s.file+": its last line has no end; it may have been cut off")
	}
	return all
}

// Source tells where a key's value comes from: SourceDefault, SourceFile or
// SourceEnvironment; "" for what is not a key.
func (s Settings) Source(key string) string { return s.sources[key] }

// IsSet tells whether the file or the environment sets a key, also if it is set to its
// default.
func (s Settings) IsSet(key string) bool {
	source := s.Source(key)
	return source != "" && source != SourceDefault
}

// File is the path of the file that was read; "" where none was.
func (s Settings) File() string { return s.file }

// Set counts the keys that the file and the environment set.
func (s Settings) Set() (file, environment int) {
	for _, source := range s.sources {
		switch source {
		case SourceFile:
			file++
		case SourceEnvironment:
			environment++
		}
	}
	return file, environment
}

// Setting is a key with its value and where that comes from.
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"` // as a file has it: string, bool, int, or a list; no passwords
	Source string `json:"source"`
}

// Effective returns every key's setting, in the order of the table.
func (s Settings) Effective() []Setting {
	all := make([]Setting, len(s.schema.keys))
	for i, k := range s.schema.keys {
		raw := s.values[k.name].raw
		if dsn, ok := raw.(string); ok && k.kind.secret {
			raw = DSN(dsn).String()
		}
		all[i] = Setting{k.name, raw, s.Source(k.name)}
	}
	return all
}

// NotImplemented names what the user has set and this build accepts but does not
// act on yet: keys, and "key: what is missing" for values that are acted on in part.
// What equals the default is not named.
func (s Settings) NotImplemented() []string {
	var names []string
	for _, k := range s.schema.keys {
		switch {
		case !s.changed(k):
		case !k.implemented:
			names = append(names, k.name)
		case k.kind.unsupported != nil:
			if missing := k.kind.unsupported(s.values[k.name].raw.(string)); missing != "" {
				names = append(names, fmt.Sprintf("%s: %s", k.name, missing))
			}
		}
	}
	return names
}

// changed reports whether a key has another value than its default, however written: 60s
// is 1m.
func (s Settings) changed(k key) bool {
	return !reflect.DeepEqual(s.values[k.name].parsed, k.def.parsed)
}

// Idle says what is set, and accepted, and has no effect, each with its reason.
func (s Settings) Idle() []Fault { return s.idle }

// Fault makes a fault of a value which only shows with what the value names, such
// as a file. key may be one of an object in a list, domains[0].secret_file, or a section.
func (s Settings) Fault(key, problem, want string) Fault {
	f := Fault{File: s.file, Line: s.lines[key], Key: key, Problem: problem, Want: want}
	if i := strings.LastIndexByte(key, '.'); f.Line == 0 && i > 0 {
		f.Line = s.lines[key[:i]] // of the object or section that leaves it to its default
	}
	if k, ok := s.schema.byName[key]; ok && s.Source(key) == SourceEnvironment {
		f.File, f.Line = "$"+s.schema.envName(k), 0
	}
	if f.File == "" {
		f.File = s.schema.file
	}
	return f
}

// FaultOf is Fault for an error from using the value. It wraps the error.
func (s Settings) FaultOf(key string, err error) Fault {
	f := s.Fault(key, strings.ReplaceAll(err.Error(), "\n", "; "), "")
	f.Err = err
	return f
}

// FaultsOf is FaultOf for an error that may be several, one a line of its text, as
// errors.Join makes it. Each fault wraps all of the error.
func (s Settings) FaultsOf(key string, err error) (faults Faults) {
	for problem := range strings.SplitSeq(err.Error(), "\n") {
		f := s.Fault(key, problem, "")
		f.Err = err
		faults = append(faults, f)
	}
	return faults
}
