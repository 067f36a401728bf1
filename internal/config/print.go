package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/authkey/authkey/internal/terminal"
)

// KeyDoc is what there is to know of a key.
type KeyDoc struct {
	Key         string `json:"key"`           // policy.rules[].fail is a field of the objects in policy.rules
	Env         string `json:"env,omitempty"` // empty: in the file only
	Type        string `json:"type"`
	Default     string `json:"default"` // as a file has it; empty for a field that has none
	Doc         string `json:"doc"`
	Implemented bool   `json:"acted"` // false: this build accepts and checks it, but does not do what it says yet
}

// Describe documents every key of milter.yaml, in the order of the table, each
// list of objects followed by its fields.
func Describe() []KeyDoc { return milterSchema(new(Config)).describe() }

// DescribeServer documents every key of server.yaml likewise.
func DescribeServer() []KeyDoc { return serverSchema(new(Server)).describe() }

func (s *schema) describe() []KeyDoc {
	var docs []KeyDoc
	for _, k := range s.keys {
		doc := k.describe("")
		if k.env() {
			doc.Env = s.envName(k)
		}
		docs = append(docs, doc)
		if k.kind.isObjects() {
			for _, f := range k.kind.elem.object().fields {
				docs = append(docs, f.describe(k.name+"[]."))
			}
		}
	}
	return docs
}

func (k key) describe(prefix string) KeyDoc {
	doc := KeyDoc{Key: prefix + k.name, Type: k.kind.name, Doc: k.doc, Implemented: k.implemented}
	if k.def.raw != nil {
		doc.Default = flow(k.def.raw)
	}
	return doc
}

// WriteDescribe writes what Describe or DescribeServer returns, as text that fits w or
// as JSON.
func WriteDescribe(w io.Writer, docs []KeyDoc, asJSON bool) error {
	if asJSON {
		return writeJSON(w, docs)
	}
	const indent = "    "
	width := terminal.Width(w)
	var b strings.Builder
	b.WriteString("KEY  TYPE  DEFAULT  MEANING\n")
	for _, d := range docs {
		doc := d.Doc
		if !d.Implemented {
			doc = "(no effect yet) " + doc
		}
		head := d.Key + "  " + d.Type
		if d.Default != "" {
			head += "  " + d.Default
		}
		for i, line := range terminal.Wrap(head+"  "+doc, width, width-len(indent)) {
			if i > 0 {
				b.WriteString(indent)
			}
			b.WriteString(line + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteEffective writes the effective settings, as aligned text that fits w or as JSON.
func WriteEffective(w io.Writer, settings Settings, asJSON bool) error {
	all := settings.Effective()
	if asJSON {
		return writeJSON(w, all)
	}
	rows := [][3]string{{"KEY", "VALUE", "SOURCE"}}
	var longest [3]int
	for _, s := range all {
		rows = append(rows, [3]string{s.Key, flow(s.Value), s.Source})
	}
	for _, r := range rows {
		for i, text := range r {
			longest[i] = max(longest[i], utf8.RuneCountInString(text))
		}
	}
	value := min(longest[1], max(terminal.Width(w)-longest[0]-longest[2]-4, minValueColumn))
	var b strings.Builder
	for _, r := range rows {
		for i, line := range terminal.Wrap(r[1], value, value) {
			if i > 0 {
				r[0], r[2] = "", ""
			}
			text := fmt.Sprintf("%-*s  %-*s  %s", longest[0], r[0], value, line, r[2])
			b.WriteString(strings.TrimRight(text, " ") + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// minValueColumn is how narrow the column of values may become.
const minValueColumn = 20

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
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
