package milter

import (
	"strings"
	"testing"

	gomilter "github.com/d--j/go-milter"

	"github.com/authkey/authkey/internal/wire"
	"github.com/authkey/authkey/policy"
)

// attachAs attaches a key to mail whose login is its sender and its From.
type attachAs struct {
	key   wire.Key
	wait  bool
	asked []OwnMail
}

func (a *attachAs) Attach(m OwnMail) Attachment {
	a.asked = append(a.asked, m)
	switch {
	case a.wait:
		return Attachment{Defer: true, Note: "no-list"}
	case strings.HasSuffix(m.Sender, "@else.test"):
		return Attachment{Note: "other-domain"}
	case !m.FromKnown || len(m.From) != 1 || m.From[0].String() != m.Login || m.Sender != m.Login:
		return Attachment{Note: "not-authorized", Strip: true}
	}
	return Attachment{Key: a.key, Agent: "smtp; authkey/test"}
}

func TestAttach(t *testing.T) {
	key, err := wire.ParseKey("OURKEY")
	if err != nil {
		t.Fatal(err)
	}
	settings := defaultSettings()
	settings.Submission.Networks = nil
	tests := []struct {
		name, login, from string
		rcpts             []string
		brought           []string
		wantKeys          []string
		note              string
	}{
		{"the owner", "alice@a.test", "Alice <alice@a.test>", []string{"x@far.test"}, nil, []string{"OURKEY"}, "key-attached"},
		{"keys that the client brought", "alice@a.test", "alice@a.test", []string{"x@far.test"}, []string{"stale", "older"}, []string{"OURKEY"}, "key-attached"},
		{"another's From", "alice@a.test", "boss@a.test", []string{"x@far.test"}, nil, nil, "not-authorized"},
		{"another login", "mallory@a.test", "alice@a.test", []string{"x@far.test"}, []string{"stolen"}, nil, "not-authorized"},
		{"of a domain that we have no keys of", "alice@else.test", "alice@else.test", []string{"x@far.test"}, []string{"her own"}, []string{"her own"}, "other-domain"},
		{"staying here", "alice@a.test", "alice@a.test", []string{"bob@rcpt.test"}, []string{"stale"}, nil, ""},
		{"a stranger", "", "alice@a.test", []string{"x@far.test"}, []string{"good"}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, settings, policy.Options{})
			r.srv.Swap(&Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(policy.Options{}), Attacher: &attachAs{key: key}})
			sender := "alice@a.test"
			if strings.HasSuffix(tt.login, "@else.test") {
				sender = tt.login
			}
			bag := gomilter.NewMacroBag()
			if tt.login != "" {
				bag.Set(gomilter.MacroAuthAuthen, tt.login)
			}
			in := sent{from: sender, rcpts: tt.rcpts, fields: []field{{"From", tt.from}}}
			for _, k := range tt.brought {
				in.fields = append(in.fields, field{"X-Auth-Key", k})
			}
			got := r.mustSend(r.connectAs("192.0.2.1", bag), in)
			var keys []string
			agent := 0
			for _, f := range got.fields {
				switch f.name {
				case "X-Auth-Key":
					keys = append(keys, f.value)
				case "X-Auth-Agent":
					agent++
				}
			}
			if strings.Join(keys, ",") != strings.Join(tt.wantKeys, ",") || (agent == 1) != (tt.note == "key-attached") {
				t.Errorf("keys %q and %d agents, want %q", keys, agent, tt.wantKeys)
			}
			if tt.note != "" && !strings.Contains(r.log.String(), "note="+tt.note) || strings.Contains(r.log.String(), "OURKEY") {
				t.Errorf("log: %s", r.log)
			}
		})
	}
	// An address that nobody can have rights to makes the whole field unknown.
	for _, from := range []string{"alice@[192.0.2.1]", "alice@a.test, boss@[192.0.2.1]", "boss@a..test, alice@a.test", strings.Repeat("b", 1100) + "@a.test, alice@a.test"} {
		t.Run("From "+from[max(0, len(from)-40):], func(t *testing.T) {
			asked := &attachAs{key: key}
			r := newRig(t, settings, policy.Options{})
			r.srv.Swap(&Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(policy.Options{}), Attacher: asked})
			bag := gomilter.NewMacroBag()
			bag.Set(gomilter.MacroAuthAuthen, "alice@a.test")
			r.mustSend(r.connectAs("192.0.2.1", bag), sent{from: "alice@a.test", rcpts: []string{"x@far.test"}, fields: []field{{"From", from}}})
			if len(asked.asked) != 1 || asked.asked[0].FromKnown {
				t.Errorf("asked %+v", asked.asked)
			}
		})
	}
	t.Run("no key to be had", func(t *testing.T) {
		r := newRig(t, settings, policy.Options{})
		r.srv.Swap(&Engine{Settings: settings, Limits: testLimits, Verifier: r.fake, Policy: policy.New(policy.Options{}), Attacher: &attachAs{wait: true}})
		bag := gomilter.NewMacroBag()
		bag.Set(gomilter.MacroAuthAuthen, "alice@a.test")
		got := r.mustSend(r.connectAs("192.0.2.1", bag), sent{from: "alice@a.test", rcpts: []string{"x@far.test"}, fields: []field{{"From", "alice@a.test"}}})
		if got.code != 451 || !strings.Contains(r.log.String(), "reason=no-key-now") {
			t.Errorf("%d %q\n%s", got.code, got.reply, r.log)
		}
	})
}
