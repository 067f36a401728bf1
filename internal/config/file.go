package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest file that is read, in octets: some ten thousand rules.
const maxFile = 1 << 20

// readFile reads a configuration file within maxFile.
func readFile(path string) ([]byte, *Fault) {
	data, err := readLimited(path)
	if err == nil && len(data) > maxFile {
		return nil, &Fault{File: path, Problem: "is too large", Want: fmt.Sprintf("at most %d octets", maxFile)}
	}
	if err == nil {
		return data, nil
	}
	fault := Fault{File: path, Problem: "cannot be read: " + err.Error()}
	if pathErr := new(fs.PathError); errors.As(err, &pathErr) {
		fault.Problem = "cannot be read: " + pathErr.Err.Error()
	}
	if errors.Is(err, fs.ErrNotExist) {
		fault.Problem = "does not exist"
	}
	return nil, &fault
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// maxFaults is how many faults of one file are listed.
const maxFaults = 200

// walker checks a file against a schema and gathers what it sets. Viper gets
// those values rather than the file: it knows no lines, takes any spelling of a
// key's case, stops at the first fault, and lets a section that its decoder
// takes for text blot out the defaults of all its keys.
// Aliases are refused: with them a small file can stand for an immense one.
type walker struct {
	schema *schema
	file   string
	values map[string]any // raw, by key; right only if there are no faults
	lines  map[string]int // of each key, field and element, by its name
	faults Faults
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// walk checks the YAML of a file.
func (w *walker) walk(data []byte) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // nothing but comments
	}
	if err == nil {
		if err = decoder.Decode(&next); err == nil {
			w.report(&next, "", "holds a second document", "one document")
			return
		}
	}
	if !errors.Is(err, io.EOF) {
		w.notYAML(data, err)
		return
	}
	w.section(doc.Content[0], "")
	slices.SortStableFunc(w.faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	if w.full() {
		w.faults = append(w.faults, Fault{File: w.file, Problem: "may have more faults", Want: "those above put right first"})
	}
}

// notYAML reports an error of the YAML library.
func (w *walker) notYAML(data []byte, err error) {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	fault := Fault{File: w.file}
	if m := yamlLine.FindStringSubmatch(problem); m != nil {
		fault.Line, _ = strconv.Atoi(m[1]) // the pattern takes digits only; 0 is "not known"
		problem = problem[len(m[0]):]
	}
	problem = strings.Join(strings.Fields(problem), " ")
	fault.Line, fault.Problem, fault.Want = plainYAML(data, fault.Line, userinfo.ReplaceAllString(problem, "://"+redacted+"@"))
	w.faults = append(w.faults, fault)
}

// full tells whether there are as many faults as are listed.
func (w *walker) full() bool { return len(w.faults) >= maxFaults }

func (w *walker) report(n *yaml.Node, key, problem, want string) {
	if w.full() {
		return
	}
	w.faults = append(w.faults, Fault{File: w.file, Line: n.Line, Key: key, Problem: problem, Want: want})
}

// section checks the keys of a map; name is "" for the whole file.
func (w *walker) section(n *yaml.Node, name string) {
	if isNull(n) {
		return // nothing is set in it
	}
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		w.report(n, name, "is "+describe(n), "keys and their values")
		return
	}
	w.pairs(n, name, func(keyNode, valueNode *yaml.Node, full string) {
		nested := strings.Contains(keyNode.Value, ".")
		k, known := w.schema.byName[full]
		switch {
		case !nested && known:
			w.values[full] = w.value(valueNode, full, k.kind)
		case !nested && w.schema.sections[full]:
			w.section(valueNode, full)
		case nested && (known || w.schema.sections[full]):
			w.report(keyNode, full, "is written with dots", "each part nested in the one before")
		default:
			w.unknown(keyNode, full, w.schema.names())
		}
	})
}

// pairs calls visit for each key of a map and refuses those that come twice.
func (w *walker) pairs(n *yaml.Node, name string, visit func(keyNode, valueNode *yaml.Node, full string)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !w.full(); i += 2 {
		keyNode := n.Content[i]
		full := keyNode.Value
		if name != "" {
			full = name + "." + full
		}
		if keyNode.Kind != yaml.ScalarNode || keyNode.ShortTag() != "!!str" {
			w.report(keyNode, name, "has a key that is no name", "keys such as "+w.schema.keys[0].name)
			continue
		}
		if line, twice := first[full]; twice {
			w.report(keyNode, printableKey(full), fmt.Sprintf("is set twice, first in line %d", line), "it once")
			continue
		}
		first[full] = keyNode.Line
		visit(keyNode, n.Content[i+1], full)
	}
}

func (w *walker) unknown(n *yaml.Node, full string, names []string) {
	want := "one of the keys that config --describe lists"
	if near := nearest(full, names); near != "" {
		want = "perhaps " + near
	}
	w.report(n, printableKey(full), "is not a key", want)
}

// printableKey shows the name of a key that may be anything.
func printableKey(name string) string {
	if q := quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// value checks the value of a key, or of a field of an object, and returns it
// raw.
func (w *walker) value(n *yaml.Node, name string, k kind) any {
	w.lines[name] = n.Line
	switch k.shape {
	case text, boolean, integer:
		return w.scalar(n, name, k)
	}
	if k.word != "" && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value == k.word {
		return n.Value
	}
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		w.report(n, name, "is "+describe(n), k.listWant())
		return nil
	}
	if k.filled && len(n.Content) == 0 {
		w.report(n, name, "is an empty list", k.listWant())
	}
	list := make([]any, len(n.Content))
	for i, e := range n.Content {
		elementName := fmt.Sprintf("%s[%d]", name, i)
		w.lines[elementName] = e.Line
		if k.shape == objectList {
			list[i] = w.object(e, elementName, k)
		} else {
			list[i] = w.scalar(e, elementName, k.element())
		}
	}
	return list
}

// listWant says what a right list is.
func (k kind) listWant() string {
	if k.shape == objectList {
		return "a list of objects with " + strings.Join(k.fieldNames(), ", ")
	}
	if k.word != "" {
		return fmt.Sprintf("%s, or a list in brackets, each %s", k.word, k.want)
	}
	return "a list in brackets, each " + k.want
}

func (k kind) fieldNames() []string {
	names := make([]string, len(k.fields))
	for i, f := range k.fields {
		names[i] = f.name
	}
	return names
}

// object checks one object of a list and returns it with the defaults of those
// fields that it does not set.
func (w *walker) object(n *yaml.Node, name string, k kind) any {
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		w.report(n, name, "is "+describe(n), "an object with "+strings.Join(k.fieldNames(), ", "))
		return nil
	}
	before := len(w.faults)
	set := map[string]any{}
	w.pairs(n, name, func(keyNode, valueNode *yaml.Node, full string) {
		f, known := k.fieldOf(keyNode.Value)
		if !known {
			want := "one of " + strings.Join(k.fieldNames(), ", ")
			if near := nearest(keyNode.Value, k.fieldNames()); near != "" {
				want = "perhaps " + near
			}
			w.report(keyNode, name+"."+printableKey(keyNode.Value), "is not a key", want)
			return
		}
		set[f.name] = w.value(valueNode, full, f.kind)
	})
	for _, f := range k.fields {
		if _, ok := set[f.name]; ok {
			continue
		}
		if f.required {
			w.report(n, name+"."+f.name, "is not set", f.kind.want)
		}
		if f.def != nil {
			set[f.name] = f.def
		}
	}
	if k.whole != nil && len(w.faults) == before {
		if problem, want := k.whole(set); problem != "" {
			w.report(n, name, problem, want)
		}
	}
	return set
}

// scalar checks one text, boolean or integer and returns it raw.
func (w *walker) scalar(n *yaml.Node, name string, k kind) any {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		w.report(n, name, "is "+describe(n), k.want)
		return nil
	}
	var raw any
	tag := n.ShortTag()
	switch {
	case k.shape == text && tag == "!!str":
		raw = n.Value
	case k.shape == text && slices.Contains([]string{"!!int", "!!float"}, tag):
		// A number where text belongs is most often a duration without unit.
		if _, err := k.parse(n.Value); err != nil && !k.secret {
			w.report(n, name, n.Value+" "+err.Error(), k.want)
			return nil
		}
		want := k.want
		if !strings.Contains(want, "in quotes") {
			want += ", in quotes"
		}
		w.report(n, name, "is "+describe(n), want)
		return nil
	case k.shape == boolean && tag == "!!bool" && (n.Value == "true" || n.Value == "false"):
		raw = n.Value == "true"
	case k.shape == integer && tag == "!!int":
		var i int
		if err := n.Decode(&i); err != nil {
			w.report(n, name, "is a number too large", k.want)
			return nil
		}
		raw = i
	default:
		w.report(n, name, "is "+describe(n), k.want)
		return nil
	}
	if err := k.checkRaw(raw); err != nil {
		w.report(n, name, k.show(raw)+" "+err.Error(), k.want)
	}
	return raw
}

// show is a raw value as faults name it.
func (k kind) show(raw any) string {
	if k.secret {
		return "the value"
	}
	if s, ok := raw.(string); ok {
		return quote(s)
	}
	return fmt.Sprint(raw)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe names the type of a node in the words of somebody who writes YAML.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not taken here"
	}
	switch n.ShortTag() {
	case "!!null":
		return "without a value"
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "of a type of its own"
}
