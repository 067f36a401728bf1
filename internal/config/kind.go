package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/authkey/authkey/policy"
)

// shape is the form a value has in YAML.
type shape int

const (
	text shape = iota
	boolean
	integer
	object
	list
)

// value is one value in both its forms: raw, as YAML has it (string, bool, int, []any or
// map[string]any), for output and comparison; and parsed, in the type of its field.
type value struct{ raw, parsed any }

// kind is what a value may be.
type kind struct {
	name  string // as Describe shows it
	shape shape
	want  string // what a right value (or element of a list) is, for faults

	parse       func(string) (any, error) // of text
	secret      bool                      // of text: never shown
	unsupported func(string) string       // of text: what is missing where a value is not implemented yet, else ""
	min, max    int                       // of integer
	object      func() boundObject        // of object: a new one

	elem     *kind           // of list
	collect  func([]any) any // of list: makes the slice of parsed elements; nil makes a nil slice
	keyword  string          // of list: this text may stand in its place, and means nil
	nonEmpty bool            // of list
}

// A boundObject is one object of a list, with its fields bound to it.
type boundObject struct {
	fields []key
	value  func() any
	// crossCheck returns what is wrong with it that no single field shows; nil: nothing can be.
	crossCheck func() (problem, want string)
}

// kindOf is a kind whose values are parsed to type T.
type kindOf[T any] struct{ kind }

// read parses a raw value. The error completes a sentence that begins with the value.
func (k kind) read(raw any) (value, error) {
	v := value{raw: raw, parsed: raw}
	var err error
	switch r := raw.(type) {
	case string:
		if k.shape == list { // its keyword
			v.parsed = k.collect(nil)
		} else {
			v.parsed, err = k.parse(r)
		}
	case int:
		if r < k.min {
			err = fmt.Errorf("is below %d", k.min)
		} else if r > k.max {
			err = fmt.Errorf("is above %d", k.max)
		}
	case []any:
		all := make([]any, len(r))
		for i, e := range r {
			element, elementErr := k.elem.read(e)
			all[i], err = element.parsed, errors.Join(err, elementErr)
		}
		v.parsed = k.collect(all)
	}
	return v, err
}

// parsedKind is text that parse turns into a value.
func parsedKind[T any](name, want string, parse func(string) (T, error)) kindOf[T] {
	return kindOf[T]{kind{name: name, want: want, parse: func(s string) (any, error) { return parse(s) }}}
}

// textKind is text that stays as it is.
func textKind(name, want string, check func(string) error) kindOf[string] {
	return parsedKind(name, want, func(s string) (string, error) { return s, check(s) })
}

// converted is k with its values turned into another type.
func converted[T, U any](k kindOf[T], convert func(T) U) kindOf[U] {
	c := kindOf[U](k)
	c.parse = func(s string) (any, error) {
		v, err := k.parse(s)
		if err != nil {
			return nil, err
		}
		return convert(v.(T)), nil
	}
	return c
}

// orEmpty lets the text of k be empty, which means the zero T.
func orEmpty[T any](k kindOf[T]) kindOf[T] {
	parse := k.parse
	k.want += `, or ""`
	k.parse = func(s string) (any, error) {
		if s == "" {
			return *new(T), nil
		}
		return parse(s)
	}
	return k
}

// listOf is a list of such values; plural names them.
func listOf[T any](plural string, k kindOf[T]) kindOf[[]T] {
	return kindOf[[]T]{kind{name: "list of " + plural, shape: list, want: k.want, elem: &k.kind, collect: func(parsed []any) any {
		if parsed == nil {
			return []T(nil)
		}
		all := make([]T, len(parsed))
		for i, v := range parsed {
			all[i], _ = v.(T) // what is faulty has no value
		}
		return all
	}}}
}

// objects is a list of objects. fields binds the fields of one; crossCheck, which may be
// nil, finds what no single field of it shows.
func objects[T any](name string, fields func(*T) []key, crossCheck func(T) (problem, want string)) kindOf[[]T] {
	return listOf(name, kindOf[T]{kind{shape: object, object: func() boundObject {
		v := new(T)
		b := boundObject{fields: fields(v), value: func() any { return *v }}
		if crossCheck != nil {
			b.crossCheck = func() (problem, want string) { return crossCheck(*v) }
		}
		return b
	}}})
}

// isObjects reports whether k is a list of objects.
func (k kind) isObjects() bool { return k.elem != nil && k.elem.shape == object }

func oneOf(words ...string) kindOf[string] {
	return textKind(strings.Join(words, "|"), oneOfText(words), func(s string) error {
		if !slices.Contains(words, s) {
			return errors.New("is not known here")
		}
		return nil
	})
}

func oneOfText(words []string) string {
	return "one of " + strings.Join(words, ", ")
}

var yesNo = kindOf[bool]{kind{name: "boolean", shape: boolean, want: "true or false"}}

func integerKind(lowest, highest int) kindOf[int] {
	return kindOf[int]{kind{
		name: "integer", shape: integer, min: lowest, max: highest,
		want: fmt.Sprintf("a whole number from %d to %d", lowest, highest),
	}}
}

var (
	positiveDuration = durationKind("a duration above zero with its unit, such as 3s or 5m", 1, "is not more than zero")
	anyDuration      = durationKind("a duration with its unit, such as 0s or 5m", 0, "is below zero")
)

func durationKind(want string, least time.Duration, below string) kindOf[time.Duration] {
	return parsedKind("duration", want, func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err == nil && d < least {
			err = errors.New(below)
		}
		return d, err
	})
}

func actionKind(allowed []policy.Action) kindOf[policy.Action] {
	return parsedKind("action", oneOfText(actionNames(allowed)), func(s string) (policy.Action, error) {
		a, err := policy.ParseAction(s)
		switch {
		case err != nil, a == policy.Unset:
			return a, errors.New("is not an action")
		case !slices.Contains(allowed, a):
			return a, errors.New("is not allowed here")
		}
		return a, nil
	})
}

func actionNames(actions []policy.Action) []string {
	names := make([]string, len(actions))
	for i, a := range actions {
		names[i] = a.String()
	}
	return names
}

var (
	networkKind = parsedKind("network", "a network such as 192.0.2.0/24 or 2001:db8::/32, or an address", parseNetwork)
	rateKind    = parsedKind("rate", "COUNT/DURATION such as 10/1h", parseRate)
)
