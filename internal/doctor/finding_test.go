package doctor

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	found := []Finding{Okf("a", "good"), Inapplicablef("b", "none"), {"c", Fault, "what", "why", "do this\ndo that"}, {"d", Warning, "perhaps", "then", "look"}}
	const want = "ok     a               good\n" +
		"n/a    b               none\n" +
		"FAULT  c               what\n" +
		"                  why  why\n" +
		"                 mend  do this\n" +
		"                       do that\n" +
		"WARN   d               perhaps\n" +
		"                  why  then\n" +
		"                 mend  look\n" +
		"1 fault found, 1 warning\n"
	if got := text(t, found); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := text(t, found[:2]); !strings.HasSuffix(got, "no fault found\n") {
		t.Error(got)
	}
	var b bytes.Buffer
	must(t, WriteJSON(&b, found))
	var read struct {
		OK       bool
		Findings []Finding
	}
	if err := json.Unmarshal(b.Bytes(), &read); err != nil || read.OK || len(read.Findings) != 4 || read.Findings[2] != found[2] {
		t.Errorf("%v, %+v", err, read)
	}
	if AnyFault(found[3:]) {
		t.Error("a warning is a fault")
	}
}

// TestWrap: no line is longer than the width where that can be, and what the shell
// makes of a command that was broken is what it was.
func TestWrap(t *testing.T) {
	command := "printf '%s\\n' postconf -c /tmp/authkey-postfix-1234567890/etc -e 'smtpd_milters = inet:localhost:8891, unix:authkey/milter.sock, inet:localhost:11332' --and=it --and='so on' a b c d e f g h   # it's a comment"
	long := "in /etc/authkey/milter.yaml: listen: [\"unix:/var/spool/postfix/authkey/milter.sock\"] " + strings.Repeat("and more ", 20)
	found := []Finding{{"check", Fault, strings.Repeat("it's what ", 30), strings.Repeat("why ", 60), command + "\n" + long}}
	for _, width := range []int{60, 100, 160} {
		var b strings.Builder
		must(t, writeText(&b, found, width))
		var mend []string
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			words := quotedWords(strings.TrimSuffix(strings.TrimSpace(line), ` \`))
			if len(line) > width && len(words) > 1 {
				t.Errorf("width %d: %d columns: %q", width, len(line), line)
			}
			if len(line) > 23 && (mend != nil || strings.HasPrefix(line, "                 mend  ")) {
				mend = append(mend, line[23:])
			}
		}
		at := 0
		for strings.HasSuffix(mend[at], `\`) {
			at++
		}
		want, err := exec.Command("sh", "-c", command).Output()
		must(t, err)
		got, err := exec.Command("sh", "-c", strings.Join(mend[:at+1], "\n")).Output()
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("width %d: the shell reads %q, want %q", width, got, want)
		}
		if strings.Contains(strings.Join(mend[at+1:], "\n"), `\`) {
			t.Errorf("width %d: a change to a file with a backslash: %q", width, mend[at+1:])
		}
	}
}
