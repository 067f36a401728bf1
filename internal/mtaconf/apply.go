package mtaconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrNothingApplied says that there is nothing to undo.
var ErrNothingApplied = errors.New("nothing was applied here")

// stateFile, beside main.cf, remembers how things were before Apply.
const stateFile = "authkey-setup.json"

// applied is the content of stateFile.
type applied struct {
	Edits []Edit              `json:"edits"`
	Files map[string]original `json:"files"`
}

// original is a file before the edits.
type original struct {
	Before string `json:"before"`
	After  string `json:"after_sha256"` // of the file as the edits leave it
	// Earlier is After of the Apply before: that of the file if the last Apply was cut
	// short.
	Earlier string `json:"earlier_sha256,omitempty"`
}

// is reports whether the file is as Apply left it, or as it was before.
func (o original) is(sum string) bool {
	return sum == o.After || o.Earlier != "" && sum == o.Earlier || sum == digest([]byte(o.Before))
}

// fileOf is the file that an edit is in.
func fileOf(e Edit) string {
	if e.Service != "" {
		return "master.cf"
	}
	return "main.cf"
}

func (p *Postfix) statePath() string { return filepath.Join(p.ConfigDir, stateFile) }

// Apply makes the edits as postconf(1) does, and remembers beside main.cf how things
// were, for Undo. Owner, mode, access control list and links of the files stay. Either
// all edits are made, or, where the disk is full or somebody else writes a file, none.
// Postfix has to be reloaded then.
func (p *Postfix) Apply(ctx context.Context, edits []Edit) error {
	if len(edits) == 0 {
		return nil
	}
	state, err := p.readState()
	if errors.Is(err, ErrNothingApplied) {
		state, err = &applied{Files: map[string]original{}}, nil
	}
	if err != nil {
		return err
	}
	return p.change(ctx, edits, func(w configFiles, after map[string][]byte) error {
		for _, e := range edits {
			state.remember(e, w[fileOf(e)].content)
		}
		for name, o := range state.Files {
			if sum := digest(after[name]); sum != o.After {
				state.Files[name] = original{Before: o.Before, After: sum, Earlier: o.After}
			}
		}
		return p.writeState(state)
	})
}

// change makes the edits, all or none. before is called when they are ready and before they
// are in place, so that what is cut short can be undone too; its error ends change.
func (p *Postfix) change(ctx context.Context, edits []Edit, before func(w configFiles, after map[string][]byte) error) error {
	w, err := p.open()
	if err != nil {
		return err
	}
	defer w.close()
	var runs [][]string
	for _, e := range edits {
		runs = append(runs, e.args(e.New))
	}
	after, err := w.edited(ctx, p, runs)
	if err != nil {
		return err
	}
	if err := before(w, after); err != nil {
		return err
	}
	return w.install(after)
}

// remember adds an edit to the state. Of a parameter or file that was edited before,
// what is remembered already stays. A file that somebody changed since cannot be
// restored as a whole any more.
func (state *applied) remember(e Edit, content []byte) {
	name := fileOf(e)
	first := !slices.ContainsFunc(state.Edits, func(old Edit) bool { return fileOf(old) == name })
	if at := slices.IndexFunc(state.Edits, func(old Edit) bool { return old.parameter() == e.parameter() }); at >= 0 {
		state.Edits[at].New, state.Edits[at].Ours = e.New, e.Ours
	} else {
		state.Edits = append(state.Edits, e)
	}
	if first {
		state.Files[name] = original{Before: string(content)}
	} else if o, ok := state.Files[name]; ok && !o.is(digest(content)) {
		delete(state.Files, name)
	}
}

// configFiles are main.cf and master.cf while they are changed, by name.
type configFiles map[string]*file

// open reads the files.
func (p *Postfix) open() (configFiles, error) {
	w := configFiles{}
	for _, name := range []string{"main.cf", "master.cf"} {
		f, err := openFile(filepath.Join(p.ConfigDir, name), true)
		if err == nil && !f.exists {
			f.close()
			err = fmt.Errorf("%s: %w", f.path, fs.ErrNotExist)
		}
		if err != nil {
			w.close()
			return nil, err
		}
		w[name] = f
	}
	return w, nil
}

func (w configFiles) close() {
	for _, f := range w {
		f.close()
	}
}

// edited has postconf(1) edit a copy of the files, in a folder that is ours only: on
// the files themselves it would make a mode of 0644 and a plain file of everything.
func (w configFiles) edited(ctx context.Context, p *Postfix, runs [][]string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "authkey-setup-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	copied := &Postfix{ConfigDir: dir, Explicit: true, postconf: p.postconf}
	old := time.Now().Add(-time.Minute) // a file just written postconf would not believe for seconds
	for name, f := range w {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, f.content, 0o600), os.Chtimes(path, old, old)); err != nil {
			return nil, err
		}
	}
	for _, args := range byOption(runs) {
		if _, err := copied.run(ctx, args...); err != nil {
			return nil, err
		}
	}
	after := map[string][]byte{}
	for name := range w {
		if after[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return after, nil
}

// byOption makes one run of postconf of those with the same option: a second one would
// wait for seconds before it believes the file that the first has written.
func byOption(runs [][]string) [][]string {
	var merged [][]string
	for _, args := range runs {
		at := slices.IndexFunc(merged, func(m []string) bool { return m[0] == args[0] })
		if at < 0 {
			merged = append(merged, slices.Clone(args))
			continue
		}
		merged[at] = append(merged[at], args[1:]...)
	}
	return merged
}

// install puts those contents in place that are new.
func (w configFiles) install(after map[string][]byte) error {
	var files []*file
	var contents [][]byte
	for _, name := range slices.Sorted(maps.Keys(w)) {
		if content, ok := after[name]; ok && !bytes.Equal(content, w[name].content) {
			files, contents = append(files, w[name]), append(contents, content)
		}
	}
	return replaceAll(files, contents)
}

// Undo takes back what Apply did, and returns the parameters it restored. A file
// that nobody changed since becomes what it was, octet for octet. In one that
// somebody did, the parameters are set to what they were; a list that was changed
// since only loses what Apply added. Only this needs postconf(1).
func (p *Postfix) Undo(ctx context.Context) ([]string, error) {
	state, err := p.readState()
	if err != nil {
		return nil, err
	}
	w, err := p.open()
	if err != nil {
		return nil, err
	}
	defer w.close()
	before, changed := map[string][]byte{}, false
	for name := range w {
		o, ok := state.Files[name]
		switch {
		case ok && o.is(w[name].sum()):
			before[name] = []byte(o.Before)
		case slices.ContainsFunc(state.Edits, func(e Edit) bool { return fileOf(e) == name }):
			changed = true
		}
	}
	if changed {
		if err := p.takeBack(ctx, w, state, before); err != nil {
			return nil, err
		}
	}
	if err := w.install(before); err != nil {
		return nil, err
	}
	var restored []string
	for _, e := range slices.Backward(state.Edits) {
		restored = append(restored, e.parameter())
	}
	return restored, os.Remove(p.statePath())
}

// takeBack undoes the edits of the files that are not in before, into it.
func (p *Postfix) takeBack(ctx context.Context, w configFiles, state *applied, before map[string][]byte) error {
	raw, err := p.raw(ctx)
	if err != nil {
		return err
	}
	var runs [][]string
	for _, e := range slices.Backward(state.Edits) {
		if _, whole := before[fileOf(e)]; whole {
			continue
		}
		if args := e.takeBack(raw); args != nil {
			runs = append(runs, args)
		}
	}
	after, err := w.edited(ctx, p, runs)
	for name, content := range after {
		if _, whole := before[name]; !whole {
			before[name] = content
		}
	}
	return err
}

// takeBack are postconf's arguments that undo one edit; nil: nothing is left of it.
func (e Edit) takeBack(raw rawSettings) []string {
	now, set := raw.get(e.parameter())
	switch {
	case !set: // somebody removed the line
		return nil
	case now != e.New:
		return e.args(withoutOurs(now, e))
	case e.WasSet && e.Service != "":
		return e.args(compact(e.Old))
	case e.WasSet:
		return e.args(e.Old)
	case e.Service != "":
		return []string{"-PX", e.parameter()}
	}
	return []string{"-X", e.parameter()}
}

// withoutOurs takes off a list what an edit put on it.
func withoutOurs(list string, e Edit) string {
	kept := slices.DeleteFunc(splitList(list), func(text string) bool { return compact(text) == compact(e.Ours) })
	if e.Service != "" {
		return compact(strings.Join(kept, ","))
	}
	return strings.Join(kept, ", ")
}

// former are the entries for authkey that Apply made. Who may not read about them
// does without.
func (p *Postfix) former() []string {
	state, err := p.readState()
	if err != nil {
		return nil
	}
	var entries []string
	for _, e := range state.Edits {
		if e.Ours != "" {
			entries = append(entries, compact(e.Ours))
		}
	}
	return entries
}

func (p *Postfix) readState() (*applied, error) {
	f, err := openFile(p.statePath(), false)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if !f.exists {
		return nil, fmt.Errorf("%s: %w", p.ConfigDir, ErrNothingApplied)
	}
	// Undo writes what it says.
	if f.stat.Uid != 0 && int(f.stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s: %w: not a file of root's or ours", p.statePath(), fs.ErrPermission)
	}
	state := new(applied)
	if err := json.Unmarshal(f.content, state); err != nil {
		return nil, fmt.Errorf("%s: %w", p.statePath(), err)
	}
	for name := range state.Files {
		if name != "main.cf" && name != "master.cf" {
			return nil, fmt.Errorf("%s: remembers %q, which is no file of Postfix's that Apply edits", p.statePath(), name)
		}
	}
	if state.Files == nil {
		state.Files = map[string]original{}
	}
	return state, nil
}

func (p *Postfix) writeState(state *applied) error {
	b, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	f, err := openFile(p.statePath(), false)
	if err != nil {
		return err
	}
	defer f.close()
	r, err := f.prepare(append(b, '\n'), 0o600) // main.cf may hold what only root may read
	if err != nil {
		return err
	}
	return r.commit()
}
