package selftest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/authkey/authkey/internal/front"
	"github.com/authkey/authkey/milter"
	"github.com/authkey/authkey/policy"
	"github.com/authkey/authkey/verifier"
)

// A logLine is what the log has to say of a message.
type logLine struct {
	Level  string
	Msg    string
	QID    string
	Client string
	From   string
	Result verifier.Status
	Reason verifier.Reason
	Cached bool
	FromIs verifier.Status `json:"from_result"`
	Action string
	Would  string
	By     policy.Layer
	Rcpts  int
	// Removed is a pointer since 0 is to be said too.
	Removed *int
}

// A result is one that is to be written to Authentication-Results.
type result struct {
	verifier.Result
	address string
}

// clause is what RFC 8601 makes of it, "" for nothing at all.
func (r result) clause(property string) string {
	word, reason := string(r.Status), string(r.Reason)
	switch r.Status {
	case verifier.Skipped:
		return ""
	case verifier.NoKey:
		word, reason = "none", "no AuthKey"
	}
	text := "; x-authkey=" + word
	if reason != "" {
		text += ` reason="` + reason + `"`
	}
	if r.address != "" {
		text += " " + property + "=" + r.address
	}
	return text
}

// A checker checks what became of one message.
type checker struct {
	*runner
	scene  *scene
	seen   observation
	sent   front.Message
	fields []sentField
	row    Row
}

func (c *checker) fault(format string, args ...any) {
	c.row.Faults = append(c.row.Faults, fmt.Sprintf(format, args...))
}

// must notes a fault where what is seen is not what must be.
func (c *checker) must(what string, seen, must any) {
	if seen != must {
		c.fault("%s is %v, must be %v", what, quoted(seen), quoted(must))
	}
}

func quoted(v any) any {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return v
}

// check fills in the row.
func (c *checker) check(ctx context.Context, id, recipient string) {
	c.row = Row{Message: c.scene.what, Recipient: recipient, Faults: []string{}}
	line := c.logged()
	c.row.Result, c.row.Reason, c.row.Cached, c.row.From = string(line.Result), string(line.Reason), line.Cached, string(line.FromIs)
	c.row.Action, c.row.Would, c.row.By = line.Action, line.Would, string(line.By)

	envelope, from := c.results(line)
	plan := c.plan(ctx, c.scene, recipient, envelope, from)
	rcpt := plan.Recipients[0]
	c.must("qid= in the log", line.QID, id)
	c.must("client= in the log", line.Client, c.client.String())
	c.must("from= in the log", line.From, c.scene.sender)
	c.must("rcpts= in the log", line.Rcpts, 1)
	c.must("action", line.Action, plan.Action.String())
	c.must("would= in the log", line.Would, plan.Would.String())
	c.must("by= in the log", string(line.By), string(plan.By))
	c.must("number of questions to the Authentication Server", c.seen.asked, c.scene.asks)

	c.verdict(plan, because(plan, envelope, from))
	c.row.Became = c.became()
	if delivers := c.seen.Verdict == front.Delivered || c.seen.Verdict == front.Held; delivers {
		c.delivered(plan, rcpt, envelope, from)
		c.removed(line)
	}
	c.told(rcpt)
	c.noKeys()
}

// logged finds the message's line in the log.
func (c *checker) logged() logLine {
	var found logLine
	lines := 0
	for text := range strings.Lines(c.seen.log) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			c.fault("the log has a line that cannot be read")
			continue
		}
		if line.Level == "ERROR" {
			c.fault("the log has an error: %s", line.Msg)
		}
		if line.Msg == "message" {
			found = line
			lines++
		}
	}
	c.must("number of log lines about the message", lines, 1)
	return found
}

// results checks what was found out, and returns what must have been.
func (c *checker) results(line logLine) (envelope, from result) {
	s, settings := c.scene, &c.engine.Settings
	envelope = result{s.envelope.result(line.Reason), s.sender}
	c.must("result", string(line.Result), string(envelope.Status))
	if !slices.Contains(s.envelope.reasons, line.Reason) && (line.Reason != "" || len(s.envelope.reasons) > 0) {
		c.fault("reason is %q, must be one of %q", line.Reason, s.envelope.reasons)
	}
	c.must("cached= in the log", line.Cached, s.envelope.cached)

	if settings.From == milter.FromOff {
		c.must("from_result= in the log", string(line.FromIs), "")
		return envelope, result{verifier.Result{Status: verifier.Skipped}, ""}
	}
	from = result{s.fromFinding().result(envelope.Reason), s.fromAddress()}
	if contains(settings.FromTrusted.Clients, c.client) {
		from = result{verifier.Result{Status: verifier.Skipped}, ""}
	}
	c.must("from_result= in the log", string(line.FromIs), string(from.Status))
	return envelope, from
}

// result makes the Result of a finding. Which of several reasons it is only the log can
// say.
func (f finding) result(logged verifier.Reason) verifier.Result {
	r := verifier.Result{Status: f.status, Cached: f.cached, Required: f.required}
	switch {
	case slices.Contains(f.reasons, logged):
		r.Reason = logged
	case len(f.reasons) > 0:
		r.Reason = f.reasons[0]
	}
	return r
}

// because is how a person is told why a message is held.
func because(plan policy.Plan, envelope, from result) string {
	res := envelope
	if plan.By == policy.ByFrom {
		res = from
	}
	if res.Reason == "" {
		return string(res.Status)
	}
	return fmt.Sprintf("%s (%s)", res.Status, res.Reason)
}

// verdict checks what the client heard.
func (c *checker) verdict(plan policy.Plan, why string) {
	verdict, reply, reason := front.Delivered, "", ""
	switch {
	case !plan.Reply.IsZero():
		verdict, reply = front.Refused, fmt.Sprintf("%d %s %s", plan.Reply.Code, plan.Reply.Enhanced, plan.Reply.Text)
		if plan.Reply.Code < 500 {
			verdict = front.Deferred
		}
	case plan.Action == policy.Discard, plan.Action == policy.DiscardNotify:
		verdict = front.Discarded
	case plan.Hold:
		verdict, reason = front.Held, "authkey: "+why
	}
	c.must("the message", string(c.seen.Verdict), string(verdict))
	c.must("the reply", c.seen.Reply, reply)
	c.must("the reason why it is held", c.seen.Reason, reason)
	if !slices.Contains(meanings[plan.Action], c.seen.Verdict) {
		c.fault("%s is no way to %s it", c.seen.Verdict, plan.Action)
	}
}

// meanings are the verdicts that each action can have, under any policy.
var meanings = map[policy.Action][]front.Verdict{
	policy.Accept:        {front.Delivered},
	policy.Mark:          {front.Delivered},
	policy.Quarantine:    {front.Held, front.Delivered}, // to a mailbox for it
	policy.TempFail:      {front.Deferred},
	policy.Discard:       {front.Discarded},
	policy.DiscardNotify: {front.Discarded},
	policy.Reject:        {front.Refused},
	policy.RejectNotify:  {front.Refused},
}

// delivered checks header, body and envelope of what is delivered or held.
func (c *checker) delivered(plan policy.Plan, rcpt policy.RecipientPlan, envelope, from result) {
	to := rcpt.Address
	if rcpt.Disposition == policy.Replace {
		to = rcpt.Target
	}
	if !slices.Equal(c.seen.Recipients, []string{to}) {
		c.fault("its recipients are %q, must be %q", c.seen.Recipients, to)
	}
	c.must("the body", c.seen.Body, c.sent.Body)
	got, want := lines(c.seen.Header), lines(c.wantHeader(plan, envelope, from))
	if slices.Equal(got, want) {
		return
	}
	faults := len(c.row.Faults)
	for _, line := range got {
		if !slices.Contains(want, line) {
			c.fault("it has a field that it must not have: %s", visible(line))
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			c.fault("it lacks a field: %s", visible(line))
		}
	}
	if len(c.row.Faults) == faults {
		c.fault("its fields are in another order, or not as many")
	}
}

// wantHeader is the header as it must be: what was sent, without what has to go,
// below what was added.
func (c *checker) wantHeader(plan policy.Plan, envelope, from result) []front.Field {
	settings := &c.engine.Settings
	var want []front.Field
	if clauses := envelope.clause("smtp.mailfrom") + from.clause("header.from"); clauses != "" {
		want = append(want, front.Field{Name: authResField, Value: ownIDs(settings)[0] + clauses})
	}
	if plan.Mark {
		want = append(want, front.Field{Name: settings.MarkHeader, Value: settings.MarkValue})
	}
	for _, value := range plan.QuarantineFields {
		want = append(want, front.Field{Name: quarantineField, Value: value})
	}
	for _, f := range c.fields {
		if !f.goes && (!plan.Mark || !strings.EqualFold(f.Name, settings.MarkHeader)) {
			want = append(want, f.Field)
		}
	}
	return want
}

// lines writes fields unfolded.
func lines(fields []front.Field) []string {
	flat := make([]string, len(fields))
	for i, f := range fields {
		flat[i] = f.Name + ": " + strings.Join(strings.Fields(f.Value), " ")
	}
	return flat
}

// visible shows a header line, but no value that may be a key.
func visible(line string) string {
	name, _, _ := strings.Cut(line, ":")
	if strings.EqualFold(name, keyField) || strings.EqualFold(name, newKeyField) {
		return name
	}
	return line
}

// removed checks how many keys the log says are removed.
func (c *checker) removed(line logLine) {
	keys := 0
	for _, f := range c.fields {
		if strings.EqualFold(f.Name, keyField) {
			keys++
		}
	}
	if line.Removed == nil {
		c.fault("removed= is not in the log")
		return
	}
	c.must("removed= in the log", *line.Removed, keys)
}

// told checks which recipients were sent a notice.
func (c *checker) told(rcpt policy.RecipientPlan) {
	notices := 0
	if rcpt.Notice {
		notices = 1
	}
	c.must("number of notices", len(c.seen.notices), notices)
	for _, l := range c.seen.notices {
		c.must("the notice's sender", l.Sender, "")
		if !strings.EqualFold(l.Recipient, rcpt.Address) {
			c.fault("a notice goes to %q, must go to %q", l.Recipient, rcpt.Address)
		}
	}
}

// became says in words what was done with the message.
func (c *checker) became() string {
	words := string(c.seen.Verdict)
	switch {
	case c.seen.Reply != "":
		words = c.seen.Reply
	case c.seen.Reason != "":
		words += ": " + c.seen.Reason
	case c.seen.Verdict == front.Delivered && !slices.Equal(c.seen.Recipients, c.sent.Recipients):
		words += " to " + strings.Join(c.seen.Recipients, ", ")
	}
	settings := &c.engine.Settings
	if slices.Contains(lines(c.seen.Header), settings.MarkHeader+": "+settings.MarkValue) {
		words += ", marked"
	}
	for _, l := range c.seen.notices {
		words += ", notice to " + l.Recipient
	}
	return words
}

// noKeys looks for keys in everything that is left of the message.
func (c *checker) noKeys() {
	type place struct{ name, text string }
	places := []place{
		{"in what is " + string(c.seen.Verdict), string(c.seen.Bytes())},
		{"in the reply", c.seen.Reply},
		{"in the reason why it is held", c.seen.Reason},
		{"among the recipients", strings.Join(c.seen.Recipients, " ")},
		{"in the log", c.seen.log},
	}
	for _, l := range c.seen.notices {
		places = append(places, place{"in a notice", string(l.Raw)})
	}
	c.row.KeyGone = true
	for _, p := range places {
		if c.leaks(p.text) {
			c.row.KeyGone = false
			c.fault("a key is %s", p.name)
		}
	}
}

// keyPart is how much of a key counts as one: 60 bits that nobody should have.
const keyPart = 12

// leaks reports whether text has a key in it, or a part of one, in any case, folded,
// or broken as quoted-printable is.
func (r *runner) leaks(text string) bool {
	text = strings.ToUpper(strings.NewReplacer("=\r\n", "", "\r", "", "\n", "", "\t", "", " ", "").Replace(text))
	return slices.ContainsFunc(r.keys, func(key string) bool {
		for i := 0; i+keyPart <= len(key); i++ {
			if strings.Contains(text, key[i:i+keyPart]) {
				return true
			}
		}
		return false
	})
}
