package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// TestPostmaster does what a postmaster does: asks the doctor, lets setup tell a
// running Postfix about the milter in test mode, sends mail, reads the report, and
// takes it all back.
func TestPostmaster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, w.Publish("example.com", "v=spf1 -all"))
	postfix, err := testmta.StartPostfix(t.Context(), testmta.PostfixOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, postfix.Stop()) })
	milter := startMilter(t, w, "mode: test\nlocal_domains: ["+withAS+"]\n")
	etc := filepath.Join(postfix.Dir(), "etc")
	run := func(wantCode int, args ...string) string {
		t.Helper()
		out, code := runMilter(t, "", append(args, "--config", milter.Config)...)
		if code != wantCode {
			t.Fatalf("%s: exit %d\n%s", args, code, out)
		}
		return out
	}
	before, err := os.ReadFile(filepath.Join(etc, "main.cf"))
	must(t, err)

	if out := run(1, "doctor", "--postfix-config", etc); !strings.Contains(out, "FAULT  listed ") {
		t.Errorf("the doctor does not miss the milter:\n%s", out)
	}
	plan := run(0, "setup", "postfix", "--postfix-config", etc)
	if want := "smtpd_milters = { " + milter.Socket + ", default_action=accept }\n"; !strings.Contains(plan, want) {
		t.Errorf("setup lacks %q:\n%s", want, plan)
	}
	applied := run(0, "setup", "postfix", "--apply", "--postfix-config", etc)
	_, reload, _ := strings.Cut(applied, "now run: ")
	if out, err := exec.Command("sh", "-c", reload).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", reload, err, out)
	}
	if out := run(0, "setup", "postfix", "--apply", "--postfix-config", etc); !strings.HasPrefix(out, "nothing to change") {
		t.Errorf("applied again:\n%s", out)
	}

	// Postfix takes a second to notice. Until then nobody asks the milter.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, testdaemon.Poll(ctx, func() (bool, error) {
		c, err := testmta.Dial(postfix.SMTPAddr())
		if err != nil {
			return false, nil
		}
		defer c.Close()
		m := &mail{from: "alice@" + withoutAS}
		_, err = c.Send(m.transaction())
		return strings.Contains(milter.Log(), "msg=message"), err
	}))
	c := dialSMTP(t, postfix)
	for _, each := range everyResult {
		fields := ""
		switch each.key {
		case "":
		case "right":
			fields = "X-Auth-Key: " + mustKey(t, w, each.from) + "\r\n"
		default:
			fields = "X-Auth-Key: " + each.key + "\r\n"
		}
		if out := sendMail(t, c, &mail{from: each.from, fields: fields}); !out.Accepted {
			t.Errorf("%s in test mode: %+v", each.name, out)
		}
	}
	must(t, c.Quit())
	checkReport(t, milter)

	var examined struct {
		Findings []struct{ Check, Status, What string }
	}
	// The clock of the machine that runs this test may be kept or not.
	out, _ := runMilter(t, "", "doctor", "--json", "--postfix-config", etc, "--config", milter.Config)
	must(t, json.Unmarshal([]byte(out), &examined))
	seen := map[string]string{}
	for _, f := range examined.Findings {
		seen[f.Check] = f.Status
		if f.Status == "fault" && f.Check != "clock" {
			t.Errorf("the doctor still finds %+v", f)
		}
	}
	for _, check := range []string{"listening", "listed", "socket-path", "socket-access", "default-action", "order", "dns", "notify", "own-as"} {
		if seen[check] != "ok" {
			t.Errorf("%s: %q", check, seen[check])
		}
	}

	// What the doctor tries is no mail: its lines say so, and a report leaves them out.
	doctor := exec.Command(binary, "doctor", "--postfix-config", etc, "--config", milter.Config)
	doctor.Env = append(os.Environ(), "AUTHKEY_MILTER_NOTIFY_SMTP="+postfix.SMTPAddr())
	_ = doctor.Run() // whatever else it finds
	_, err = milter.WaitLog(t.Context(), "probe=doctor")
	must(t, err)
	text, _ := runMilter(t, milter.Log(), "report")
	if !strings.Contains(text, "of authkey-milter doctor: no mail, left out") || strings.Contains(text, "aborted") {
		t.Errorf("the doctor's probes in the report:\n%s", text)
	}

	// A package's removal does not ask whether the configuration is sound.
	good, err := os.ReadFile(milter.Config)
	must(t, err)
	must(t, os.WriteFile(milter.Config, []byte("mode: [\n"), 0o644))
	run(0, "setup", "postfix", "--undo", "--postfix-config", etc)
	must(t, os.WriteFile(milter.Config, good, 0o644))
	after, err := os.ReadFile(filepath.Join(etc, "main.cf"))
	must(t, err)
	if string(after) != string(before) {
		t.Errorf("main.cf undone:\n%s\nwas:\n%s", after, before)
	}
	run(1, "setup", "postfix", "--undo", "--postfix-config", etc)
}

// checkReport reads the milter's own log lines, of one message for each result.
func checkReport(t *testing.T, milter *lab.Milter) {
	t.Helper()
	// The line of a message may follow its reply.
	_, err := milter.WaitLog(t.Context(), "from=alice@"+brokenAS)
	must(t, err)
	log := filepath.Join(t.TempDir(), "mail.log")
	must(t, os.WriteFile(log, []byte("Nov 24 10:00:00 mx postfix/smtpd[1]: connect from x\n"+milter.Log()), 0o644))
	out, code := runMilter(t, "", "report", "--json", log)
	var got struct {
		Messages                int64
		Results, Actions, Would map[string]int64
		Domains                 []struct {
			Domain  string
			Results map[string]int64
		}
	}
	must(t, json.Unmarshal([]byte(out), &got))
	if code != 0 || got.Messages < int64(len(everyResult)) || got.Actions["accept"] != got.Messages || got.Would["mark"] != 2 {
		t.Errorf("exit %d\n%s", code, out)
	}
	for _, result := range []string{"pass", "nokey", "temperror", "permerror"} {
		if got.Results[result] != 1 {
			t.Errorf("%d %s\n%s", got.Results[result], result, out)
		}
	}
	for _, d := range got.Domains {
		if d.Domain == withAS && (d.Results["pass"] != 1 || d.Results["fail"] != 1 || d.Results["nokey"] != 1) {
			t.Errorf("%s: %v", d.Domain, d.Results)
		}
	}
	// The same from standard input, for people.
	text, code := runMilter(t, milter.Log(), "report")
	if code != 0 || !strings.Contains(text, "SENDER DOMAIN") || !strings.Contains(text, withAS+" ") || !strings.Contains(text, "Messages by hour") {
		t.Errorf("exit %d\n%s", code, text)
	}
}

// TestPostmasterCommands are the exit codes of what needs no mail system.
func TestPostmasterCommands(t *testing.T) {
	conf := writeConfig(t, "listen: ['unix:/run/authkey/never.sock']\nverify: {timeout: 40s}\n")
	cf := filepath.Join(t.TempDir(), "sendmail.cf")
	must(t, os.WriteFile(cf, []byte("O InputMailFilters=rspamd, opendkim\nXrspamd, S=inet:11332@localhost\nXopendkim, S=inet:8891@localhost\n"), 0o644))
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		output string
	}{
		{"setup what", []string{"setup"}, 2, "which command?"},
		{"setup sendmail", []string{"setup", "sendmail", "--config", conf}, 0, "INPUT_MAIL_FILTER(`authkey', `S=unix:/run/authkey/never.sock, F=T, T=S:30s;R:30s;E:90s')dnl"},
		{"setup sendmail among others", []string{"setup", "sendmail", "--config", conf, "--sendmail-cf", cf}, 0,
			"dnl the filters' lines in this order: opendkim, authkey, rspamd\ndnl this moves rspamd behind authkey: "},
		{"setup sendmail elsewhere", []string{"setup", "sendmail", "--config", conf, "--sendmail-cf", "/nonexistent"}, 1, "/nonexistent"},
		{"setup sendmail --apply", []string{"setup", "sendmail", "--apply"}, 2, "sendmail.mc is yours to edit"},
		{"setup postfix both ways", []string{"setup", "postfix", "--apply", "--undo"}, 2, "--apply or --undo, not both"},
		{"setup postfix elsewhere", []string{"setup", "postfix", "--postfix-config", "/nonexistent"}, 1, "/nonexistent/main.cf"},
		{"doctor elsewhere", []string{"doctor", "--postfix-config", "/nonexistent", "--config", conf}, 1, "FAULT  mta "},
		{"report nothing", []string{"report"}, 2, "no message in 0 lines"},
		{"report a missing file", []string{"report", "/nonexistent"}, 2, "/nonexistent"},
		{"report both", []string{"report", "--journal", conf}, 2, "one of them"},
		{"report since when", []string{"report", "--since", "yesterday"}, 2, "want a duration such as 7d or 12h"},
	} {
		out, code := runMilter(t, "", tt.args...)
		if code != tt.code || !strings.Contains(out, tt.output) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s", tt.name, code, tt.code, tt.output, out)
		}
	}
}
