package testmta

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// The configuration in m4. Empty files stand in for those of /etc/mail; -o
// makes them optional. Everything not for our own host goes to the sink, and
// local mail that no alias sends elsewhere too (MAIL_HUB).
var sendmailMC = template.Must(template.New("mc").Parse("" +
	"VERSIONID(`authkey test')\n" +
	"OSTYPE(`linux')\n" +
	"DOMAIN(`generic')\n" +
	"undefine(`UUCP_RELAY')\n" +
	"undefine(`BITNET_RELAY')\n" +
	"define(`confDOMAIN_NAME', `{{.Hostname}}')\n" +
	"define(`QUEUE_DIR', `{{.Dir}}/queue')\n" +
	"define(`STATUS_FILE', `{{.Dir}}/statistics')\n" +
	"define(`ALIAS_FILE', `{{.AliasFile}}')\n" +
	"define(`HELP_FILE', `')\n" +
	"define(`confPID_FILE', `{{.Dir}}/sendmail.pid')\n" +
	"define(`confCW_FILE', `-o {{.Dir}}/empty')\n" +
	"define(`confCT_FILE', `-o {{.Dir}}/empty')\n" +
	"define(`confTO_IDENT', `0')\n" +
	"define(`confSERVICE_SWITCH_FILE', `{{.Dir}}/service.switch')\n" +
	// /tmp above our folder is writable for all, and sticky.
	"define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')\n" +
	"define(`confBAD_RCPT_THROTTLE', `0')\n" +
	// By default it refuses connections, and only queues, on a machine with much to do.
	"define(`confREFUSE_LA', `100000')\n" +
	"define(`confQUEUE_LA', `100000')\n" +
	"define(`SMART_HOST', `smtp:[127.0.0.1]')\n" +
	"define(`MAIL_HUB', `smtp:[127.0.0.1]')\n" +
	"define(`RELAY_MAILER_ARGS', `TCP $h {{.SinkPort}}')\n" +
	"define(`SMTP_MAILER_ARGS', `TCP $h {{.SinkPort}}')\n" +
	"define(`ESMTP_MAILER_ARGS', `TCP $h {{.SinkPort}}')\n" +
	"FEATURE(`no_default_msa')\n" +
	"FEATURE(`promiscuous_relay')\n" +
	"FEATURE(`accept_unresolvable_domains')\n" +
	"FEATURE(`accept_unqualified_senders')\n" +
	"FEATURE(`nocanonify')\n" +
	"DAEMON_OPTIONS(`Family=inet, Name=MTA, Addr=127.0.0.1, Port={{.Port}}')\n" +
	"{{range .Filters}}INPUT_MAIL_FILTER(`{{.Name}}', `S={{.Socket}}{{.Flag}}, T=S:30s;R:30s;E:60s')\n{{end}}" +
	"{{if .SASL}}TRUST_AUTH_MECH(`PLAIN LOGIN')\ndefine(`confAUTH_MECHANISMS', `PLAIN LOGIN')\n{{end}}" +
	"{{range .MC}}{{.}}\n{{end}}" +
	"MAILER(`local')\n" +
	"MAILER(`smtp')\n" +
	"{{if .SASL}}LOCAL_CONFIG\nESASL_CONF_PATH={{.SASL}}\n{{end}}"))

// sendmailFilter is one INPUT_MAIL_FILTER.
type sendmailFilter struct{ Name, Socket, Flag string }

// sendmailFlags are the equates for what happens while a filter is away.
var sendmailFlags = map[string]string{"": ", F=T", "tempfail": ", F=T", "reject": ", F=R", "accept": ""}

// sendmailFilters turns milters in Postfix's notation into Sendmail's.
func sendmailFilters(milters []string, defaultAction string) ([]sendmailFilter, error) {
	flag, ok := sendmailFlags[defaultAction]
	if !ok {
		return nil, fmt.Errorf("default action %q: not tempfail, reject or accept", defaultAction)
	}
	var filters []sendmailFilter
	for i, milter := range milters {
		f := sendmailFilter{Name: fmt.Sprintf("milter%d", i+1), Flag: flag}
		kind, place, _ := strings.Cut(milter, ":")
		switch host, port, err := net.SplitHostPort(place); {
		case kind == "unix" && filepath.IsAbs(place) && !strings.ContainsAny(place, ",'` "):
			f.Socket = "unix:" + place
		case kind == "inet" && err == nil:
			f.Socket = "inet:" + port + "@" + host
		default:
			return nil, fmt.Errorf("milter %q: neither inet:host:port nor unix:/path", milter)
		}
		filters = append(filters, f)
	}
	return filters, nil
}

// configure writes everything that sendmail reads, and makes its queue.
func (s *Sendmail) configure(ctx context.Context, port int) error {
	filters, err := sendmailFilters(s.options.Milters, s.options.DefaultAction)
	if err != nil {
		return err
	}
	_, sinkPort, err := net.SplitHostPort(s.sink.Addr())
	if err != nil {
		return err
	}
	values := map[string]any{
		"Hostname": s.options.Hostname, "Dir": s.dir, "Port": port, "SinkPort": sinkPort,
		"Filters": filters, "MC": s.options.MC, "AliasFile": "", "SASL": "",
	}
	if len(s.options.Passwords) > 0 {
		values["SASL"] = s.saslDir()
		if err := s.configureSASL(ctx); err != nil {
			return err
		}
	}
	if len(s.options.Aliases) > 0 {
		values["AliasFile"] = s.file("aliases")
	}
	var mc strings.Builder
	if err := sendmailMC.Execute(&mc, values); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"test.mc":        mc.String(),
		"empty":          "",
		"service.switch": "hosts files\naliases files\n",
		"aliases":        strings.Join(s.options.Aliases, "\n") + "\n",
	} {
		if err := os.WriteFile(s.file(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.queueDir(), 0o700); err != nil {
		return err
	}
	cf := filepath.Join(s.options.Prefix, "usr/share/sendmail/cf") + "/"
	m4 := exec.CommandContext(ctx, "m4", "-D_CF_DIR_="+cf, cf+"m4/cf.m4", s.file("test.mc"))
	out, err := m4.Output()
	if err != nil {
		return fmt.Errorf("m4: %w", err)
	}
	return os.WriteFile(s.file("sendmail.cf"), out, 0o644)
}
