package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/authkey/authkey/internal/diskfile"
)

func TestEdit(t *testing.T) {
	const list = "# staff\nbob\n\nCarol@example.com gen=2 # boss\n#removed dave@example.com gen=4\n"
	add := func(addresses ...string) func(ListFile) error {
		return func(f ListFile) error { _, err := f.Add(context.Background(), addresses...); return err }
	}
	remove := func(addresses ...string) func(ListFile) error {
		return func(f ListFile) error { return f.Remove(context.Background(), addresses...) }
	}
	revoke := func(addresses ...string) func(ListFile) error {
		return func(f ListFile) error { return f.Revoke(context.Background(), addresses...) }
	}
	tests := []struct {
		name, before string
		change       func(ListFile) error
		after        string // "" means as before
		wantErr      string
	}{
		{name: "add", before: list, change: add("eve", `"e f"`), after: list + "eve@example.com\n\"e f\"@example.com\n"},
		{name: "add one that is there", before: list, change: add("BOB@example.com")},
		{name: "add twice at once", before: list, change: add("eve", "Eve"), after: list + "eve@example.com\n"},
		{name: "add one that was removed", before: list, change: add("dave"),
			after: "# staff\nbob\n\nCarol@example.com gen=2 # boss\ndave@example.com gen=5\n"},
		{name: "add without a last end", before: "bob", change: add("eve"), after: "bob\neve@example.com\n"},
		{name: "add a sub-address", before: list, change: add("eve", "bob+x"), wantErr: "sub-address"},
		{name: "add of another domain", before: list, change: add("eve@example.org"), wantErr: "not in example.com"},
		{name: "add a line end", before: list, change: add("\"eve\nmallory\""), wantErr: "control character"},
		{name: "remove", before: list, change: remove("bob", "carol"),
			after: "# staff\n\n#removed dave@example.com gen=4\n#removed bob@example.com\n#removed carol@example.com gen=2\n"},
		{name: "remove one that is not there", before: list, change: remove("bob", "mallory"), wantErr: "mallory@example.com: address is not in the list"},
		{name: "remove one that was removed", before: list, change: remove("dave"), wantErr: "not in the list"},
		{name: "remove one that is there twice", before: "bob gen=1\nbob gen=3\n", change: remove("bob"), after: "#removed bob@example.com gen=3\n"},
		{name: "revoke", before: list, change: revoke("carol"),
			after: "# staff\nbob\n\ncarol@example.com gen=3 # boss\n#removed dave@example.com gen=4\n"},
		{name: "revoke one that is there twice", before: "bob gen=3\nbob # x\n", change: revoke("bob"), after: "bob@example.com gen=4\nbob@example.com gen=4 # x\n"},
		{name: "revoke one that is not there", before: list, change: revoke("mallory", "bob"), wantErr: "mallory@example.com: address is not in the list"},
		{name: "revoke at the end", before: "bob gen=4294967295\n", change: revoke("bob"), wantErr: "cannot rise"},
		{name: "remove at the end", before: "bob gen=4294967295\n", change: remove("bob"), after: "#removed bob@example.com gen=4294967295\n"},
		{name: "add after the end", before: "#removed bob gen=4294967295\n", change: add("bob"), wantErr: "cannot rise"},
		{name: "bad line", before: "bob\nbob bob\n", change: add("eve"), wantErr: "line 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := write(t, filepath.Join(dir, "list"), tt.before)
			err := tt.change(ListFile{Path: path, Form: testForm})
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			want := tt.after
			if want == "" {
				want = tt.before
			}
			if got := read(t, path); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			names, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if n.Name() != "list" && n.Name() != "list.lock" {
					t.Errorf("left behind: %s", n.Name())
				}
			}
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// A removed address that comes back, perhaps as another person's, has other keys.
func TestRemovedAddressComesBackWithOtherKeys(t *testing.T) {
	d := open(t, secretA, "bob gen=2\n", nil)
	f := ListFile{Path: d.path, Form: testForm}
	old := keyAt(t, d, "bob@example.com", midday)
	for range 3 {
		if err := f.Remove(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		if n, err := f.Add(t.Context(), "bob"); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		if err := d.Reload(); err != nil {
			t.Fatal(err)
		}
		if verify(t, d, "bob@example.com", old, midday).Valid {
			t.Fatal("the old key is valid")
		}
		old = keyAt(t, d, "bob@example.com", midday)
	}
	if got, want := read(t, f.Path), "bob@example.com gen=5\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEditKeepsModeAndLink(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "list"), "bob\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	root := os.Getuid() == 0
	if root { // only root may give a file away
		if err := os.Chown(path, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := (ListFile{Path: link, Form: testForm}).Add(t.Context(), "eve"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if owner := fmt.Sprintf("%+v", info.Sys()); root && !(strings.Contains(owner, "Uid:12345") && strings.Contains(owner, "Gid:23456")) {
		t.Errorf("owner %s", owner)
	}
	if got := read(t, path); got != "bob\neve@example.com\n" {
		t.Errorf("%q", got)
	}
}

// Writers at the same time lose nothing, and readers see whole files only.
// The lock that root leaves behind must not keep the owner of the folder from editing.
func TestLockBelongsToTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a folder to another user: run it as root")
	}
	dir := t.TempDir()
	list := ListFile{Path: filepath.Join(dir, "list"), Form: testForm}
	if err := errors.Join(list.Create(), os.Chown(dir, 12345, 23456)); err != nil {
		t.Fatal(err)
	}
	if _, err := list.Add(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(list.Path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 12345 || stat.Gid != 23456 {
		t.Errorf("the lock is of %d:%d", stat.Uid, stat.Gid)
	}
}

func TestWritersAtTheSameTime(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "list"), "bob\n")
	f := ListFile{Path: path, Form: testForm}
	const writers, each = 4, 8
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				if n, err := f.Add(t.Context(), fmt.Sprintf("u%d-%d", i, j)); n != 1 || err != nil {
					t.Error(n, err)
				}
				if err := f.Revoke(t.Context(), "bob"); err != nil {
					t.Error(err)
				}
				if _, _, err := loadTable(path, testForm); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	table, _, err := loadTable(path, testForm)
	if err != nil {
		t.Fatal(err)
	}
	gen, _ := table.generation("bob")
	if table.count != writers*each+1 || gen != writers*each {
		t.Errorf("%d addresses, generation %d", table.count, gen)
	}
}

func TestLockIsWaitedForUntilTheContextEnds(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "list"), "bob\n")
	unlock, err := diskfile.Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := ListFile{Path: path, Form: testForm}
	if _, err := f.Add(ctx, "eve"); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "list.lock") {
		t.Errorf("error %v", err)
	}
	unlock()
	if _, err := f.Add(t.Context(), "eve"); err != nil {
		t.Error(err)
	}
}

func TestCreateAndEach(t *testing.T) {
	f := ListFile{Path: filepath.Join(t.TempDir(), "list"), Form: testForm}
	if _, err := f.Add(t.Context(), "bob"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("add to no file: error %v", err)
	}
	if err := f.Create(); err != nil {
		t.Fatal(err)
	}
	if err := f.Create(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want fs.ErrExist", err)
	}
	if n, err := f.Add(t.Context(), "bob", `"c d"`); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if err := f.Revoke(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	var got []Entry
	if err := f.Each(func(e Entry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := "[{bob@example.com 1} {\"c d\"@example.com 0}]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// Whatever a list holds, an edit refuses it and leaves it alone, or changes what it
// was asked to change and nothing else.
func FuzzListFile(f *testing.F) {
	for _, content := range []string{
		"", "\n", "bob", "bob\nalice gen=3 # x\n", "# comment\n\n \nbob@example.com\r\n", "bob gen=1\nBOB gen=4\n", "\uFEFFbob\n", "bob\x00\n", "bob\nali",
		"#removed new gen=7\n", "#removed new gen=4294967295\nbob\n", "new gen=2", `"john doe" gen=1` + "\n#removed \"\n", "bob@example.org\n", "\xff\xfe", "a gen=-1\n",
	} {
		f.Add([]byte(content))
	}
	path := filepath.Join(f.TempDir(), "list")
	list := ListFile{Path: path, Form: testForm}
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		old, _, loadErr := loadTable(path, testForm)
		_, editErr := list.Add(t.Context(), "new")
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if (loadErr != nil || editErr != nil) && !bytes.Equal(after, content) {
			t.Fatalf("%q became %q, in spite of %v, %v", content, after, loadErr, editErr)
		}
		if loadErr != nil && editErr == nil {
			t.Fatalf("edited in spite of %v", loadErr)
		}
		if editErr != nil {
			return
		}
		now, _, err := loadTable(path, testForm)
		if err != nil {
			t.Fatalf("%q became %q: %v", content, after, err)
		}
		if _, known := now.generation("new"); !known {
			t.Fatalf("%q became %q", content, after)
		}
		want := old.count
		if _, known := old.generation("new"); !known {
			want++
		}
		if now.count != want {
			t.Fatalf("%d addresses became %d", old.count, now.count)
		}
		for at := 0; at < len(old.text); {
			local := string(old.at(at))
			at += entryHead + len(local)
			was, _ := old.generation(local)
			if is, known := now.generation(local); !known || is != was {
				t.Fatalf("%q of generation %d is of %d, %v", local, was, is, known)
			}
		}
	})
}
