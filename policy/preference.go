package policy

// Actions says for each result what is done. An Unset action leaves the result to the next
// layer. For verifier.Skipped, which has no field, nothing is chosen: the message is accepted.
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
