package prefs

import (
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
	var found []error
	for _, e := range t.entries { // in the order of the file
		if action, ok := refused[e.choice]; ok && len(found) < maxFaults {
			found = append(found, &LineError{Path: f.path, Line: int(e.line),
				Err: fmt.Errorf("%s: has no effect: policy.allowed does not have it", action)})
		}
	}
	return found
}
