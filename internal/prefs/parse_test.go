package prefs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/policy"
)

func TestParse(t *testing.T) {
	full := policy.Preference{Actions: policy.Actions{Pass: policy.Accept, Fail: policy.RejectNotify, NoKey: policy.Mark, None: policy.Discard,
		TempError: policy.TempFail, PermError: policy.Quarantine}, Language: "pt-BR"}
	tests := []struct {
		name, text string
		want       map[string]policy.Preference
	}{
		{"empty", "", nil},
		{"comments", "# nobody yet\n\n", nil},
		{"null", "---\n~\n", nil},
		{"an empty list", "[]", nil},
		{"as in the manual", `- {recipient: "bob@example.com", fail: reject, nokey: mark, language: de}`,
			map[string]policy.Preference{"bob@example.com": {Actions: policy.Actions{Fail: policy.Reject, NoKey: policy.Mark}, Language: "de"}}},
		{"every key", "- recipient: bob@x.test\n  pass: accept\n  none: discard\n  nokey: mark\n  fail: reject-notify\n  permerror: quarantine\n  temperror: tempfail\n  language: pt-BR\n",
			map[string]policy.Preference{"bob@x.test": full}},
		{"one line, CRLF, BOM", "\ufeff[{recipient: a@x.test, fail: mark},\r\n {recipient: b@x.test}]\r\n",
			map[string]policy.Preference{"a@x.test": fails(policy.Mark), "b@x.test": {}}},
		{"not set", "- {recipient: a@x.test, fail: , nokey: ~, none: \"\", language: }\n", map[string]policy.Preference{"a@x.test": {}}},
		{"folded", "- {recipient: \"Bob@BÜCHER.test.\", fail: mark}\n- {recipient: '\"e v e\"@x.test', fail: mark}\n",
			map[string]policy.Preference{"bob@xn--bcher-kva.test": fails(policy.Mark), "e v e@x.test": fails(policy.Mark)}},
		{"a language that YAML once took for a bool", "- {recipient: a@x.test, language: no}", map[string]policy.Preference{"a@x.test": {Language: "no"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab, err := parse("p", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]policy.Preference{}
			for _, e := range tab.entries {
				recipient := string(tab.recipient(e))
				got[recipient], _ = tab.lookup(recipient)
			}
			if len(tt.want) == 0 {
				tt.want = map[string]policy.Preference{}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseFaults(t *testing.T) {
	actions := "want one of accept, mark, quarantine, tempfail, discard, discard-notify, reject, reject-notify"
	noAddress := " is no address; what is for a whole domain belongs in policy.rules"
	wildcard := " has a wildcard, and matches nothing; what is for a whole domain belongs in policy.rules"
	tests := []struct{ text, want string }{
		{"a: b", "line 1: not a list of preferences, such as - {recipient: bob@example.com, fail: reject}"},
		{"- a@x.test", "line 1: not a preference, such as {recipient: bob@example.com, fail: reject}"},
		{"- {fail: mark}", "line 1: no recipient"},
		{"- {recipient: }", "line 1: recipient \"\"" + noAddress},
		{"- {recipient: x.test}", `line 1: recipient "x.test"` + noAddress},
		{"- {recipient: \"@x.test\"}", `line 1: recipient "@x.test"` + noAddress},
		{"- {recipient: a@}", `line 1: recipient "a@"` + noAddress},
		{"- {recipient: \"Bob <a@x.test>\"}", `line 1: recipient "Bob <a@x.test>"` + noAddress},
		{"- {recipient: a@x.test}\n- {recipient: \"bob\u00A0@x.test\"}\n", `line 2: recipient "bob\u00a0@x.test" has the character U+00A0, which is a blank, but not the usual one`},
		{"- {recipient: b\u200Bob@x.test}", `line 1: recipient "b\u200bob@x.test" has the character U+200B, which does not show`},
		{"- {recipient: \u0130van@x.test}", `line 1: recipient "İvan@x.test" has the character U+0130, which becomes ASCII where case and form do not matter`},
		{"- {recipient: '*@x.test'}", `line 1: recipient "*@x.test"` + wildcard},
		{"- {recipient: '%@x.test'}", `line 1: recipient "%@x.test"` + wildcard},
		{"- {recipient: sales*@x.test}", `line 1: recipient "sales*@x.test"` + wildcard},
		{"- {recipient: bob@*.x.test}", `line 1: recipient "bob@*.x.test"` + wildcard},
		{"- {recipient: a@x.test, fail: \"mark\u00A0\"}", `line 1: fail: has the character U+00A0, which is a blank, but not the usual one`},
		{"- {recipient: \"a\\nb@x.test\"}", `line 1: recipient "a\nb@x.test"` + noAddress},
		{"- {recipient: " + strings.Repeat("a", 320) + "@x.test}", `line 1: recipient "` + strings.Repeat("a", 80) + `…" is longer than 320 octets`},
		{"\n- recipient: a@x.test\n  fail: Reject\n", `line 3: fail: unknown action "Reject": ` + actions},
		{"- {recipient: a@x.test, fial: reject}", `line 1: "fial" is none of recipient, pass, none, nokey, fail, permerror, temperror, language`},
		{"- {recipient: a@x.test, sender: b@x.test}", `line 1: "sender" is none of recipient, pass, none, nokey, fail, permerror, temperror, language`},
		{"- {recipient: a@x.test, fail: mark, fail: mark}", `line 1: "fail" is set twice`},
		{"- {recipient: a@x.test, fail: [mark]}", `line 1: "fail" is no text`},
		{"- {recipient: a@x.test, fail: true}", `line 1: "fail" is no text`},
		{"- {recipient: a@x.test, language: deutsch_}", `line 1: language "deutsch_" is none, such as de or pt-BR`},
		{"- {recipient: a@x.test, language: aaaaaaaaaaaaaaaaa}", `line 1: language "aaaaaaaaaaaaaaaaa" is none, such as de or pt-BR`},
		{"- {recipient: a@x.test}\n- {recipient: A@X.test.}", `line 2: recipient "A@X.test." is there twice, first in line 1`},
		{"- {? [a] : b}", "line 1: a key that is no name"},
		{"- &a {recipient: a@x.test}\n- *a", "line 2: not a preference, such as {recipient: bob@example.com, fail: reject}"},
		{"- {recipient: a@x.test}\n---\n- {recipient: b@x.test}", "line 2: a second document begins here"},
		{"- {recipient: a@x.test\n", "line 1: not YAML: did not find expected ',' or '}'"},
		{"- {recipient: a@x.test, fail: x}\n- {recipient: b}\n", `line 1: fail: unknown action "x": ` + actions + "\np: line 2: recipient \"b\"" + noAddress},
	}
	for _, tt := range tests {
		_, err := parse("p", []byte(tt.text))
		if err == nil {
			t.Errorf("%q was taken", tt.text)
			continue
		}
		if got, want := err.Error(), "p: "+tt.want; got != want {
			t.Errorf("%q:\n%s\nwant\n%s", tt.text, got, want)
		}
	}
	_, err := parse("p", []byte(strings.Repeat("- x\n", 1000)))
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != maxFaults {
		t.Errorf("%d faults of 1000 are listed, want %d", n, maxFaults)
	}
}

// FuzzParse checks that whatever is in a file, either faults with lines come of
// it or preferences that can be looked up under the name they have in the file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "# x\n", "- {recipient: \"bob@example.com\", fail: reject, nokey: mark, language: de}\n",
		"- recipient: a@x.test\n  fail: mark\n- recipient: b@x.test\n", "[{recipient: a@x.test}]", "a: &a [*a]", "- *x", "---\n---\n",
		"- {recipient: 'a''b'@x.test}", "- !!binary aGk=", "- ? x\n", "%YAML 1.2\n---\n[]", "- |\n - x\n", "\xff\xfe-", "- {<<: {recipient: a@x.test}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tab, err := parse("p", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "p: ") || tab != nil {
				t.Errorf("error %q, table %v", err, tab)
			}
			return
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 1
		for _, e := range tab.entries {
			recipient := string(tab.recipient(e))
			if e.line < 1 || !strings.Contains(recipient, "@") && recipient != "" || len(tab.choices) <= int(e.choice) {
				t.Errorf("entry %q: %+v of %d lines", recipient, e, lines)
			}
		}
		again, err := parse("p", data)
		if err != nil || len(again.entries) != len(tab.entries) {
			t.Errorf("read again: %v", err)
		}
	})
}

// A list whose entries do not begin in the first column goes to the parser as a whole.
func TestLargeIndentedFile(t *testing.T) {
	var text strings.Builder
	n := 0
	for ; text.Len() < 2*maxChunk; n++ {
		fmt.Fprintf(&text, "  - {recipient: user%d@x.test, fail: mark}\n", n)
	}
	tab, err := parse("p", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if len(tab.entries) != n {
		t.Errorf("%d entries, want %d", len(tab.entries), n)
	}
	if got, ok := tab.lookup(fmt.Sprintf("user%d@x.test", n-1)); !ok || got != fails(policy.Mark) {
		t.Errorf("the last one: %+v, %v", got, ok)
	}
}

func TestTooManyPreferences(t *testing.T) {
	p := &parser{path: "p", table: newTable(), known: make(map[policy.Preference]uint32)}
	p.table.entries = make([]entry, maxEntries-1)
	p.put(1, "last@x.test", fails(policy.Mark))
	if len(p.faults) > 0 || len(p.table.entries) != maxEntries {
		t.Errorf("%v, %d entries", p.faults, len(p.table.entries))
	}
	p.put(2, "more@x.test", fails(policy.Mark))
	if len(p.faults) != 1 || p.faults[0].Error() != "p: line 2: more than 2000000 preferences" || len(p.table.entries) != maxEntries {
		t.Errorf("%v, %d entries", p.faults, len(p.table.entries))
	}
}
