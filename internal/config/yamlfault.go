package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// This file says in plain words, and with the line, what the YAML library finds wrong.

var (
	// tabIndent is a line with a tab before its first word.
	tabIndent = regexp.MustCompile(`^ *\t\s*[^\s#]`)
	// badStart is a value that begins with a character that YAML keeps for itself.
	badStart = regexp.MustCompile("(?:^|[:,\\[{-]) *([@`%])")
	// alias is a value that begins with *, which YAML takes for a name given elsewhere.
	alias = regexp.MustCompile(`(?:^|[:,\[{-]) *\*`)
)

// plainYAML returns the problem and the line of a fault of the library, which says line
// and problem in words of its own; 0 is no line.
func plainYAML(data []byte, line int, problem string) (int, string, string) {
	switch {
	case strings.Contains(problem, "tab character"):
		return line, "a tab indents here", "blanks"
	case strings.Contains(problem, "cannot start any token"):
		if at, _ := lineOf(data, tabIndent); at > 0 {
			return at, "a tab indents here", "blanks"
		}
		if at, found := lineOf(data, badStart); at > 0 {
			return at, fmt.Sprintf("is not YAML: a value begins with %s", found), "it in quotes"
		}
	case strings.Contains(problem, "anchor"), strings.Contains(problem, "alphabetic or numeric character"):
		if at, _ := lineOf(data, alias); at > 0 {
			return at, "is not YAML: a value begins with *", "it in quotes"
		}
	case strings.Contains(problem, "UTF-8"):
		for i, text := range bytes.Split(data, []byte("\n")) {
			if !utf8.Valid(text) {
				return i + 1, "is not YAML: it has characters that are not UTF-8", ""
			}
		}
	case strings.Contains(problem, "did not find expected key"), strings.Contains(problem, "did not find expected '-' indicator"):
		// The library names the line before.
		return nextLine(data, line), "is not indented as the lines before it are", ""
	case strings.Contains(problem, "mapping values are not allowed"):
		return line, "is not YAML: a second colon with a blank in one line, or a line that is indented too far", "each key on a line of its own, or the value in quotes"
	}
	return line, "is not YAML: " + problem, ""
}

// lineOf returns the first line, comments left out, that a pattern matches, and what its
// last group found.
func lineOf(data []byte, pattern *regexp.Regexp) (line int, found string) {
	for i, text := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(strings.TrimSpace(text), "#") {
			continue
		}
		if m := pattern.FindStringSubmatch(text); m != nil {
			return i + 1, m[len(m)-1]
		}
	}
	return 0, ""
}

// nextLine returns the first line after one that holds more than a comment, or that one.
func nextLine(data []byte, line int) int {
	if line == 0 {
		return 0
	}
	for i, text := range strings.Split(string(data), "\n") {
		text = strings.TrimSpace(text)
		if i+1 > line && text != "" && text[0] != '#' {
			return i + 1
		}
	}
	return line
}
