package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/testdaemon"
	"github.com/authkey/authkey/internal/testmta"
)

// TestWaysPast sends one message with a right key through listeners of a real Postfix,
// each of which has another setting, and asks the doctor about each of them: where the
// key reaches the mailbox, or the result is not that of the key, the doctor must name a
// fault, and where all is well it must not.
func TestWaysPast(t *testing.T) {
	w := newWorld(t)
	must(t, w.Publish("example.com", "v=spf1 -all"))
	milter := startMilter(t, w, "")
	dir, err := testdaemon.TempDir("authkey-tables-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	maps := file("maps", "127.0.0.0/8 DISABLE\n")
	others := file("others", "192.0.2.0/24 "+milter.Socket+"\n")
	checks := file("checks", "/^X-Auth-Key:/ IGNORE\n")
	results := file("results", "/^Authentication-Results:/ IGNORE\n")
	filter, err := testdaemon.FreePort()
	must(t, err)

	const pass, lost = "x-authkey=pass", ""
	cases := []struct {
		listener testmta.Listener
		key      bool   // reaches the mailbox
		result   string // in the mailbox
		fault    string // the check that has to find it
	}{
		{testmta.Listener{Name: "plain"}, false, pass, ""},
		{testmta.Listener{Name: "proxied", Options: []string{"smtpd_proxy_filter=127.0.0.1:FILTER"}}, true, lost, "listed"},
		{testmta.Listener{Name: "mended", Options: []string{"content_filter=smtp:[127.0.0.1]:FILTER"}}, false, pass, ""},
		{testmta.Listener{Name: "disabled", Options: []string{"smtpd_milter_maps=static:DISABLE"}}, true, lost, "listed"},
		{testmta.Listener{Name: "mapped", Options: []string{"smtpd_milter_maps=cidr:" + maps}}, true, lost, "listed"},
		{testmta.Listener{Name: "elsewhere", Options: []string{"smtpd_milter_maps=cidr:" + others}}, false, pass, ""},
		{testmta.Listener{Name: "none", Options: []string{"receive_override_options=no_milters"}}, true, lost, ""},
		{testmta.Listener{Name: "named", Options: []string{"milter_macro_daemon_name=ORIGINATING"}}, true, lost, ""},
		{testmta.Listener{Name: "macro", Options: []string{"milter_macro_defaults=auth_authen=x"}}, true, lost, "own-mail"},
		{testmta.Listener{Name: "harmless", Options: []string{"milter_macro_defaults=daemon_name=ORIGINATING, client_addr=127.0.0.1"}}, false, pass, ""},
		{testmta.Listener{Name: "old", Options: []string{"milter_protocol=2"}}, false, pass, ""},
		{testmta.Listener{Name: "macros", Options: []string{"milter_connect_macros=", "milter_mail_macros=", "milter_rcpt_macros="}}, false, pass, ""},
		{testmta.Listener{Name: "twice", Options: []string{"smtpd_milters=" + milter.Socket + "," + milter.Socket}}, false, "x-authkey=none", "changes"},
		{testmta.Listener{Name: "checked", Options: []string{"cleanup_service_name=early"}}, false, "x-authkey=none", "changes"},
		{testmta.Listener{Name: "unchecked", Options: []string{"cleanup_service_name=early", "receive_override_options=no_header_body_checks"}}, false, pass, ""},
		{testmta.Listener{Name: "silenced", Options: []string{"cleanup_service_name=late"}}, false, lost, "changes"},
		{testmta.Listener{Name: "loud", Options: []string{"cleanup_service_name=late", "receive_override_options=no_header_body_checks"}}, false, lost, "changes"},
		{testmta.Listener{Name: "dropped", Options: []string{"cleanup_service_name=dropping"}}, false, "x-authkey=none", "changes"},
		{testmta.Listener{Name: "keywords", Options: []string{"smtpd_discard_ehlo_keywords=pipelining,dsn,size,8bitmime"}}, false, pass, ""},
		{testmta.Listener{Name: "rewritten", Options: []string{"local_header_rewrite_clients=static:all"}}, false, pass, ""},
		{testmta.Listener{Name: "hurried", Options: []string{"milter_command_timeout=1s", "milter_connect_timeout=1s"}}, false, pass, ""},
	}
	options := testmta.PostfixOptions{Milters: []string{milter.Socket}, Master: []string{
		"early unix n - n - 0 cleanup -o header_checks=regexp:" + checks,
		"dropping unix n - n - 0 cleanup -o message_drop_headers=bcc,x-auth-key",
		"late unix n - n - 0 cleanup -o milter_header_checks=regexp:" + results,
	}}
	port := strconv.Itoa(filter)
	options.Master = append(options.Master, "127.0.0.1:"+port+" inet n - n - - smtpd -o smtpd_milters= -o mynetworks=127.0.0.0/8")
	for i, tc := range cases {
		for k, option := range tc.listener.Options {
			cases[i].listener.Options[k] = strings.ReplaceAll(option, "FILTER", port)
		}
		options.Listeners = append(options.Listeners, cases[i].listener)
	}
	options.Listeners = append(options.Listeners, testmta.RelayListener("relay"))
	postfix, err := testmta.StartPostfix(t.Context(), options)
	must(t, err)
	t.Cleanup(func() { must(t, postfix.Stop()) })

	etc := filepath.Join(postfix.Dir(), "etc")
	conf := writeConfig(t, w.MilterConfig(milter.Socket)+"local_domains: ["+withAS+"]\n")
	var examined struct {
		Findings []struct{ Check, Status, What string }
	}
	out, _ := runMilter(t, "", "doctor", "--json", "--postfix-config", etc, "--config", conf)
	must(t, json.Unmarshal([]byte(out), &examined))

	for _, tc := range cases {
		name := tc.listener.Name
		service := postfix.Listener(name) + "/inet"
		c, err := testmta.Dial(postfix.Listener(name))
		must(t, err)
		m := &mail{from: "alice@" + withAS, fields: "X-Auth-Key: " + mustKey(t, w, "alice@"+withAS) + "\r\n"}
		if out := sendMail(t, c, m); !out.Accepted {
			t.Fatalf("%s: %+v", name, out)
		}
		must(t, c.Quit())
		got := delivered(t, postfix, m)
		result := got.Get("Authentication-Results")
		if key := got.Get("X-Auth-Key") != ""; key != tc.key || !strings.Contains(result, tc.result) || tc.result == lost && result != "" {
			t.Errorf("%s: a key is in the mailbox: %v, result %q", name, key, result)
		}
		cleanup := ""
		for _, option := range tc.listener.Options {
			if value, ok := strings.CutPrefix(option, "cleanup_service_name="); ok {
				cleanup = value + "/unix "
			}
		}
		found := ""
		for _, f := range examined.Findings {
			if f.Status == "fault" && (strings.HasPrefix(f.What, service+" ") || cleanup != "" && strings.HasPrefix(f.What, cleanup)) {
				found = f.Check
			}
		}
		if found != tc.fault && name != "unchecked" { // which shares a cleanup with another
			t.Errorf("%s: the doctor finds %q, want %q\n%s", name, found, tc.fault, out)
		}
	}
	// Those by which a service says for itself that it is none for strangers, the doctor
	// judges where they are on port 25.
	for option, check := range map[string]string{"receive_override_options=no_milters": "listed", "milter_macro_daemon_name=ORIGINATING": "own-mail"} {
		copied := filepath.Join(t.TempDir(), "etc")
		must(t, os.CopyFS(copied, os.DirFS(etc)))
		for _, args := range [][]string{{"-M", "smtp/inet=smtp inet n - n - - smtpd"}, {"-P", "smtp/inet/" + option}} {
			if out, err := exec.Command("postconf", append([]string{"-c", copied}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		out, _ := runMilter(t, "", "doctor", "--postfix-config", copied, "--config", conf)
		if !strings.Contains(out, "FAULT  "+check) || !strings.Contains(out, "smtp/inet ") {
			t.Errorf("%s on port 25:\n%s", option, out)
		}
		// Nor does setup say that all is well.
		if out, _ := runMilter(t, "", "setup", "postfix", "--postfix-config", copied, "--config", conf); !strings.Contains(out, "left to you: smtp/inet ") {
			t.Errorf("setup says nothing of %s on port 25:\n%s", option, out)
		}
	}
}
