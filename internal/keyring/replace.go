package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/authkey/authkey/internal/diskfile"
)

// ErrNothing says that the input of a replacement has no address at all. Somebody who
// wants that removes them by name.
var ErrNothing = errors.New("there is no address in it")

// A Replacement makes address lists have the addresses of an input and no others. It has
// been read and compared with the files, and nothing is changed before Apply.
type Replacement struct {
	Changes []Change // one for each file that the input has addresses for
	// Untouched are the domains of files of which the input has no address. They keep
	// what they have.
	Untouched []string
}

// A Change is what a replacement does to one file.
type Change struct {
	Domain string
	// Added come, each with the generation that it will have: a new one where the address
	// was in the list before, so that its keys of that time stay invalid.
	Added []Entry
	// Removed go. The list remembers their generations.
	Removed []Entry
	// Raised have, by the input, a higher generation than before, which ends their keys.
	Raised []Entry
	Kept   int // neither of them

	file    ListFile
	entries []wanted
}

// PlanReplacement reads addresses from r as Import does, and compares them with the files.
// The error is that of Import, or wraps ErrNothing.
func PlanReplacement(name string, r io.Reader, files ...ListFile) (*Replacement, error) {
	in, err := readImport(name, r, files)
	if err != nil {
		return nil, err
	}
	plan := new(Replacement)
	for i, f := range files {
		if len(in.entries[i]) == 0 {
			plan.Untouched = append(plan.Untouched, in.forms[i].Domain)
			continue
		}
		c, err := f.compare(in.entries[i])
		if err != nil {
			return nil, err
		}
		plan.Changes = append(plan.Changes, c)
	}
	if len(plan.Changes) == 0 {
		return nil, fmt.Errorf("%s: %w", name, ErrNothing)
	}
	return plan, nil
}

// compare finds what it takes for the file to have the entries and no others.
func (f ListFile) compare(entries []wanted) (Change, error) {
	ed, err := f.newEdit(entries)
	if err != nil {
		return Change{}, err
	}
	file, _, err := diskfile.Open(f.Path)
	if err != nil {
		return Change{}, fmt.Errorf("address list: %w", err)
	}
	defer file.Close()
	c := Change{Domain: ed.form.Domain, file: f, entries: slices.Clone(entries)}
	leaving := map[string]uint32{}
	var order []string
	ed.other = func(e entry) {
		if _, known := leaving[e.local]; !known {
			order = append(order, e.local)
		}
		leaving[e.local] = max(leaving[e.local], e.gen)
	}
	if err := ed.survey(f.Path, file); err != nil {
		return Change{}, err
	}
	for _, t := range ed.targets {
		switch spelled := ed.form.spell(t.local); {
		case !t.listed:
			c.Added = append(c.Added, Entry{spelled, t.arrives()})
		case t.least > t.gen:
			c.Raised = append(c.Raised, Entry{spelled, t.least})
		default:
			c.Kept++
		}
	}
	for _, local := range order {
		e := Entry{ed.form.spell(local), leaving[local]}
		c.Removed = append(c.Removed, e)
		c.entries = append(c.entries, wanted{Entry: Entry{Address: e.Address}, leaving: true})
	}
	return c, ed.allRisable(func(t *target) bool { return t.removed && !t.listed })
}

// Apply makes the changes, each in one step, one file after another. What others have
// added since the comparison stays.
func (p *Replacement) Apply(ctx context.Context) error {
	for _, c := range p.Changes {
		if _, err := c.file.merge(ctx, c.entries); err != nil {
			return err
		}
	}
	return nil
}

// First is the first address of the list; empty: it has none.
func (f ListFile) First() (string, error) {
	found := ""
	enough := errors.New("enough")
	if err := f.Each(func(e Entry) error {
		found = e.Address
		return enough
	}); err != nil && !errors.Is(err, enough) {
		return "", err
	}
	return found, nil
}
