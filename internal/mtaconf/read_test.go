package mtaconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/authkey/authkey/internal/config"
)

func TestReadPostfix(t *testing.T) {
	s := newSite(t, "smtpd_milters = unix:/authkey/milter.sock, unix:authkey/milter.sock\nnon_smtpd_milters = inet:[::1]:1\n",
		"smtp inet n - y - - smtpd\n2500 inet n - - - - smtpd\n"+
			"submissions inet n - n - - smtpd -o { receive_override_options = no_address_mappings, no_milters }\ncleanup unix n - y - 0 cleanup\n")
	p := s.read(t)
	if p.QueueDir != s.queue || p.Owner != "postfix" || p.ConfigDir != s.dir || len(p.NonSMTPD) != 1 || p.NonSMTPD[0].Ours {
		t.Errorf("%+v", p)
	}
	type view struct {
		Name                              string
		Chroot, NoMilters, Submission     bool
		First, Second, Asks, Border, Port bool
	}
	var got []view
	for _, v := range p.Services {
		got = append(got, view{v.Name, v.Chroot, v.NoMilters, v.Submission, v.Milters[0].Ours, v.Milters[1].Ours, v.Asks(), v.Inbound(), v.Port25()})
		if v.Milters[0].DefaultAction != "tempfail" {
			t.Errorf("%s: default action %q", v.Name, v.Milters[0].DefaultAction)
		}
	}
	want := []view{
		{"smtp/inet", true, false, false, true, true, true, true, true},
		{"2500/inet", false, false, false, false, true, true, true, false},
		{"submissions/inet", false, true, true, false, true, false, false, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.write(t, "main.cf", "compatibility_level = 0\nqueue_directory = "+s.queue+"\n")
	if p := s.read(t); !p.Services[1].Chroot {
		t.Error("compatibility_level 0 does not chroot by default")
	}
	if _, err := ReadPostfix(t.Context(), Options{ConfigDir: s.dir + "/none"}); err == nil || errors.Is(err, ErrNoPostfix) {
		t.Errorf("no main.cf: %v", err)
	}
	t.Setenv("PATH", "")
	if _, err := os.Stat("/usr/sbin/postconf"); err == nil {
		s.read(t) // found outside of PATH
	}
}

func TestParseList(t *testing.T) {
	got := parseList("inet:localhost:8891,unix:/a  { unix:b, default_action = accept, command_timeout={ 3s } } {inet:x:1 {default_action = reject}}, nonsense {} $ref")
	want := []Filter{
		{Text: "inet:localhost:8891", Socket: Socket{"inet", "localhost:8891"}},
		{Text: "unix:/a", Socket: Socket{"unix", "/a"}},
		{Text: "{ unix:b, default_action = accept, command_timeout={ 3s } }", Socket: Socket{"unix", "b"}},
		{Text: "{inet:x:1 {default_action = reject}}", Socket: Socket{"inet", "x:1"}, DefaultAction: "reject"},
		{Text: "nonsense"}, {Text: "{}"}, {Text: "$ref"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSame(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "run"), 0o755))
	must(t, os.Symlink("run", filepath.Join(dir, "link")))
	for _, tc := range []struct {
		theirs, ours string
		want         bool
	}{
		{"unix:" + dir + "/link/s", "unix:" + dir + "/run/s", true},
		{"unix:/a/../b", "unix:/b", true},
		{"unix:/a", "inet:a:1", false},
		{"inet:localhost:8", "inet:127.0.0.1:8", true},
		{"inet:localhost:8", "inet:[::]:8", true},
		{"inet:192.0.2.1:8", "inet::8", true},
		{"inet:192.0.2.1:8", "inet:127.0.0.1:8", false},
		{"inet:127.0.0.1:8", "inet:127.0.0.1:9", false},
	} {
		theirs, err := parsePostfix(tc.theirs)
		must(t, err)
		ours, err := parsePostfix(tc.ours)
		must(t, err)
		if got := theirs.same(ours); got != tc.want {
			t.Errorf("%s, %s: %v", tc.theirs, tc.ours, got)
		}
	}
	for _, bad := range []string{"", "unix:", "inet:8", "tcp:a:1", "inet:a:"} {
		if s, err := parsePostfix(bad); err == nil {
			t.Errorf("%q is %v", bad, s)
		}
	}
}

func TestReadSendmail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sendmail.cf")
	must(t, os.WriteFile(path, []byte(`# X comment
O InputMailFilters=dkim-filter, authkey
O RunAsUser=smmsp:smmsp
Xauthkey, S=local:/run/authkey/milter.sock, F=T,
	T=S:30s;R:30s;E:2m
Xdkim-filter, S=inet:8891@localhost
Xunused, S=inet6:1@::1, F=R, T=E:90
`), 0o644))
	ours := Ours{Sockets: []Socket{{"unix", "/run/authkey/milter.sock"}}}
	got, err := ReadSendmail(path, Options{OpenDKIMConf: path + ".none", Ours: ours})
	must(t, err)
	authkey := SendmailFilter{"authkey", Filter{Text: "local:/run/authkey/milter.sock", Socket: Socket{"unix", "/run/authkey/milter.sock"}, DefaultAction: "tempfail", Ours: true}, 2 * time.Minute}
	dkim := SendmailFilter{"dkim-filter", Filter{Text: "inet:8891@localhost", Socket: Socket{"inet", "localhost:8891"}, DefaultAction: "accept"}, 5 * time.Minute}
	unused := SendmailFilter{"unused", Filter{Text: "inet6:1@::1", Socket: Socket{"inet", "[::1]:1"}, DefaultAction: "reject"}, 90 * time.Second}
	want := &Sendmail{File: path, RunAsUser: "smmsp", Filters: []SendmailFilter{dkim, authkey}, Defined: []SendmailFilter{authkey, dkim, unused}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Sendmail{})); diff != "" || !got.Asks() {
		t.Error(diff)
	}
	if _, err := ReadSendmail(path+".none", Options{Ours: ours}); !errors.Is(err, ErrNoSendmail) {
		t.Errorf("%v", err)
	}
}

// TestOpenDKIM: what OpenDKIM 2.11 does with these settings.
func TestOpenDKIM(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "names"), []byte("From # always\nX-Auth-Key\n"), 0o644))
	for _, tc := range []struct{ text, mode, setting string }{
		{"", "sv", ""},
		{"Mode V\nOversignHeaders X-Auth-Key\n", "v", ""},
		{"# Mode s\nmode\ts\n", "s", ""},
		{"SignHeaders From,X-Auth-Key\n", "sv", "SignHeaders"},
		{"SignHeaders *,+X-AUTH-KEY\n", "sv", "SignHeaders"},
		{"SignHeaders *,X-Auth-Key\n", "sv", ""},
		{"SignHeaders *,-X-Auth-Key\n", "sv", ""},
		{"SignHeaders From,X-Auth-Key\nSignHeaders From\n", "sv", ""},
		{"SignHeaders *,+X-Auth-Key\nOmitHeaders *,+X-Auth-Key\n", "sv", ""},
		{"SignHeaders From,X-Auth-Key\nOmitHeaders X-Auth-Key\n", "sv", ""},
		{"SignHeaders " + dir + "/names\n", "sv", "SignHeaders"},
		{"SignHeaders file:" + dir + "/names\nOmitHeaders csl:X-Auth-Key\n", "sv", ""},
		{"SignHeaders file:" + dir + "/none\n", "sv", ""},
		{"OversignHeaders From, X-Auth-Key\nOmitHeaders *,+X-Auth-Key\n", "sv", "OversignHeaders"},
	} {
		path := filepath.Join(dir, "opendkim.conf")
		must(t, os.WriteFile(path, []byte(tc.text), 0o644))
		d := ReadOpenDKIM(path)
		setting, covered := d.Covers("X-Auth-Key")
		if d.Mode != tc.mode || setting != tc.setting || covered != (tc.setting != "") || !d.Readable {
			t.Errorf("%q: %+v, %q %v", tc.text, d, setting, covered)
		}
	}
	if d := ReadOpenDKIM(dir); d.Readable || d.Mode != "sv" {
		t.Errorf("a folder: %+v", d)
	}
}

func TestInputMailFilter(t *testing.T) {
	for _, tc := range []struct {
		socket Socket
		action string
		verify time.Duration
		want   string
	}{
		{Socket{"unix", "/run/authkey/milter.sock"}, "tempfail", 10 * time.Second, "INPUT_MAIL_FILTER(`authkey', `S=unix:/run/authkey/milter.sock, F=T, T=S:30s;R:30s;E:60s')dnl"},
		{Socket{"inet", ":8890"}, "accept", time.Minute, "INPUT_MAIL_FILTER(`authkey', `S=inet:8890@127.0.0.1, T=S:30s;R:30s;E:130s')dnl"},
		{Socket{"inet", "[::1]:8890"}, "accept", 0, "INPUT_MAIL_FILTER(`authkey', `S=inet6:8890@::1, T=S:30s;R:30s;E:60s')dnl"},
	} {
		got, err := InputMailFilter(Ours{Sockets: []Socket{tc.socket}}, tc.action, tc.verify)
		if err != nil || got != tc.want {
			t.Errorf("%s, %v\nwant %s", got, err, tc.want)
		}
		// It is what we read.
		read := parseX(got[len("INPUT_MAIL_FILTER(`"):][:len("authkey")] + ", " + got[len("INPUT_MAIL_FILTER(`authkey', `"):len(got)-len("')dnl")])
		if read.Name != "authkey" || read.DefaultAction != tc.action || !read.Socket.same(tc.socket) {
			t.Errorf("read as %+v", read)
		}
	}
	if _, err := InputMailFilter(Ours{}, "accept", 0); err == nil {
		t.Error("a filter without socket")
	}
}

// TestSendmailPlan: what setup says is what the doctor wants, and nothing is left then.
func TestSendmailPlan(t *testing.T) {
	dir := t.TempDir()
	ours := Ours{Sockets: []Socket{{"unix", "/run/authkey/milter.sock"}}}
	x := map[string]string{"opendkim": "Xopendkim, S=inet:8891@localhost\n", "rspamd": "Xrspamd, S=inet:11332@localhost\n", "other": "Xother, S=local:/o\n",
		"authkey": "Xauthkey, S=local:/run/authkey/milter.sock, F=T\n", "again": "Xagain, S=local:/run/authkey/milter.sock, F=T\n"}
	for _, tc := range []struct {
		listed  []string
		more    string
		order   string
		moves   int
		nothing bool
	}{
		{listed: nil},
		{listed: []string{"authkey"}, nothing: true},
		{listed: []string{"opendkim"}, order: "opendkim, authkey"},
		{listed: []string{"rspamd", "opendkim"}, order: "opendkim, authkey, rspamd", moves: 1},
		{listed: []string{"rspamd", "opendkim", "authkey", "other"}, order: "opendkim, authkey, rspamd, other", moves: 1},
		{listed: []string{"opendkim", "authkey", "rspamd"}, nothing: true},
		{listed: []string{"rspamd", "authkey"}, order: "authkey, rspamd"},
		{listed: []string{"other", "authkey", "again"}, order: "other, authkey"},
		{listed: []string{"authkey"}, more: "O DaemonPortOptions=Name=MTA, Port=smtp, InputMailFilters=other\n"},
	} {
		cf := filepath.Join(dir, "sendmail.cf")
		text := "O InputMailFilters=" + strings.Join(tc.listed, ",") + "\n" + tc.more
		for _, line := range x {
			text += line
		}
		must(t, os.WriteFile(cf, []byte(text), 0o644))
		s, err := ReadSendmail(cf, Options{OpenDKIMConf: cf + ".none", Ours: ours})
		must(t, err)
		plan, nothing, err := s.Plan(ours, "tempfail", time.Second)
		must(t, err)
		if got := strings.Join(plan.Order, ", "); nothing != tc.nothing || got != tc.order || len(plan.Moves) != tc.moves || !strings.HasPrefix(plan.Line, "INPUT_MAIL_FILTER(`authkey'") {
			t.Errorf("%q: %+v, nothing left %v", tc.listed, plan, nothing)
		}
		if tc.nothing || len(plan.Order) == 0 {
			continue
		}
		must(t, os.WriteFile(cf, []byte(strings.Replace(text, "O InputMailFilters="+strings.Join(tc.listed, ","), "O InputMailFilters="+strings.Join(plan.Order, ","), 1)), 0o644))
		s, err = ReadSendmail(cf, Options{OpenDKIMConf: cf + ".none", Ours: ours})
		must(t, err)
		if _, nothing, err := s.Plan(ours, "tempfail", time.Second); !nothing || err != nil || s.Misplaced != nil {
			t.Errorf("%q: still something after %q", tc.listed, plan.Order)
		}
	}
	if plan, nothing, err := (*Sendmail)(nil).Plan(ours, "tempfail", 0); err != nil || nothing || plan.Line == "" || plan.Order != nil {
		t.Errorf("without sendmail.cf: %+v, %v, %v", plan, nothing, err)
	}
}

func TestParseDaemon(t *testing.T) {
	for _, tc := range []struct {
		text string
		want SendmailDaemon
		own  []string
	}{
		{"Name=MTA-v4, Family=inet, Port=smtp, Addr=127.0.0.1", SendmailDaemon{Name: "MTA-v4", Loopback: true}, nil},
		{"Family=inet,Name=MSP-v4,Port=submission,M=Ea,Addr=127.0.0.1", SendmailDaemon{Name: "MSP-v4", Submission: true, Loopback: true}, nil},
		{"Name=X, M=a, InputMailFilters=one;two", SendmailDaemon{Name: "X", Submission: true, Own: true}, []string{"one", "two"}},
		{"Name=X, I=", SendmailDaemon{Name: "X", Own: true}, []string{}},
		{",,=", SendmailDaemon{}, nil},
	} {
		d, own := parseDaemon(tc.text)
		if diff := cmp.Diff(tc.want, d) + cmp.Diff(tc.own, own); diff != "" {
			t.Errorf("%q: %s", tc.text, diff)
		}
	}
}

// TestListening asks systemd only where the configuration does not say.
func TestListening(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	systemctl := func(script string) {
		must(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\n"+script), 0o755))
	}
	load := func(yaml string) *config.Loaded {
		path := filepath.Join(t.TempDir(), "milter.yaml")
		must(t, os.WriteFile(path, []byte(yaml), 0o644))
		loaded, err := config.Load(path, nil)
		must(t, err)
		return loaded
	}
	byUnit := Ours{[]Socket{{"unix", "/var/spool/postfix/authkey/milter.sock"}, {"inet", "127.0.0.1:8890"}}, SocketUnit}
	byDefault := Ours{Sockets: []Socket{{"unix", "/run/authkey/milter.sock"}}}
	const listens = "echo '/var/spool/postfix/authkey/milter.sock (Stream)\n/x (Datagram)\n127.0.0.1:8890 (Stream)\nodd (Stream)'\n"
	for _, tc := range []struct {
		name, script, yaml string
		want               Ours
	}{
		{"no systemd", "", "", byDefault},
		{"no unit", "echo\n", "", byDefault},
		{"systemd does not run", listens + "exit 1\n", "", byDefault},
		{"unit", listens, "", byUnit},
		{"set", listens, "listen: ['unix:/a', 'inet:1@127.0.0.1']\n", Ours{Sockets: []Socket{{"unix", "/a"}, {"inet", "127.0.0.1:1"}}}},
		{"loopback", listens, "listen: ['inet:1', 'inet6:2']\n", Ours{Sockets: []Socket{{"inet", "127.0.0.1:1"}, {"inet", "[::1]:2"}}}},
	} {
		if tc.script != "" {
			systemctl(tc.script)
		}
		if diff := cmp.Diff(tc.want, Listening(t.Context(), load(tc.yaml))); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

// TestSendmailOrder: where keys are attached, all daemons have the same list, and a
// filter that signs as well as verifies may stand on either side.
func TestSendmailOrder(t *testing.T) {
	dir := t.TempDir()
	cf, conf := filepath.Join(dir, "sendmail.cf"), filepath.Join(dir, "opendkim.conf")
	must(t, os.WriteFile(cf, []byte("O InputMailFilters=authkey, dkim\nXauthkey, S=local:/a\nXdkim, S=inet:8891@localhost\n"), 0o644))
	for _, tc := range []struct {
		mode              string
		attach, misplaced bool
	}{{"sv", false, true}, {"sv", true, false}, {"v", true, true}, {"s", true, false}, {"s", false, false}} {
		must(t, os.WriteFile(conf, []byte("Mode "+tc.mode+"\n"), 0o644))
		s, err := ReadSendmail(cf, Options{OpenDKIMConf: conf, Attach: tc.attach, Ours: Ours{Sockets: []Socket{{"unix", "/a"}}}})
		must(t, err)
		if (s.Misplaced != nil) != tc.misplaced || !s.UsesOpenDKIM() {
			t.Errorf("%+v: %+v", tc, s)
		}
	}
}

func FuzzLists(f *testing.F) {
	f.Add("inet:a:1, { unix:b, default_action = accept } $c")
	f.Add("{{}} }{ ,")
	f.Fuzz(func(t *testing.T, s string) {
		filters := parseList(s)
		if again := parseList(render(filters)); render(again) != render(filters) {
			t.Errorf("%q: %q, then %q", s, render(filters), render(again))
		}
		compact(s)
		parseSendmailCF(s)
		parseX(s)
		parseDaemon(s)
		for _, client := range clientsOf("inline:{" + s + "}") {
			if strings.ContainsAny(client, " \t=") || client == "" {
				t.Errorf("%q: client %q", s, client)
			}
		}
	})
}
