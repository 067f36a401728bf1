package policy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/authkey/authkey/verifier"
)

// A world is one random case: an administrator, recipients, an MTA, a result.
type world struct {
	opts Options
	env  Envelope
	res  verifier.Result
}

var (
	worldLocals  = []string{"bob", "eve", "bob+a", "bob+b", "quarantine"}
	worldDomains = []string{"x.test", "sub.x.test", "deep.sub.x.test", "y.test"}
)

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func randomAddress(r *rand.Rand) string {
	return pick(r, worldLocals...) + "@" + pick(r, worldDomains...)
}

func randomPattern(r *rand.Rand) string {
	switch r.IntN(4) {
	case 0:
		return ""
	case 1:
		return randomAddress(r)
	case 2:
		return pick(r, worldDomains...)
	}
	return "." + pick(r, append(worldDomains, "test")...)
}

// randomActions sets one result in so many.
func randomActions(r *rand.Rand, oneIn int) Actions {
	action := func() Action {
		if r.IntN(oneIn) > 0 {
			return Unset
		}
		return pick(r, AllActions()...)
	}
	return Actions{action(), action(), action(), action(), action(), action()}
}

func randomWorld(r *rand.Rand) world {
	var w world
	for range r.IntN(12) {
		w.opts.Rules = append(w.opts.Rules, Rule{randomPattern(r), randomPattern(r), randomActions(r, 2)})
	}
	w.opts.Defaults = randomActions(r, 2)
	if r.IntN(2) == 0 {
		w.opts.Allowed = slices.DeleteFunc(AllActions(), func(Action) bool { return r.IntN(3) == 0 })
	}
	if r.IntN(3) == 0 {
		w.opts.Floor = randomActions(r, 3)
	}
	w.opts.DeferUnknown = r.IntN(2) == 0
	w.opts.UnmarkMixed = r.IntN(2) == 0
	w.opts.EnforceFrom = r.IntN(3) == 0
	w.opts.From = randomActions(r, 2)
	w.opts.Readdress = pick(r, "", "{local}+spam@{domain}", "spam@{domain}")
	w.opts.QuarantineMailbox = pick(r, "", "quarantine@x.test", "q-{local}@{domain}")
	statuses := verifier.Statuses()
	w.res = verifier.Result{Status: pick(r, statuses...), Required: r.IntN(2) == 0}
	w.env = Envelope{
		Sender:     pick(r, "", randomAddress(r)),
		Abilities:  Abilities{r.IntN(3) > 0, r.IntN(3) > 0, r.IntN(3) > 0},
		From:       verifier.Result{Status: pick(r, statuses...)},
		DSNAllowed: r.IntN(2) == 0,
	}
	for range 1 + r.IntN(6) {
		rcpt := Recipient{Address: randomAddress(r), NoDSN: r.IntN(5) == 0}
		if r.IntN(4) == 0 {
			rcpt.Address = strings.ToUpper(rcpt.Address)
		}
		switch r.IntN(6) {
		case 0, 1:
			rcpt.Preference.Actions = randomActions(r, 2)
		case 2:
			rcpt.PreferenceFailed = r.IntN(3) == 0
		}
		w.env.Recipients = append(w.env.Recipients, rcpt)
	}
	return w
}

// fits is what a pattern means, said as plainly as can be. rank is the more
// specific the greater, 0 for a pattern that does not fit.
func fits(pattern, address string) (rank int) {
	local, domain, _ := strings.Cut(address, "@")
	user, _, tagged := strings.Cut(local, "+")
	switch {
	case pattern == "":
	case pattern == address:
		return 2000
	case strings.Contains(pattern, "@"):
		if tagged && pattern == user+"@"+domain {
			return 1999
		}
	case pattern == domain && domain != "":
		return 1000
	case strings.HasPrefix(pattern, ".") && strings.HasSuffix(domain, pattern):
		return len(pattern)
	}
	return 0
}

// chosenBy is the layers said as plainly as can be: go through all the rules.
func (w *world) chosenBy(r Recipient) (Action, Layer) {
	status := w.res.Status
	of := func(a Actions) Action {
		return map[verifier.Status]Action{verifier.Pass: a.Pass, verifier.Fail: a.Fail, verifier.NoKey: a.NoKey,
			verifier.None: a.None, verifier.TempError: a.TempError, verifier.PermError: a.PermError}[status]
	}
	action, by := Unset, ByDefault
	switch pref := of(r.Preference.Actions); {
	case status == verifier.Skipped:
		action = Accept
	case r.PreferenceFailed:
		if w.opts.DeferUnknown {
			action, by = TempFail, ByPreference
		}
	case pref != Unset && (w.opts.Allowed == nil && pref != TempFail || slices.Contains(w.opts.Allowed, pref)):
		action, by = pref, ByPreference
	}
	unknown := action == TempFail && r.PreferenceFailed
	if action == Unset {
		best := 0
		for _, rule := range w.opts.Rules {
			rcpt, sender := fits(rule.Recipient, strings.ToLower(r.Address)), fits(rule.Sender, w.env.Sender)
			rank, layer := rcpt*10000, ByRecipientRule
			switch {
			case rule.Recipient == "" && sender > 0:
				rank, layer = sender, BySenderRule
			case rule.Recipient == "" || rcpt == 0 || rule.Sender != "" && sender == 0:
				continue
			case rcpt <= 1000:
				layer = ByDomainRule
			}
			if rank > best && of(rule.Actions) != Unset {
				best, action, by = rank, of(rule.Actions), layer
			}
		}
	}
	if action == Unset {
		action = of(w.opts.Defaults)
	}
	if action == Unset {
		action = standard(slotOf(status), w.res.Required)
	}
	if floor := of(w.opts.Floor); floor > action && !unknown {
		action, by = floor, ByFloor
	}
	if w.opts.EnforceFrom && w.env.From.Status != verifier.Skipped {
		status = w.env.From.Status
		from := of(w.opts.From)
		if from == Unset {
			from = Accept
			if status == verifier.Fail {
				from = Mark
			}
		}
		if from > action {
			action, by = from, ByFrom
		}
	}
	return action, by
}

// A fate is what an MTA that carries out a Plan does with one recipient's copy.
type fate struct {
	deferred, refused bool
	reached           bool // it or what stands for it is on the envelope
	told              bool // the sender gets a DSN
}

func carryOut(p Plan, env Envelope) ([]fate, []string) {
	var envelope []string
	for i, r := range env.Recipients {
		if p.Recipients == nil || p.Recipients[i].Disposition == Keep {
			envelope = append(envelope, r.Address)
		}
	}
	envelope = append(envelope, p.Added...)
	fates := make([]fate, len(env.Recipients))
	for i, r := range env.Recipients {
		f := &fates[i]
		f.deferred = p.Reply.Code == 451
		f.refused = p.Reply.Code == 550
		who := r.Address
		if p.Recipients != nil {
			f.told = p.Recipients[i].DSN
			switch p.Recipients[i].Disposition {
			case Replace:
				who = p.Recipients[i].Target
			case Delete:
				who = "nobody"
			}
		}
		f.reached = p.Reply.IsZero() && p.Action != Discard && p.Action != DiscardNotify && slices.Contains(envelope, who)
	}
	return fates, envelope
}

// TestPlansOfAllKinds checks what must hold of every plan, whatever recipients,
// actions, MTA and configuration come together.
func TestPlansOfAllKinds(t *testing.T) {
	const cases = 25_000
	seen := map[string]int{}
	for seed := range uint64(cases) {
		w := randomWorld(rand.New(rand.NewPCG(seed, 1)))
		p := New(w.opts)
		plan := p.Decide(w.env, w.res)
		for _, problem := range w.check(p, plan, seen) {
			t.Errorf("seed %d: %s\nopts %+v\nenv %+v\nresult %+v\nplan %+v", seed, problem, w.opts, w.env, w.res, plan)
		}
		if t.Failed() {
			return
		}
	}
	// A generator that no longer makes a kind of plan proves nothing about it.
	for _, kind := range []string{"deferred", "refused", "discarded", "mixed", "dsn", "no-dsn", "held", "held for all",
		"redirected", "readdressed", "marked for all", "not marked", "fields", "floor", "from", "rule-rcpt",
		"rule-rcpt-domain", "rule-sender", "pref", "default", "silent for NOTIFY=NEVER"} {
		if seen[kind] < 20 {
			t.Errorf("%d cases of %q among %d", seen[kind], kind, cases)
		}
	}
}

// An inspection looks at the Plan of one world.
type inspection struct {
	world
	policy              *Policy
	plan                Plan
	explained           Plan     // by Explain
	steps               [][]Step // likewise
	fates               []fate
	envelope            []string // as the MTA has it in the end
	deferred, delivered bool     // what somebody chose
	seen                map[string]int
	problems            []string
}

func (in *inspection) bad(format string, args ...any) {
	in.problems = append(in.problems, fmt.Sprintf(format, args...))
}

func (in *inspection) count(kind string, is bool) {
	if is {
		in.seen[kind]++
	}
}

func (w *world) check(p *Policy, plan Plan, seen map[string]int) []string {
	in := &inspection{world: *w, policy: p, plan: plan, seen: seen}
	in.explained, in.steps = p.Explain(w.env, w.res)
	if again := New(w.opts).Decide(w.env, w.res); !reflect.DeepEqual(plan, again) {
		in.bad("the same input gave %+v", again)
	}
	full := in.explained.Recipients
	if len(full) != len(w.env.Recipients) || len(in.steps) != len(full) {
		in.bad("%d recipients explained, and steps of %d", len(full), len(in.steps))
		return in.problems
	}
	alike := in.explained
	alike.Recipients = plan.Recipients
	if !reflect.DeepEqual(alike, plan) {
		in.bad("explained plan %+v", alike)
	}
	in.fates, in.envelope = carryOut(plan, w.env)
	for _, r := range full {
		in.deferred = in.deferred || r.Chosen == TempFail
		in.delivered = in.delivered || r.Chosen.Delivers()
	}
	for i := range full {
		in.decision(i)
		in.fate(i)
		in.visible(i)
	}
	in.message()
	w.checkTestMode(plan, in.bad)
	return in.problems
}

// decision checks who decided what for a recipient.
func (in *inspection) decision(i int) {
	r, rcpt := in.explained.Recipients[i], in.env.Recipients[i]
	if action, by := in.chosenBy(rcpt); r.Chosen != action || r.By != by {
		in.bad("%s: %v by %v, want %v by %v", r.Address, r.Chosen, r.By, action, by)
	}
	if in.plan.Recipients == nil && r.Action != in.plan.Action {
		in.bad("%s is not listed, and gets %v", r.Address, r.Action)
	}
	if in.plan.Recipients != nil && !reflect.DeepEqual(in.plan.Recipients[i], r) {
		in.bad("%s: explained as %+v", r.Address, r)
	}
	if in.plan.Action == TempFail && r.Target != "" {
		in.bad("%s: deferred, and sent to %s", r.Address, r.Target)
	}
	if steps := in.steps[i]; !decidedBy(steps, r) {
		in.bad("%s: %v by %v rule %d is not what the steps %+v say", r.Address, r.Chosen, r.By, r.Rule, steps)
	}
	for j, other := range in.env.Recipients[:i] {
		same := in.policy.Profile(in.env.Sender, other) == in.policy.Profile(in.env.Sender, rcpt)
		if same && in.res.Status != verifier.Skipped && r.Chosen != in.explained.Recipients[j].Chosen {
			in.bad("%s and %s have the same profile and other actions", other.Address, rcpt.Address)
		}
	}
	in.count(string(r.By), true)
}

// fate checks that nobody's mail is lost who did not want that, and that those
// are told who have to be.
func (in *inspection) fate(i int) {
	r, rcpt, f := in.explained.Recipients[i], in.env.Recipients[i], in.fates[i]
	silent := !f.deferred && !f.refused && !f.reached && !f.told
	if silent && r.Chosen != Discard && r.Chosen != DiscardNotify && !(r.Chosen.refuses() && rcpt.NoDSN) {
		in.bad("%s vanishes silently", r.Address)
	}
	if r.Chosen.Delivers() && !in.deferred && !f.reached {
		in.bad("%s loses mail by another's choice", r.Address)
	}
	if f.told && (!in.env.DSNAllowed || rcpt.NoDSN || r.Reply.Code != 550) {
		in.bad("%s: a DSN that may not be sent, or without a reply", r.Address)
	}
	if in.delivered && !in.deferred && r.Chosen.refuses() && !in.env.DSNAllowed && !rcpt.NoDSN && !f.reached {
		in.bad("%s: refused without a DSN, and not delivered marked", r.Address)
	}
	if lost := !f.deferred && !f.reached; r.Notice != (lost && r.Chosen.Notifies()) {
		in.bad("%s: notice %v, lost %v", r.Address, r.Notice, lost)
	}
	can := in.env.Abilities
	if r.Disposition != Keep && !can.DeleteRecipient || r.Disposition == Replace && !can.AddRecipient {
		in.bad("%s: the MTA cannot %v", r.Address, r.Disposition)
	}
	in.count("silent for NOTIFY=NEVER", silent && r.Chosen.refuses())
	in.count("dsn", f.told)
	in.count("no-dsn", r.Notes&NoteNoDSN != 0)
}

// visible checks that what is delivered against its recipient's choice is so with
// a word of it.
func (in *inspection) visible(i int) {
	r := in.explained.Recipients[i]
	if in.fates[i].reached && r.Chosen >= Mark && !in.plan.Mark && r.Target == "" && !in.plan.Hold && r.Notes&NoteNotMarked == 0 {
		in.bad("%s: neither marked, held nor readdressed, without a word", r.Address)
	}
	if r.Chosen == Quarantine && !in.deferred && !in.plan.Hold && r.Target == "" && r.Notes&NoteNoQuarantine == 0 {
		in.bad("%s: not quarantined, without a word", r.Address)
	}
	if r.Chosen == Accept && in.plan.Mark && r.Notes&(NoteMarkedForAll|NoteHeldForAll) == 0 {
		in.bad("%s: marked for others, without a word", r.Address)
	}
	in.count("redirected", r.Chosen == Quarantine && r.Target != "")
	in.count("readdressed", r.Action == Mark && r.Target != "")
}

// message checks what is common to all recipients.
func (in *inspection) message() {
	plan := in.plan
	if in.deferred != (plan.Reply.Code == 451) {
		in.bad("tempfail wanted: %v", in.deferred)
	}
	if plan.Hold && !in.env.Abilities.Quarantine {
		in.bad("the MTA cannot hold")
	}
	if len(plan.QuarantineFields) > 0 {
		envelope := slices.Sorted(slices.Values(in.envelope))
		if len(slices.Compact(envelope)) != 1 {
			in.bad("a header that shows recipients to others: %q to %q", plan.QuarantineFields, envelope)
		}
	}
	in.count("fields", len(plan.QuarantineFields) > 0)
	in.count("deferred", in.deferred)
	in.count("refused", plan.Reply.Code == 550)
	in.count("discarded", plan.Action == Discard || plan.Action == DiscardNotify)
	in.count("mixed", len(plan.Recipients) > 1 && plan.Differ())
	in.count("held", plan.Hold)
	in.count("held for all", plan.Notes&NoteHeldForAll != 0)
	in.count("marked for all", plan.Notes&NoteMarkedForAll != 0)
	in.count("not marked", plan.Notes&NoteNotMarked != 0)
}

// checkTestMode wants the same decision, and nothing done.
func (w *world) checkTestMode(plan Plan, bad func(string, ...any)) {
	opts := w.opts
	opts.Test = true
	test := New(opts).Decide(w.env, w.res)
	if test.Action != Accept || test.Would != plan.Action || test.By != plan.By || test.Notes != plan.Notes ||
		!test.Reply.IsZero() || test.Mark || test.Hold || test.Added != nil || test.QuarantineFields != nil {
		bad("in test mode %+v", test)
	}
	if test.Differ() != plan.Differ() {
		bad("in test mode recipients differ: %v", test.Differ())
	}
	for i, r := range test.Recipients {
		if r.Action != Accept || r.Disposition != Keep || r.Target != "" || r.DSN || r.Notice ||
			plan.Recipients != nil && r.Would != plan.Recipients[i].Action {
			bad("in test mode %+v", r)
		}
	}
}

// decidedBy reports whether the steps end where the plan does.
func decidedBy(steps []Step, r RecipientPlan) bool {
	var last *Step
	deciding := 0
	for i := range steps {
		switch s := &steps[i]; s.Outcome {
		case Decides:
			deciding++
			last = s
		case Raises:
			last = s
		case Failed:
			if s.Action != Unset {
				deciding++
				last = s
			}
		}
	}
	return deciding == 1 && last.Action == r.Chosen && last.Layer == r.By && last.Rule == r.Rule
}
