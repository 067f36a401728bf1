package policy

import (
	"slices"

	"github.com/authkey/authkey/verifier"
)

// A Step is what one layer, or one rule that matches the recipient and the sender, says
// about the result.
type Step struct {
	Layer   Layer
	Rule    int    // index in Options.Rules; -1 where the layer is no rule
	Action  Action // Unset where it says nothing
	Outcome Outcome
}

// An Outcome says whether what a layer says is done, and if not, why.
type Outcome string

// Outcomes.
const (
	Decides    Outcome = "decides"     // done: the layer is the first that says something
	Silent     Outcome = "unset"       // the layer says nothing about this result
	NotAllowed Outcome = "not-allowed" // recipients may not choose this action
	Failed     Outcome = "failed"      // the preference could not be looked up
	Overruled  Outcome = "overruled"   // a layer before this one has decided
	Raises     Outcome = "raises"      // done: stricter than what was decided before
	Milder     Outcome = "milder"      // not stricter than what was decided before
)

// Explain is Decide with reasons: steps[i] is what the layers say for Recipients[i] of the
// Plan, which lists all of them, in the order in which they are asked. It takes longer than
// Decide, since it goes through every rule that matches.
func (p *Policy) Explain(env Envelope, res verifier.Result) (plan Plan, steps [][]Step) {
	var ids [maxIDs]int32
	q := p.question(&env, &res, ids[:0])
	for i := range env.Recipients {
		steps = append(steps, q.trace(&env.Recipients[i]))
	}
	return p.planFor(&q, env, res, env.Recipients, true), steps
}

// A tracer collects the steps of one recipient.
type tracer struct {
	steps   []Step
	decided Action // Unset: not yet
}

// say adds what a layer says.
func (t *tracer) say(layer Layer, rule int, a Action) {
	outcome := Decides
	switch {
	case a == Unset:
		outcome = Silent
	case t.decided != Unset:
		outcome = Overruled
	default:
		t.decided = a
	}
	t.steps = append(t.steps, Step{layer, rule, a, outcome})
}

// atLeast adds a layer that can only replace what was decided by a stricter action.
func (t *tracer) atLeast(layer Layer, a Action) {
	outcome := Milder
	switch {
	case a == Unset:
		return
	case a > t.decided:
		outcome, t.decided = Raises, a
	}
	t.steps = append(t.steps, Step{layer, noRule, a, outcome})
}

// trace asks the layers as rule does, and also those after the one that decides.
func (q *question) trace(r *Recipient) []Step {
	var t tracer
	if q.slot == noSlot {
		t.say(ByDefault, noRule, Accept)
		t.atLeast(ByFrom, q.from)
		return t.steps
	}
	deferred := q.tracePreference(&t, r)
	q.traceRules(&t, r)
	t.say(ByDefault, noRule, q.byDefault(q.slot, q.required))
	if !deferred {
		t.atLeast(ByFloor, q.floor[q.slot])
	}
	t.atLeast(ByFrom, q.from)
	return t.steps
}

// tracePreference reports whether the message waits until it can be looked up.
func (q *question) tracePreference(t *tracer, r *Recipient) (deferred bool) {
	a := r.Preference.at(q.slot)
	switch {
	case r.PreferenceFailed && q.opts.DeferUnknown:
		t.decided = TempFail
		t.steps = append(t.steps, Step{ByPreference, noRule, TempFail, Failed})
		return true
	case r.PreferenceFailed:
		t.steps = append(t.steps, Step{ByPreference, noRule, Unset, Failed})
	case a != Unset && !q.allows(a):
		t.steps = append(t.steps, Step{ByPreference, noRule, a, NotAllowed})
	case r.Preference != Preference{}:
		t.say(ByPreference, noRule, a)
	}
	return false
}

func (q *question) traceRules(t *tracer, r *Recipient) {
	say := func(layer Layer, numbers []int32) {
		for _, n := range numbers {
			t.say(layer, int(n), q.rules.actions[n].at(q.slot))
		}
	}
	c := q.rules
	for _, id := range c.recipients.find(splitMailbox(r.Mailbox()), nil) {
		node := &c.byRecipient[id]
		numbers := c.appendNumbers(nil, node.table)
		if node.paired {
			for _, sender := range q.senders {
				numbers = c.appendNumbers(numbers, c.pairs[pair{id, sender}])
			}
		}
		slices.Sort(numbers)
		say(c.recipientLayer(id), numbers)
	}
	for _, id := range q.senders {
		say(BySenderRule, c.appendNumbers(nil, c.bySender[id]))
	}
}
