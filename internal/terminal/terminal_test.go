package terminal

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text        string
		width, rest int
		want        []string
	}{
		{"", 10, 10, []string{""}},
		{"one", 10, 10, []string{"one"}},
		{"one two three", 7, 7, []string{"one two", "three"}},
		{"one two three", 7, 3, []string{"one two", "thr", "ee"}},
		{`["accept","mark","discard"]`, 16, 16, []string{`["accept",`, `"mark","discard"`, "]"}},
		{"ünïcödé wörds", 7, 7, []string{"ünïcödé", "wörds"}},
		{"a  b", 10, 10, []string{"a  b"}},
	} {
		got := Wrap(tt.text, tt.width, tt.rest)
		if strings.Join(got, "|") != strings.Join(tt.want, "|") {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
	for width := 1; width < 40; width++ {
		text := "some words of differentlengths,with,commas and averyveryverylongone that ends"
		lines := Wrap(text, width, width)
		for _, line := range lines {
			if utf8.RuneCountInString(line) > width {
				t.Errorf("%d: %q", width, line)
			}
		}
		if strings.ReplaceAll(strings.Join(lines, ""), " ", "") != strings.ReplaceAll(text, " ", "") {
			t.Errorf("%d: something is lost: %q", width, lines)
		}
	}
}
