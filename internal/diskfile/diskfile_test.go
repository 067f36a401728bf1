package diskfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"golang.org/x/text/unicode/norm"

	"github.com/authkey/authkey/internal/esmtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inPlace writes over what is there.
func inPlace(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// renamed writes beside the file and renames, a tick of the clock after the last write.
func renamed(t testing.TB, path, text string) {
	t.Helper()
	inPlace(t, path+".temp", text)
	before := time.Now().Add(-50 * time.Millisecond)
	must(t, os.Chtimes(path+".temp", before, before))
	must(t, os.Rename(path+".temp", path))
}

// aged makes a file one that was written long ago.
func aged(t testing.TB, path string, age time.Duration) {
	t.Helper()
	when := time.Now().Add(-age)
	must(t, os.Chtimes(path, when, when))
}

// A reader keeps what it read last. What is "bad" is a fault.
type reader struct {
	watched Watched
	text    string
	settled bool
	reads   int
	now     time.Time // of the clock; zero: as if the file had just been written
}

// clock is a clock that stands still, so that no machine is too slow for a test.
func (r *reader) clock() time.Time {
	if !r.now.IsZero() {
		return r.now
	}
	if info, err := os.Stat(r.watched.Path); err == nil {
		return info.ModTime()
	}
	return time.Now()
}

// pass has the file be so old.
func (r *reader) pass(t *testing.T, d time.Duration) {
	t.Helper()
	info, err := os.Stat(r.watched.Path)
	must(t, err)
	r.now = info.ModTime().Add(d)
}

func (r *reader) read(settled bool) (fs.FileInfo, error) {
	data, info, err := Read(r.watched.Path, 1000)
	if err != nil {
		return info, err
	}
	r.reads++
	r.settled = settled
	if strings.HasPrefix(string(data), "bad") {
		return info, errors.New("bad")
	}
	r.text = string(data)
	return info, nil
}

func (r *reader) refresh(t *testing.T, wantChanged bool, wantText string, wantErr bool) {
	t.Helper()
	changed, err := r.watched.Refresh(r.read)
	if changed != wantChanged || (err != nil) != wantErr || r.text != wantText {
		t.Errorf("changed %v, %q, %v; want %v, %q, error %v", changed, r.text, err, wantChanged, wantText, wantErr)
	}
}

func newReader(t *testing.T, text string) *reader {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	inPlace(t, path, text)
	aged(t, path, time.Hour)
	r := &reader{watched: Watched{Path: path}}
	r.watched.clock = r.clock
	r.refresh(t, true, text, false)
	r.refresh(t, false, text, false)
	return r
}

// waited makes the change that waits one that was seen so long ago.
func (r *reader) waited(d time.Duration) { r.watched.since = r.clock().Add(-d) }

func TestRenamedIsReadAtOnce(t *testing.T) {
	r := newReader(t, "0")
	for i := range 20 {
		text := fmt.Sprint(i + 1)
		renamed(t, r.watched.Path, text)
		r.refresh(t, true, text, false)
		if !r.settled {
			t.Error("a file that was renamed into place is not whole")
		}
		r.refresh(t, false, text, false)
	}
	if r.reads != 21 {
		t.Errorf("%d reads", r.reads)
	}
}

func TestWrittenInPlaceWaits(t *testing.T) {
	r := newReader(t, "old")
	inPlace(t, r.watched.Path, "new")
	r.refresh(t, false, "old", false)
	r.pass(t, rest-time.Nanosecond)
	r.refresh(t, false, "old", false)
	r.pass(t, rest)
	r.refresh(t, true, "new", false)
	r.now = time.Time{}

	// Whoever gives it its mode has ended writing.
	inPlace(t, r.watched.Path, "newer")
	r.refresh(t, false, "new", false)
	before := time.Now().Add(-10 * time.Millisecond)
	must(t, os.Chtimes(r.watched.Path, before, before))
	must(t, os.Chmod(r.watched.Path, 0o640))
	r.refresh(t, true, "newer", false)
	must(t, os.Chmod(r.watched.Path, 0o600)) // and a change of the mode is one
	r.refresh(t, true, "newer", false)
}

// However often it is written in place, it is read: as one that is not settled, and again.
func TestPatienceEnds(t *testing.T) {
	r := newReader(t, "old")
	for i := range 5 {
		text := fmt.Sprint("new", i)
		inPlace(t, r.watched.Path, text)
		r.refresh(t, false, r.text, false)
		r.waited(patience)
		r.refresh(t, true, text, false)
		if r.settled {
			t.Error("it is settled")
		}
	}
	r.waited(patience)
	r.refresh(t, true, "new4", false) // in the same second it could have changed unseen
	r.pass(t, rest)
	r.refresh(t, true, "new4", false)
	r.refresh(t, false, "new4", false)
}

// What is bad while it is written is tried again, and is bad only after a while.
func TestBadWhileWritten(t *testing.T) {
	r := newReader(t, "old")
	inPlace(t, r.watched.Path, "bad")
	r.waited(patience)
	r.refresh(t, false, "old", false)
	r.refresh(t, false, "old", false)
	if r.reads != 3 {
		t.Errorf("%d reads", r.reads)
	}
	r.waited(longPatience)
	r.refresh(t, true, "old", true)
	r.pass(t, rest)
	r.refresh(t, true, "old", true)
	r.refresh(t, false, "old", false) // once
	r.now = time.Time{}
	renamed(t, r.watched.Path, "bad too")
	r.refresh(t, true, "old", true)
}

// A file that changes while it is read is at no fault, unless it never ends.
func TestChangesWhileRead(t *testing.T) {
	r := newReader(t, "old")
	renamed(t, r.watched.Path, "new")
	changing := func(bool) (fs.FileInfo, error) { return nil, fmt.Errorf("file: %w", errChanging) }
	if changed, err := r.watched.Refresh(changing); changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	r.waited(longPatience)
	if changed, err := r.watched.Refresh(changing); !changed || err == nil {
		t.Errorf("for long: changed %v, %v", changed, err)
	}
	r.refresh(t, true, "new", false)
}

// A new file in the place of the old one, within one tick of the clock, waits for less.
func TestNewFile(t *testing.T) {
	r := newReader(t, "old")
	must(t, os.Rename(r.watched.Path, r.watched.Path+"~")) // so that its number is not used again
	inPlace(t, r.watched.Path, "new")
	r.refresh(t, false, "old", false)
	r.pass(t, restNew-time.Nanosecond)
	r.refresh(t, false, "old", false)
	r.pass(t, restNew)
	r.refresh(t, true, "new", false)
	if r.settled {
		t.Error("it is settled")
	}
	r.pass(t, rest) // it is looked at once more
	r.refresh(t, true, "new", false)
	r.refresh(t, false, "new", false)
}

func TestMissing(t *testing.T) {
	r := newReader(t, "old")
	must(t, os.Remove(r.watched.Path))
	r.refresh(t, false, "old", true)
	r.refresh(t, false, "old", true)
	inPlace(t, r.watched.Path, "half")
	r.refresh(t, false, "old", false)
	r.pass(t, rest)
	r.refresh(t, true, "half", false)

	// One that has never been there is no other.
	path := filepath.Join(t.TempDir(), "later")
	r = &reader{watched: Watched{Path: path}}
	r.watched.clock = r.clock
	r.refresh(t, false, "", true)
	inPlace(t, path, "half")
	r.refresh(t, false, "", false)
	r.pass(t, rest)
	r.refresh(t, true, "half", false)

	// A wrong clock holds nothing up.
	inPlace(t, path, "later")
	r.pass(t, -time.Hour)
	r.refresh(t, true, "later", false)
}

// One that was away is read again, be it the same.
func TestBackAgain(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	must(t, os.Mkdir(folder, 0o700))
	path := filepath.Join(folder, "file")
	inPlace(t, path, "same")
	aged(t, path, time.Hour)
	r := &reader{watched: Watched{Path: path}}
	r.watched.clock = r.clock
	r.refresh(t, true, "same", false)
	must(t, os.Rename(folder, folder+"~"))
	r.refresh(t, false, "same", true)
	must(t, os.Rename(folder+"~", folder))
	r.refresh(t, true, "same", false)
	r.refresh(t, false, "same", false)
}

// On demand it is read as it is, and what was read in a bad moment is read again.
func TestReadOnDemand(t *testing.T) {
	r := newReader(t, "old")
	inPlace(t, r.watched.Path, "new")
	info, err := r.read(true)
	must(t, err)
	r.watched.Read(info)
	r.refresh(t, false, "new", false)
	r.pass(t, rest)
	r.refresh(t, true, "new", false)
	r.watched.Read(nil)
	r.refresh(t, true, "new", false)
}

func TestOpenAndRead(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	for _, path := range []string{dir, fifo, "/dev/zero"} {
		if _, _, err := Open(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
	path := filepath.Join(dir, "file")
	inPlace(t, path, "12345")
	if data, info, err := Read(path, 5); string(data) != "12345" || info == nil || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, _, err := Read(path, 4); err == nil || !strings.Contains(err.Error(), "longer than 4 octets") {
		t.Errorf("%v", err)
	}
	file, info, err := Open(path)
	must(t, err)
	defer file.Close()
	must(t, Unchanged(file, info))
	inPlace(t, path, "123456")
	for range 2 {
		if err := Unchanged(file, info); err == nil || !strings.Contains(err.Error(), path+": changed while it was read") {
			t.Errorf("%v", err)
		}
		must(t, os.Chtimes(path, info.ModTime(), info.ModTime())) // its size tells, too
	}
}

// Only what was changed just now may be half written, and only if its last line has no end.
func TestExcuse(t *testing.T) {
	fault := errors.New("a fault")
	path := filepath.Join(t.TempDir(), "file")
	inPlace(t, path, "x")
	for age, want := range map[time.Duration]bool{0: true, 2 * justNow: false, -time.Hour: false} {
		aged(t, path, age)
		info, err := os.Stat(path)
		must(t, err)
		for data, cut := range map[string]bool{"": true, "x": true, "x\ny": true, "x\n": false} {
			if err := Excuse(fault, []byte(data), info); !errors.Is(err, fault) || errors.Is(err, ErrBeingWritten) != (want && cut) {
				t.Errorf("%q, %v old: %v", data, age, err)
			}
		}
	}
}

// In a folder of another user's, root follows no link.
func TestPlaceFollowsNoLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives files to another user: run it as root")
	}
	folder, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	inPlace(t, victim, "root's")
	must(t, os.Chown(folder, 12345, 12346))
	path := filepath.Join(folder, "file")
	err := Place(path, 0o666, func(made string) error { return os.Symlink(victim, made) })
	if !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link that was made: %v", err)
	}
	must(t, os.Symlink(victim, path))
	must(t, Adopt(path))
	info, err := os.Stat(victim)
	must(t, err)
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("the file that it leads to is user %d's, mode %v", owner.Uid, info.Mode())
	}
	if err := Place(path, 0o600, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a link: %v", err)
	}
	must(t, os.Remove(path))
	must(t, Place(path, 0o640, func(made string) error { return os.WriteFile(made, []byte("new"), 0o600) }))
	info, err = os.Lstat(path)
	must(t, err)
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 12345 || owner.Gid != 12346 || info.Mode() != 0o640 {
		t.Errorf("made with owner %d:%d, mode %v", owner.Uid, owner.Gid, info.Mode())
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	must(t, Create(path, 0o640, "one"))
	if err := Create(path, 0o600, "two"); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want fs.ErrExist", err)
	}
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(filepath.Join(dir, "elsewhere"), link))
	if err := Create(link, 0o600, "two"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("through a link: %v", err)
	}
	info, err := os.Stat(path)
	must(t, err)
	data, err := os.ReadFile(path)
	must(t, err)
	if info.Mode() != 0o640 || string(data) != "one" {
		t.Errorf("%v, %q", info.Mode(), data)
	}
	if err := Create(filepath.Join(dir, "none", "file"), 0o600, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	names, err := os.ReadDir(dir)
	must(t, err)
	if len(names) != 2 {
		t.Errorf("%d files in the folder", len(names))
	}
}

func TestReplaceKeepsModeAndOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a file to another user: run it as root")
	}
	path := filepath.Join(t.TempDir(), "file")
	inPlace(t, path, "old")
	must(t, errors.Join(os.Chown(path, 12345, 12346), os.Chmod(path, 0o640)))
	old, err := os.Stat(path)
	must(t, err)
	must(t, Replace(path, old, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }))
	failed := errors.New("no")
	if err := Replace(path, old, func(io.Writer) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	info, err := os.Stat(path)
	must(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	if info.Mode() != 0o640 || stat.Uid != 12345 || stat.Gid != 12346 || os.SameFile(old, info) {
		t.Errorf("%v of %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
	if data, err := os.ReadFile(path); string(data) != "new" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
}

// A folder's owner can put what he likes in the place of the lock: root must not follow it.
func TestLockFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "list")
	target := filepath.Join(dir, "target")
	must(t, os.Symlink(target, path+".lock"))
	if _, err := Lock(t.Context(), path); err == nil || !strings.Contains(err.Error(), "list.lock: is a symbolic link") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the link points to: %v", err)
	}
	must(t, os.Remove(path+".lock"))
	must(t, syscall.Mkfifo(path+".lock", 0o600))
	if _, err := Lock(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
	must(t, os.Remove(path+".lock"))
	unlock, err := Lock(t.Context(), path)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Lock(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	unlock()
	unlock, err = Lock(t.Context(), path)
	must(t, err)
	unlock()
}

// A link that another user made may lead root anywhere.
func TestResolve(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a link to another user: run it as root")
	}
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	inPlace(t, path, "")
	must(t, os.Symlink(path, link))
	for _, name := range []string{path, link} {
		if got, err := Resolve(name); got != path || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	must(t, os.Chown(path, 12345, 12345)) // whose the file is does not matter
	must(t, os.Lchown(link, 12345, 12345))
	if got, err := Resolve(path); got != path || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Resolve(link); err == nil || !strings.Contains(err.Error(), link+": is a symbolic link of another user's") {
		t.Errorf("%v", err)
	}
	if _, err := Resolve(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestSaysEmpty(t *testing.T) {
	for line, want := range map[string]bool{
		"# empty": true, "#empty\r\n": true, " #  EMPTY ": true, "": false, "empty": false, "# empty list": false, "## empty": false, "bob # empty": false,
	} {
		if got := SaysEmpty(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestCheckNames(t *testing.T) {
	tests := []struct {
		name  string
		text  string
		code  string // "" where it is fine
		shown bool   // fine as a text, and none as a name
	}{
		{name: "ASCII", text: "bob smith\t@Example.com"},
		{name: "letters", text: "j\u00FCrgen \u4F60\u597D \u0438\u0432\u0430\u043D \u05D3\u05D5\u05D3 \u0E01\u0E34"},
		{name: "combining", text: "ju\u0308rgen"},
		{name: "dotless i", text: "\u0131\u015F\u0131k"},
		{name: "no-break space", text: "bob\u00A0", code: "U+00A0"},
		{name: "narrow one", text: "bob\u202F", code: "U+202F"},
		{name: "ideographic space", text: "\u3000bob", code: "U+3000"},
		{name: "Hangul filler", text: "bob\u3164", code: "U+3164"},
		{name: "Braille blank", text: "bob\u2800", code: "U+2800"},
		{name: "next line", text: "bob\u0085", code: "U+0085"},
		{name: "line separator", text: "bob\u2028", code: "U+2028"},
		{name: "zero width space", text: "b\u200Bob", code: "U+200B"},
		{name: "joiner", text: "b\u200Dob", code: "U+200D"},
		{name: "word joiner", text: "b\u2060ob", code: "U+2060"},
		{name: "byte order mark", text: "\uFEFFbob", code: "U+FEFF"},
		{name: "soft hyphen", text: "b\u00ADob", code: "U+00AD"},
		{name: "right to left", text: "\u202Ebob", code: "U+202E"},
		{name: "grapheme joiner", text: "b\u034Fob", code: "U+034F"},
		{name: "variation selector", text: "b\uFE0Fob", code: "U+FE0F"},
		{name: "tag", text: "b\U000E0062ob", code: "U+E0062"},
		{name: "control", text: "b\u0090ob", code: "U+0090"},
		{name: "private use", text: "b\uE000ob", code: "U+E000"},
		{name: "dotted I", text: "\u0130van", code: "U+0130", shown: true},
		{name: "I and a dot above", text: "I\u0307van", code: "U+0130", shown: true},
		{name: "Kelvin", text: "\u212Aim", code: "U+212A", shown: true},
		{name: "long s", text: "\u017Fam", code: "U+017F", shown: true},
		{name: "ligature", text: "\uFB01n", code: "U+FB01", shown: true},
		{name: "full width", text: "\uFF22ob", code: "U+FF22", shown: true},
		{name: "full width at", text: "bob\uFF20x", code: "U+FF20", shown: true},
		{name: "superscript", text: "m\u00B2", code: "U+00B2", shown: true},
		{name: "mathematical", text: "\U0001D41Bob", code: "U+1D41B", shown: true},
		{name: "circled", text: "\u24D1ob", code: "U+24D1", shown: true},
		{name: "Greek question mark", text: "a\u037E", code: "U+037E", shown: true},
		{name: "Greek varia", text: "a\u1FEF", code: "U+1FEF", shown: true},
		{name: "one dot leader", text: "a\u2024b", code: "U+2024", shown: true},
		{name: "care of", text: "\u2105", code: "U+2105", shown: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check := func(what string, err error, code string) {
				t.Helper()
				if (err == nil) != (code == "") || err != nil && !strings.Contains(err.Error(), "the character "+code+",") {
					t.Errorf("%s: %v, want %q", what, err, code)
				}
			}
			check("CheckName", CheckName(tt.text), tt.code)
			if tt.shown {
				tt.code = ""
			}
			check("CheckText", CheckText(tt.text), tt.code)
		})
	}
}

// Two names that CheckName takes are the same in lower case and in any Unicode form only
// if they have the same letters outside ASCII, case aside.
func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"bob", "\u0130van", "I\u0307", "\u212A", "\uFB01n", "ju\u0308rgen", "\uFF42", "b\u200Bob", "\xff", "\u00A8", "\u1E9B\u0323"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckName(s) != nil || !utf8.ValidString(s) {
			return
		}
		for _, form := range []string{strings.ToLower(s), norm.NFC.String(s), norm.NFKC.String(s), norm.NFKC.String(strings.ToLower(norm.NFC.String(s)))} {
			if esmtp.IsASCII(form) && !esmtp.IsASCII(s) {
				t.Errorf("%+q is taken, and is %q in another form", s, form)
			}
		}
	})
}

func TestCutOff(t *testing.T) {
	list := func(text string, last byte) List { return List{Entries: len(text), Text: []byte(text), Last: last} }
	meant := List{Last: '\n', SaysEmpty: true}
	for _, tt := range []struct {
		name              string
		old, now          List
		settled, writing  bool // it looks cut off
		unexplainedAtOnce bool
	}{
		{name: "the same", old: list("ab", '\n'), now: list("ab", '\n')},
		{name: "more", old: list("ab", '\n'), now: list("abc", '\n')},
		{name: "another", old: list("ab", '\n'), now: list("c", '\n')},
		{name: "a beginning", old: list("ab", '\n'), now: list("a", '\n'), writing: true},
		{name: "a beginning without line end", old: list("ab", '\n'), now: list("a", 'a'), settled: true, writing: true},
		{name: "more without line end", old: list("ab", '\n'), now: list("abc", 'c'), settled: true, writing: true},
		{name: "never a line end", old: list("ab", 'b'), now: list("abc", 'c')},
		{name: "nothing", old: list("ab", '\n'), settled: true, writing: true, unexplainedAtOnce: true},
		{name: "nothing, and meant", old: list("ab", '\n'), now: meant},
		{name: "nothing was there", old: meant, unexplainedAtOnce: true},
		{name: "the first entries", old: meant, now: list("a", 'a')},
	} {
		if got := tt.now.CutOff(tt.old, true); got != tt.settled {
			t.Errorf("%s: settled, it looks cut off: %v", tt.name, got)
		}
		if got := tt.now.CutOff(tt.old, false); got != tt.writing {
			t.Errorf("%s: not settled, it looks cut off: %v", tt.name, got)
		}
		if got := tt.now.Unexplained(); got != tt.unexplainedAtOnce {
			t.Errorf("%s: unexplained: %v", tt.name, got)
		}
	}
}

// ReplaceData follows a link of one's own, and replaces regular files only.
func TestReplaceData(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	inPlace(t, path, "old")
	must(t, os.Chmod(path, 0o640))
	must(t, os.Symlink("file", link))
	must(t, ReplaceData(link, []byte("new")))
	info, err := os.Lstat(path)
	must(t, err)
	if data, err := os.ReadFile(path); string(data) != "new" || err != nil || info.Mode() != 0o640 {
		t.Errorf("%q, %v, mode %v", data, err, info.Mode())
	}
	if target, err := os.Readlink(link); target != "file" || err != nil {
		t.Errorf("the link: %q, %v", target, err)
	}
	if err := ReplaceData(dir, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	if err := ReplaceData(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}

// What a writer left that was killed is no obstacle.
func TestReplaceAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	inPlace(t, path, "old")
	inPlace(t, path+".new", "half of what was to be writ")
	must(t, ReplaceData(path, []byte("new")))
	if data, err := os.ReadFile(path); string(data) != "new" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Lstat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestQuote(t *testing.T) {
	long := strings.Repeat("x", 79)
	for s, want := range map[string]string{
		"":               `""`,
		"a\"b\n":         `"a\"b\n"`,
		long + "y":       `"` + long + `y"`,
		long + "yz":      `"` + long + `y…"`,
		long + "\u00eb":  `"` + long + `…"`, // no half of a character
		"\u202e\u200bab": `"\u202e\u200bab"`,
	} {
		if got := Quote(s); got != want {
			t.Errorf("Quote(%q) = %s, want %s", s, got, want)
		}
	}
}

func TestLineError(t *testing.T) {
	fault := errors.New("a fault")
	for line, want := range map[int]string{0: "file: a fault", 7: "file: line 7: a fault"} {
		if err := error(&LineError{"file", line, fault}); err.Error() != want || !errors.Is(err, fault) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A Watch reports each change, and the same error once.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, worse := errors.New("bad"), errors.New("worse")
		a := &scripted{{true, nil}, {false, nil}, {true, bad}, {false, bad}, {true, bad}, {false, nil}, {true, worse}, {true, nil}, {true, worse}}
		b := &scripted{{false, bad}, {false, bad}, {false, nil}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		var got []string
		go func() {
			defer close(ended)
			Watch(ctx, time.Second, []*scripted{a, b}, func(f *scripted, err error) {
				got = append(got, fmt.Sprintf("%v %v", map[*scripted]string{a: "a", b: "b"}[f], err))
			})
		}()
		time.Sleep(time.Minute)
		cancel()
		<-ended
		want := []string{"a <nil>", "b bad", "a bad", "a worse", "a <nil>", "a worse"}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// A scripted file says this at each Refresh, one after the other, and then nothing more.
type scripted []struct {
	changed bool
	err     error
}

func (s *scripted) Refresh() (changed bool, err error) {
	if len(*s) == 0 {
		return false, nil
	}
	next := (*s)[0]
	*s = (*s)[1:]
	return next.changed, next.err
}
