package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// environment reads the keys of a schema from NAME=VALUE strings, as os.Environ
// gives them, into values by key. Names without the schema's prefix are not
// ours. Of a name that comes twice the last counts.
func (s *schema) environment(environ []string) (map[string]value, Faults) {
	texts := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, s.prefix) {
			texts[name] = value
		}
	}
	var faults Faults
	values := map[string]value{}
	for _, k := range s.keys {
		name := s.envName(k)
		text, ok := texts[name]
		if !ok {
			continue
		}
		delete(texts, name)
		if !k.env() {
			faults = append(faults, Fault{File: "$" + name, Key: k.name,
				Problem: "is a list of objects, which an environment variable cannot hold", Want: "it in the file"})
			continue
		}
		var problems []string
		values[k.name], problems = k.kind.fromText(text)
		for _, p := range problems {
			faults = append(faults, Fault{File: "$" + name, Key: k.name, Problem: p, Want: k.kind.want})
		}
	}
	return values, append(faults, s.unknownEnv(texts)...)
}

// unknownEnv refuses names with our prefix that are no key's.
func (s *schema) unknownEnv(texts map[string]string) Faults {
	var known, unknown []string
	for _, k := range s.keys {
		known = append(known, s.envName(k))
	}
	for name := range texts {
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	var faults Faults
	for _, name := range unknown {
		want := s.prefix + " and a key in capitals, with _ for ."
		// The prefix that all names have would make every name seem near to every other.
		bare := strings.TrimPrefix(name, s.prefix)
		if near := Nearest(bare, trimAll(known, s.prefix)); near != "" {
			want = "perhaps " + s.prefix + near
		}
		faults = append(faults, Fault{File: "$" + printableKey(name), Problem: "is not a key of " + s.file, Want: want})
	}
	return faults
}

func trimAll(names []string, prefix string) []string {
	bare := make([]string, len(names))
	for i, n := range names {
		bare[i] = strings.TrimPrefix(n, prefix)
	}
	return bare
}

// fromText parses the text of an environment variable: lists are separated by commas, and
// no text at all is an empty list.
func (k kind) fromText(s string) (v value, problems []string) {
	if k.shape != list {
		raw, err := k.rawOf(s)
		if err == nil {
			v, err = k.read(raw)
		}
		if err != nil {
			problems = []string{k.show(s) + " " + err.Error()}
		}
		return v, problems
	}
	raw, parsed := []any{}, []any{}
	if s == "" {
		return value{raw, k.collect(parsed)}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		e, wrong := k.elem.fromText(strings.TrimSpace(part))
		raw, parsed, problems = append(raw, e.raw), append(parsed, e.parsed), append(problems, wrong...)
	}
	return value{raw, k.collect(parsed)}, problems
}

// rawOf is the raw value of a text, boolean or integer that is written as s.
func (k kind) rawOf(s string) (any, error) {
	switch k.shape {
	case boolean:
		if s != "true" && s != "false" {
			return nil, errors.New("is neither true nor false")
		}
		return s == "true", nil
	case integer:
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, errors.New("is not a whole number")
		}
		return n, nil
	}
	return s, nil
}
