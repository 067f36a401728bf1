package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// environment reads the keys of a schema from NAME=VALUE strings, as os.Environ
// gives them, into raw values by key. Names without the schema's prefix are not
// ours. Of a name that comes twice the last counts.
func (s *schema) environment(environ []string) (map[string]any, Faults) {
	texts := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, s.prefix) {
			texts[name] = value
		}
	}
	var faults Faults
	values := map[string]any{}
	for _, k := range s.keys {
		name := s.envName(k)
		value, ok := texts[name]
		if !ok {
			continue
		}
		delete(texts, name)
		if !k.env() {
			faults = append(faults, Fault{File: "$" + name, Key: k.name,
				Problem: "is a list of objects, which an environment variable cannot hold", Want: "it in the file"})
			continue
		}
		raw, problems := k.kind.fromEnv(value)
		for _, p := range problems {
			faults = append(faults, Fault{File: "$" + name, Key: k.name, Problem: p, Want: k.kind.want})
		}
		values[k.name] = raw
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
		// The common prefix must not make everything look alike.
		bare := strings.TrimPrefix(name, s.prefix)
		if near := nearest(bare, trimAll(known, s.prefix)); near != "" {
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

// fromEnv turns the text of an environment variable into a raw value: lists are
// separated by commas, and no text at all is an empty list.
func (k kind) fromEnv(value string) (raw any, problems []string) {
	if k.shape != textList && k.shape != integerList {
		raw, err := k.scalarFromText(value)
		if err != nil {
			problems = []string{k.show(value) + " " + err.Error()}
		}
		return raw, problems
	}
	list := []any{}
	if value == "" {
		return list, nil
	}
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		e, err := k.element().scalarFromText(part)
		if err != nil {
			problems = append(problems, k.show(part)+" "+err.Error())
			continue
		}
		list = append(list, e)
	}
	return list, problems
}

func (k kind) scalarFromText(value string) (any, error) {
	var raw any = value
	switch k.shape {
	case boolean:
		if value != "true" && value != "false" {
			return nil, errors.New("is neither true nor false")
		}
		raw = value == "true"
	case integer:
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, errors.New("is not a whole number")
		}
		raw = n
	}
	return raw, k.checkRaw(raw)
}
