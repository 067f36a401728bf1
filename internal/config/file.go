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

// readFile reads a configuration file within maxFile, and returns what Stat says of the file
// that was read, which may have another one in its place by now.
func readFile(path string) ([]byte, fs.FileInfo, *Fault) {
	data, info, err := readLimited(path)
	if err == nil && len(data) > maxFile {
		return nil, nil, &Fault{File: path, Problem: "is too large", Want: fmt.Sprintf("at most %d octets", maxFile)}
	}
	if err == nil {
		return data, info, nil
	}
	fault := Fault{File: path, Problem: "cannot be read: " + err.Error()}
	if pathErr := new(fs.PathError); errors.As(err, &pathErr) {
		fault.Problem = "cannot be read: " + pathErr.Err.Error()
	}
	if errors.Is(err, fs.ErrNotExist) {
		fault.Problem = "does not exist"
	}
	return nil, nil, &fault
}

func readLimited(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	return data, info, err
}

// maxFaults is how many faults of one file are listed.
const maxFaults = 200

// walker checks a file against a schema and gathers what it sets. Viper gets those values
// and not the file, because viper knows no lines, ignores the case of keys, and stops at the
// first fault. Aliases are refused: with them a small file can expand to an immense one.
type walker struct {
	schema *schema
	file   string
	values map[string]any // each a value, by key; right only if there are no faults
	lines  map[string]int // of each key, section, field and element, by its name
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
			w.lines[full] = keyNode.Line
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
	if near := Nearest(full, names); near != "" {
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

// value checks and parses the value of a key, of a field of an object or of an element of
// a list.
func (w *walker) value(n *yaml.Node, name string, k kind) value {
	w.lines[name] = n.Line
	switch k.shape {
	case object:
		return w.object(n, name, k)
	case list:
		return w.list(n, name, k)
	}
	return w.scalar(n, name, k)
}

func (w *walker) list(n *yaml.Node, name string, k kind) value {
	if k.keyword != "" && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value == k.keyword {
		return value{n.Value, k.collect(nil)}
	}
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		w.report(n, name, "is "+describe(n), k.listWant())
		return value{}
	}
	if k.nonEmpty && len(n.Content) == 0 {
		w.report(n, name, "is an empty list", k.listWant())
	}
	raw, parsed := make([]any, len(n.Content)), make([]any, len(n.Content))
	for i, e := range n.Content {
		v := w.value(e, fmt.Sprintf("%s[%d]", name, i), *k.elem)
		raw[i], parsed[i] = v.raw, v.parsed
	}
	return value{raw, k.collect(parsed)}
}

// listWant says what a right list is.
func (k kind) listWant() string {
	switch {
	case k.isObjects():
		return "a list of objects with " + strings.Join(fieldNames(k.elem.object().fields), ", ")
	case k.keyword != "":
		return fmt.Sprintf("%s, or a list in brackets, each %s", k.keyword, k.want)
	}
	return "a list in brackets, each " + k.want
}

func fieldNames(fields []key) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// object checks one object of a list. Fields that it does not set have their defaults.
func (w *walker) object(n *yaml.Node, name string, k kind) value {
	bound := k.object()
	names := fieldNames(bound.fields)
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		w.report(n, name, "is "+describe(n), "an object with "+strings.Join(names, ", "))
		return value{}
	}
	before := len(w.faults)
	set := map[string]value{}
	w.pairs(n, name, func(keyNode, valueNode *yaml.Node, full string) {
		i := slices.Index(names, keyNode.Value)
		if i < 0 {
			want := "one of " + strings.Join(names, ", ")
			if near := Nearest(keyNode.Value, names); near != "" {
				want = "perhaps " + near
			}
			w.report(keyNode, name+"."+printableKey(keyNode.Value), "is not a key", want)
			return
		}
		set[keyNode.Value] = w.value(valueNode, full, bound.fields[i].kind)
	})
	raw := map[string]any{}
	for _, f := range bound.fields {
		v, ok := set[f.name]
		switch {
		case !ok && f.required:
			w.report(n, name+"."+f.name, "is not set", f.kind.want)
		case !ok:
			v = f.def
		}
		if v.parsed != nil {
			raw[f.name] = v.raw
			f.set(v.parsed)
		}
	}
	if bound.crossCheck != nil && len(w.faults) == before {
		if problem, want := bound.crossCheck(); problem != "" {
			w.report(n, name, problem, want)
		}
	}
	return value{raw, bound.value()}
}

// scalar checks and parses one text, boolean or integer.
func (w *walker) scalar(n *yaml.Node, name string, k kind) value {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		w.report(n, name, "is "+describe(n), k.want)
		return value{}
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
			return value{}
		}
		want := k.want
		if !strings.Contains(want, "in quotes") {
			want += ", in quotes"
		}
		w.report(n, name, "is "+describe(n), want)
		return value{}
	case k.shape == boolean && tag == "!!bool" && (n.Value == "true" || n.Value == "false"):
		raw = n.Value == "true"
	case k.shape == integer && tag == "!!int":
		var i int
		if err := n.Decode(&i); err != nil {
			w.report(n, name, "is a number too large", k.want)
			return value{}
		}
		raw = i
	default:
		w.report(n, name, "is "+describe(n), k.want)
		return value{}
	}
	v, err := k.read(raw)
	if err != nil {
		w.report(n, name, k.show(raw)+" "+err.Error(), k.want)
		return value{}
	}
	return v
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

// describe names the type of a node in words for people who write YAML.
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
