package mtaconf

import (
	"slices"
	"strings"
	"testing"
)

// TestOrderEveryList: whatever milters a list has and in whatever order, what setup
// proposes is what the doctor calls right; it moves nobody who need not move, loses
// nobody, and finds nothing left to do.
func TestOrderEveryList(t *testing.T) {
	kinds := []string{"unix:authkey/milter.sock", "unix:opendkim", "unix:opendmarc", "unix:openarc", "inet:localhost:11332", "unix:other"}
	lists := [][]string{{}}
	for from := 0; from < len(lists); from++ {
		if len(lists[from]) == 4 {
			continue
		}
		for _, kind := range kinds {
			if !slices.Contains(lists[from], kind) || kind == kinds[0] {
				lists = append(lists, append(slices.Clone(lists[from]), kind))
			}
		}
	}
	own := Filter{Text: kinds[0], DefaultAction: "tempfail", Ours: true}
	for _, mode := range []string{"s", "v", "sv"} {
		for _, mail := range []traffic{strangers, users, everybody} {
			p := &Postfix{dkim: OpenDKIM{Mode: mode}, main: map[string]string{"milter_default_action": "tempfail"}}
			for _, texts := range lists {
				list := parseList(strings.Join(texts, ", "))
				for i := range list {
					list[i].Ours = list[i].Text == kinds[0]
				}
				settled, moved := p.settle(list, own, "tempfail", mail)
				if settled == nil {
					settled = list
				}
				if wrong := misplaced(settled, mail, mode); wrong != nil || len(settled) != len(without(list))+1 {
					t.Fatalf("mode %s, %q: %q, %+v", mode, texts, render(settled), wrong)
				}
				if again, _ := p.settle(settled, own, "tempfail", mail); again != nil {
					t.Fatalf("mode %s, %q: %q, then %q", mode, texts, render(settled), render(again))
				}
				// Who has not been named keeps his place among the others.
				still := func(list []Filter) string {
					return render(slices.DeleteFunc(without(list), func(f Filter) bool {
						return slices.ContainsFunc(moved, func(m Filter) bool { return m.Text == f.Text })
					}))
				}
				if still(list) != still(settled) {
					t.Fatalf("mode %s, %q: %q moves more than %q", mode, texts, render(settled), render(moved))
				}
			}
		}
	}
}
