package mtaconf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRemaining finds what still leads to authkey, whoever wrote it and wherever.
func TestRemaining(t *testing.T) {
	const smtp = "smtp inet n - n - - smtpd\n"
	for _, tc := range []struct {
		name, main, master string
		edits              []string // as commands
		lines              []string // by what they hold
	}{
		{"nothing", "smtpd_milters = unix:other\n# unix:authkey/milter.sock\n", smtp, nil, nil},
		{"by hand", "smtpd_milters = unix:other, { unix:authkey/milter.sock, default_action=accept }\n", smtp,
			[]string{"-e smtpd_milters = unix:other"}, []string{"main.cf:3: smtpd_milters"}},
		{"by its whole path", "smtpd_milters = unix:QUEUE/authkey/milter.sock\nnon_smtpd_milters = $smtpd_milters\n", smtp,
			[]string{"-e smtpd_milters = ", "-e non_smtpd_milters = "}, []string{"main.cf:3: smtpd_milters"}},
		{"of a service", "smtpd_milters =\n", smtp + "  -o smtpd_milters=unix:authkey/milter.sock,unix:b\n",
			[]string{"-P smtp/inet/smtpd_milters=unix:b"}, []string{"master.cf:2: -o smtpd_milters"}},
		{"by a name of somebody's", "filters = unix:authkey/milter.sock\nsmtpd_milters = $filters\n", smtp,
			[]string{"-e smtpd_milters = "}, []string{"main.cf:3: filters"}},
		{"by client", "smtpd_milter_maps = inline:{ {192.0.2.1 = unix:authkey/milter.sock} }\n", smtp,
			nil, []string{"main.cf:3: smtpd_milter_maps"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, tc.main, tc.master)
			s.write(t, "main.cf", strings.ReplaceAll(s.content(t, "main.cf"), "QUEUE", s.queue))
			lines, edits, err := s.read(t).Remaining(t.Context(), s.options.Ours)
			must(t, err)
			var got []string
			for _, e := range edits {
				got = append(got, strings.Join(e.args(e.New), " "))
			}
			if diff := cmp.Diff(tc.edits, got); diff != "" {
				t.Errorf("edits (-want +got):\n%s", diff)
			}
			if len(lines) != len(tc.lines) {
				t.Fatalf("lines %q, want %q", lines, tc.lines)
			}
			for i, want := range tc.lines {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %q, want %q", lines[i], want)
				}
			}
		})
	}
}

// TestStateOfSomebodyElse: in a folder that is somebody else's, what is remembered may be
// a link to another file, or written by him; and a link in its place is not written
// through.
func TestStateOfSomebodyElse(t *testing.T) {
	const smtp = "smtp inet n - n - - smtpd\n"
	secret := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "secret")
		must(t, os.WriteFile(path, []byte("secret\n"), 0o600))
		return path
	}
	for _, tc := range []struct {
		name  string
		plant func(t *testing.T, s *site, victim string)
	}{
		{"a link", func(t *testing.T, s *site, victim string) {
			must(t, os.Symlink(victim, filepath.Join(s.dir, stateFile)))
		}},
		{"another file", func(t *testing.T, s *site, victim string) {
			relative, err := filepath.Rel(s.dir, victim)
			must(t, err)
			// The digest is that of the victim, which would be replaced as a whole.
			s.write(t, stateFile, `{"edits":[],"files":{"`+relative+`":{"before":"mine\n","after_sha256":"b37e50cedcd3e3f1ff64f4afc0422084ae694253cf399326868e07a35f4a45fb"}}}`)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, victim := newSite(t, "smtpd_milters = unix:x\n", smtp), secret(t)
			tc.plant(t, s, victim)
			p := s.read(t)
			if _, err := p.Undo(t.Context()); err == nil || errors.Is(err, ErrNothingApplied) {
				t.Errorf("Undo: %v", err)
			}
			if edits, err := p.Propose(t.Context(), s.options.Ours, "tempfail"); err != nil {
				t.Error(err)
			} else if err := p.Apply(t.Context(), edits); err == nil {
				t.Error("Apply believed it")
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "secret\n" {
				t.Errorf("the victim is %q, %v", b, err)
			}
		})
	}
	if os.Geteuid() == 0 {
		s := newSite(t, "smtpd_milters = unix:x\n", smtp)
		s.write(t, stateFile, `{"edits":[],"files":{}}`)
		must(t, os.Chown(filepath.Join(s.dir, stateFile), 65534, 65534))
		if _, err := s.read(t).Undo(t.Context()); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("undid what another user wrote: %v", err)
		}
	}
	s, victim := newSite(t, "smtpd_milters = unix:x\n", smtp), secret(t)
	path := filepath.Join(s.dir, "new")
	must(t, os.Symlink(victim, path))
	must(t, replaceAt(path, "new\n"))
	info, err := os.Lstat(path)
	must(t, err)
	if b, err := os.ReadFile(victim); err != nil || string(b) != "secret\n" || info.Mode() != 0o600 {
		t.Errorf("the victim is %q, %v; mode %v", b, err, info.Mode())
	}
}
