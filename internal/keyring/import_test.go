package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/diskfile"
)

func TestImport(t *testing.T) {
	const com, org = "# staff\nbob\ncarol@example.com gen=2 # boss\n#removed dave@example.com gen=4\n", "eve\n"
	tests := []struct {
		name, input string
		only        bool // one file, of example.com
		added       int
		com, org    string // "" means as before
		wantErr     string
		wantLine    int
	}{
		{name: "nothing", input: "# no\n\n \t\r\n"},
		{name: "new ones of both", input: "\uFEFFalice@EXAMPLE.com\r\nfrank@example.org gen=3 # x\nalice@example.com", added: 2,
			com: com + "alice@example.com\n", org: org + "frank@example.org gen=3\n"},
		{name: "those that are there", input: "BOB@example.com\ncarol@example.com gen=2\n"},
		{name: "a higher generation", input: "carol@example.com gen=7\nbob@example.com gen=1\n",
			com: "# staff\nbob@example.com gen=1\ncarol@example.com gen=7 # boss\n#removed dave@example.com gen=4\n"},
		{name: "a lower generation", input: "carol@example.com gen=1\n"},
		{name: "a removed one", input: "dave@example.com gen=1\n", added: 1,
			com: "# staff\nbob\ncarol@example.com gen=2 # boss\ndave@example.com gen=5\n"},
		{name: "a removed one of a higher generation", input: "dave@example.com gen=9\n", added: 1,
			com: "# staff\nbob\ncarol@example.com gen=2 # boss\ndave@example.com gen=9\n"},
		{name: "without domain", input: "alice\n\"a b\" gen=1\n", only: true, added: 2, com: com + "alice@example.com\n\"a b\"@example.com gen=1\n"},
		{name: "without domain, of several", input: "alice@example.com\nalice\n", wantErr: "no domain", wantLine: 2},
		{name: "of another domain", input: "alice@example.com\n\nfrank@example.net\n", wantErr: "no list of \"example.net\"", wantLine: 3},
		{name: "bad line", input: "alice@example.com bob@example.com\n", wantErr: "neither one gen=N nor a comment", wantLine: 1},
		{name: "no address", input: "@example.com\n", wantErr: "no local part", wantLine: 1},
		{name: "sub-address", input: "bob+x@example.com\n", wantErr: "sub-address", wantLine: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := []ListFile{
				{Path: write(t, filepath.Join(dir, "com"), com), Form: testForm},
				{Path: write(t, filepath.Join(dir, "org"), org), Form: Form{Domain: "Example.ORG"}},
			}
			if tt.only {
				files = files[:1]
			}
			added, err := Import(t.Context(), "input", strings.NewReader(tt.input), files...)
			if added != tt.added {
				t.Errorf("added %d, want %d", added, tt.added)
			}
			if tt.wantErr != "" {
				var line *LineError
				if !errors.As(err, &line) || line.Path != "input" || line.Line != tt.wantLine || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want line %d and %q", err, tt.wantLine, tt.wantErr)
				}
			} else if err != nil {
				t.Error(err)
			}
			for path, want := range map[string][2]string{"com": {com, tt.com}, "org": {org, tt.org}} {
				text := want[1]
				if text == "" {
					text = want[0]
				}
				if got := read(t, filepath.Join(dir, path)); got != text {
					t.Errorf("%s: got\n%swant\n%s", path, got, text)
				}
			}
		})
	}
}

func TestImportFails(t *testing.T) {
	f := ListFile{Path: filepath.Join(t.TempDir(), "list"), Form: testForm}
	if _, err := Import(t.Context(), "input", strings.NewReader("bob\n"), f); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no list: error %v", err)
	}
	if _, err := Import(t.Context(), "input", strings.NewReader("bob\n"), ListFile{Form: Form{Domain: "a..b"}}); err == nil {
		t.Error("bad form: no error")
	}
	write(t, f.Path, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	unlock, err := diskfile.Lock(t.Context(), f.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := Import(ctx, "input", strings.NewReader("bob\n"), f); !errors.Is(err, context.Canceled) {
		t.Errorf("locked: error %v", err)
	}
}

// What a writer that was killed left behind is neither in the way nor used.
func TestLeftoverIsReplaced(t *testing.T) {
	dir := t.TempDir()
	f := ListFile{Path: write(t, filepath.Join(dir, "list"), "bob\n"), Form: testForm}
	write(t, f.Path+".new", "half of th")
	if _, err := f.Add(t.Context(), "eve"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f.Path); got != "bob\neve@example.com\n" {
		t.Errorf("%q", got)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*new*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// A list that looks cut off never takes the place of one with addresses, and one of which
// nothing is left is none, unless it says that it is meant to be empty.
func TestCutOffList(t *testing.T) {
	d := open(t, secretA, "bob\nboris\n", nil)
	bob := keyAt(t, d, "bob@example.com", midday)
	for _, tc := range []struct {
		content string
		want    error
	}{
		{"", ErrCutOff},
		{"bob\nbo", ErrCutOff},
		{"bob", ErrCutOff},
		{"# the head of it\n", ErrCutOff},
		{"#  Empty \n", nil},
		{"", ErrEmptyList},
		{" \n\t\r\n", ErrEmptyList},
		{"\uFEFF", ErrEmptyList},
		{"# nothing is lost\n", nil},
		{"bob\nboris", nil},
		{"bob\ncarol", nil}, // its last line never had an end
		{"# by remove\n#removed bob@example.com gen=1\n", nil},
		{"bob\n", nil},
		{"", ErrCutOff},
		{"bob\n", nil},
	} {
		write(t, d.path, tc.content)
		before := verify(t, d, "bob@example.com", bob, midday).Valid
		if changed, err := d.Refresh(); !changed || !errors.Is(err, tc.want) {
			t.Errorf("%q: Refresh: changed %v, error %v, want %v", tc.content, changed, err, tc.want)
		}
		if err := d.Reload(); !errors.Is(err, tc.want) {
			t.Errorf("%q: Reload: %v, want %v", tc.content, err, tc.want)
		}
		if after := verify(t, d, "bob@example.com", bob, midday).Valid; tc.want != nil && after != before {
			t.Errorf("%q: bob's key is valid: %v, was %v", tc.content, after, before)
		}
	}
	if d.Len() != 1 {
		t.Errorf("%d addresses", d.Len())
	}
}

// At the start a list that holds nothing at all is refused, and one that has only
// comments is told apart from one that says that it is meant.
func TestEmptyListAtTheStart(t *testing.T) {
	for content, want := range map[string]struct {
		err         error
		unexplained bool
	}{
		"": {ErrEmptyList, false}, "\n\n": {ErrEmptyList, false}, "# a head\n": {nil, true}, "# empty\n": {nil, false},
		"#removed bob\n": {nil, false}, "bob\n": {nil, false},
	} {
		dir := t.TempDir()
		d, err := Open(Config{Form: testForm, SecretFile: write(t, filepath.Join(dir, "s"), secretA),
			Addresses: "file:" + write(t, filepath.Join(dir, "list"), content), AVT: DefaultAVT})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Reload(); !errors.Is(err, want.err) || d.Unexplained() != want.unexplained {
			t.Errorf("%q: %v, unexplained %v; want %+v", content, err, d.Unexplained(), want)
		}
		if _, err := d.Verify(address(t, "bob@example.com"), key(t, "x"), midday); (err != nil) != (want.err != nil) {
			t.Errorf("%q: Verify: %v", content, err)
		}
	}
}

// A line that says that the list is empty goes when it is not any more.
func TestAddTakesAwayEmpty(t *testing.T) {
	f := ListFile{Path: filepath.Join(t.TempDir(), "list"), Form: testForm}
	if err := f.Create(); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(read(t, f.Path), "\n# empty\n") {
		t.Errorf("a new list: %q", read(t, f.Path))
	}
	if _, err := f.Add(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, f.Path); strings.Contains(got, "# empty") || !strings.HasSuffix(got, "\nbob@example.com\n") {
		t.Errorf("%q", got)
	}
}

// Whatever is imported makes a list that can be read, and importing it once more
// changes nothing; what is refused leaves no trace.
func FuzzImport(f *testing.F) {
	for _, input := range []string{
		"", "# no\n\n \t\r\n", "bob", "\uFEFFbob@example.com gen=3 # x\r\nBOB@EXAMPLE.com gen=9\n", "\"a b\" gen=1\n\"a#b\"@example.com", "a b\n", "bob@example.net\n",
		"#removed bob gen=2\nbob\n", "bob gen=4294967295\n", "bob+tag\n", "@example.com\n", "\xff\n", "b\u00f6b\nbob\x00\n", "bob@[192.0.2.1]\n",
	} {
		f.Add(input)
	}
	list := ListFile{Path: filepath.Join(f.TempDir(), "list"), Form: testForm}
	const before = "# staff\n#removed gone@example.com gen=4\n"
	f.Fuzz(func(t *testing.T, input string) {
		write(t, list.Path, before)
		added, err := Import(t.Context(), "input", strings.NewReader(input), list)
		after := read(t, list.Path)
		if err != nil {
			if added != 0 || after != before {
				t.Fatalf("%d added, %q, in spite of %v", added, after, err)
			}
			return
		}
		table, _, err := loadTable(list.Path, testForm)
		if err != nil || table.count != added {
			t.Fatalf("%q became %q: %v, want %d addresses", input, after, err, added)
		}
		again, err := Import(t.Context(), "input", strings.NewReader(input), list)
		if now := read(t, list.Path); err != nil || again != 0 || now != after {
			t.Fatalf("once more: %d added, %v, %q became %q", again, err, after, now)
		}
	})
}

// An input without an end is refused.
func TestImportOfEndlessInput(t *testing.T) {
	f := ListFile{Path: write(t, filepath.Join(t.TempDir(), "list"), "bob\n"), Form: testForm}
	_, err := Import(t.Context(), "input", endless(strings.Repeat("#", maxListLine/2)+"\n"), f)
	if err == nil || !strings.HasSuffix(err.Error(), fmt.Sprintf("input is longer than %d octets", maxListFile)) {
		t.Errorf("%v", err)
	}
}

// endless is read as this text again and again.
type endless string

func (e endless) Read(p []byte) (n int, err error) {
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}
