package policy

import "github.com/authkey/authkey/verifier"

// Wishes is an action per result. An Unset one leaves the result to the next layer.
type Wishes struct {
	Pass, Fail, NoKey, None, TempError, PermError Action
}

// A Preference is what a recipient chose. The zero Preference chooses nothing.
type Preference struct {
	Wishes
	Language string // of notices, such as "de"; empty: not chosen
}

// Over returns p with what it leaves unset taken from the one below it.
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

// A slot is a result's place in an array of wishes.
type slot uint8

// Slots of the results that wishes can be about; of the others nothing is asked.
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

func (w *Wishes) bySlot() [slots]Action {
	return [slots]Action{slotPass: w.Pass, slotFail: w.Fail, slotNoKey: w.NoKey,
		slotNone: w.None, slotTempError: w.TempError, slotPermError: w.PermError}
}

// at returns the wish for a result; Unset for noSlot.
func (w *Wishes) at(s slot) Action {
	if s == noSlot {
		return Unset
	}
	return w.bySlot()[s]
}
