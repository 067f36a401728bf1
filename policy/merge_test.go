package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/verifier"
)

// Addresses of the tables below: their local part begins with what they want,
// and says "never" where the sender asked for no DSN about them.
func wanting(addresses ...string) []Recipient {
	var list []Recipient
	for _, a := range addresses {
		local, _, _ := strings.Cut(a, "@")
		action, _, _ := strings.Cut(local, ".")
		chosen, err := ParseAction(action)
		if err != nil {
			panic(err)
		}
		list = append(list, Recipient{Address: a, NoDSN: strings.Contains(local, ".never"),
			Preference: Preference{Actions: Actions{Fail: chosen}, Language: "de"}})
	}
	return list
}

// outline is a Plan in lines.
func outline(p Plan) []string {
	lines := []string{"message " + p.Action.String()}
	if p.Would != Unset {
		lines[0] += " would " + p.Would.String()
	}
	add := func(is bool, format string, args ...any) {
		if is {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(!p.Reply.IsZero(), "reply %d", p.Reply.Code)
	add(p.Mark, "mark")
	add(p.Hold, "hold")
	add(p.Notes != 0, "note %s", p.Notes)
	for _, f := range p.QuarantineFields {
		lines = append(lines, "X-Authkey-Quarantine: "+f)
	}
	for _, r := range p.Recipients {
		what := r.Address + " " + r.Action.String()
		if r.Would != Unset {
			what += " would " + r.Would.String()
		}
		if r.Disposition != Keep {
			what += strings.TrimRight(" "+r.Disposition.String()+" "+r.Target, " ")
		}
		if r.DSN {
			what += fmt.Sprintf(" dsn %d", r.Reply.Code)
		}
		if r.Notice {
			what += " notice " + r.Language
		}
		lines = append(lines, what)
	}
	for _, a := range p.Added {
		lines = append(lines, "add "+a)
	}
	return lines
}

var (
	everything = Abilities{Quarantine: true, DeleteRecipient: true, AddRecipient: true}
	folders    = Options{Readdress: "{local}+spam@{domain}", QuarantineMailbox: "quarantine@x.test"}
)

// TestMergeRules is the rules for several recipients, by their numbers.
func TestMergeRules(t *testing.T) {
	tests := []struct {
		name  string
		opts  Options
		can   Abilities
		noDSN bool // the sender may be told nothing
		rcpts []string
		want  []string
	}{
		{name: "1: anyone's tempfail is everybody's", can: everything,
			rcpts: []string{"accept@x.test", "tempfail@x.test", "reject-notify@x.test", "discard-notify@x.test"},
			want:  []string{"message tempfail", "reply 451"}},
		{name: "1: also where others are to be redirected", opts: folders, can: everything,
			rcpts: []string{"quarantine@x.test", "mark@x.test", "tempfail@x.test"},
			want:  []string{"message tempfail", "reply 451"}},

		{name: "2: all reject", can: everything, rcpts: []string{"reject@x.test", "reject.b@x.test"},
			want: []string{"message reject", "reply 550"}},
		{name: "2: anyone rejects, nobody gets it", can: everything, noDSN: true, rcpts: []string{"discard@x.test", "reject@x.test"},
			want: []string{"message reject", "reply 550"}},
		{name: "2: notices", can: everything, rcpts: []string{"discard-notify@x.test", "reject@x.test", "reject-notify@x.test", "discard@x.test"},
			want: []string{"message reject-notify", "reply 550", "discard-notify@x.test reject-notify notice de", "reject@x.test reject",
				"reject-notify@x.test reject-notify notice de", "discard@x.test reject"}},
		{name: "2: one recipient's notice", rcpts: []string{"reject-notify@x.test"},
			want: []string{"message reject-notify", "reply 550", "reject-notify@x.test reject-notify notice de"}},
		{name: "2: all discard", rcpts: []string{"discard@x.test", "discard.b@x.test"},
			want: []string{"message discard"}},
		{name: "2: all discard, one with a notice", rcpts: []string{"discard@x.test", "discard-notify@x.test"},
			want: []string{"message discard-notify", "discard@x.test discard", "discard-notify@x.test discard-notify notice de"}},

		{name: "3: off the envelope, a DSN for the refused", can: everything,
			rcpts: []string{"discard@x.test", "accept@x.test", "reject@x.test", "discard-notify@x.test", "reject-notify@x.test"},
			want: []string{"message accept", "discard@x.test discard delete", "accept@x.test accept", "reject@x.test reject delete dsn 550",
				"discard-notify@x.test discard-notify delete notice de", "reject-notify@x.test reject-notify delete dsn 550 notice de"}},
		{name: "3: no DSN, marked", can: everything, noDSN: true,
			rcpts: []string{"mark@x.test", "reject@x.test", "reject-notify@x.test", "discard@x.test"},
			want: []string{"message mark", "mark", "note no-dsn", "mark@x.test mark", "reject@x.test mark", "reject-notify@x.test mark",
				"discard@x.test discard delete"}},
		{name: "3: NOTIFY=NEVER counts as a DSN sent", can: everything, noDSN: true,
			rcpts: []string{"accept@x.test", "reject.never@x.test"},
			want:  []string{"message accept", "accept@x.test accept", "reject.never@x.test reject delete"}},
		{name: "3: NOTIFY=NEVER where a DSN may be sent", can: everything,
			rcpts: []string{"accept@x.test", "reject-notify.never@x.test"},
			want:  []string{"message accept", "accept@x.test accept", "reject-notify.never@x.test reject-notify delete notice de"}},
		{name: "3: an MTA without deletion", can: Abilities{Quarantine: true},
			rcpts: []string{"mark@x.test", "reject.never@x.test", "discard-notify@x.test"},
			want:  []string{"message mark", "mark", "note no-delete"}},

		{name: "4: one header for all", can: everything, rcpts: []string{"accept@x.test", "mark@x.test"},
			want: []string{"message mark", "mark", "note marked-for-all"}},
		{name: "4: mark_conflict: accept", opts: Options{UnmarkMixed: true}, can: everything, rcpts: []string{"accept@x.test", "mark@x.test"},
			want: []string{"message accept", "note not-marked"}},
		{name: "4: mark_conflict matters only to a conflict", opts: Options{UnmarkMixed: true}, can: everything, rcpts: []string{"discard@x.test", "mark@x.test"},
			want: []string{"message mark", "mark", "discard@x.test discard delete", "mark@x.test mark"}},
		{name: "4: readdressed ones need no header", opts: folders, can: everything, rcpts: []string{"accept@x.test", "mark@x.test", "mark.b@y.test"},
			want: []string{"message mark", "accept@x.test accept", "mark@x.test mark replace mark+spam@x.test",
				"mark.b@y.test mark replace mark.b+spam@y.test", "add mark+spam@x.test", "add mark.b+spam@y.test"}},
		{name: "4: mark_conflict: accept, one readdressed and one that cannot be", opts: Options{UnmarkMixed: true, Readdress: "{local}+spam@{domain}"}, can: everything,
			rcpts: []string{"accept@x.test", "mark@x.test", "mark"},
			want: []string{"message mark", "note no-readdress,not-marked", "accept@x.test accept", "mark@x.test mark replace mark+spam@x.test",
				"mark accept", "add mark+spam@x.test"}},
		{name: "4: nobody minds the header", opts: folders, can: everything, rcpts: []string{"mark@x.test"},
			want: []string{"message mark", "mark", "mark@x.test mark replace mark+spam@x.test", "add mark+spam@x.test"}},
		{name: "4: readdressing that the MTA does not let us", opts: folders, can: Abilities{true, true, false}, rcpts: []string{"accept@x.test", "mark@x.test"},
			want: []string{"message mark", "mark", "note no-readdress,marked-for-all"}},
		{name: "4: one address for several", opts: Options{Readdress: "spam@x.test"}, can: everything, rcpts: []string{"mark@x.test", "mark.b@x.test"},
			want: []string{"message mark", "mark", "mark@x.test mark replace spam@x.test", "mark.b@x.test mark replace spam@x.test", "add spam@x.test"}},

		{name: "5: held for all", can: everything, rcpts: []string{"accept@x.test", "quarantine@x.test", "discard@x.test"},
			want: []string{"message quarantine", "hold", "note held-for-all", "accept@x.test quarantine", "quarantine@x.test quarantine", "discard@x.test discard delete"}},
		{name: "5: held alone", can: everything, rcpts: []string{"quarantine@x.test"}, want: []string{"message quarantine", "hold"}},
		{name: "5: held and marked", can: everything, rcpts: []string{"mark@x.test", "quarantine@x.test"},
			want: []string{"message quarantine", "mark", "hold", "note held-for-all"}},
		{name: "5: an MTA that holds nothing", can: Abilities{DeleteRecipient: true, AddRecipient: true}, rcpts: []string{"quarantine@x.test"},
			want: []string{"message mark", "mark", "note no-quarantine"}},
		{name: "5: and with a spam folder", opts: Options{Readdress: "{local}+spam@{domain}"}, can: Abilities{DeleteRecipient: true, AddRecipient: true},
			rcpts: []string{"quarantine@x.test", "quarantine.b@x.test"},
			want: []string{"message mark", "mark", "note no-quarantine", "quarantine@x.test mark replace quarantine+spam@x.test",
				"quarantine.b@x.test mark replace quarantine.b+spam@x.test", "add quarantine+spam@x.test", "add quarantine.b+spam@x.test"}},
		{name: "5: redirected, and nobody else gets it", opts: folders, can: everything, rcpts: []string{"quarantine.a@y.test", "quarantine.b@y.test", "reject@y.test"},
			want: []string{"message quarantine", "X-Authkey-Quarantine: quarantine.a@y.test; fail (invalid-key)", "X-Authkey-Quarantine: quarantine.b@y.test; fail (invalid-key)",
				"quarantine.a@y.test quarantine replace quarantine@x.test", "quarantine.b@y.test quarantine replace quarantine@x.test",
				"reject@y.test reject delete dsn 550", "add quarantine@x.test"}},
		{name: "5: redirected beside others: no field that tells them", opts: folders, can: everything, rcpts: []string{"quarantine@y.test", "accept@y.test"},
			want: []string{"message quarantine", "quarantine@y.test quarantine replace quarantine@x.test", "accept@y.test accept", "add quarantine@x.test"}},
		{name: "5: to mailboxes of their own: no field that tells one of the other", opts: Options{QuarantineMailbox: "q-{local}@{domain}"}, can: everything,
			rcpts: []string{"quarantine.a@y.test", "quarantine.b@y.test"},
			want: []string{"message quarantine", "quarantine.a@y.test quarantine replace q-quarantine.a@y.test",
				"quarantine.b@y.test quarantine replace q-quarantine.b@y.test", "add q-quarantine.a@y.test", "add q-quarantine.b@y.test"}},
		{name: "5: the mailbox is a recipient already", opts: folders, can: everything, rcpts: []string{"quarantine@x.test", "quarantine@y.test"},
			want: []string{"message quarantine", "X-Authkey-Quarantine: quarantine@x.test; fail (invalid-key)", "X-Authkey-Quarantine: quarantine@y.test; fail (invalid-key)",
				"quarantine@x.test quarantine", "quarantine@y.test quarantine replace quarantine@x.test"}},
		{name: "5: the mailbox is a recipient who wants none: another's copy goes there", opts: Options{QuarantineMailbox: "discard@x.test"}, can: everything,
			rcpts: []string{"discard@x.test", "quarantine@y.test"},
			want: []string{"message quarantine", "X-Authkey-Quarantine: quarantine@y.test; fail (invalid-key)",
				"discard@x.test discard delete", "quarantine@y.test quarantine replace discard@x.test", "add discard@x.test"}},
		{name: "5: a mailbox, and an MTA that cannot readdress", opts: folders, can: Abilities{Quarantine: true}, rcpts: []string{"quarantine@y.test"},
			want: []string{"message quarantine", "hold", "note no-readdress"}},

		{name: "test mode only says it", opts: Options{Test: true}, can: everything, rcpts: []string{"accept@x.test", "reject-notify@x.test", "discard@x.test"},
			want: []string{"message accept would accept", "accept@x.test accept would accept",
				"reject-notify@x.test accept would reject-notify", "discard@x.test accept would discard"}},
		{name: "test mode, all alike", opts: Options{Test: true}, can: everything, rcpts: []string{"reject@x.test", "reject.b@x.test"},
			want: []string{"message accept would reject"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Allowed = AllActions()
			res := verifier.Result{Status: verifier.Fail, Reason: verifier.ReasonInvalidKey}
			env := Envelope{Recipients: wanting(tt.rcpts...), Abilities: tt.can, DSNAllowed: !tt.noDSN}
			got := New(tt.opts).Decide(env, res)
			if diff := cmp.Diff(tt.want, outline(got)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSummaryNamesWhoDecided(t *testing.T) {
	p := New(Options{Rules: []Rule{{Recipient: "x.test", Actions: Actions{Fail: Quarantine}}}})
	env := Envelope{Recipients: []Recipient{{Address: "bob@y.test"}, {Address: "eve@x.test"}}, Abilities: everything}
	if got := p.Decide(env, result(verifier.Fail)); got.Action != Quarantine || got.By != ByDomainRule {
		t.Errorf("held by %v, want %v", got.By, ByDomainRule)
	}
	p = New(Options{EnforceFrom: true, From: Actions{Fail: Reject}, Rules: []Rule{{Recipient: "x.test", Actions: Actions{NoKey: RejectNotify}}}})
	env.From = result(verifier.Fail)
	got := p.Decide(env, result(verifier.NoKey))
	if got.Reply.Text != textFail || got.By != ByRecipientRule && got.By != ByDomainRule {
		t.Errorf("reply %q by %v, want the first refusal's text and the strictest one's layer", got.Reply.Text, got.By)
	}
	// What is to be noted of a recipient who does not get the message is noted all the same.
	p = New(Options{Rules: []Rule{{Recipient: "x.test", Actions: Actions{Fail: Discard}}}})
	env = Envelope{Recipients: []Recipient{{Address: "bob@y.test"}, {Address: "eve@x.test", PreferenceFailed: true}}, Abilities: everything}
	if got := p.Decide(env, result(verifier.Fail)); got.Action != Mark || got.Notes != NotePreferenceFailed {
		t.Errorf("%v, notes %v, want %v, %v", got.Action, got.Notes, Mark, NotePreferenceFailed)
	}
}

func TestTemplates(t *testing.T) {
	tests := []struct{ template, address, folded, want string }{
		{"{local}+spam@{domain}", "Bob@X.test", "", "Bob+spam@X.test"},
		{"{local}+spam@{domain}", "bob+tag@x.test", "", "bob+tag+spam@x.test"},
		{"{local}+spam@{domain}", `"bob"@x.test.`, "bob@x.test", "bob+spam@x.test"},
		{"{local}+spam@{domain}", `"b b"@x.test`, "b b@x.test", `"b b+spam"@x.test`},
		{"{local}+spam@{domain}", `"b\"\\b"@x.test`, `b"\b@x.test`, `"b\"\\b+spam"@x.test`},
		{"{local}+spam@{domain}", `"a@b"@x.test`, "a@b@x.test", `"a@b+spam"@x.test`},
		{"{local}+spam@{domain}", "@r.test:bob@x.test", "bob@x.test", "bob+spam@x.test"},
		{"{local}+spam@{domain}", "{domain}@x.test", "", "{domain}+spam@x.test"},
		{"{local}+spam@{domain}", "émile@bücher.test", "émile@xn--bcher-kva.test", "émile+spam@xn--bcher-kva.test"},
		{`"{local} spam"@{domain}`, "bob@x.test", "", `"bob spam"@x.test`},
		{"q+{local}={domain}@admin.test", "bob@x.test", "", "q+bob=x.test@admin.test"},
		{"quarantine", "bob@x.test", "", "quarantine"}, // the MTA adds its domain
		{"quarantine@admin.test", "postmaster", "", "quarantine@admin.test"},
		{"q@{domain}", "postmaster", "", ""},
		{"{local}@admin.test", "@x.test", "", ""},
		{"{local}+spam@{domain}", "\"a\rb\"@x.test", "a\rb@x.test", ""},
		{"{local}+spam@{domain}", strings.Repeat("a", 312) + "@x.test", "", ""},
		{"{local}@{domain}", strings.Repeat("a", 313) + "@x.test", "", strings.Repeat("a", 313) + "@x.test"},
		{"{local}@{domain}", strings.Repeat("a", 314) + "@x.test", "", ""},
	}
	for _, tt := range tests {
		got, ok := parseTemplate(tt.template).expand(&Recipient{Address: tt.address, Folded: tt.folded})
		if !ok {
			got = ""
		}
		if got != tt.want {
			t.Errorf("%s for %q: %q, want %q", tt.template, tt.address, got, tt.want)
		}
	}
}

// TestQuarantineFieldsHoldNothingOfStrangers checks their form and their number.
func TestQuarantineFieldsHoldNothingOfStrangers(t *testing.T) {
	p := New(Options{QuarantineMailbox: "q@x.test", Defaults: Actions{Pass: Quarantine}})
	env := Envelope{Abilities: everything, Recipients: []Recipient{{Address: "\"a\r\nb\"@x.test"}, {Address: strings.Repeat("ü", 500) + "@x.test"}}}
	got := p.Decide(env, result(verifier.Pass)).QuarantineFields
	if len(got) != 2 || got[0] != `%22a%0D%0Ab%22@x.test; pass` || len(got[1]) > esmtp.MaxMailbox+20 {
		t.Errorf("%q", got)
	}
	for i := range 100 {
		env.Recipients = append(env.Recipients, Recipient{Address: fmt.Sprintf("r%d@x.test", i)})
	}
	if got := p.Decide(env, result(verifier.Pass)).QuarantineFields; len(got) != maxQuarantineFields {
		t.Errorf("%d fields", len(got))
	}
}

func TestNotesListed(t *testing.T) {
	if got := (NoteNoDSN | NoteNoQuarantine).String(); got != "no-quarantine,no-dsn" {
		t.Errorf("%q", got)
	}
	if got := NotePreferenceNotAllowed.String(); got != "preference-not-allowed" || Notes(0).String() != "" {
		t.Errorf("%q", got)
	}
}
