package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addition is what is added throughout.
var addition = ServerAddition{
	Item:     "- name: new.example\n  secret_file: /s/new\n  addresses: any    # all\n",
	FlowItem: `{name: new.example, secret_file: /s/new, addresses: any}`,
}

// Whatever a file looks like, nothing of it is lost, and the new domain is the last one.
func TestEditServer(t *testing.T) {
	const old = "name: a.example, secret_file: /s/a, addresses: any"
	block := "- name: new.example\n  secret_file: /s/new\n  addresses: any    # all\n"
	deeper := func(n int) string { return indent(block, n) }
	tests := []struct{ name, text, want string }{
		{"empty", "", "domains:\n" + deeper(2)},
		{"comments only", "# nothing yet", "# nothing yet\ndomains:\n" + deeper(2)},
		{"no domains", "host: as.example # ours", "host: as.example # ours\n\ndomains:\n" + deeper(2)},
		{"block", "# top\ndomains:\n  - {" + old + "}   # first\n", "# top\ndomains:\n  - {" + old + "}   # first\n" + deeper(2)},
		{"block with comments", "domains:\n  - name: a.example\n    secret_file: /s/a\n    addresses: any\n    # avt: 24h\n\n# limits:\nlog: {level: warn}\n",
			"domains:\n  - name: a.example\n    secret_file: /s/a\n    addresses: any\n    # avt: 24h\n" + deeper(2) + "\n# limits:\nlog: {level: warn}\n"},
		{"block without indentation or end", "domains:\n- name: a.example\n  secret_file: /s/a\n  addresses: any", "domains:\n- name: a.example\n  secret_file: /s/a\n  addresses: any\n" + deeper(0)},
		{"deep block", "domains:\n      - secret_file: '/s/''a'\n        name: a.example\n        addresses: any\nhost: h.example", "domains:\n      - secret_file: '/s/''a'\n        name: a.example\n        addresses: any\n" + deeper(6) + "host: h.example"},
		{"long value", "domains:\n  - name: a.example\n    addresses: any\n    secret_file: >-\n      /s/a\n\nhost: h.example\n", "domains:\n  - name: a.example\n    addresses: any\n    secret_file: >-\n      /s/a\n" + deeper(2) + "\nhost: h.example\n"},
		{"block of CRLF", "domains:\r\n  - {" + old + "}\r\n", "domains:\r\n  - {" + old + "}\r\n" + strings.ReplaceAll(deeper(2), "\n", "\r\n")},
		{"block before the end of the document", "domains:\n  - {" + old + "}\n...\n# end\n", "domains:\n  - {" + old + "}\n" + deeper(2) + "...\n# end\n"},
		{"nothing before the end of the document", "host: h.example\n...", "host: h.example\n\ndomains:\n" + deeper(2) + "..."},
		{"flow", "domains: [{" + old + "}] # all\nhost: h.example\n", "domains: [{" + old + "}, " + addition.FlowItem + "] # all\nhost: h.example\n"},
		{"empty flow", "domains: [ ]\n", "domains: [ " + addition.FlowItem + "]\n"},
		{"flow of several lines", "domains: [\n  {" + old + "}, # ] one\n  {name: b.example, secret_file: \"/s/]\\\"\", addresses: 'file:/l'']'}, ]\n",
			"domains: [\n  {" + old + "}, # ] one\n  {name: b.example, secret_file: \"/s/]\\\"\", addresses: 'file:/l'']'}, " + addition.FlowItem + "]\n"},
		{"flow after non-ASCII", "log: {level: warn, format: text} # é\n\"domains\":   [{" + old + "}]", "log: {level: warn, format: text} # é\n\"domains\":   [{" + old + "}, " + addition.FlowItem + "]"},
		{"all flow", "{host: h.example, domains: [{" + old + "}]}", "{host: h.example, domains: [{" + old + "}, " + addition.FlowItem + "]}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := EditServer("server.yaml", []byte(tt.text), addition)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again := addition
			again.Item, again.FlowItem = strings.ReplaceAll(again.Item, "new", "newer"), strings.ReplaceAll(again.FlowItem, "new", "newer")
			if twice, err := EditServer("server.yaml", got, again); err != nil {
				t.Errorf("a second one: %v in\n%s", err, twice)
			}
		})
	}
}

func TestEditServerHost(t *testing.T) {
	got, err := EditServer("server.yaml", []byte("# mine\ndomains: []"), ServerAddition{Host: "as.example"})
	if err != nil || string(got) != "# mine\ndomains: []\nhost: \"as.example\"\n" {
		t.Errorf("%q, %v", got, err)
	}
	// A host that is there would be twice.
	if _, err := EditServer("server.yaml", []byte("host: h.example\n"), ServerAddition{Host: "as.example"}); !errors.Is(err, ErrEditByHand) {
		t.Errorf("%v", err)
	}
}

func TestEditServerRefuses(t *testing.T) {
	for _, text := range []string{"domains: ~\n", "domains: !!seq\n", "{host: h.example}", "host: h.example\n...\n...\n---\n"} {
		if got, err := EditServer("server.yaml", []byte(text), addition); !errors.Is(err, ErrEditByHand) && !isFaults(err) {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
	if _, err := EditServer("server.yaml", []byte("hosts: x\n"), addition); !isFaults(err) {
		t.Errorf("of a bad file: %v", err)
	}
}

func isFaults(err error) bool {
	var faults Faults
	return errors.As(err, &faults)
}

// FuzzEditServer: what comes out says what went in, and one domain more.
func FuzzEditServer(f *testing.F) {
	for _, text := range []string{"", "domains: []", "domains:\n- {name: a.example, secret_file: /s, addresses: any}\n# x\nhost: h.example", "domains: [{name: a.example, secret_file: \"/s]\", addresses: any}, # ]\n]",
		"{domains: [\n]}", "---\ndomains:\n  -\n    name: a.example\n    secret_file: '/s'\n    addresses: any\n  # end\n", "domains:\r\n\r\n", "limits: {connections: 5}\ndomains:"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := EditServer("server.yaml", data, addition)
		if err != nil {
			return
		}
		before, domains, err := readServer("server.yaml", data)
		if err != nil {
			t.Fatalf("what was refused was added to: %v", err)
		}
		after, now, err := readServer("server.yaml", got)
		if err != nil {
			t.Fatalf("%v in %q", err, got)
		}
		delete(before, "domains")
		delete(after, "domains")
		if diff := cmp.Diff(before, after, cmp.AllowUnexported(value{})); diff != "" || len(now) != len(domains)+1 || now[len(domains)].Name != "new.example" {
			t.Errorf("%q became %q\n%s", data, got, diff)
		}
		// Only one run of octets was put in, line ends aside.
		at := 0
		for at < len(data) && at < len(got) && data[at] == got[at] {
			at++
		}
		if rest := data[at:]; !strings.HasSuffix(string(got), string(rest)) {
			t.Errorf("%q became %q", data, got)
		}
	})
}
