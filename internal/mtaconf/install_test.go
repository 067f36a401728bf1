package mtaconf

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// apply proposes and applies what a site needs.
func (s *site) apply(t *testing.T) (*Postfix, error) {
	t.Helper()
	p := s.read(t)
	edits, err := p.Propose(t.Context(), s.options.Ours, "tempfail")
	must(t, err)
	if len(edits) == 0 {
		t.Fatal("nothing to apply")
	}
	return p, p.Apply(t.Context(), edits)
}

// posixACL is an access control list: user:: rw-, user:UID r--, group:: ---, mask r--,
// other ---.
func posixACL(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, entry := range [][3]uint32{{1, 6, 0xffffffff}, {2, 4, uid}, {4, 0, 0xffffffff}, {0x10, 4, 0xffffffff}, {0x20, 0, 0xffffffff}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(entry[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(entry[1]))
		b = binary.LittleEndian.AppendUint32(b, entry[2])
	}
	return b
}

// TestApplyKeepsTheFile: mode, owner, access control list, attributes and link of a
// main.cf are the same after Apply and after Undo.
func TestApplyKeepsTheFile(t *testing.T) {
	s := newSite(t, "# password: secret\nsmtpd_milters = unix:x\n", plain+"submission inet n - n - - smtpd -o smtpd_milters=unix:y\n")
	s.options.Attach = true // so that master.cf is edited too
	real := filepath.Join(filepath.Dir(s.dir), "kept-elsewhere")
	must(t, os.Mkdir(real, 0o755))
	main, target := filepath.Join(s.dir, "main.cf"), filepath.Join(real, "postfix-main.cf")
	must(t, os.Rename(main, target))
	must(t, os.Symlink("../kept-elsewhere/postfix-main.cf", main))
	must(t, os.Chmod(target, 0o640))
	must(t, os.Chown(target, -1, 65534))
	master := filepath.Join(s.dir, "master.cf")
	must(t, os.Chmod(master, 0o600))
	for name, value := range map[string][]byte{aclAttribute: posixACL(65534), "user.note": []byte("mine")} {
		if err := unix.Setxattr(target, name, value, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
	}
	type state struct {
		Link, ACL, Note    string
		Mode, Master       os.FileMode
		Owner, Group, Temp uint32
	}
	look := func() state {
		var v state
		var err error
		v.Link, err = os.Readlink(main)
		must(t, err)
		info, err := os.Stat(main)
		must(t, err)
		v.Mode, v.Owner, v.Group = info.Mode(), info.Sys().(*syscall.Stat_t).Uid, info.Sys().(*syscall.Stat_t).Gid
		info, err = os.Stat(master)
		must(t, err)
		v.Master = info.Mode()
		get := func(name string) string {
			b := make([]byte, 256)
			n, err := unix.Getxattr(main, name, b)
			if err != nil {
				return err.Error()
			}
			return string(b[:n])
		}
		v.ACL, v.Note = get(aclAttribute), get("user.note")
		for _, dir := range []string{s.dir, real} {
			left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
			must(t, err)
			v.Temp += uint32(len(left))
		}
		return v
	}
	before, content := look(), s.content(t, "main.cf")
	_, err := s.apply(t)
	must(t, err)
	if diff := cmp.Diff(before, look()); diff != "" {
		t.Errorf("applied (-was +is):\n%s", diff)
	}
	if !strings.Contains(s.content(t, "main.cf"), "unix:authkey/milter.sock") || !strings.Contains(s.content(t, "master.cf"), "unix:authkey/milter.sock") {
		t.Error("not applied")
	}
	if info, err := os.Stat(filepath.Join(s.dir, stateFile)); err != nil || info.Mode() != 0o600 {
		t.Errorf("what is remembered holds main.cf, and others may read it: %v, %v", info.Mode(), err)
	}
	_, err = s.read(t).Undo(t.Context())
	must(t, err)
	if diff := cmp.Diff(before, look()); diff != "" {
		t.Errorf("undone (-was +is):\n%s", diff)
	}
	if diff := cmp.Diff(content, s.content(t, "main.cf")); diff != "" {
		t.Error(diff)
	}
}

// TestForeignLinks: in a folder of another user root follows no link and writes no file
// that is not there for it.
func TestForeignLinks(t *testing.T) {
	const nobody = 65534
	for _, tc := range []struct {
		name  string
		plant func(t *testing.T, s *site, victim string)
		want  string
	}{
		{"main.cf", func(t *testing.T, s *site, victim string) {
			main := filepath.Join(s.dir, "main.cf")
			b, err := os.ReadFile(main)
			must(t, err)
			must(t, os.WriteFile(victim, b, 0o600))
			must(t, os.Remove(main))
			must(t, os.Symlink(victim, main))
		}, "not followed"},
		{"what is remembered", func(t *testing.T, s *site, victim string) {
			must(t, os.Symlink(victim, filepath.Join(s.dir, stateFile)))
		}, "symbolic link"},
		{"the temporary file, a link", func(t *testing.T, s *site, victim string) {
			must(t, os.Symlink(victim, filepath.Join(s.dir, "main.cf.tmp")))
		}, "symbolic link"},
		{"the temporary file, another name of the victim", func(t *testing.T, s *site, victim string) {
			must(t, os.Link(victim, filepath.Join(s.dir, "main.cf.tmp")))
		}, "in the way"},
		{"the temporary file, of that user", func(t *testing.T, s *site, victim string) {
			must(t, os.WriteFile(filepath.Join(s.dir, "main.cf.tmp"), nil, 0o666))
			must(t, os.Chown(filepath.Join(s.dir, "main.cf.tmp"), nobody, nobody))
		}, "in the way"},
		{"a folder above", func(t *testing.T, s *site, victim string) {
			link := filepath.Join(filepath.Dir(s.dir), "theirs")
			must(t, os.Mkdir(link, 0o755))
			must(t, os.Chown(link, nobody, nobody))
			must(t, os.Symlink(s.dir, filepath.Join(link, "etc")))
			s.dir = filepath.Join(link, "etc")
			s.options.ConfigDir = s.dir
		}, "not followed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t, "smtpd_milters = unix:x\n", plain)
			victim := filepath.Join(filepath.Dir(s.dir), "victim")
			must(t, os.WriteFile(victim, []byte("precious"), 0o600))
			must(t, os.Chown(s.dir, nobody, nobody))
			tc.plant(t, s, victim)
			before, err := os.ReadFile(victim)
			must(t, err)
			if _, err := s.apply(t); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if after, err := os.ReadFile(victim); err != nil || string(after) != string(before) {
				t.Errorf("the victim: %q, %v", after, err)
			}
			if strings.Contains(s.content(t, "main.cf"), "authkey") {
				t.Error("applied all the same")
			}
		})
	}
	t.Run("its own file", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x\n", plain)
		for _, path := range []string{s.dir, filepath.Join(s.dir, "main.cf")} {
			must(t, os.Chown(path, nobody, nobody))
		}
		_, err := s.apply(t)
		must(t, err)
		info, err := os.Stat(filepath.Join(s.dir, "main.cf"))
		must(t, err)
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != nobody {
			t.Errorf("main.cf belongs to %d", owner)
		}
	})
}

// TestApplyAllOrNothing: a full disk, and somebody who writes the file meanwhile, leave
// everything as it was.
func TestApplyAllOrNothing(t *testing.T) {
	t.Run("full disk", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x\n# "+strings.Repeat("x", 20<<10)+"\n", plain)
		small := filepath.Join(filepath.Dir(s.dir), "small")
		must(t, os.Mkdir(small, 0o755))
		// As large as the files, and as what is remembered of them, but not as a second main.cf.
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small).CombinedOutput(); err != nil {
			t.Fatalf("tmpfs: %v: %s", err, out)
		}
		t.Cleanup(func() { must(t, exec.Command("umount", small).Run()) })
		must(t, os.CopyFS(small, os.DirFS(s.dir)))
		s.dir, s.options.ConfigDir = small, small
		before := s.content(t, "main.cf")
		_, err := s.apply(t)
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v", err)
		}
		if s.content(t, "main.cf") != before {
			t.Error("main.cf was changed")
		}
		if left, _ := filepath.Glob(small + "/*.tmp"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		// What was remembered does no harm.
		if _, err := s.read(t).Undo(t.Context()); err != nil {
			t.Error(err)
		}
		if s.content(t, "main.cf") != before {
			t.Error("undone, main.cf is another one")
		}
	})
	t.Run("somebody writes meanwhile", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x\n", plain)
		f, err := openFile(filepath.Join(s.dir, "main.cf"), true)
		must(t, err)
		defer f.close()
		r, err := f.prepare([]byte("ours\n"), 0o644)
		must(t, err)
		s.write(t, "main.cf", "theirs = 1\n")
		if err := r.commit(); !errors.Is(err, errChanged) {
			t.Errorf("%v", err)
		}
		if got := s.content(t, "main.cf"); got != "theirs = 1\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("postconf waits", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x\n", plain)
		s.age(t)
		f, err := openFile(filepath.Join(s.dir, "main.cf"), true)
		must(t, err)
		defer f.close()
		r, err := f.prepare([]byte("queue_directory = "+s.queue+"\nours = 1\n"), 0o644)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		edit := exec.CommandContext(ctx, "postconf", "-c", s.dir, "-e", "theirs = 1")
		must(t, edit.Start())
		must(t, r.commit())
		must(t, edit.Wait())
		if got := s.content(t, "main.cf"); !strings.Contains(got, "ours = 1\n") || !strings.Contains(got, "theirs = 1\n") {
			t.Errorf("one edit is lost:\n%s", got)
		}
	})
}

// TestUndoPostfix is what a package's removal relies on.
func TestUndoPostfix(t *testing.T) {
	t.Run("without postconf", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x\n", plain)
		before := s.content(t, "main.cf")
		_, err := s.apply(t)
		must(t, err)
		p := &Postfix{ConfigDir: s.dir, Explicit: true}
		if u := p.undo(t.Context(), Ours{}, ErrNoPostfix); u.Err != nil || len(u.Restored) != 1 {
			t.Errorf("%+v", u)
		}
		if diff := cmp.Diff(before, s.content(t, "main.cf")); diff != "" {
			t.Error(diff)
		}
		if u := p.undo(t.Context(), Ours{}, ErrNoPostfix); !errors.Is(u.Err, ErrNoPostfix) {
			t.Errorf("again: %+v", u)
		}
	})
	t.Run("by hand", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x, { unix:authkey/milter.sock, default_action=tempfail }, inet:127.0.0.1:8890\nnon_smtpd_milters = $smtpd_milters\n",
			plain+"submission inet n - y - - smtpd -o smtpd_milters=unix:/authkey/milter.sock,unix:y\n")
		s.age(t)
		ours := Ours{Sockets: []Socket{{"inet", "127.0.0.1:8890"}}}
		all := UndoPostfix(t.Context(), s.dir, ours)
		if len(all) != 1 || all[0].Err != nil || len(all[0].Restored) != 3 {
			t.Fatalf("%+v", all)
		}
		for name, want := range map[string]string{"main.cf": "smtpd_milters = unix:x\nnon_smtpd_milters = unix:x\n", "master.cf": "smtpd_milters=unix:y\n"} {
			if got := s.content(t, name); !strings.Contains(got, want) || strings.Contains(got, "authkey/") {
				t.Errorf("%s:\n%s", name, got)
			}
		}
		s.age(t)
		if all := UndoPostfix(t.Context(), s.dir, ours); !errors.Is(all[0].Err, ErrNothingApplied) {
			t.Errorf("again: %+v", all)
		}
	})
	t.Run("named before it was applied", func(t *testing.T) {
		s := newSite(t, "milter_default_action = accept\nsmtpd_milters = unix:authkey/milter.sock\n", plain)
		before := s.content(t, "main.cf")
		_, err := s.apply(t)
		must(t, err)
		s.age(t)
		all := UndoPostfix(t.Context(), s.dir, s.options.Ours)
		if all[0].Err != nil || !cmp.Equal(all[0].Left, []string{"smtpd_milters"}) || s.content(t, "main.cf") != before {
			t.Errorf("%+v:\n%s", all, s.content(t, "main.cf"))
		}
	})
	t.Run("a broken main.cf", func(t *testing.T) {
		s := newSite(t, "smtpd_milters = unix:x\n", plain)
		_, err := s.apply(t)
		must(t, err)
		s.write(t, "main.cf", s.content(t, "main.cf")+"broken line\n")
		s.age(t)
		if all := UndoPostfix(t.Context(), s.dir, s.options.Ours); all[0].Err == nil || errors.Is(all[0].Err, ErrNothingApplied) {
			t.Errorf("%+v", all)
		}
		if _, err := os.Stat(filepath.Join(s.dir, stateFile)); err != nil {
			t.Error("what was remembered is gone")
		}
	})
	t.Run("a second instance", func(t *testing.T) {
		out := newSite(t, "smtpd_milters = unix:authkey/milter.sock\n", plain)
		s := newSite(t, "multi_instance_directories = "+out.dir+"\n", plain)
		s.age(t)
		out.age(t)
		if got, err := s.read(t).Instances(t.Context()); err != nil || !cmp.Equal(got, []string{out.dir}) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestApplyCutShort: whatever of Apply was done when the machine stopped, Undo finds the
// way back.
func TestApplyCutShort(t *testing.T) {
	s := newSite(t, "smtpd_milters = unix:x\n", plain)
	before := s.content(t, "main.cf")
	_, err := s.apply(t)
	must(t, err)
	first := s.content(t, "main.cf")
	s.options.Ours.Sockets = []Socket{{"unix", s.queue + "/other.sock"}}
	_, err = s.apply(t)
	must(t, err)
	for _, content := range []string{before, first, s.content(t, "main.cf")} {
		state, err := os.ReadFile(filepath.Join(s.dir, stateFile))
		must(t, err)
		s.write(t, "main.cf", content)
		_, err = s.read(t).Undo(t.Context())
		must(t, err)
		if diff := cmp.Diff(before, s.content(t, "main.cf")); diff != "" {
			t.Error(diff)
		}
		s.write(t, stateFile, string(state))
	}
}
