package attach

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/keyring"
	"github.com/authkey/authkey/milter"
)

// postmap -s texthash: of Postfix 3.7 shows the same keys and logins, except that it
// completes no IDN, knows no byte order mark, and always ignores case.
func TestParseLogins(t *testing.T) {
	a := start(t, options(t))
	tests := []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"comments", "# a\n\n  # b\n   \n", nil},
		{"plain", "bob@x.example bob\n", []string{"bob@x.example bob"}},
		{"no last line end", "bob@x.example bob", []string{"bob@x.example bob"}},
		{"CRLF", "bob@x.example bob\r\ncarol@x.example carol\r\n", []string{"bob@x.example bob", "carol@x.example carol"}},
		{"several", "s@x.example\tbob , carol,dave\terin,\n", []string{"s@x.example bob,carol,dave,erin"}},
		{"continued", "s@x.example bob,\n carol\n# no end of it\n\n\tdave\n", []string{"s@x.example bob,carol,dave"}},
		{"logins on the next line", "s@x.example\n bob\n", []string{"s@x.example bob"}},
		{"domain", "@X.example admin\n", []string{"x.example admin"}},
		{"folded", "Bob@X.Example BOB@Realm\n", []string{"bob@x.example bob@realm"}},
		{"quoted", "\"john doe\"@x.example jd\n\"a\\\"b c\"@x.example ab\n", []string{"a\"b c@x.example ab", "john doe@x.example jd"}},
		{"hash inside", "a@x.example b #c\n", []string{"a@x.example b,#c"}},
		{"IDN", "jürgen@bücher.example j\n", []string{"jürgen@xn--bcher-kva.example j"}},
		{"case matters", "Bob@example.org a\nbob@example.org b\n", []string{"Bob@example.org a", "bob@example.org b"}},
		{"byte order mark", "\uFEFFbob@x.example bob\n", []string{"bob@x.example bob"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			logins, err := a.parseLogins("f", tt.text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range slices.Sorted(maps.Keys(logins)) {
				got = append(got, name+" "+logins[name].logins)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseLoginsRefuses(t *testing.T) {
	a := start(t, options(t))
	tests := []struct{ text, want string }{
		{"bob@x.example\n", `f: line 1: "bob@x.example" has no login after it`},
		{"bob@x.example ,\n", `f: line 1: "bob@x.example" has no login after it`},
		{"# c\nbob bob\n", `f: line 2: "bob": address has no domain: write user@domain, or @domain`},
		{"x.example bob\n", `f: line 1: "x.example": address has no domain: write user@domain, or @domain`},
		{"@ bob\n", `f: line 1: "@": address has no domain`},
		{"@-.. bob\n", `f: line 1: "@-..": domain is not a valid host name: empty label`},
		{"bob@[192.0.2.1] bob\n", `f: line 1: "bob@[192.0.2.1]": address has a domain literal`},
		{"/^bob@/ bob\n", `f: line 1: "/^bob@/": domain is not a valid host name: character '/'`},
		{"\"bob@x.example bob\n", `f: line 1: "\"bob@x.example bob " has no login after it`},
		{" bob@x.example bob\n", "f: line 1: continues no line: it begins with a blank"},
		{"a@x.example a\nb@x.example b\n\n c\nA@x.example c\n", `f: line 5: "A@x.example" is there twice, first in line 1`},
		{"\"a\rb\"@x.example b\n", `f: line 1: "\"a\rb\"@x.example" has a control character`},
		{"b\u200Bob@x.example bob\n", `f: line 1: "b\u200bob@x.example" has the character U+200B, which does not show`},
		{"bob@x.example\u00A0bob\n", `f: line 1: "bob@x.example\u00a0bob" has the character U+00A0, which is a blank, but not the usual one`},
		{"a@x.example a\nbob@x.example bob\u00A0\n", `f: line 2: "bob@x.example": login "bob\u00a0" has the character U+00A0, which is a blank, but not the usual one`},
		{"bob@x.example \u212Abob\n", "f: line 1: \"bob@x.example\": login \"\u212Abob\" has the character U+212A, which becomes ASCII where case and form do not matter"},
		{"\u0130van@x.example bob\n", `f: line 1: "İvan@x.example" has the character U+0130, which becomes ASCII where case and form do not matter`},
		{"@x\u00AD.example bob\n", `f: line 1: "@x\u00ad.example" has the character U+00AD, which does not show`},
		{"*@x.example bob\n", `f: line 1: "*@x.example" has a wildcard, and matches nothing: write user@domain, or @domain for a whole one`},
		{"%@x.example bob\n", `f: line 1: "%@x.example" has a wildcard, and matches nothing: write user@domain, or @domain for a whole one`},
		{"@x.example bob, *\n", `f: line 1: "@x.example": login "*" has a wildcard, and matches nothing: name each login`},
		{"a@x.example \xff\n", "f: line 1: is not UTF-8"},
		{"a@x.example " + strings.Repeat("b", maxMapLine) + "\n", "f: line 1: longer than 65536 octets"},
		{"a@x.example\n" + strings.Repeat(" "+strings.Repeat("b", 1000)+"\n", 70), "f: line 1: longer than 65536 octets"},
		{"bob bob\nbob@x.example\n", `f: line 1: "bob": address has no domain: write user@domain, or @domain` + "\n" +
			`f: line 2: "bob@x.example" has no login after it`},
	}
	for _, tt := range tests {
		_, err := a.parseLogins("f", tt.text)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%.40q: error %v, want %s", tt.text, err, tt.want)
			continue
		}
		if line := (*keyring.LineError)(nil); !errors.As(err, &line) || line.Path != "f" {
			t.Errorf("%.40q: error has no line: %v", tt.text, err)
		}
	}
	_, err := a.parseLogins("f", strings.Repeat("bob bob\n", 1000))
	if n := strings.Count(err.Error(), "\n") + 1; n > maxMapFaults+1 {
		t.Errorf("%d faults are listed", n)
	}
}

func TestMapLimits(t *testing.T) {
	a := start(t, options(t))
	longest := "a@x.example " + strings.Repeat("b", maxMapLine-len("a@x.example ")-1)
	if _, err := a.parseLogins("f", longest); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	large := write(t, filepath.Join(dir, "large"), "")
	if err := os.Truncate(large, maxMapFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		large:                      "longer than 67108864 octets",
		dir:                        "not a regular file",
		filepath.Join(dir, "none"): "no such file",
		"/dev/zero":                "not a regular file",
		write(t, filepath.Join(dir, "x"), "bob\n"): "line 1",
	} {
		if _, err := a.loadLogins(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", path, err, want)
		}
	}
}

func FuzzParseLogins(f *testing.F) {
	for _, seed := range []string{"", "# c\nBob@Example.com bob, carol\n  dave\n# inner\n  erin\n", "\"john doe\"@example.com jd",
		"@example.org admin\n", "\"\\\" \"@x.example a\r\n", " a@b c\n", "a@b\n\tc\n", "bob bob", "a+b@example.com c", "\"\"@x y", "\xff"} {
		f.Add(seed)
	}
	a := start(f, options(f))
	f.Fuzz(func(t *testing.T, text string) {
		logins, err := a.parseLogins("f", text)
		if err != nil {
			if logins := strings.Count(err.Error(), "\n"); logins > maxMapFaults {
				t.Errorf("%d faults", logins)
			}
			return
		}
		// Written down again, it means the same.
		var again strings.Builder
		for name, g := range logins {
			key := "@" + name
			if !g.address.IsZero() {
				key = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(g.address.Local()) + `"@` + g.address.Domain()
				if strings.ContainsAny(key, "\r\n") {
					t.Errorf("address %q has a line break", key)
				}
			}
			fmt.Fprintf(&again, "%s %s\n", key, g.logins)
		}
		second, err := a.parseLogins("g", again.String())
		if err != nil {
			t.Fatalf("%q: %v", again.String(), err)
		}
		same := func(x, y grant) bool { return x.address == y.address && x.logins == y.logins }
		if !maps.EqualFunc(logins, second, same) {
			t.Errorf("%q became %q", text, again.String())
		}
	})
}

// Where everybody is the address that he logs in as, no message can have another key
// than its submitter's.
func FuzzAttach(f *testing.F) {
	for _, seed := range [][3]string{
		{"bob@example.com", "bob@example.com", "bob@example.com"},
		{"Bob@example.com", "bob+x@EXAMPLE.com", "bob@example.com"},
		{"bob@example.com", "", "bob@example.com"},
		{"bob@example.com", "carol@example.com", "bob@example.com"},
		{"prvs@example.com", "prvs=1=bob@example.com", "prvs=1=bob@example.com"},
		{"btv1==0==bob@example.com", "bob@example.com", "btv1==0==bob@example.com"},
		{"prvs=bob/0@example.com", "prvs=bob/0@example.com", "bob@example.com"},
		{"msprvs1=0=bob@example.com", "msprvs1=0=bob@example.com", "bob@example.com"},
		{"jul\u0130a@example.com", "julia@example.com", "julia@example.com"},
		{"a\xff@example.com", "a\xfe@example.com", "a\xfe@example.com"},
		{"\u212a@example.com", "k@example.com", "K@example.com"},
		{"bob@example.org", "Bob@example.org", "bob@example.org"},
		{"bob@other.example", "bob@other.example", "bob@other.example"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	o := options(f)
	o.Domains[0].Config = ringConfig(f, "example.com", "any")
	o.Domains[1].Config = ringConfig(f, "example.org", "any")
	o.Domains[0].Subaddress, o.Domains[1].CaseSensitive, o.Domains[1].To = "+=", true, nil
	a := start(f, o)
	f.Fuzz(func(t *testing.T, login, sender, author string) {
		s := milter.OwnMail{Login: login, Sender: sender, Recipients: []string{"x@y.example"}}
		if from, err := parse(author); err == nil {
			s.From, s.FromKnown = append(s.From, from), true
		}
		v := a.attachAt(s, midday)
		if (v.Note == "") != (!v.Key.IsZero()) || v.Defer {
			t.Errorf("key %v beside reason %q", v.Key, v.Note)
		}
		if v.Key.IsZero() {
			return
		}
		own, err := parse(login)
		if err != nil {
			t.Fatalf("%q has a key", login)
		}
		if !a.domains[own.Domain()].Own(own) {
			t.Errorf("%q only stands for an address, and is given its key", login)
		}
		issued, err := a.domains[own.Domain()].keys.KeyAt(own, midday)
		if err != nil || !issued.Key.Equal(v.Key) {
			t.Errorf("%q sends with another's key: MAIL FROM %q, From %q", login, sender, author)
		}
	})
}
