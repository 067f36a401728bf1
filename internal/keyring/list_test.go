package keyring

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var testForm = Form{Domain: "example.com", Subaddress: "+"}

func TestParseLine(t *testing.T) {
	tests := []struct {
		line    string
		want    entry
		none    bool   // no address in the line
		wantErr string // part of the error
	}{
		{line: "bob", want: entry{local: "bob"}},
		{line: " \tBob@EXAMPLE.com.\t\r", want: entry{local: "bob"}},
		{line: "bob gen=3", want: entry{local: "bob", gen: 3}},
		{line: "bob\tgen=4294967295\t# boss", want: entry{local: "bob", gen: 4294967295, comment: "# boss"}},
		{line: "bob # gen=3", want: entry{local: "bob", comment: "# gen=3"}},
		{line: "bob#1 #2", want: entry{local: "bob#1", comment: "#2"}},
		{line: `"#1"`, want: entry{local: "#1"}},
		{line: `"john # doe"@example.com gen=1`, want: entry{local: "john # doe", gen: 1}},
		{line: `"a@b"`, want: entry{local: "a@b"}},
		{line: `"a\"b\\c"`, want: entry{local: `a"b\c`}},
		{line: `john\ doe`, want: entry{local: "john doe"}},
		{line: "any", want: entry{local: "any"}},
		{line: "Jürgen", want: entry{local: "jürgen"}},
		{line: "50%off", want: entry{local: "50%off"}},
		{line: "+x", want: entry{local: "+x"}},
		{line: `"<html>"@example.com`, want: entry{local: "<html>"}},
		{line: `\<html\>`, want: entry{local: "<html>"}},
		{line: "<html>", wantErr: "in quotes only"},
		{line: "a:b@example.com", wantErr: "in quotes only"},
		{line: "a@b,c@example.com", wantErr: "in quotes only"},
		{line: "bob@exam,ple.com", wantErr: "host name"},
		{line: "", none: true},
		{line: "\r", none: true},
		{line: "   # x", none: true},
		{line: "#removed bob gen=1", none: true},
		{line: "bob@example.org", wantErr: "is not in example.com"},
		{line: "@example.com", wantErr: "no local part"},
		{line: "bob@", wantErr: "no domain"},
		{line: "bob@[192.0.2.1]", wantErr: "domain literal"},
		{line: `"bob`, wantErr: "no domain"},
		{line: "bob+x", wantErr: `is a sub-address of "bob"`},
		{line: "prvs=1=bob", wantErr: `BATV form of "bob"`},
		{line: "bob gen", wantErr: "neither one gen=N nor"},
		{line: "bob gen=1 gen=2", wantErr: "neither one gen=N nor"},
		{line: "Bob Smith <bob@example.com>", wantErr: "neither one gen=N nor"},
		{line: "bob gen=", wantErr: "is not 0 to 4294967295"},
		{line: "bob gen=0x1", wantErr: "is not 0 to 4294967295"},
		{line: "bob gen=-1", wantErr: "is not 0 to 4294967295"},
		{line: "bob gen=4294967296", wantErr: "is not 0 to 4294967295"},
		{line: "bo\x00b", wantErr: "control character"},
		{line: "\"a\tb\"", wantErr: "control character"},
		{line: strings.Repeat("a", 1020), wantErr: "too long"},
		{line: strings.Repeat("Ⱥ", 150), wantErr: "too long"}, // three octets in lower case
		{line: "b\xffb", wantErr: "not UTF-8"},
		{line: "bob\u00A0", wantErr: "U+00A0"},
		{line: "\u00A0bob", wantErr: "U+00A0"},
		{line: "bob\u00A0gen=3", wantErr: "U+00A0"},
		{line: "bob gen=3\u00A0", wantErr: "U+00A0"},
		{line: "bo\u200Bb@example.com", wantErr: "U+200B"},
		{line: "bob@exam\u200Bple.com", wantErr: "U+200B"},
		{line: "\uFEFFbob", wantErr: "U+FEFF"},
		{line: "b\u00ADob", wantErr: "U+00AD"},
		{line: "\u202EboB", wantErr: "U+202E"},
		{line: "\u3000", wantErr: "U+3000"},
		{line: "bob\u0085", wantErr: "U+0085"},
		{line: "\u0130van", wantErr: "U+0130"},
		{line: "I\u0307van", wantErr: "U+0130"},
		{line: "\u212Aim", wantErr: "U+212A"},
		{line: "\uFB01n", wantErr: "U+FB01"},
		{line: "\uFF42ob@example.com", wantErr: "U+FF42"},
		{line: "@Example.com", wantErr: "is the domain, and has no local part: where every address has keys"},
		{line: "example.com", wantErr: "is the domain, and has no local part"},
		{line: "example.com@example.com", want: entry{local: "example.com"}},
		{line: "*", wantErr: "has a wildcard, and matches nothing: where every address has keys, write addresses: any"},
		{line: "*@example.com", wantErr: "has a wildcard"},
		{line: "%@example.com", wantErr: "has a wildcard"},
		{line: "sales*", wantErr: "has a wildcard"},
		{line: `"*"`, want: entry{local: "*"}},
		{line: "user%host", want: entry{local: "user%host"}},
		{line: "btv1==1==bob", wantErr: `BATV form of "bob"`},
		{line: "prvs=bob/1", wantErr: `BATV form of "bob"`},
		{line: "bob # B\u00FCro\u00A0Nord", want: entry{local: "bob", comment: "# B\u00FCro\u00A0Nord"}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			got, ok, err := testForm.parseLine(tt.line)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || ok == tt.none || got != tt.want {
				t.Errorf("%+v, %v, %v", got, ok, err)
			}
		})
	}
}

func TestLoadTable(t *testing.T) {
	long := strings.Repeat("x", maxListLine+1)
	tests := []struct {
		name, content string
		want          map[string]int // generations; -1: unknown
		wantLine      int
	}{
		{name: "empty", content: "", want: map[string]int{"bob": -1, "": -1}},
		{name: "mark and CRLF", content: "\uFEFFbob\r\ncarol gen=2\r\n", want: map[string]int{"bob": 0, "carol": 2, "dave": -1}},
		{name: "no last end", content: "bob\ncarol", want: map[string]int{"bob": 0, "carol": 0}},
		{name: "twice, the higher counts", content: "bob gen=2\nBOB@example.com\nbob gen=1\n", want: map[string]int{"bob": 2}},
		{name: "twice, the higher later", content: "bob\nbob gen=9\n", want: map[string]int{"bob": 9}},
		{name: "bad line", content: "#\n\nbob\nbob bob\n", wantLine: 4},
		{name: "long line", content: "bob\n#" + long + "\n", wantLine: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "list"), tt.content)
			table, _, err := loadTable(path, testForm)
			if tt.wantLine != 0 {
				var line *LineError
				if !errors.As(err, &line) || line.Line != tt.wantLine || line.Path != path {
					t.Errorf("error %v, want line %d", err, tt.wantLine)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for local, want := range tt.want {
				gen, known := table.generation(local)
				if known != (want >= 0) || known && int(gen) != want {
					t.Errorf("%q: generation %d, known %v, want %d", local, gen, known, want)
				}
			}
		})
	}
}

// A list of short addresses has more of them than its size lets expect.
func TestShortAddresses(t *testing.T) {
	var list strings.Builder
	for i := range 200 {
		fmt.Fprintf(&list, "%d gen=%d\n", i, i)
	}
	table, _, err := loadTable(write(t, filepath.Join(t.TempDir(), "list"), list.String()), testForm)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if gen, known := table.generation(fmt.Sprint(i)); !known || int(gen) != i {
			t.Errorf("%d: generation %d, known %v", i, gen, known)
		}
	}
	if len(table.slots)*2 < table.count*3 {
		t.Errorf("%d slots for %d addresses", len(table.slots), table.count)
	}
}

// bigList writes a list of n addresses.
func bigList(t testing.TB, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(file)
	for i := range n {
		fmt.Fprintf(w, "firstname.lastname%d@example.com gen=%d\n", i, i%3)
	}
	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// A million addresses are to fit in 200 MiB while the old list is still there.
func TestListIsCompact(t *testing.T) {
	const n = 100_000
	path := bigList(t, n)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	table, _, err := loadTable(path, testForm)
	if err != nil {
		t.Fatal(err)
	}
	each := float64(heap()-before) / n
	t.Logf("%.1f octets an address", each)
	if each > 60 {
		t.Errorf("%.1f octets an address", each)
	}
	if table.count != n {
		t.Errorf("%d addresses", table.count)
	}
	for i := range n {
		if gen, known := table.generation(fmt.Sprintf("firstname.lastname%d", i)); !known || int(gen) != i%3 {
			t.Fatalf("%d: generation %d, known %v", i, gen, known)
		}
	}
	if _, known := table.generation("firstname.lastname"); known {
		t.Error("an unknown address is known")
	}
}

func BenchmarkLoadMillion(b *testing.B) {
	path := bigList(b, 1_000_000)
	b.ResetTimer()
	for b.Loop() {
		begin := time.Now()
		table, _, err := loadTable(path, testForm)
		if err != nil || table.count != 1_000_000 {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/load")
		b.ReportMetric(float64(len(table.text)+4*len(table.slots))/(1<<20), "MiB")
	}
}

// What parses is canonical, and its spelling parses to the same again.
func FuzzListLine(f *testing.F) {
	for _, line := range []string{
		`"<a,b>" gen=2`, "a:b", "bob", "bob@example.com gen=3 # x", `"john doe" gen=1`, `"a\"b\\c"@example.com`, `a\ b`, "#x", `"#x"`,
		"J\u030C", "İstanbul", "\u212Aim", "bob\u00A0gen=1", "btv1==1==bob", "bob#1 #2", "bob+x", "prvs=1=bob", "50%off", "@", `"@"`, `"`, "bob@EXAMPLE.com.", "\xff\xfe", `""`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, ok, err := testForm.parseLine(line)
		if err != nil || !ok {
			return
		}
		again, ok, err := testForm.parseLine(testForm.spellLine(e.local, e.gen, e.comment))
		if err != nil || !ok || again != e {
			t.Errorf("%+v, spelled %q, parses as %+v, %v, %v", e, testForm.spellLine(e.local, e.gen, e.comment), again, ok, err)
		}
	})
}

// A list that is too large is not read at all.
func TestListTooLarge(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "list"), "bob\n")
	if err := os.Truncate(path, maxListFile+1); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("address list %s: longer than %d octets", path, maxListFile)
	if _, info, err := loadTable(path, testForm); err == nil || err.Error() != want || info == nil {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestFirst(t *testing.T) {
	for content, want := range map[string]string{"": "", "# empty\n": "", "# head\nbob gen=2\ncarol\n": "bob@example.com"} {
		f := ListFile{Path: write(t, filepath.Join(t.TempDir(), "list"), content), Form: testForm}
		if got, err := f.First(); got != want || err != nil {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
	var line *LineError
	f := ListFile{Path: write(t, filepath.Join(t.TempDir(), "list"), "bob bob\n"), Form: testForm}
	if got, err := f.First(); got != "" || !errors.As(err, &line) {
		t.Errorf("a bad line: %q, %v", got, err)
	}
}
