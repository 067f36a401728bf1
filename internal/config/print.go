package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// KeyDoc is what there is to know of a key.
type KeyDoc struct {
	Key     string `json:"key"`           // policy.rules[].fail is a field of the objects in policy.rules
	Env     string `json:"env,omitempty"` // empty: in the file only
	Type    string `json:"type"`
	Default string `json:"default"` // as a file has it; empty for a field that has none
	Doc     string `json:"doc"`
	Acted   bool   `json:"acted"` // false: this build accepts and checks it, but does not act on it yet
}

// Describe documents every key of milter.yaml, in the order of the table, each
// list of objects followed by its fields.
func Describe() []KeyDoc { return milterSchema.describe() }

// DescribeServer documents every key of server.yaml likewise.
func DescribeServer() []KeyDoc { return serverSchema.describe() }

func (s *schema) describe() []KeyDoc {
	var docs []KeyDoc
	for _, k := range s.keys {
		doc := KeyDoc{Key: k.name, Type: k.kind.name, Default: flow(k.def), Doc: k.doc, Acted: k.acted}
		if k.env() {
			doc.Env = s.envName(k)
		}
		docs = append(docs, doc)
		for _, f := range k.kind.fields {
			doc := KeyDoc{Key: k.name + "[]." + f.name, Type: f.kind.name, Doc: f.doc, Acted: k.acted}
			if f.def != nil {
				doc.Default = flow(f.def)
			}
			docs = append(docs, doc)
		}
	}
	return docs
}

// maxDefaultColumn is the widest default that stands in a column of its own.
const maxDefaultColumn = 34

// WriteDescribe writes what Describe or DescribeServer returns, as aligned text or
// as JSON.
func WriteDescribe(w io.Writer, docs []KeyDoc, asJSON bool) error {
	if asJSON {
		return writeJSON(w, docs)
	}
	rows := make([][]string, len(docs))
	for i, d := range docs {
		doc := d.Doc
		if !d.Acted {
			doc = "(not acted on yet) " + doc
		}
		def := d.Default
		if len(def) > maxDefaultColumn {
			doc, def = doc+"; default "+def, "…"
		}
		rows[i] = []string{d.Key, d.Type, def, doc}
	}
	return writeTable(w, []string{"KEY", "TYPE", "DEFAULT", "MEANING"}, rows)
}

// WriteEffective writes the effective settings, as aligned text or as JSON.
func WriteEffective(w io.Writer, settings Settings, asJSON bool) error {
	all := settings.Effective()
	if asJSON {
		return writeJSON(w, all)
	}
	rows := make([][]string, len(all))
	for i, s := range all {
		rows[i] = []string{s.Key, flow(s.Value), s.Source}
	}
	return writeTable(w, []string{"KEY", "VALUE", "SOURCE"}, rows)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func writeTable(w io.Writer, head []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(head, "\t")) // what fails here fails in Flush
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

// flow is a raw value on one line of YAML: JSON, but for text that needs no
// quotes.
func flow(raw any) string {
	if s, ok := raw.(string); ok && isPlain(s) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(raw); err != nil {
		return fmt.Sprint(raw)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// isPlain tells whether YAML reads a text without quotes as that text.
func isPlain(s string) bool {
	var n yaml.Node
	if strings.ContainsAny(s, "\n\t\r") || yaml.Unmarshal([]byte(s), &n) != nil || len(n.Content) != 1 {
		return false
	}
	scalar := n.Content[0]
	return scalar.Kind == yaml.ScalarNode && scalar.Style == 0 && scalar.ShortTag() == "!!str" && scalar.Value == s
}
