package keyring

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/authkey/authkey/internal/diskfile"
)

// A ListFile is an address list on disk, for the tools that edit it. Every
// change takes the lock beside the file (its name and ".lock"), replaces the
// file in one step, and keeps comments, order, mode and owner. A list with a bad
// line is not touched; the error is then a *LineError.
type ListFile struct {
	Path string
	Form Form
}

// An Entry is one address of a list.
type Entry struct {
	Address    string // a mailbox, quoted where need be
	Generation uint32
}

// An AddressError says that a text given as an address cannot be one of the list's.
type AddressError struct {
	Address string
	Err     error
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("address %s: %v", diskfile.Quote(e.Address), e.Err)
}

func (e *AddressError) Unwrap() error { return e.Err }

const listHeader = `# The addresses of %s that have AuthKeys, one a line: bob, or bob@%s.
# gen=N after an address is its generation; a higher number ends all its keys so far.
# empty
`

// removedMark begins the comment that remembers a removed address's generation.
const removedMark = "#removed "

// Create writes a list without addresses, which says so, mode 0640. It never overwrites: an
// existing file is an error that wraps fs.ErrExist.
func (f ListFile) Create() error {
	form, err := f.Form.check()
	if err != nil {
		return err
	}
	if err := diskfile.Create(f.Path, 0o640, fmt.Sprintf(listHeader, form.Domain, form.Domain)); err != nil {
		return fmt.Errorf("create address list: %w", err)
	}
	return nil
}

// Each calls visit for every address, in the order of the file, until it returns an error.
func (f ListFile) Each(visit func(Entry) error) error {
	form, err := f.Form.check()
	if err != nil {
		return err
	}
	file, _, err := diskfile.Open(f.Path)
	if err != nil {
		return fmt.Errorf("address list: %w", err)
	}
	defer file.Close()
	return eachLine(f.Path, file, func(line string) error {
		e, ok, err := form.parseLine(line)
		if err != nil || !ok {
			return err
		}
		return visit(Entry{Address: form.spell(e.local), Generation: e.gen})
	})
}

// Add puts addresses into the list and returns how many were not in it before.
// An address that was removed comes back with a new generation: keys from before
// its removal, perhaps another person's, stay invalid.
func (f ListFile) Add(ctx context.Context, addresses ...string) (added int, err error) {
	done, err := f.merge(ctx, firstGeneration(addresses))
	return done.added, err
}

// A wanted address is one that an edit is about.
type wanted struct {
	Entry        // with the least generation that it is to have
	leaving bool // it is to go
}

func firstGeneration(addresses []string) []wanted {
	entries := make([]wanted, len(addresses))
	for i, a := range addresses {
		entries[i].Address = a
	}
	return entries
}

// merge is Add of addresses with the least generation that each is to have. Those with
// leaving set are removed, as by Remove, if they are there.
func (f ListFile) merge(ctx context.Context, entries []wanted) (done merged, err error) {
	err = f.edit(ctx, entries, func(ed *edit) error {
		done = ed.count()
		ed.line = func(t *target, e entry, line string) string {
			switch {
			case t.leaving:
				return ""
			case t.least <= e.gen:
				return line
			}
			return ed.form.spellLine(e.local, t.least, e.comment)
		}
		ed.keepRemoved = func(t *target) bool { return t.listed && !t.leaving }
		ed.after = func(t *target) string {
			switch {
			case t.leaving && (t.listed || t.removed):
				return removedMark + ed.form.spellLine(t.local, t.gen, "")
			case t.leaving || t.listed:
				return ""
			}
			return ed.form.spellLine(t.local, t.arrives(), "")
		}
		ed.unchanged = done == merged{}
		ed.filled = done.added > 0
		return ed.allRisable(func(t *target) bool { return t.removed && !t.listed && !t.leaving })
	})
	if err != nil {
		return merged{}, err
	}
	return done, nil
}

// merged is of how many addresses a merge changes something.
type merged struct{ added, removed, raised int }

func (ed *edit) count() (m merged) {
	for _, t := range ed.targets {
		switch {
		case t.leaving && t.listed:
			m.removed++
		case t.leaving:
		case !t.listed:
			m.added++
		case t.least > t.gen:
			m.raised++
		}
	}
	return m
}

// arrives returns the generation that an address gets which is not in the list: keys from
// before it was removed, perhaps another person's, stay invalid.
func (t *target) arrives() uint32 {
	if t.removed {
		return max(t.least, t.gen+1)
	}
	return t.least
}

// Remove takes addresses out of the list, which ends their keys at once. It
// leaves a comment that remembers the generation, for Add. Where one is not in
// the list, nothing is changed and the error wraps ErrUnknownAddress.
func (f ListFile) Remove(ctx context.Context, addresses ...string) error {
	return f.edit(ctx, firstGeneration(addresses), func(ed *edit) error {
		ed.line = func(*target, entry, string) string { return "" }
		ed.keepRemoved = func(*target) bool { return false }
		ed.after = func(t *target) string { return removedMark + ed.form.spellLine(t.local, t.gen, "") }
		return ed.allListed()
	})
}

// Revoke raises the generation of addresses, which ends all their keys so far at
// once and gives them new ones. Where one is not in the list, nothing is changed
// and the error wraps ErrUnknownAddress.
func (f ListFile) Revoke(ctx context.Context, addresses ...string) error {
	return f.edit(ctx, firstGeneration(addresses), func(ed *edit) error {
		ed.line = func(t *target, e entry, _ string) string {
			return ed.form.spellLine(e.local, t.gen+1, e.comment)
		}
		ed.keepRemoved = func(*target) bool { return false }
		ed.after = func(*target) string { return "" }
		return errors.Join(ed.allListed(), ed.allRisable(func(*target) bool { return true }))
	})
}

// A target is an address to be changed and what the file says of it.
type target struct {
	local   string
	listed  bool
	removed bool   // a comment remembers it
	gen     uint32 // the highest one found
	least   uint32 // the generation that is wanted at least
	leaving bool   // it is to go
}

// An edit is one change of a list: what becomes of the lines of its targets.
type edit struct {
	form      Form
	targets   []*target // in the order given
	byLocal   map[string]*target
	unchanged bool // there is nothing to write
	filled    bool // it adds addresses, so that a line that says "empty" goes

	other func(entry) // called for each address of the file that is no target; may be nil

	line        func(t *target, e entry, line string) string // in place of a target's line; "" for none
	keepRemoved func(*target) bool                           // whether the comment that remembers it stays
	after       func(*target) string                         // at the end of the file; "" for nothing
}

// newEdit is an edit of addresses that is not planned yet.
func (f ListFile) newEdit(entries []wanted) (*edit, error) {
	form, err := f.Form.check()
	if err != nil {
		return nil, err
	}
	ed := &edit{form: form, byLocal: make(map[string]*target, len(entries))}
	for _, e := range entries {
		local, err := form.parse(strings.Trim(e.Address, " \t"))
		if err != nil {
			return nil, &AddressError{Address: e.Address, Err: err}
		}
		t := ed.byLocal[local]
		if t == nil {
			t = &target{local: local, leaving: e.leaving}
			ed.byLocal[local] = t
			ed.targets = append(ed.targets, t)
		}
		t.least = max(t.least, e.Generation)
	}
	return ed, nil
}

func (f ListFile) edit(ctx context.Context, entries []wanted, plan func(*edit) error) error {
	ed, err := f.newEdit(entries)
	if err != nil {
		return err
	}
	path, err := diskfile.Resolve(f.Path)
	if err != nil {
		return fmt.Errorf("address list: %w", err)
	}
	unlock, err := diskfile.Lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	file, info, err := diskfile.Open(path)
	if err != nil {
		return fmt.Errorf("address list: %w", err)
	}
	defer file.Close()
	if err := ed.survey(f.Path, file); err != nil {
		return err
	}
	if err := plan(ed); err != nil || ed.unchanged {
		return err
	}
	err = diskfile.Replace(path, info, func(w io.Writer) error { return ed.write(f.Path, file, w) })
	if err != nil {
		return fmt.Errorf("replace address list: %w", err)
	}
	return nil
}

// survey finds out what the file says about the targets.
func (ed *edit) survey(path string, file *os.File) error {
	return eachLine(path, file, func(line string) error {
		if e, ok := ed.removedLine(line); ok {
			if t := ed.byLocal[e.local]; t != nil {
				t.removed, t.gen = true, max(t.gen, e.gen)
			}
			return nil
		}
		e, ok, err := ed.form.parseLine(line)
		if err != nil || !ok {
			return err
		}
		if t := ed.byLocal[e.local]; t != nil {
			t.listed, t.gen = true, max(t.gen, e.gen)
		} else if ed.other != nil {
			ed.other(e)
		}
		return nil
	})
}

// removedLine reads the comment that Remove leaves.
func (ed *edit) removedLine(line string) (entry, bool) {
	text, found := strings.CutPrefix(line, removedMark)
	if !found {
		return entry{}, false
	}
	e, ok, err := ed.form.parseLine(text)
	return e, ok && err == nil // a comment is free to say anything
}

func (ed *edit) allListed() error {
	var errs []error
	for _, t := range ed.targets {
		if !t.listed {
			errs = append(errs, fmt.Errorf("%s: %w", ed.form.spell(t.local), ErrUnknownAddress))
		}
	}
	return errors.Join(errs...)
}

// allRisable refuses targets whose generation has no next one.
func (ed *edit) allRisable(which func(*target) bool) error {
	for _, t := range ed.targets {
		if which(t) && t.gen == math.MaxUint32 {
			return fmt.Errorf("%s: generation cannot rise beyond %d", ed.form.spell(t.local), t.gen)
		}
	}
	return nil
}

// write copies the list from file to w with the change made.
func (ed *edit) write(path string, file *os.File, w io.Writer) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	err := eachLine(path, file, func(line string) error {
		if e, ok := ed.removedLine(line); ok {
			if t := ed.byLocal[e.local]; t != nil && !ed.keepRemoved(t) {
				return nil
			}
		} else if e, ok, err := ed.form.parseLine(line); err != nil {
			return err
		} else if t := ed.byLocal[e.local]; ok && t != nil {
			line = ed.line(t, e, line)
			if line == "" {
				return nil
			}
		} else if ed.filled && diskfile.SaysEmpty(line) {
			return nil
		}
		out.WriteString(line) // that it fails is no fault of the line: Flush says so
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range ed.targets {
		if line := ed.after(t); line != "" {
			out.WriteString(line)
			out.WriteByte('\n')
		}
	}
	return out.Flush()
}

// spellLine writes one line of a list, without its end.
func (f Form) spellLine(local string, gen uint32, comment string) string {
	line := f.spell(local)
	if gen > 0 {
		line += fmt.Sprintf(" gen=%d", gen)
	}
	if comment != "" {
		line += " " + comment
	}
	return line
}
