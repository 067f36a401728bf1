package policy

import (
	"github.com/authkey/authkey/internal/esmtp"
	"github.com/authkey/authkey/verifier"
)

// maxQuarantineFields bounds the X-Authkey-Quarantine fields of one message.
const maxQuarantineFields = 50

// planFor makes the Plan for the recipients, of which one is enough where all are alike. Its
// Recipients are filled in where there is anything to say about one of them, or where all
// is set. It takes copies, since they are allocated: Decide needs none for most messages.
func (p *Policy) planFor(q *question, env Envelope, res verifier.Result, recipients []Recipient, all bool) Plan {
	if len(recipients) == 0 {
		recipients = make([]Recipient, 1)
	}
	list := make([]RecipientPlan, len(recipients))
	for i := range recipients {
		r := &recipients[i]
		rul := q.rule(r)
		list[i] = RecipientPlan{Address: r.Address, Chosen: rul.action, Action: rul.action, By: rul.by,
			Rule: int(rul.rule), Notes: rul.notes, Language: r.Preference.Language}
	}
	m := merger{p, &env, &res, recipients, list, Plan{}}
	m.merge()
	if p.opts.Test {
		m.onlySay()
	}
	if all || m.special() {
		m.plan.Recipients = list
	}
	return m.plan
}

// oneByOne reports whether an action is carried out for each recipient, also where all
// recipients have it.
func (p *Policy) oneByOne(a Action) bool {
	readdressed := (a == Mark || a == Quarantine) && (p.readdress != nil || p.mailbox != nil)
	return readdressed || a.Notifies()
}

// A merger makes one Plan of what is to be done for each recipient. A milter sees the header
// after every RCPT was answered, so that there is one answer and one header for all of them.
type merger struct {
	*Policy
	env        *Envelope
	res        *verifier.Result
	recipients []Recipient
	list       []RecipientPlan // of the same length
	plan       Plan
}

func (m *merger) merge() {
	m.redirect()
	tempfail := m.any(func(r *RecipientPlan) bool { return r.Action == TempFail })
	delivered := m.any(func(r *RecipientPlan) bool { return r.Action.Delivers() })
	switch {
	case tempfail != nil:
		m.deferAll()
	case delivered == nil:
		m.deliverNone()
	default:
		m.deliverSome()
	}
	m.summarize()
}

func (m *merger) any(is func(*RecipientPlan) bool) *RecipientPlan {
	for i := range m.list {
		if is(&m.list[i]) {
			return &m.list[i]
		}
	}
	return nil
}

// canReaddress reports whether the MTA lets one recipient be replaced by another.
func (m *merger) canReaddress() bool {
	return m.env.Abilities.DeleteRecipient && m.env.Abilities.AddRecipient
}

// redirect finds the mailbox of each quarantined recipient. Without one the MTA
// has to hold the message; if it cannot do that either, the recipient is marked.
func (m *merger) redirect() {
	for i := range m.list {
		r := &m.list[i]
		if r.Action != Quarantine {
			continue
		}
		if m.mailbox != nil && m.readdressTo(m.mailbox, i) {
			continue
		}
		if !m.env.Abilities.Quarantine {
			r.Action = Mark
			r.Notes |= NoteNoQuarantine
		}
	}
}

// readdressTo sets a recipient's Target, or notes that it cannot have one.
func (m *merger) readdressTo(t *template, i int) bool {
	r := &m.list[i]
	target, ok := "", m.canReaddress()
	if ok {
		target, ok = t.expand(&m.recipients[i])
	}
	if !ok {
		r.Notes |= NoteNoReaddress
		return false
	}
	r.Target = target
	return true
}

// deferAll is rule 1: one recipient's tempfail defers the whole message. Nothing was
// delivered, nothing is lost.
func (m *merger) deferAll() {
	for i := range m.list {
		m.list[i].Action, m.list[i].Target = TempFail, ""
	}
	m.plan.Reply = m.opts.Texts.deferral()
}

// deliverNone is rule 2: where nobody is to get the message, the client is answered 550
// if one of the recipients refuses it, and 250 otherwise.
func (m *merger) deliverNone() {
	refusing := m.any(func(r *RecipientPlan) bool { return r.Action.refuses() })
	if refusing != nil {
		m.plan.Reply = m.opts.Texts.rejection(*m.deciding(refusing))
	}
	for i := range m.list {
		r := &m.list[i]
		r.Notice = r.Action.Notifies()
		switch {
		case refusing == nil:
		case r.Notice:
			r.Action = RejectNotify
		default:
			r.Action = Reject
		}
	}
}

// deciding returns the result by which a recipient's action was chosen.
func (m *merger) deciding(r *RecipientPlan) *verifier.Result {
	if r.By == ByFrom {
		return &m.env.From
	}
	return m.res
}

// deliverSome is rules 3 to 5: the message is accepted for those who get it.
func (m *merger) deliverSome() {
	for i := range m.list {
		if r := &m.list[i]; !r.Action.Delivers() {
			m.takeOff(r, m.recipients[i].NoDSN)
			if r.DSN {
				r.Reply = m.opts.Texts.rejection(*m.deciding(r))
			}
		}
	}
	m.readdressMarked()
	m.markOrNot()
	m.hold()
	m.replace()
	m.quarantineFields()
}

// takeOff is rule 3: a recipient who does not get the message is taken off the
// envelope. Of a refusal the sender is told by a DSN, unless the sender asked for
// none (Recipient.NoDSN).
func (m *merger) takeOff(r *RecipientPlan, noDSN bool) {
	switch {
	case !m.env.Abilities.DeleteRecipient:
		r.Action = Mark
		r.Notes |= NoteNoDelete
		return
	case r.Action.refuses() && !noDSN && !m.env.DSNAllowed:
		r.Action = Mark
		r.Notes |= NoteNoDSN
		return
	}
	r.Disposition = Delete
	r.DSN = r.Action.refuses() && !noDSN
	r.Notice = r.Action.Notifies()
}

func (m *merger) readdressMarked() {
	if m.readdress == nil {
		return
	}
	for i := range m.list {
		if m.list[i].Action == Mark {
			m.readdressTo(m.readdress, i)
		}
	}
}

// markOrNot is rule 4: a header field marks the message for all recipients. If some
// are to have it unmarked, and every marked copy goes to another address (Target), that
// address is the mark and there is no field. Otherwise Options.UnmarkMixed decides.
func (m *merger) markOrNot() {
	marked, accepted, unaddressed := false, false, false
	for i := range m.list {
		switch r := &m.list[i]; r.Action {
		case Mark:
			marked = true
			unaddressed = unaddressed || r.Target == ""
		case Accept:
			accepted = true
		}
	}
	if !marked || accepted && !unaddressed {
		return
	}
	m.plan.Mark = !accepted || !m.opts.UnmarkMixed
	if !accepted {
		return
	}
	for i := range m.list {
		r := &m.list[i]
		switch {
		case m.plan.Mark && r.Action == Accept:
			r.Action = Mark
			r.Notes |= NoteMarkedForAll
		case !m.plan.Mark && r.Action == Mark && r.Target == "":
			r.Action = Accept
			r.Notes |= NoteNotMarked
		}
	}
}

// hold is rule 5: the MTA can hold a message only for all of its recipients. A held
// message is not lost.
func (m *merger) hold() {
	if m.any(func(r *RecipientPlan) bool { return r.Action == Quarantine && r.Target == "" }) == nil {
		return
	}
	m.plan.Hold = true
	for i := range m.list {
		if r := &m.list[i]; r.Action == Accept || r.Action == Mark {
			r.Action = Quarantine
			r.Notes |= NoteHeldForAll
		}
	}
}

// replace puts the Targets on the envelope, each once, unless they are on it
// already and stay.
func (m *merger) replace() {
	if m.any(func(r *RecipientPlan) bool { return r.Target != "" }) == nil {
		return
	}
	there := make(map[string]bool, len(m.list))
	for i := range m.list {
		r := &m.list[i]
		if r.Target != "" && r.Target != r.Address {
			r.Disposition = Replace
		}
		if r.Disposition == Keep {
			there[r.Address] = true
		}
	}
	for i := range m.list {
		if r := &m.list[i]; r.Disposition == Replace && !there[r.Target] {
			there[r.Target] = true
			m.plan.Added = append(m.plan.Added, r.Target)
		}
	}
}

// quarantineFields says in the header for whom the message was, but only if it goes to one
// quarantine mailbox and to nobody else: all recipients get the same header, and it must
// not show one recipient to another.
func (m *merger) quarantineFields() {
	if m.plan.Hold {
		return
	}
	box := ""
	for i := range m.list {
		r := &m.list[i]
		if r.Disposition == Delete {
			continue
		}
		if r.Action != Quarantine || box != "" && r.Target != box {
			m.plan.QuarantineFields = nil
			return
		}
		box = r.Target
		if len(m.plan.QuarantineFields) < maxQuarantineFields {
			m.plan.QuarantineFields = append(m.plan.QuarantineFields, printable(r.Address)+"; "+because(m.deciding(r)))
		}
	}
}

// because returns a result with its reason.
func because(res *verifier.Result) string {
	if res.Reason == "" {
		return string(res.Status)
	}
	return string(res.Status) + " (" + string(res.Reason) + ")"
}

// printable writes an address, which came from outside, in the ASCII of a header field.
func printable(s string) string {
	s = esmtp.SafeASCII(s)
	return s[:min(len(s), esmtp.MaxMailbox)]
}

// summarize says what is done with the message as a whole, and which layer chose it.
func (m *merger) summarize() {
	p := &m.plan
	for i := range m.list {
		r := &m.list[i]
		p.Notes |= r.Notes
		if r.Disposition != Delete {
			p.Action = max(p.Action, r.Action)
		}
	}
	who := m.any(func(r *RecipientPlan) bool {
		return r.Disposition != Delete && r.Action == p.Action && r.Chosen == p.Action
	})
	if who == nil { // no layer chose it: merging did
		who = m.any(func(r *RecipientPlan) bool { return r.Disposition != Delete && r.Action == p.Action })
	}
	p.By = who.By
}

// special reports whether the recipients have to be listed: they differ, or
// something is to be done about one of them.
func (m *merger) special() bool {
	return differ(m.list) || m.any(func(r *RecipientPlan) bool { return r.Disposition != Keep || r.Notice }) != nil
}

// onlySay turns the Plan into that of test mode, which only says what would be done.
func (m *merger) onlySay() {
	for i := range m.list {
		r := &m.list[i]
		r.Would, r.Action = r.Action, Accept
		r.Disposition, r.Target, r.DSN, r.Reply, r.Notice = Keep, "", false, Reply{}, false
	}
	m.plan = Plan{Action: Accept, Would: m.plan.Action, By: m.plan.By, Notes: m.plan.Notes}
}
