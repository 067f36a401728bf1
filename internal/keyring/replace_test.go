package keyring

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReplacement(t *testing.T) {
	dir := t.TempDir()
	list := write(t, filepath.Join(dir, "com"), "# staff\nbob # the boss\nAlice gen=3\n# sales\ncarol@example.com gen=1\ncarol gen=2\n#removed dave@example.com gen=4\n#removed erin@example.com gen=1\n")
	other := write(t, filepath.Join(dir, "org"), "zoe\n")
	files := []ListFile{{Path: list, Form: Form{Domain: "example.com", Subaddress: "+"}}, {Path: other, Form: Form{Domain: "example.org"}}}
	in := "BOB@example.com\nalice@example.com gen=5\n# comes back\ndave@example.com gen=2\nfrank@example.com\nfrank@example.com gen=7\n"
	plan, err := PlanReplacement("input", strings.NewReader(in), files...)
	if err != nil {
		t.Fatal(err)
	}
	want := &Replacement{Untouched: []string{"example.org"}, Changes: []Change{{
		Domain:  "example.com",
		Added:   []Entry{{"dave@example.com", 5}, {"frank@example.com", 7}},
		Removed: []Entry{{"carol@example.com", 2}},
		Raised:  []Entry{{"alice@example.com", 5}},
		Kept:    1,
	}}}
	if diff := cmp.Diff(want, plan, cmpopts.IgnoreUnexported(Change{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	before, _ := os.ReadFile(list)
	if !strings.Contains(string(before), "carol") {
		t.Error("a plan changes the file")
	}
	// Who comes in between stays.
	if _, err := files[0].Add(t.Context(), "gina@example.com"); err != nil {
		t.Fatal(err)
	}
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(list)
	const wantText = "# staff\nbob # the boss\nalice@example.com gen=5\n# sales\n#removed erin@example.com gen=1\ngina@example.com\n" +
		"dave@example.com gen=5\nfrank@example.com gen=7\n#removed carol@example.com gen=2\n"
	if diff := cmp.Diff(wantText, string(after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again, err := PlanReplacement("input", strings.NewReader(in+"gina@example.com\n"), files...); err != nil || !isEmpty(again.Changes[0]) || again.Changes[0].Kept != 5 {
		t.Errorf("%+v, %v", again, err)
	}
}

// Who leaves and comes back does not find his old keys valid, however often.
func TestReplacementRevokes(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if _, err := CreateSecret(secret); err != nil {
		t.Fatal(err)
	}
	list := write(t, filepath.Join(dir, "list"), "alice\nbob\n")
	file := ListFile{Path: list, Form: Form{Domain: "example.com"}}
	d, err := Open(Config{Form: file.Form, SecretFile: secret, Addresses: "file:" + list, AVT: time.Hour, Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	bob := address(t, "bob@example.com")
	seen := map[string]bool{}
	for range 3 {
		if err := d.Reload(); err != nil {
			t.Fatal(err)
		}
		k, err := d.KeyAt(bob, now)
		if err != nil || seen[k.Key.Reveal()] {
			t.Fatalf("an old key, %v", err)
		}
		seen[k.Key.Reveal()] = true
		for _, input := range []string{"alice\n", "alice\nbob\n"} {
			plan, err := PlanReplacement("input", strings.NewReader(input), file)
			if err != nil {
				t.Fatal(err)
			}
			if err := plan.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := d.Reload(); err != nil {
				t.Fatal(err)
			}
			if answer, err := d.Verify(bob, k.Key, now); err != nil || answer.Valid {
				t.Errorf("after %q the old key is %+v, %v", input, answer, err)
			}
		}
	}
}

func TestReplacementRefuses(t *testing.T) {
	list := write(t, filepath.Join(t.TempDir(), "list"), "bob\n#removed old gen=4294967295\n")
	file := ListFile{Path: list, Form: Form{Domain: "example.com"}}
	for input, want := range map[string]string{"": "no address", "# nobody\n\n": "no address", "bob\nx@example.net\n": "line 2", "bob bob\n": "line 1", "bob\nold\n": "cannot rise"} {
		if plan, err := PlanReplacement("input", strings.NewReader(input), file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", input, plan, err)
		}
	}
	if _, err := PlanReplacement("input", strings.NewReader(""), file); !errors.Is(err, ErrNothing) {
		t.Error("an input without address is not ErrNothing")
	}
	file.Path += "none"
	if _, err := PlanReplacement("input", strings.NewReader("bob\n"), file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without list: %v", err)
	}
}

// FuzzReplacement: afterwards the list has the addresses of the input and no others, and
// no generation has sunk.
func FuzzReplacement(f *testing.F) {
	f.Add("bob\nalice gen=3\n", "bob\n")
	f.Add("# x\nbob\n#removed carol gen=2\n", "carol\n\"a b\" gen=9\n")
	f.Add("bob gen=1\nbob gen=2 # twice\n", "BOB gen=1\nbob@example.com")
	f.Add("", "x")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, old, input string) {
		path := filepath.Join(dir, "list")
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		file := ListFile{Path: path, Form: Form{Domain: "example.com", Subaddress: "+"}}
		generations := func() map[string]uint32 {
			all := map[string]uint32{}
			if err := file.Each(func(e Entry) error {
				all[e.Address] = max(all[e.Address], e.Generation)
				return nil
			}); err != nil {
				return nil
			}
			return all
		}
		before := generations()
		plan, err := PlanReplacement("input", strings.NewReader(input), file)
		if err != nil {
			return
		}
		if err := plan.Apply(t.Context()); err != nil {
			t.Fatalf("a plan that cannot be applied: %v", err)
		}
		after := generations()
		c := plan.Changes[0]
		if len(after) != len(c.Added)+len(c.Raised)+c.Kept || len(before) != len(c.Removed)+len(c.Raised)+c.Kept {
			t.Errorf("%d became %d by %+v", len(before), len(after), c)
		}
		for address, gen := range before {
			if now, there := after[address]; there && now < gen {
				t.Errorf("%s sank from %d to %d", address, gen, now)
			}
		}
		for _, e := range append(c.Added, c.Raised...) {
			if after[e.Address] != e.Generation {
				t.Errorf("%s is %d, said %d", e.Address, after[e.Address], e.Generation)
			}
		}
		again, err := PlanReplacement("input", strings.NewReader(input), file)
		if err != nil || !isEmpty(again.Changes[0]) {
			t.Errorf("a second time %+v, %v", again, err)
		}
	})
}

func isEmpty(c Change) bool { return len(c.Added)+len(c.Removed)+len(c.Raised) == 0 }
