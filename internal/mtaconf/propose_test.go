package mtaconf

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	plain    = "smtp inet n - n - - smtpd\ncleanup unix n - n - 0 cleanup\n"
	chrooted = "smtp inet n - y - - smtpd\n"
)

// TestPropose puts authkey into configurations, and finds nothing left to do then.
func TestPropose(t *testing.T) {
	for _, tc := range []struct {
		name, main, master, dkim string
		action                   string // default tempfail
		ours                     []Socket
		attach                   bool
		want                     []string // parameter: line
	}{
		{name: "empty", master: plain, want: []string{"smtpd_milters: smtpd_milters = unix:authkey/milter.sock"}},
		{name: "empty and chrooted", master: chrooted, want: []string{"smtpd_milters: smtpd_milters = unix:authkey/milter.sock"}},
		{name: "test mode leaves other milters' default action", master: plain, action: "accept",
			want: []string{"smtpd_milters: smtpd_milters = { unix:authkey/milter.sock, default_action=accept }"}},
		{name: "enforcing, with a default action that lets through", master: plain, main: "milter_default_action = accept\nsmtpd_milters = unix:x\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:x, { unix:authkey/milter.sock, default_action=tempfail }"}},
		{name: "enforcing, with reject", master: plain, main: "milter_default_action = reject\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:authkey/milter.sock"}},
		{name: "behind verifiers", master: plain, main: "smtpd_milters = inet:localhost:8891, unix:opendmarc/opendmarc.sock, unix:other\n",
			want: []string{"smtpd_milters: smtpd_milters = inet:localhost:8891, unix:opendmarc/opendmarc.sock, unix:authkey/milter.sock, unix:other"}},
		{name: "before a scanner", master: plain, main: "smtpd_milters = unix:other, inet:localhost:11332 unix:last\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:other, unix:authkey/milter.sock, inet:localhost:11332, unix:last"}},
		{name: "before a signer", master: plain, dkim: "s", main: "smtpd_milters = unix:opendkim/opendkim.sock\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:authkey/milter.sock, unix:opendkim/opendkim.sock"}},
		{name: "a scanner before a verifier", master: plain, main: "smtpd_milters = inet:localhost:11332, unix:opendkim\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:opendkim, unix:authkey/milter.sock, inet:localhost:11332; moves inet:localhost:11332 behind authkey: " + changedAfterwards}},
		{name: "a scanner before a verifier, authkey behind", master: plain, main: "smtpd_milters = unix:a, inet:localhost:11332, unix:b, unix:opendmarc, unix:authkey/milter.sock, unix:c\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:a, unix:b, unix:opendmarc, unix:authkey/milter.sock, inet:localhost:11332, unix:c; moves inet:localhost:11332 behind authkey: " + changedAfterwards}},
		{name: "asked twice", master: plain, main: "smtpd_milters = unix:x, unix:authkey/milter.sock, unix:y, unix:QUEUE/authkey/milter.sock\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:x, unix:authkey/milter.sock, unix:y"}},
		{name: "another default action leaves it in its place", master: plain, main: "milter_default_action = accept\nsmtpd_milters = unix:x, unix:authkey/milter.sock, unix:y\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:x, { unix:authkey/milter.sock, default_action=tempfail }, unix:y"}},
		{name: "moved", master: plain, main: "smtpd_milters = inet:localhost:11332, unix:authkey/milter.sock\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:authkey/milter.sock, inet:localhost:11332"}},
		{name: "well already", master: plain, main: "smtpd_milters = unix:opendkim, unix:authkey/milter.sock, unix:spamass\n"},
		{name: "well already in braces", master: plain, main: "smtpd_milters = { unix:/QUEUE/authkey/milter.sock, connect_timeout=3s, default_action=tempfail }\nmilter_default_action = accept\n"},
		{name: "references", master: plain, main: "dkim = unix:opendkim\nsmtpd_milters = $dkim\nnon_smtpd_milters = $smtpd_milters\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:opendkim, unix:authkey/milter.sock", "non_smtpd_milters: non_smtpd_milters = unix:opendkim"}},
		{name: "already among non_smtpd_milters", master: plain, main: "smtpd_milters = unix:authkey/milter.sock\nnon_smtpd_milters = $smtpd_milters\n",
			want: []string{"non_smtpd_milters: non_smtpd_milters ="}},
		{name: "submission with a signer", main: "smtpd_milters = unix:opendkim\n", master: plain + "submission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:opendkim, unix:authkey/milter.sock",
				"submission/inet/smtpd_milters: -o smtpd_milters=unix:authkey/milter.sock,unix:opendkim"}},
		{name: "submission by its daemon name", main: "smtpd_milters = {unix:opendkim, default_action=accept}, unix:authkey/milter.sock\n",
			master: plain + "127.0.0.1:2500 inet n - y - - smtpd -o milter_macro_daemon_name=originating\n",
			want:   []string{"127.0.0.1:2500/inet/smtpd_milters: -o smtpd_milters=unix:authkey/milter.sock,{unix:opendkim,default_action=accept}"}},
		{name: "port 25 with a list of its own, and others that opted out", main: "smtpd_milters = unix:x\n",
			master: "smtpd pass - - n - - smtpd -o smtpd_milters=unix:opendkim\n2525 inet n - n - - smtpd -o smtpd_milters=\nsubmission inet n - n - - smtpd -o smtpd_milters=unix:opendkim\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:x, unix:authkey/milter.sock",
				"smtpd/pass/smtpd_milters: -o smtpd_milters=unix:opendkim,unix:authkey/milter.sock"}},
		{name: "submission with a list of its own, where keys are attached", attach: true,
			main: "smtpd_milters = unix:authkey/milter.sock\n", master: plain + "submission inet n - n - - smtpd -o smtpd_milters=unix:opendkim\n",
			want: []string{"submission/inet/smtpd_milters: -o smtpd_milters=unix:authkey/milter.sock,unix:opendkim"}},
		{name: "submission that was switched off, where keys are attached", attach: true,
			main: "smtpd_milters = unix:authkey/milter.sock\n", master: plain + "submission inet n - n - - smtpd -o smtpd_milters=\nsubmissions inet n - n - - smtpd -o receive_override_options=no_milters,no_address_mappings\n2525 inet n - n - - smtpd -o smtpd_milters=\n",
			want: []string{"submission/inet/smtpd_milters: -o smtpd_milters=unix:authkey/milter.sock",
				"submissions/inet/receive_override_options: -o receive_override_options=no_address_mappings"}},
		{name: "submission in test mode, where keys are attached", attach: true, action: "accept",
			main: "smtpd_milters = {unix:authkey/milter.sock,default_action=accept}\n", master: plain + "submission inet n - n - - smtpd -o smtpd_milters=unix:authkey/milter.sock,unix:opendkim\n",
			want: []string{"submission/inet/smtpd_milters: -o smtpd_milters={unix:authkey/milter.sock,default_action=accept},unix:opendkim"}},
		{name: "content filter", main: "content_filter = smtp-amavis:[127.0.0.1]:10024\nsmtpd_milters = unix:x\n",
			master: plain + "127.0.0.1:10025 inet n - n - - smtpd -o content_filter=\n",
			want: []string{"smtpd_milters: smtpd_milters = unix:x, unix:authkey/milter.sock",
				"127.0.0.1:10025/inet/smtpd_milters: -o smtpd_milters=unix:x"}},
		{name: "a path that is another one in the chroot", main: "smtpd_milters = unix:/QUEUE/authkey/milter.sock, unix:x\n", master: chrooted,
			want: []string{"smtpd_milters: smtpd_milters = unix:x, unix:authkey/milter.sock"}},
		{name: "TCP", master: chrooted, ours: []Socket{{"inet", "0.0.0.0:8890"}}, want: []string{"smtpd_milters: smtpd_milters = inet:127.0.0.1:8890"}},
		{name: "a path elsewhere", master: plain, ours: []Socket{{"unix", "/run/authkey/milter.sock"}},
			want: []string{"smtpd_milters: smtpd_milters = unix:/run/authkey/milter.sock"}},
		{name: "the second socket", master: chrooted, ours: []Socket{{"unix", "/run/authkey/milter.sock"}, {"inet", "127.0.0.1:8890"}},
			want: []string{"smtpd_milters: smtpd_milters = inet:127.0.0.1:8890"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, tc.main, tc.master)
			s.write(t, "main.cf", strings.NewReplacer("/QUEUE", s.queue, "QUEUE", s.queue).Replace(s.content(t, "main.cf")))
			if tc.dkim != "" {
				must(t, os.WriteFile(s.options.OpenDKIMConf, []byte("Mode "+tc.dkim+"\n"), 0o644))
			}
			s.options.Attach = tc.attach
			if tc.ours != nil {
				s.options.Ours.Sockets = tc.ours
			}
			if tc.action == "" {
				tc.action = "tempfail"
			}
			main, master := s.content(t, "main.cf"), s.content(t, "master.cf")
			p := s.read(t)
			edits, err := p.Propose(t.Context(), s.options.Ours, tc.action)
			must(t, err)
			var got []string
			for _, e := range edits {
				got = append(got, strings.Join(append([]string{e.parameter() + ": " + e.Line()}, e.Moves...), "; "))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}

			must(t, p.Apply(t.Context(), edits))
			p = s.read(t)
			for _, service := range p.Services {
				if service.Misplaced != nil {
					t.Errorf("%s: %+v", service.Name, *service.Misplaced)
				}
			}
			if again, err := p.Propose(t.Context(), s.options.Ours, tc.action); err != nil || len(again) > 0 {
				t.Errorf("again: %+v, %v", again, err)
			}
			must(t, p.Apply(t.Context(), nil))
			_, err = p.Undo(t.Context())
			if (err == nil) != (len(edits) > 0) || err != nil && !errors.Is(err, ErrNothingApplied) {
				t.Errorf("Undo: %v", err)
			}
			if diff := cmp.Diff([]string{main, master}, []string{s.content(t, "main.cf"), s.content(t, "master.cf")}); diff != "" {
				t.Errorf("undone (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	s := newSite(t, "", chrooted)
	s.options.Ours.Sockets = []Socket{{"unix", "/run/authkey/milter.sock"}}
	p := s.read(t)
	_, err := p.Propose(t.Context(), s.options.Ours, "tempfail")
	var u *Unreachable
	if !errors.As(err, &u) || !strings.HasPrefix(err.Error(), "Postfix's smtpd is chrooted in "+s.queue) {
		t.Fatalf("%v", err)
	}
	if u.Postfix != p || u.Ours.Sockets[0] != s.options.Ours.Sockets[0] {
		t.Errorf("%+v", u)
	}
	if _, err := p.Propose(t.Context(), Ours{}, "tempfail"); err == nil || errors.As(err, &u) {
		t.Errorf("no socket: %v", err)
	}
}

// TestUndoAfterChanges takes back what was applied, and nothing that somebody else
// changed since.
func TestUndoAfterChanges(t *testing.T) {
	const main = "# first\nsmtpd_milters = unix:opendkim,\n  # in between\n  inet:localhost:11332\n"
	const master = "smtp inet n - n - - smtpd\n# ours\nsubmission   inet n - n - - smtpd\n  -o syslog_name=postfix/submission\n"
	apply := func(t *testing.T) *site {
		s := newSite(t, main, master)
		p := s.read(t)
		edits, err := p.Propose(t.Context(), s.options.Ours, "tempfail")
		must(t, err)
		if len(edits) != 2 {
			t.Fatalf("%+v", edits)
		}
		must(t, p.Apply(t.Context(), edits))
		return s
	}
	set := func(t *testing.T, s *site, args ...string) {
		t.Helper()
		_, err := s.read(t).run(t.Context(), args...)
		must(t, err)
	}
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, s *site)
		want   map[string]string // postconf's names
	}{
		{"another parameter", func(t *testing.T, s *site) { set(t, s, "-e", "mynetworks = 127.0.0.1") },
			map[string]string{"smtpd_milters": "unix:opendkim, inet:localhost:11332", "mynetworks": "127.0.0.1"}},
		{"another milter", func(t *testing.T, s *site) {
			set(t, s, "-e", "smtpd_milters = unix:opendkim, unix:authkey/milter.sock, unix:new, inet:localhost:11332")
		}, map[string]string{"smtpd_milters": "unix:opendkim, unix:new, inet:localhost:11332"}},
		{"the line is gone", func(t *testing.T, s *site) { set(t, s, "-X", "smtpd_milters") }, map[string]string{"smtpd_milters": ""}},
		{"master.cf", func(t *testing.T, s *site) {
			set(t, s, "-P", "submission/inet/smtpd_milters=unix:authkey/milter.sock,unix:new,unix:opendkim")
		}, map[string]string{"submission/inet/smtpd_milters": "unix:new,unix:opendkim", "smtpd_milters": "unix:opendkim, inet:localhost:11332"}},
		{"master.cf elsewhere", func(t *testing.T, s *site) { set(t, s, "-P", "smtp/inet/syslog_name=x") },
			map[string]string{"submission/inet/smtpd_milters": "", "smtp/inet/syslog_name": "x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := apply(t)
			tc.change(t, s)
			p := s.read(t)
			restored, err := p.Undo(t.Context())
			must(t, err)
			if diff := cmp.Diff([]string{"submission/inet/smtpd_milters", "smtpd_milters"}, restored); diff != "" {
				t.Error(diff)
			}
			out, err := p.run(t.Context(), "-n")
			must(t, err)
			own, err := p.run(t.Context(), "-P")
			must(t, err)
			got := settings(out + own)
			for name, want := range tc.want {
				if got[name] != want {
					t.Errorf("%s = %q, want %q", name, got[name], want)
				}
			}
			if _, err := p.Undo(t.Context()); !errors.Is(err, ErrNothingApplied) {
				t.Errorf("Undo again: %v", err)
			}
		})
	}
}

// TestApplyTwice moves the milter to another socket, and keeps what there was before
// the first time.
func TestApplyTwice(t *testing.T) {
	s := newSite(t, "smtpd_milters = unix:x\n", plain)
	before := s.content(t, "main.cf")
	for _, ours := range []string{s.queue + "/authkey/milter.sock", s.queue + "/other.sock"} {
		s.options.Ours.Sockets = []Socket{{"unix", ours}}
		p := s.read(t)
		edits, err := p.Propose(t.Context(), s.options.Ours, "tempfail")
		must(t, err)
		must(t, p.Apply(t.Context(), edits))
	}
	if got := s.content(t, "main.cf"); !strings.Contains(got, "smtpd_milters = unix:x, unix:other.sock\n") {
		t.Errorf("applied:\n%s", got)
	}
	_, err := s.read(t).Undo(t.Context())
	must(t, err)
	if diff := cmp.Diff(before, s.content(t, "main.cf")); diff != "" {
		t.Error(diff)
	}
	s.write(t, stateFile, "{")
	if _, err := s.read(t).Undo(t.Context()); err == nil {
		t.Error("undid by a broken state file")
	}
}

func TestCommands(t *testing.T) {
	p := &Postfix{ConfigDir: "/etc/my postfix", Explicit: true}
	e := Edit{Name: "smtpd_milters", New: "{ unix:a, default_action=accept }"}
	if got, want := p.EditCommand(e), `postconf -c '/etc/my postfix' -e 'smtpd_milters = { unix:a, default_action=accept }'`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	p.Explicit = false
	if got := p.Command("postfix", "reload"); got != "postfix reload" {
		t.Error(got)
	}
	e.Service = "submission/inet"
	if got, want := p.EditCommand(e), `postconf -P 'submission/inet/smtpd_milters={ unix:a, default_action=accept }'`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := Quote("it's"); got != `'it'\''s'` {
		t.Error(got)
	}
}
