package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// shape is the form a value has in YAML.
type shape int

const (
	text shape = iota
	boolean
	integer
	textList
	integerList
	objectList
)

// kind is what a value may be. Raw values, as YAML and viper hold them, are
// string, bool, int, or []any of string, int or map[string]any.
type kind struct {
	name  string // as Describe shows it
	shape shape
	want  string // what a right value (or element of a list) is, for faults

	parse    func(string) (any, error) // of text and textList: one value
	optional bool                      // text may be empty
	word     string                    // of textList: this text may stand in place of a list
	filled   bool                      // of textList: it may not be empty
	secret   bool                      // never shown
	lo, hi   int                       // of integer and integerList: bounds of one value
	partly   func(string) string       // of text: what is missing where a value is not acted on in full yet, else ""

	fields []field                                     // of objectList
	whole  func(map[string]any) (problem, want string) // of objectList: what no single field shows
}

// field is one field of the objects in a list.
type field struct {
	name     string
	kind     kind
	required bool
	def      any // nil: none
	doc      string
}

// element is the kind of one element of a list of texts or integers.
func (k kind) element() kind {
	e := k
	e.optional = false
	if k.shape == textList {
		e.shape = text
	} else {
		e.shape = integer
	}
	return e
}

// checkRaw returns what is wrong with one text, integer or boolean, as the end
// of a sentence that begins with the value.
func (k kind) checkRaw(raw any) error {
	switch v := raw.(type) {
	case string:
		if v == "" && k.optional {
			return nil
		}
		_, err := k.parse(v)
		return err
	case int:
		if v < k.lo {
			return fmt.Errorf("is below %d", k.lo)
		}
		if v > k.hi {
			return fmt.Errorf("is above %d", k.hi)
		}
	}
	return nil
}

// same tells whether two right raw values mean the same, such as 60s and 1m.
func (k kind) same(a, b any) bool {
	return reflect.DeepEqual(k.meaning(a), k.meaning(b))
}

func (k kind) meaning(raw any) any {
	switch v := raw.(type) {
	case string:
		if v == "" && k.optional {
			return v
		}
		if m, err := k.parse(v); err == nil {
			return m
		}
		return v
	case []any:
		if k.shape == objectList {
			return v
		}
		all := make([]any, len(v))
		for i, e := range v {
			all[i] = k.element().meaning(e)
		}
		return all
	}
	return raw
}

// checked makes a kind's parse of a check: the text means itself.
func checked(check func(string) error) func(string) (any, error) {
	return func(s string) (any, error) { return s, check(s) }
}

// parsed makes a kind's parse of a function that returns a type of its own.
func parsed[T any](parse func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) { return parse(s) }
}

func oneOf(words ...string) kind {
	return kind{
		name: strings.Join(words, "|"),
		want: oneOfText(words),
		parse: checked(func(s string) error {
			if !slices.Contains(words, s) {
				return errors.New("is not known here")
			}
			return nil
		}),
	}
}

func oneOfText(words []string) string {
	return "one of " + strings.Join(words, ", ")
}

func boolKind() kind { return kind{name: "boolean", shape: boolean, want: "true or false"} }

// textKind is text with a check of its own.
func textKind(name, want string, check func(string) error) kind {
	return kind{name: name, want: want, parse: checked(check)}
}

// orEmpty lets the text of k be empty.
func orEmpty(k kind) kind {
	k.optional = true
	k.want += `, or ""`
	return k
}

// listOf is a list of such texts; plural names them.
func listOf(plural string, k kind) kind {
	k.shape = textList
	k.name = "list of " + plural
	return k
}

func integerKind(lo, hi int) kind {
	return kind{
		name: "integer", shape: integer, lo: lo, hi: hi,
		want: fmt.Sprintf("a whole number from %d to %d", lo, hi),
	}
}

func integerListKind(name string, lo, hi int) kind {
	k := integerKind(lo, hi)
	k.name, k.shape = "list of "+name, integerList
	return k
}

// positiveDuration is a duration of more than zero; anyDuration may be zero.
func positiveDuration() kind {
	return durationKind("a duration above zero with its unit, such as 3s or 5m", 1, "is not more than zero")
}

func anyDuration() kind {
	return durationKind("a duration with its unit, such as 0s or 5m", 0, "is below zero")
}

func durationKind(want string, least time.Duration, below string) kind {
	return kind{name: "duration", want: want, parse: parsed(func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err == nil && d < least {
			err = errors.New(below)
		}
		return d, err
	})}
}

func actionKind(names []string) kind {
	return textKind("action", oneOfText(names), func(s string) error {
		switch {
		case slices.Contains(names, s):
			return nil
		case slices.Contains(actions, s):
			return errors.New("is not allowed here")
		}
		return errors.New("is not an action")
	})
}

func networkKind() kind {
	return kind{name: "network", want: "a network such as 192.0.2.0/24 or 2001:db8::/32, or an address", parse: parsed(parseNetwork)}
}

func rateKind() kind {
	return kind{name: "rate", want: "COUNT/DURATION such as 10/1h", parse: parsed(parseRate)}
}

// objects is a list of objects with these fields.
func objects(name string, fields []field, whole func(map[string]any) (problem, want string)) kind {
	return kind{name: "list of " + name, shape: objectList, fields: fields, whole: whole}
}

// fieldOf returns the field of that name.
func (k kind) fieldOf(name string) (field, bool) {
	i := slices.IndexFunc(k.fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return k.fields[i], true
}
