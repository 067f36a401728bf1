package prefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/policy"
)

// put writes a file as an editor does, and makes it so many seconds old.
func put(t testing.TB, path, text string, age time.Duration) {
	t.Helper()
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-age)
	if err := os.Chtimes(temp, when, when); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

func newFile(t testing.TB, text string) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "preferences.yaml")
	put(t, path, text, time.Hour)
	return NewFile(path), path
}

func lookUp(t testing.TB, f *File, recipient string) policy.Preference {
	t.Helper()
	p, found, err := f.Lookup(t.Context(), recipient)
	if err != nil {
		t.Errorf("%s: %v", recipient, err)
	}
	if !found && p != (policy.Preference{}) {
		t.Errorf("%s: not found, and %+v", recipient, p)
	}
	return p
}

const bobRejects = "- {recipient: bob@x.test, fail: reject}\n"

func TestFileThatWasNeverReadFails(t *testing.T) {
	f, path := newFile(t, "- {recipient: bob@x.test, fail: rejekt}")
	if _, _, err := f.Lookup(t.Context(), "bob@x.test"); err == nil {
		t.Error("not read yet, and it answers")
	}
	if err := f.Reload(); err == nil {
		t.Fatal("a bad file was taken")
	}
	if _, _, err := f.Lookup(t.Context(), "bob@x.test"); err == nil || !strings.Contains(err.Error(), "rejekt") {
		t.Errorf("lookup: %v, want why the file could not be read", err)
	}
	put(t, path, bobRejects, time.Hour)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := lookUp(t, f, "bob@x.test"); got != fails(policy.Reject) || f.Len() != 1 {
		t.Errorf("%+v of %d", got, f.Len())
	}
}

func TestBadFileKeepsTheOld(t *testing.T) {
	f, path := newFile(t, bobRejects)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	bad := map[string]func(){
		"fault":   func() { put(t, path, "- {recipient: bob@x.test, fail: drop}\n", time.Hour) },
		"no YAML": func() { put(t, path, "- {recipient: bob@x.test\n", time.Hour) },
		"missing": func() { os.Remove(path) },
		"folder":  func() { os.Remove(path); os.Mkdir(path, 0o700) },
		"a pipe":  func() { os.Remove(path); syscall.Mkfifo(path, 0o600) },
	}
	for name, spoil := range bad {
		t.Run(name, func(t *testing.T) {
			spoil()
			if err := f.Reload(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("reload: %v, want an error that names the file", err)
			}
			if _, err := f.Refresh(); err == nil && name == "missing" {
				t.Error("refresh found a missing file good")
			}
			if got := lookUp(t, f, "bob@x.test"); got != fails(policy.Reject) {
				t.Errorf("%+v, want what the old file says", got)
			}
			os.RemoveAll(path)
		})
	}
}

// What looks cut off does not take the place of what is in force, on demand or unasked.
func TestCutOff(t *testing.T) {
	const two = bobRejects + "- {recipient: eve@x.test, fail: mark}\n"
	f, path := newFile(t, two)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		text  string
		taken bool
	}{
		{"", false},
		{"# a head\n", false},
		{"\n\n", false},
		{"[]\n", false},
		{"- {recipient: bob@x.test, fail: reject}", false}, // cut between a preference and the end of its line
		{"- recipient: bob@x.test\n  fail: reject", false},
		{bobRejects, true}, // settled, and it has its end
		{"#EMPTY\n", true},
		{"", true}, // nothing is lost
		{"- {recipient: bob@x.test, fail: reject}", true},
		{"- {recipient: bob@x.test, fail: mark}", true}, // it never had an end
		{two, true},
	} {
		put(t, path, tc.text, time.Hour)
		before := lookUp(t, f, "bob@x.test")
		if changed, err := f.Refresh(); !changed || errors.Is(err, ErrCutOff) == tc.taken || tc.taken && err != nil {
			t.Errorf("%q: Refresh: changed %v, %v", tc.text, changed, err)
		}
		if err := f.Reload(); errors.Is(err, ErrCutOff) == tc.taken || tc.taken && err != nil {
			t.Errorf("%q: Reload: %v", tc.text, err)
		}
		if after := lookUp(t, f, "bob@x.test"); !tc.taken && after != before {
			t.Errorf("%q: %+v, was %+v", tc.text, after, before)
		}
	}
	// While somebody writes, a beginning of what was there is a part of it.
	if err := os.WriteFile(path, []byte(bobRejects), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.reload(false); !errors.Is(err, ErrCutOff) || f.Len() != 2 {
		t.Errorf("a beginning: %v, %d preferences", err, f.Len())
	}
}

// At the start a file without preferences is believed, and told apart from one that says
// that this is meant.
func TestEmptyAtTheStart(t *testing.T) {
	for text, want := range map[string]bool{"": true, "# a head\n": true, "\uFEFF# empty\n": false, bobRejects: false} {
		f, _ := newFile(t, text)
		if err := f.Reload(); err != nil || f.Unexplained() != want {
			t.Errorf("%q: %v, unexplained %v", text, err, f.Unexplained())
		}
	}
}

// A file that is renamed into place again and again is read each time that it is looked
// at; TestRefresh has one that is written in place.
func TestRefreshOfRenamedFiles(t *testing.T) {
	f, path := newFile(t, bobRejects)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		action := []policy.Action{policy.Discard, policy.Mark}[i%2]
		put(t, path, fmt.Sprintf("- {recipient: bob@x.test, fail: %s}\n", action), 50*time.Millisecond)
		if changed, err := f.Refresh(); !changed || err != nil {
			t.Errorf("%d: changed %v, %v", i, changed, err)
		}
		if got := lookUp(t, f, "bob@x.test"); got != fails(action) {
			t.Errorf("%d: %+v, want %s", i, got, action)
		}
		if changed, err := f.Refresh(); changed || err != nil {
			t.Errorf("%d, once more: changed %v, %v", i, changed, err)
		}
	}
}

func TestRefresh(t *testing.T) {
	f, path := newFile(t, bobRejects)
	refresh := func(want bool) {
		t.Helper()
		if changed, err := f.Refresh(); changed != want || err != nil {
			t.Errorf("changed %v, %v; want %v", changed, err, want)
		}
	}
	refresh(true)
	refresh(false)
	// It may be half written. Where the machine is so busy that it is not any more, again.
	const rest = time.Second // of package diskfile
	for again := true; again; {
		if err := os.WriteFile(path, []byte(bobRejects), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Reload(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := os.WriteFile(path, []byte("- {recipient: bob@x.test, fail: discard}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		changed, err := f.Refresh()
		got := lookUp(t, f, "bob@x.test")
		if again = time.Since(began) >= rest; !again && (changed || err != nil || got != fails(policy.Reject)) {
			t.Errorf("of a file just written: changed %v, %v, %+v", changed, err, got)
		}
	}
	if err := f.Reload(); err != nil { // asked to, at once
		t.Fatal(err)
	}
	if got := lookUp(t, f, "bob@x.test"); got != fails(policy.Discard) {
		t.Errorf("%+v after a reload", got)
	}
	// It was read within its first second, so that it may have changed unseen.
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	refresh(true)
	refresh(false)
	put(t, path, "- {recipient: bob@x.test, fail: drop}\n", time.Hour)
	if changed, err := f.Refresh(); !changed || err == nil {
		t.Errorf("a bad file: changed %v, %v", changed, err)
	}
	refresh(false) // found bad once
}

func TestWatch(t *testing.T) {
	f, path := newFile(t, bobRejects)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reports, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		diskfile.Watch(ctx, time.Millisecond, []*File{f}, func(_ *File, err error) {
			select {
			case reports <- err:
			case <-ctx.Done():
			}
		})
	}()
	next := func() error {
		select {
		case err := <-reports:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal("nothing reported")
			return nil
		}
	}
	put(t, path, "- {recipient: bob@x.test, fail: mark}\n", time.Minute)
	if err := next(); err != nil || lookUp(t, f, "bob@x.test") != fails(policy.Mark) {
		t.Errorf("change: %v, %+v", err, lookUp(t, f, "bob@x.test"))
	}
	put(t, path, "- {recipient: bob@x.test, fail: drop}\n", 2*time.Minute)
	var line *LineError
	if err := next(); !errors.As(err, &line) || line.Line != 1 || line.Path != path {
		t.Errorf("bad change: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := next(); !errors.Is(err, fs.ErrNotExist) { // and only once: the next report is of the next change
		t.Errorf("file gone: %v", err)
	}
	put(t, path, bobRejects, time.Minute)
	if err := next(); err != nil || lookUp(t, f, "bob@x.test") != fails(policy.Reject) {
		t.Errorf("file back: %v", err)
	}
	cancel()
	<-done
}

// manyPreferences is a file for n recipients, in the form of the manual or with
// a key a line.
func manyPreferences(n int) []byte {
	var b bytes.Buffer
	b.WriteString("# preferences\n")
	for i := range n {
		if i%10 == 9 {
			fmt.Fprintf(&b, "- recipient: user%d@example.com\n  fail: discard\n", i)
			continue
		}
		fmt.Fprintf(&b, "- {recipient: \"user%d@example.com\", fail: reject, nokey: mark, language: de}\n", i)
	}
	return b.Bytes()
}

// TestLargeFile also has chunks of the file end in every kind of place.
func TestLargeFile(t *testing.T) {
	const n = 20_000
	data := manyPreferences(n)
	if len(data) < 10*maxChunk {
		t.Fatalf("%d octets are too few to prove anything", len(data))
	}
	tab, err := parse("p", data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		want := policy.Preference{Actions: policy.Actions{Fail: policy.Reject, NoKey: policy.Mark}, Language: "de"}
		if i%10 == 9 {
			want = fails(policy.Discard)
		}
		if got, ok := tab.lookup(fmt.Sprintf("user%d@example.com", i)); !ok || got != want {
			t.Fatalf("user%d: %+v, %v", i, got, ok)
		}
	}
	if len(tab.entries) != n || len(tab.choices) != 2 {
		t.Errorf("%d entries, %d different preferences", len(tab.entries), len(tab.choices))
	}
	lines := bytes.Count(data, []byte("\n"))
	data = append(data, "- {recipient: user7@example.com}\n- {recipient: x@example.com, fail: drop}\n"...)
	_, err = parse("p", data)
	want := fmt.Sprintf("p: line %d: recipient \"user7@example.com\" is there twice, first in line 9\np: line %d: fail: unknown action", lines+1, lines+2)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s…", err, want)
	}
}

func BenchmarkLoad(b *testing.B) {
	data := manyPreferences(100_000)
	for b.Loop() {
		if _, err := parse("p", data); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTableIsCompact bounds the memory of one entry, address included.
func TestTableIsCompact(t *testing.T) {
	const n = 50_000
	data := manyPreferences(n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tab, err := parse("p", data)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; per > 150 {
		t.Errorf("%d octets an entry", per)
	} else {
		t.Logf("%d octets an entry", per)
	}
	runtime.KeepAlive(data)
	runtime.KeepAlive(tab)
}

func BenchmarkFill(b *testing.B) {
	f, _ := newFile(b, string(manyPreferences(100_000)))
	if err := f.Reload(); err != nil {
		b.Fatal(err)
	}
	d := New(f)
	for name, rcpts := range map[string][]policy.Recipient{
		"one":  recipients("user4711@example.com"),
		"none": recipients("nobody@example.com"),
		"tag":  recipients("user4711+tag@example.com"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = d.Fill(b.Context(), rcpts) // a File does not fail
			}
		})
	}
}

func TestIdle(t *testing.T) {
	text := bobRejects + "- {recipient: a@x.test, fail: discard, nokey: mark}\n- {recipient: b@x.test, fail: mark}\n- {recipient: c@x.test, fail: reject}\n"
	f, _ := newFile(t, text)
	if idle := f.Idle(nil); len(idle) > 0 {
		t.Errorf("of a file that was not read: %v", idle)
	}
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if idle := f.Idle([]policy.Action{policy.Mark, policy.Reject, policy.Discard}); len(idle) > 0 {
		t.Errorf("everything is allowed: %v", idle)
	}
	var got []string
	for _, err := range f.Idle([]policy.Action{policy.Mark}) {
		var line *LineError
		if !errors.As(err, &line) {
			t.Fatalf("%v", err)
		}
		word, _, _ := strings.Cut(line.Err.Error(), ":")
		got = append(got, fmt.Sprint(line.Line, " ", word))
	}
	if want := []string{"1 reject", "2 discard", "4 reject"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	var many strings.Builder
	for i := range maxFaults + 5 {
		fmt.Fprintf(&many, "- {recipient: u%d@x.test, fail: reject}\n", i)
	}
	f, _ = newFile(t, many.String())
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if idle := f.Idle(nil); len(idle) != maxFaults {
		t.Errorf("%d are listed, want %d", len(idle), maxFaults)
	}
}

// A new configuration must not lose preferences because their file was cut off meanwhile.
func TestFollow(t *testing.T) {
	old, path := newFile(t, bobRejects)
	if err := old.Reload(); err != nil {
		t.Fatal(err)
	}
	put(t, path, "", time.Hour)
	f := NewFile(path)
	f.Follow(old)
	if err := f.Reload(); !errors.Is(err, ErrCutOff) {
		t.Errorf("a file that was cut off: %v", err)
	}
	if got := lookUp(t, f, "bob@x.test"); got != fails(policy.Reject) {
		t.Errorf("%+v", got)
	}
	other, _ := newFile(t, "")
	other.Follow(old)
	if err := other.Reload(); err != nil || other.Len() != 0 {
		t.Errorf("another file: %v, %d preferences", err, other.Len())
	}
	first, _ := newFile(t, bobRejects)
	first.Follow(nil)
	if _, _, err := first.Lookup(t.Context(), "bob@x.test"); err == nil {
		t.Error("after none it answers before it was read")
	}
}
