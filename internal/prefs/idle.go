package prefs

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/authkey/authkey/policy"
)

// Idle lists, as LineErrors, what recipients choose in the file and what has no effect,
// because the action is not among those allowed. At most maxFaults are listed.
func (f *File) Idle(allowed []policy.Action) []error {
	t := f.table.Load()
	if t == nil {
		return nil
	}
	refused := map[uint32]string{} // by index in choices
	for i, choice := range t.choices {
		w := choice.Actions
		for _, a := range []policy.Action{w.Pass, w.Fail, w.NoKey, w.None, w.TempError, w.PermError} {
			if a != policy.Unset && !slices.Contains(allowed, a) {
				refused[uint32(i)] = a.String()
				break
			}
		}
	}
	if len(refused) == 0 {
		return nil
	}
	var found []*LineError
	for _, e := range t.entries {
		action, ok := refused[e.choice]
		if !ok {
			continue
		}
		if found = append(found, &LineError{Path: f.path, Line: int(e.line),
			Err: fmt.Errorf("%s: has no effect: policy.allowed does not have it", action)}); len(found) == maxFaults {
			break
		}
	}
	slices.SortFunc(found, func(a, b *LineError) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(found))
	for i, e := range found {
		errs[i] = e
	}
	return errs
}
