package policy

import "github.com/authkey/authkey/verifier"

// Actions says for each result what is done. An Unset action leaves the result to the next
// layer. About a result that is not among them nothing is chosen: the message is accepted.
type Actions struct {
	Pass, Fail, NoKey, None, TempError, PermError Action
}

// A Preference is what a recipient chose. The zero Preference chooses nothing.
type Preference struct {
	Actions
	Language string // of notices, such as "de"; empty: not chosen
}

// Over returns p, with what it does not choose taken from below.
func (p Preference) Over(below Preference) Preference {
	p.Pass = p.Pass.or(below.Pass)
	p.Fail = p.Fail.or(below.Fail)
	p.NoKey = p.NoKey.or(below.NoKey)
	p.None = p.None.or(below.None)
	p.TempError = p.TempError.or(below.TempError)
	p.PermError = p.PermError.or(below.PermError)
	p.Language = or(p.Language, below.Language)
	return p
}

// A slot is a result's index in an array of actions.
type slot uint8

// Slots of the results about which there is something to choose.
const (
	slotPass slot = iota
	slotFail
	slotNoKey
	slotNone
	slotTempError
	slotPermError
	slots
	noSlot = slots
)

func slotOf(s verifier.Status) slot {
	switch s {
	case verifier.Pass:
		return slotPass
	case verifier.Fail:
		return slotFail
	case verifier.NoKey:
		return slotNoKey
	case verifier.None:
		return slotNone
	case verifier.TempError:
		return slotTempError
	case verifier.PermError:
		return slotPermError
	}
	return noSlot
}

func (w *Actions) bySlot() [slots]Action {
	return [slots]Action{slotPass: w.Pass, slotFail: w.Fail, slotNoKey: w.NoKey,
		slotNone: w.None, slotTempError: w.TempError, slotPermError: w.PermError}
}

// at returns the action for a result; Unset for noSlot.
func (w *Actions) at(s slot) Action {
	if s == noSlot {
		return Unset
	}
	return w.bySlot()[s]
}
