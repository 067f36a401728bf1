package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ErrEditByHand says that a file is right, but written in a way that EditServer does not
// add to.
var ErrEditByHand = errors.New("is written in a way that is not added to automatically")

// A ServerAddition is what EditServer adds to a server.yaml.
type ServerAddition struct {
	Host string // empty: no host is added
	// Item is a new element of domains as a block of YAML, its first line beginning with
	// "- " and the others indented by two blanks; empty: no domain is added.
	Item string
	// FlowItem is the same between braces, for a list in brackets.
	FlowItem string
}

// EditServer returns the text of a server.yaml with a host and a domain added. All other
// octets stay: comments, order, quotes. The result is read again before it is returned, and
// says what the file said before, and what was added. path is for errors only.
//
// The error is of type Faults where data is no right server.yaml, or wraps ErrEditByHand.
func EditServer(path string, data []byte, add ServerAddition) ([]byte, error) {
	before, domains, err := readServer(path, data)
	if err != nil {
		return nil, err
	}
	text, end := cutEnd(string(data))
	if add.Item != "" {
		if text, err = addDomain(text, add); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if add.Host != "" {
		text = withLineEnd(text) + lineEnds(text, "host: "+quoteYAML(add.Host)+"\n")
	}
	if end != "" {
		text = withLineEnd(text) + end
	}
	after, now, err := readServer(path, []byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, ErrEditByHand)
	}
	want := len(domains)
	if add.Item != "" {
		want++
	}
	if add.Host != "" {
		before["host"] = value{add.Host, add.Host}
	}
	delete(before, "domains")
	delete(after, "domains")
	if len(now) != want || !reflect.DeepEqual(now[:len(domains)], domains) || !reflect.DeepEqual(before, after) {
		return nil, fmt.Errorf("%s: %w", path, ErrEditByHand)
	}
	return []byte(text), nil
}

// cutEnd cuts a text before the line with which YAML ends a document, if it has one: nothing
// may follow that line.
func cutEnd(text string) (body, end string) {
	at := 0
	for line := range strings.Lines(text) {
		if strings.TrimRight(line, " \t\r\n") == "..." {
			return text[:at], text[at:]
		}
		at += len(line)
	}
	return text, ""
}

// readServer reads the text of a file: all its values, and its domains.
func readServer(path string, data []byte) (map[string]value, []ServerDomain, error) {
	var c Server
	settings, faults := load(serverSchema(&c), path, data, nil)
	if len(faults) > 0 {
		return nil, nil, faults
	}
	return settings.values, c.Domains, nil
}

// quoteYAML is a text in quotes, which YAML reads as JSON does.
func quoteYAML(s string) string { return fmt.Sprintf("%q", s) }

// addDomain puts an element at the end of domains.
func addDomain(text string, add ServerAddition) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", ErrEditByHand
	}
	if doc.Kind == 0 { // nothing but comments
		return withLineEnd(text) + lineEnds(text, "domains:\n"+indent(add.Item, 2)), nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return "", ErrEditByHand
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "domains" {
			continue
		}
		list := root.Content[i+1]
		switch {
		case list.Kind == yaml.SequenceNode && list.Style&yaml.FlowStyle != 0:
			return addToFlow(text, list, add.FlowItem)
		case root.Style&yaml.FlowStyle != 0:
		case list.Kind == yaml.SequenceNode:
			next := 0
			if i+2 < len(root.Content) {
				next = root.Content[i+2].Line
			}
			return addToBlock(text, list, next, add.Item), nil
		}
		return "", ErrEditByHand
	}
	if root.Style&yaml.FlowStyle != 0 {
		return "", ErrEditByHand
	}
	return withLineEnd(text) + lineEnds(text, "\ndomains:\n"+indent(add.Item, 2)), nil
}

// addToBlock puts an item after the last one of a list of "- " lines. next is the line of the
// key that follows; 0 if none does. Comments that are indented like the item belong to it.
func addToBlock(text string, list *yaml.Node, next int, item string) string {
	lines := strings.SplitAfter(text, "\n")
	end := len(lines)
	if next > 0 {
		end = next - 1
	}
	dash := list.Column - 1
	last := list.Content[len(list.Content)-1].Line
	for end > last {
		line := strings.TrimRight(lines[end-1], " \t\r\n")
		content := strings.TrimLeft(line, " \t")
		if content != "" && (content[0] != '#' || len(line)-len(content) > dash) {
			break
		}
		end--
	}
	return insertLines(text, end, lineEnds(text, indent(item, dash)))
}

// insertLines puts lines behind the line of a number.
func insertLines(text string, after int, more string) string {
	lines := strings.SplitAfter(text, "\n")
	head := strings.Join(lines[:after], "")
	return withLineEnd(head) + more + strings.Join(lines[after:], "")
}

// addToFlow puts an item before the bracket that ends a list.
func addToFlow(text string, list *yaml.Node, item string) (string, error) {
	start, ok := offset(text, list.Line, list.Column)
	if !ok || text[start] != '[' {
		return "", ErrEditByHand
	}
	end, ok := closingBracket(text, start)
	if !ok {
		return "", ErrEditByHand
	}
	if len(list.Content) > 0 && !strings.HasSuffix(strings.TrimRight(text[:end], " \t\r\n"), ",") {
		item = ", " + item
	}
	return text[:end] + item + text[end:], nil
}

// offset is where a line and column, as package yaml counts them, are in the text.
func offset(text string, line, column int) (int, bool) {
	at := 0
	for ; line > 1; line-- {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			return 0, false
		}
		at += i + 1
	}
	for ; column > 1 && at < len(text); column-- {
		_, size := utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return at, at < len(text)
}

// closingBracket finds the end of the list that begins with the bracket at start.
func closingBracket(text string, start int) (int, bool) {
	depth := 0
	begins := true // whether a quote would begin a value here
	for i := start; i < len(text); i++ {
		switch c := text[i]; {
		case c == '[' || c == '{':
			depth++
			begins = true
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i, true
			}
			begins = false
		case (c == '"' || c == '\'') && begins:
			length := quotedLength(text[i:])
			if length == 0 {
				return 0, false
			}
			i += length - 1
			begins = false
		case c == '#' && i > 0 && strings.IndexByte(" \t\n", text[i-1]) >= 0:
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				return 0, false
			}
			i += end
			begins = true
		case c == ',' || c == ':':
			begins = true
		case strings.IndexByte(" \t\r\n", c) < 0:
			begins = false
		}
	}
	return 0, false
}

// quotedLength is how many octets the quoted value at the beginning of a text has; 0: it
// does not end.
func quotedLength(text string) int {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch {
		case quote == '"' && text[i] == '\\':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return 0
}

func withLineEnd(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + lineEnds(text, "\n")
}

// lineEnds gives lines the ends that the text has.
func lineEnds(text, lines string) string {
	if strings.Contains(text, "\r\n") {
		return strings.ReplaceAll(lines, "\n", "\r\n")
	}
	return lines
}

// indent puts n blanks before every line.
func indent(lines string, n int) string {
	var b bytes.Buffer
	for line := range strings.Lines(lines) {
		b.WriteString(strings.Repeat(" ", n) + line)
	}
	return b.String()
}
