package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/authkey/authkey/internal/config"
	"github.com/authkey/authkey/internal/program"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// An explanation is an Examination as people and programs read it.
type explanation struct {
	Class  string `json:"class"`
	Client string `json:"client"`
	Sender string `json:"envelope_sender"`
	// SenderSource says where it comes from.
	SenderSource string          `json:"envelope_sender_from"`
	Keys         int             `json:"keys"`
	Envelope     resultOf        `json:"envelope"`
	From         *resultOf       `json:"from,omitempty"`
	Recipients   []recipientView `json:"recipients"`
	Action       string          `json:"action"`
	Would        string          `json:"would,omitempty"` // in test mode
	By           string          `json:"by,omitempty"`
	Notes        string          `json:"notes,omitempty"`
	Reply        string          `json:"reply"`
	Header       headerView      `json:"header"`
	Trouble      string          `json:"trouble,omitempty"`
}

type resultOf struct {
	Address  string `json:"address"`
	Result   string `json:"result"`
	Reason   string `json:"reason,omitempty"`
	AS       string `json:"as,omitempty"`
	Required bool   `json:"required"`
}

type recipientView struct {
	Address string     `json:"address"`
	Action  string     `json:"action"`
	Would   string     `json:"would,omitempty"`
	By      string     `json:"by"`
	Becomes string     `json:"becomes"`
	Notes   string     `json:"notes,omitempty"`
	Steps   []stepView `json:"steps"`
	action  policy.Action
}

type stepView struct {
	Layer   string `json:"layer"`
	Rule    string `json:"rule,omitempty"`
	Action  string `json:"action"`
	Outcome string `json:"outcome"`
}

type headerView struct {
	AuthRes string `json:"authentication_results,omitempty"`
	Removed int    `json:"keys_removed"`
	Forged  int    `json:"forged_results_removed"`
	Marked  bool   `json:"marked"`
	Held    bool   `json:"held"`
}

func viewExamination(s milter.Sample, e milter.Examination, c config.Config) explanation {
	v := explanation{
		Class: e.Class, Client: "a stranger's", Sender: s.Sender, Keys: e.Keys,
		Envelope: viewResult(e.Address, e.Envelope), Recipients: []recipientView{},
		Action: e.Plan.Action.String(), Would: e.Plan.Would.String(), By: string(e.Plan.By), Notes: e.Plan.Notes.String(),
		Reply:  "250",
		Header: headerView{strings.Join(strings.Fields(e.AuthRes), " "), e.Removed, e.Forged, e.Plan.Mark, e.Plan.Hold},
	}
	if s.Client.IsValid() {
		v.Client = s.Client.String()
	}
	if e.From.Status != verifier.Skipped && e.From.Status != "" {
		from := viewResult(e.FromAddress, e.From)
		v.From = &from
	}
	if !e.Reply.IsZero() {
		v.Reply = fmt.Sprintf("%d %s %s", e.Reply.Code, e.Reply.Enhanced, e.Reply.Text)
	}
	if v.Action == "" { // a reply of the milter's own
		v.Action = policy.Reject.String()
		if e.Reply.Code < 500 {
			v.Action = policy.TempFail.String()
		}
	}
	if e.PreferencesError != nil {
		v.Trouble = e.PreferencesError.Error()
	}
	for i, r := range e.Plan.Recipients {
		view := recipientView{Address: r.Address, Action: r.Action.String(), Would: r.Would.String(), By: string(r.By),
			Becomes: becomes(r), Notes: r.Notes.String(), Steps: []stepView{}, action: r.Action}
		for _, step := range e.Steps[i] {
			view.Steps = append(view.Steps, viewStep(step, c))
		}
		v.Recipients = append(v.Recipients, view)
	}
	return v
}

func viewResult(address string, r verifier.Result) resultOf {
	return resultOf{address, string(r.Status), string(r.Reason), r.Server, r.Required}
}

// becomes says in words what a recipient gets.
func becomes(r policy.RecipientPlan) string {
	var words string
	switch {
	case r.Disposition == policy.Replace:
		words = "goes to " + r.Target
	case r.Action == policy.Accept:
		words = "delivered"
	case r.Action == policy.Mark:
		words = "delivered, marked"
	case r.Action == policy.Quarantine:
		words = "held"
	case r.Action == policy.TempFail:
		words = "deferred"
	default:
		words = "not delivered"
	}
	if r.DSN {
		words += ", the sender gets a DSN"
	}
	if r.Notice {
		words += ", the recipient gets a notice"
	}
	return words
}

func viewStep(s policy.Step, c config.Config) stepView {
	view := stepView{Layer: string(s.Layer), Action: s.Action.String(), Outcome: string(s.Outcome)}
	if s.Rule >= 0 && s.Rule < len(c.Policy.Rules) {
		rule := c.Policy.Rules[s.Rule]
		var of []string
		if rule.Recipient != "" {
			of = append(of, "recipient "+rule.Recipient)
		}
		if rule.Sender != "" {
			of = append(of, "sender "+rule.Sender)
		}
		view.Rule = fmt.Sprintf("policy.rules[%d]: %s", s.Rule, strings.Join(of, ", "))
	}
	return view
}

// exitCode is the highest of the recipients': accept and mark 0, tempfail 75, else 1.
func (v explanation) exitCode() int {
	code := func(action string) int {
		switch action {
		case policy.Accept.String(), policy.Mark.String():
			return program.OK
		case policy.TempFail.String():
			return program.Temp
		}
		return program.Negative
	}
	worst := code(v.Action)
	for _, r := range v.Recipients {
		worst = max(worst, code(r.Action))
	}
	return worst
}

func (v explanation) print(w io.Writer) {
	say := func(format string, args ...any) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
	say("client      %s", v.Client)
	say("class       %s%s", v.Class, map[string]string{
		"submission": ": our own user's mail, not checked", "exempt": ": a relay of ours, not checked"}[v.Class])
	say("sender      <%s> (%s), X-Auth-Key fields: %d", v.Sender, v.SenderSource, v.Keys)
	say("result      %s", v.Envelope.words())
	if v.From != nil {
		say("From field  %s", v.From.words())
	}
	if v.Trouble != "" {
		say("trouble     %s", v.Trouble)
	}
	for _, r := range v.Recipients {
		say("")
		say("recipient   %s", r.Address)
		for _, s := range r.Steps {
			action := s.Action
			if action == "" {
				action = "-"
			}
			say("  %-16s  %-14s  %-11s  %s", s.Layer, action, s.Outcome, s.Rule)
		}
		action := r.Action
		if r.Would != "" {
			action = r.Would + " (test mode: would be)"
		}
		say("  so:         %s by %s: %s", action, r.By, r.Becomes)
		if r.Notes != "" {
			say("  note:       %s", r.Notes)
		}
	}
	say("")
	action := v.Action
	if v.Would != "" {
		action += ", would " + v.Would + " (mode: test)"
	}
	say("action      %s", action)
	say("answer      the client hears  %s", v.Reply)
	if v.Header.AuthRes != "" {
		say("header      Authentication-Results: %s", v.Header.AuthRes)
	}
	say("            %s", v.Header.words())
}

// words are what is done to the header and to the message.
func (h headerView) words() string {
	number := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	removed := "nothing"
	switch {
	case h.Removed > 0 && h.Forged > 0:
		removed = number(h.Removed, "key") + " and " + number(h.Forged, "forged result")
	case h.Removed > 0:
		removed = number(h.Removed, "key")
	case h.Forged > 0:
		removed = number(h.Forged, "forged result")
	}
	not := func(done bool) string {
		if done {
			return ""
		}
		return "not "
	}
	return "removed: " + removed + "; " + not(h.Marked) + "marked, " + not(h.Held) + "held"
}

func (r resultOf) words() string {
	words := r.Result
	if r.Reason != "" {
		words += " (" + r.Reason + ")"
	}
	if r.Address != "" {
		words += " for " + r.Address
	}
	if r.AS != "" {
		words += ", asked " + r.AS
	}
	if r.Required {
		words += "; the domain requires keys (req=yes)"
	}
	return words
}
