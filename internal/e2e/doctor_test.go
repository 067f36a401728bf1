package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/inforce"
)

// TestInForce: the doctor knows what the running milter has in force, whatever the file
// says by now.
func TestInForce(t *testing.T) {
	w := newWorld(t)
	must(t, w.Publish("example.com", "v=spf1 -all"))
	const more = "preferences: {source: 'mysql://milter:hunter2@db.test/prefs'}\n"
	milter := startMilter(t, w, more)
	config := func(file string, wantStatus, want string) {
		t.Helper()
		out, _ := runMilter(t, "", "doctor", "--json", "--postfix-config", "/nonexistent", "--config", file)
		var examined struct {
			Findings []struct{ Check, Status, What string }
		}
		must(t, json.Unmarshal([]byte(out), &examined))
		for _, f := range examined.Findings {
			if f.Check == "listening" && f.Status != "ok" {
				t.Errorf("listening: %+v", f)
			}
			if f.Check == "config" && f.Status == wantStatus && strings.Contains(f.What, want) {
				return
			}
		}
		t.Errorf("no %s of %q:\n%s", wantStatus, want, out)
	}
	config(milter.Config, "ok", "in force as it is")
	note := filepath.Join(filepath.Dir(milter.Config), inforce.Milter)
	b, err := os.ReadFile(note)
	must(t, err)
	if strings.Contains(string(b), "hunter2") || strings.Contains(string(b), "mysql") {
		t.Errorf("the note has settings in it: %s", b)
	}

	must(t, milter.Configure(more+"mode: test\n"))
	config(milter.Config, "fault", "was changed after the milter read it")
	must(t, milter.Signal(syscall.SIGHUP))
	_, err = milter.WaitLog(t.Context(), "configuration in force", "mode=test")
	must(t, err)
	config(milter.Config, "ok", "in force as it is")

	other := writeConfig(t, w.MilterConfig(milter.Socket)+more)
	config(other, "fault", "the milter runs with "+milter.Config+", and this looks at "+other)

	if log := milter.Log(); strings.Contains(log, "msg=message") {
		t.Errorf("the doctor's look was a message:\n%s", log)
	}
	must(t, milter.Stop(15*time.Second))
	if _, err := os.Stat(note); err == nil {
		t.Error("a milter that has ended still says what it has in force")
	}
}
