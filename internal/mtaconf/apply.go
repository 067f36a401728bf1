package mtaconf

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrNothingApplied says that there is nothing to undo.
var ErrNothingApplied = errors.New("nothing was applied here")

// stateFile, beside main.cf, remembers how things were before Apply.
const stateFile = "authkey-setup.json"

// maxStateFile bounds it, and the files that it remembers.
const maxStateFile = 16 << 20

// applied is the content of stateFile.
type applied struct {
	Edits []Edit              `json:"edits"`
	Files map[string]original `json:"files"`
}

// original is a file before the edits.
type original struct {
	Before string `json:"before"`
	After  string `json:"after_sha256"` // of the file as the edits left it
}

// fileOf is the file that an edit is in.
func fileOf(e Edit) string {
	if e.Service != "" {
		return "master.cf"
	}
	return "main.cf"
}

func (p *Postfix) statePath() string { return filepath.Join(p.ConfigDir, stateFile) }

// Apply makes the edits with postconf(1), and remembers beside main.cf how things
// were, for Undo. Postfix has to be reloaded then.
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
	for _, e := range edits {
		if err := p.remember(state, e); err != nil {
			return err
		}
	}
	// Before the edits: what is cut short can be undone too.
	if err := p.writeState(state); err != nil {
		return err
	}
	if err := p.edit(ctx, edits); err != nil {
		return err
	}
	for name, file := range state.Files {
		_, sum, err := p.readFile(name)
		if err != nil {
			return err
		}
		state.Files[name] = original{file.Before, sum}
	}
	return p.writeState(state)
}

// edit makes edits with one run of postconf for each file: the next one would wait
// for seconds before it believes a file just written.
func (p *Postfix) edit(ctx context.Context, edits []Edit) error {
	runs := map[string][]string{}
	for _, e := range edits {
		args := e.args(e.New)
		if len(runs[args[0]]) == 0 {
			runs[args[0]] = args[:1]
		}
		runs[args[0]] = append(runs[args[0]], args[1:]...)
	}
	for _, args := range runs {
		if _, err := p.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// remember adds an edit to the state. Of a parameter or file that was edited before,
// what is remembered already stays. A file that somebody changed since cannot be
// restored as a whole any more.
func (p *Postfix) remember(state *applied, e Edit) error {
	first := len(state.Edits) == 0 || !slices.ContainsFunc(state.Edits, func(old Edit) bool { return fileOf(old) == fileOf(e) })
	if at := slices.IndexFunc(state.Edits, func(old Edit) bool { return old.parameter() == e.parameter() }); at >= 0 {
		state.Edits[at].New, state.Edits[at].Ours = e.New, e.Ours
	} else {
		state.Edits = append(state.Edits, e)
	}
	content, sum, err := p.readFile(fileOf(e))
	if err != nil {
		return err
	}
	if first {
		state.Files[fileOf(e)] = original{Before: content}
	} else if file := state.Files[fileOf(e)]; file.After != "" && file.After != sum {
		delete(state.Files, fileOf(e))
	}
	return nil
}

// Undo takes back what Apply did, and returns the parameters it restored. A file
// that nobody changed since becomes what it was, octet for octet. In one that
// somebody did, the parameters are set to what they were; a list that was changed
// since only loses what Apply added.
func (p *Postfix) Undo(ctx context.Context) ([]string, error) {
	state, err := p.readState()
	if err != nil {
		return nil, err
	}
	raw, err := p.raw(ctx)
	if err != nil {
		return nil, err
	}
	whole := map[string]bool{}
	for name, file := range state.Files {
		if _, sum, err := p.readFile(name); err == nil && sum == file.After {
			if err := replace(filepath.Join(p.ConfigDir, name), file.Before); err != nil {
				return nil, err
			}
			whole[name] = true
		}
	}
	var restored []string
	for _, e := range slices.Backward(state.Edits) {
		if !whole[fileOf(e)] {
			if err := p.takeBack(ctx, e, raw); err != nil {
				return restored, err
			}
		}
		restored = append(restored, e.parameter())
	}
	return restored, os.Remove(p.statePath())
}

// takeBack undoes one edit.
func (p *Postfix) takeBack(ctx context.Context, e Edit, raw rawSettings) error {
	now, set := raw.get(e.parameter())
	var args []string
	switch {
	case !set: // somebody removed the line
		return nil
	case now != e.New:
		args = e.args(withoutOurs(now, e))
	case e.WasSet && e.Service != "":
		args = e.args(compact(e.Old))
	case e.WasSet:
		args = e.args(e.Old)
	case e.Service != "":
		args = []string{"-PX", e.parameter()}
	default:
		args = []string{"-X", e.parameter()}
	}
	_, err := p.run(ctx, args...)
	return err
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
	b, err := p.readStateFile()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", p.ConfigDir, ErrNothingApplied)
	}
	if err != nil {
		return nil, err
	}
	state := new(applied)
	if err := json.Unmarshal(b, state); err != nil {
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
	return replaceAt(p.statePath(), string(b)+"\n")
}

// readStateFile reads stateFile if it is ours. Undo writes what it says: in a folder of
// somebody else's it may be a link to another file, or written by him.
func (p *Postfix) readStateFile() (b []byte, err error) {
	f, err := os.OpenFile(p.statePath(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; !info.Mode().IsRegular() || uid != 0 && int(uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s: %w: not a file of root's or ours", p.statePath(), fs.ErrPermission)
	}
	if info.Size() > maxStateFile {
		return nil, fmt.Errorf("%s: larger than %d octets", p.statePath(), maxStateFile)
	}
	return io.ReadAll(io.LimitReader(f, maxStateFile))
}

// readFile returns the content of main.cf or master.cf, and its digest.
func (p *Postfix) readFile(name string) (content, sum string, err error) {
	b, err := readBounded(filepath.Join(p.ConfigDir, name))
	return string(b), fmt.Sprintf("%x", sha256.Sum256(b)), err
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxStateFile {
		return nil, fmt.Errorf("%s: larger than %d octets", path, maxStateFile)
	}
	return os.ReadFile(path)
}

// replace gives a file, or the one that a link leads to, a new content at once, under
// the owner and mode of the old one. A new file is for its owner only.
func replace(path, content string) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	return replaceAt(path, content)
}

// replaceAt is replace, but puts the file in the place of a link.
func replaceAt(path, content string) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = temp.WriteString(content)
	if info, statErr := os.Lstat(path); statErr == nil && info.Mode().IsRegular() {
		owner := info.Sys().(*syscall.Stat_t)
		err = errors.Join(err, temp.Chown(int(owner.Uid), int(owner.Gid)), temp.Chmod(info.Mode().Perm()))
	}
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
