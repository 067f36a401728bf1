package report

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const (
	logfmtLine = `time=2026-11-24T10:00:00.000Z level=INFO msg=message qid=1 from=a@b.example result=pass reason="" action=accept rcpts=1`
	jsonLine   = `{"time":"2026-11-24T10:00:00.000Z","level":"INFO","msg":"message","from":"a@b.example","result":"pass","action":"accept"}`
)

// collected are the forms in which log collectors keep a line.
var collected = []struct{ name, format string }{
	{"alone", "%s"},
	{"RFC 3164", "Nov 24 10:00:00 mx authkey-milter[123]: %s"},
	{"RFC 3164 with priority", "<30>Nov 24 10:00:00 mx authkey-milter: %s"},
	{"rsyslog, RFC 3339 time", "2026-11-24T10:00:00.123456+01:00 mx authkey-milter[123]: %s"},
	{"RFC 5424", "<30>1 2026-11-24T10:00:00.123Z mx.example authkey-milter 123 - - %s"},
	{"RFC 5424 with BOM", "<30>1 2026-11-24T10:00:00.123Z mx.example authkey-milter 123 ID47 - \ufeff%s"},
	{"RFC 5424 with structured data", `<30>1 - mx.example authkey-milter - - [ex@32473 iut="3" t="a \"]\" b: "][o k="v"] %s`},
	{"CRI", "2026-11-24T10:00:00.123456789Z stderr F %s"},
	{"CRI, local time and tags", "2026-11-24T10:00:00.123456789+01:00 stdout F:x %s"},
	{"docker compose", "authkey-milter-1  | %s"},
	{"docker compose, coloured", "\x1b[36mauthkey-milter-1  | \x1b[0m%s"},
	{"docker compose -t", "milter | 2026-11-24T10:00:00.123456789Z %s"},
	{"docker logs -t", "2026-11-24T10:00:00.123456789Z %s"},
	{"kubectl logs --prefix", "[pod/mail-0/authkey-milter] %s"},
	{"kubectl logs --prefix --timestamps", "[pod/mail-0/authkey-milter] 2026-11-24T10:00:00.123456789Z %s"},
	{"journalctl -o short-iso", "2026-11-24T10:00:00+0100 mx authkey-milter[123]: %s"},
	{"journalctl -o short-unix", "1700000000.123456 mx authkey-milter[123]: %s"},
	{"journalctl -o export", "MESSAGE=%s"},
	{"journalctl -o verbose", "    MESSAGE=%s"},
	{"syslog in CRI", "2026-11-24T10:00:00Z stderr F Nov 24 10:00:00 mx authkey-milter: %s"},
}

// pieces is a line in the pieces into which a container's log breaks it.
var pieces = "2026-11-24T10:00:00Z stderr P " + logfmtLine[:40] + "\n2026-11-24T10:00:00Z stderr P " + logfmtLine[40:80] +
	"\n2026-11-24T10:00:00Z stderr F " + logfmtLine[80:] + "\n"

func TestCollected(t *testing.T) {
	for _, line := range []string{logfmtLine, jsonLine} {
		for _, c := range collected {
			got := read(t, fmt.Sprintf(c.format, line)+"\n")
			if got.Messages != 1 || got.Domains[0].Domain != "b.example" || got.Results["pass"] != 1 {
				t.Errorf("%s: %d messages of %q", c.name, got.Messages, fmt.Sprintf(c.format, line))
			}
		}
		for name, object := range map[string]map[string]any{
			"Docker":            {"log": line + "\n", "stream": "stderr", "time": "2026-11-24T10:00:00.123456789Z"},
			"journalctl -ojson": {"__REALTIME_TIMESTAMP": "1", "MESSAGE": line, "_PID": "1"},
		} {
			text, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, string(text)); got.Messages != 1 {
				t.Errorf("%s: %d messages of %s", name, got.Messages, text)
			}
		}
	}
	docker := func(text string) string {
		b, _ := json.Marshal(map[string]string{"log": text, "stream": "stderr"})
		return string(b) + "\n"
	}
	for name, in := range map[string]string{"CRI": pieces, "Docker": docker(logfmtLine[:50]) + docker(logfmtLine[50:]+"\n")} {
		if got := read(t, in+logfmtLine+"\n"); got.Messages != 2 {
			t.Errorf("%s in pieces: %d messages", name, got.Messages)
		}
	}
	// What never ends is not kept.
	endless := strings.Repeat("2026-11-24T10:00:00Z stderr P "+strings.Repeat("x", 16<<10)+"\n", 20)
	if got := read(t, endless+"2026-11-24T10:00:00Z stderr F x\n"+logfmtLine); got.Messages != 1 || got.LinesTooLong == 0 {
		t.Errorf("endless: %+v", got)
	}
}

// Within another program's line ours does not begin, whatever collector kept it.
func TestCollectedForeignLines(t *testing.T) {
	for _, c := range collected[1:] {
		for _, foreign := range []string{"postfix/smtpd: 4A: warning: " + logfmtLine, "x " + logfmtLine, "| " + logfmtLine, `"` + jsonLine + `"`} {
			if c.name == "CRI" || c.name == "docker logs -t" {
				foreign = "mail: " + foreign
			}
			if got := read(t, fmt.Sprintf(c.format, foreign)); got.Messages != 0 {
				t.Errorf("%s: %q is taken for ours", c.name, foreign)
			}
		}
	}
}

// Probes of our own programs are no mail.
func TestProbes(t *testing.T) {
	probe := strings.Replace(logfmtLine, "result=pass", "probe=doctor", 1)
	got := read(t, probe+"\n"+logfmtLine+"\n"+probe+"\n")
	if got.Messages != 1 || got.Probes != 2 || got.Results["aborted"] != 0 {
		t.Errorf("%+v", got)
	}
	var text strings.Builder
	if err := got.WriteText(&text, 0); err != nil || !strings.Contains(text.String(), "probes                 2, of authkey-milter doctor") {
		t.Errorf("%v\n%s", err, text.String())
	}
}
