package serverdoctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/authkey/authkey/internal/doctor"
	"github.com/authkey/authkey/internal/keyring"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What systemd says of the unit, and the server of its configuration.
func TestServiceChecks(t *testing.T) {
	const file = "/etc/authkey/server.yaml"
	line := func(args ...string) string { return "authkey-server " + strings.Join(args, " ") }
	well := doctor.Unit{Name: "authkey-server.service", Known: true, Active: "active", Enabled: "enabled"}
	tests := []struct {
		name   string
		change func(*Options)
		unit   string // status: what; …
		config string
		mend   string // of the first fault
	}{
		{"well", func(*Options) {}, "ok: authkey-server.service is active, and starts with the machine", "ok: the server runs with " + file + " as it is", ""},
		{"no unit", func(o *Options) { o.Unit = doctor.Unit{Name: well.Name} }, "n/a: systemd has no authkey-server.service", "n/a: " + file + " is right; whether", ""},
		{"no systemd", func(o *Options) { o.Unit.Active, o.Unit.Enabled = "", "" }, "n/a: systemd does not run here", "n/a: " + file + " is right; whether", ""},
		{"stopped", func(o *Options) { o.Unit.Active, o.InForce = "inactive", "" }, "fault: authkey-server.service is inactive", "n/a: ", "authkey-server check\nsystemctl enable --now authkey-server\n"},
		{"failed", func(o *Options) { o.Unit.Active, o.InForce = "failed", "" }, "fault: authkey-server.service is failed", "n/a: ", "authkey-server check\nsystemctl enable --now"},
		{"starting again and again", func(o *Options) { o.Unit.Active, o.InForce = "activating", "" }, "fault: authkey-server.service is started again", "n/a: ", "authkey-server check\njournalctl"},
		{"not with the machine", func(o *Options) { o.Unit.Enabled = "disabled" }, "fault: authkey-server.service is active, and disabled", "ok: ", "systemctl enable authkey-server"},
		{"not with the machine, but tried again", func(o *Options) { o.Unit.Enabled, o.Unit.TriggeredBy = "disabled", "authkey-server-retry.timer" }, "fault: authkey-server.service is active, and disabled", "ok: ", "systemctl enable authkey-server"},
		{"with the machine by its socket", func(o *Options) { o.Unit.Enabled, o.Unit.TriggeredBy = "disabled", "authkey-server.socket" }, "ok: ", "ok: ", ""},
		{"a changed unit", func(o *Options) { o.Unit.Outdated = true }, "fault: authkey-server.service was changed, and systemd has not read it", "ok: ", "systemctl daemon-reload\nsystemctl restart authkey-server"},
		{"saved and not reloaded", func(o *Options) { o.Saved = "b" }, "ok: ", "fault: " + file + " was changed, and the server runs with the previous version", "authkey-server check\nsystemctl reload authkey-server"},
		{"a server that says nothing", func(o *Options) { o.InForce = "" }, "ok: ", "n/a: " + file + " is right; the server does not say", ""},
		{"another file", func(o *Options) { o.UnitConfig = "/srv/as.yaml" }, "ok: ", "n/a: " + file + " is right; authkey-server.service runs with /srv/as.yaml", ""},
		{"no file", func(o *Options) { o.ConfigFile = "" }, "ok: ", "n/a: there is no file", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{ConfigFile: file, UnitConfig: file, Unit: well, InForce: "a", Saved: "a", CommandLine: line, InitLine: func(string) string { return "" }}
			tt.change(&o)
			c := checks{o}
			found := append(c.unit(t.Context()), c.configuration(t.Context())...)
			for i, want := range []string{tt.unit, tt.config} {
				if got := fmt.Sprintf("%s: %s", found[i].Status, found[i].What); !strings.HasPrefix(got, want) {
					t.Errorf("%s, want %s", got, want)
				}
			}
			for _, f := range found {
				if f.Status == doctor.Fault && (!strings.HasPrefix(f.Mend, tt.mend) || tt.mend == "" || f.Why == "") {
					t.Errorf("mend %q, want %q", f.Mend, tt.mend)
				}
			}
		})
	}
}

// A configuration that the service may not read, and a secret of which it has an older
// copy, or none.
func TestWhatTheServiceHas(t *testing.T) {
	dir := t.TempDir() // which is closed to others
	secret := filepath.Join(dir, "credentials", "example.com.secret")
	must(t, os.Mkdir(filepath.Dir(secret), 0o700))
	_, err := keyring.CreateSecret(secret)
	must(t, err)
	o := checks{Options{ConfigFile: filepath.Join(dir, "server.yaml"), CommandLine: func(...string) string { return "x" }, InitLine: func(string) string { return "x" }}}
	must(t, os.WriteFile(o.ConfigFile, nil, 0o600))
	o.UnitConfig = o.ConfigFile
	o.Unit = doctor.Unit{Name: "authkey-server.service", Known: true, Active: "active"}
	reader, err := doctor.NewReader("nobody")
	must(t, err)
	o.Reader, o.ReaderFrom = &reader, "User= of authkey-server.service"
	if f := o.configuration(t.Context())[0]; f.Status != doctor.Fault || !strings.Contains(f.What, "nobody (User= of authkey-server.service) may not search the folder ") {
		t.Errorf("%+v", f)
	}
	d := Domain{Name: "example.com", Keys: keyring.Config{Form: keyring.Form{Domain: "example.com"}, SecretFile: secret, Addresses: "any", AVT: keyring.DefaultAVT}}
	look := func(status doctor.Status, what string) {
		t.Helper()
		found, opened := o.secret(d)
		if f := found[0]; f.Status != status || !strings.Contains(f.What, what) || opened == nil {
			t.Errorf("%+v, want %s %s", f, status, what)
		}
	}
	look(doctor.Fault, "nobody (User= of authkey-server.service) may not search the folder ")
	o.Unit.Passed, o.Unit.Copies = []string{filepath.Dir(secret)}, filepath.Join(dir, "copies")
	look(doctor.OK, "systemd passes "+secret) // it does not run
	must(t, os.Mkdir(o.Unit.Copies, 0o700))
	look(doctor.Fault, "was started before there was "+secret)
	text, err := os.ReadFile(secret)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(o.Unit.Copies, "authkey_example.com.secret"), text, 0o600))
	look(doctor.OK, "systemd passes "+secret)
	_, err = keyring.AddSecret(t.Context(), secret, time.Now())
	must(t, err)
	look(doctor.Fault, secret+" was changed after the server was started")
}
