package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/authkey/authkey/internal/diskfile"
)

// A Stage is how far the replacement of a secret is. The secret file itself says so, and
// since when, in comments: they are copied with the file.
type Stage string

// The stages, in their order.
const (
	StageIdle     Stage = "idle"     // one secret
	StageAdded    Stage = "added"    // a new one is accepted, and makes no keys yet
	StageRetiring Stage = "retiring" // the new one makes keys, and the old ones are still accepted
	// StageUnknown is several secrets, and no comment says when they were added.
	StageUnknown Stage = "unknown"
)

// A Rotation is what a secret file says of the replacement of its secret.
type Rotation struct {
	Stage   Stage
	Secrets []string // ids, in the order of the file: the first makes keys
	New     string   // the id of the new one; empty: there is none
	Old     []string // those that the new one is to replace
	Since   time.Time
}

// ErrStage says that the step cannot be made at the stage of the file, for instance because
// somebody else has made it meanwhile.
var ErrStage = errors.New("the secret file is at another stage by now")

// rotationMark begins the comments that remember when a secret was added or came into use:
// the mark, "added" or "used", the id and the time.
const rotationMark = "#rotation "

// ReadRotation reads a secret file. The error is that of Open.
func ReadRotation(path string) (Rotation, error) {
	f, err := readSecretFile(path)
	if err != nil {
		return Rotation{}, err
	}
	return f.rotation(), nil
}

// AddSecret puts a new secret below those of a file at StageIdle.
func AddSecret(ctx context.Context, path string, now time.Time) (Rotation, error) {
	return editSecrets(ctx, path, func(f *secretFile, r Rotation) error {
		if r.Stage != StageIdle {
			return ErrStage
		}
		fresh := newSecret()
		f.lines = append(f.lines, secretLine{text: mark("added", fresh.id, now)}, fresh)
		return nil
	})
}

// UseSecret puts the new secret of a file at StageAdded on top: it makes the keys from now
// on.
func UseSecret(ctx context.Context, path string, now time.Time) (Rotation, error) {
	return editSecrets(ctx, path, func(f *secretFile, r Rotation) error {
		if r.Stage != StageAdded {
			return ErrStage
		}
		var moved secretLine
		var rest []secretLine
		for _, line := range f.lines {
			switch {
			case line.id == r.New:
				moved = line
			case line.marks(r.New):
			default:
				rest = append(rest, line)
			}
		}
		f.lines = nil
		for _, line := range rest {
			if line.id == r.Old[0] {
				f.lines = append(f.lines, secretLine{text: mark("used", r.New, now)}, moved)
			}
			f.lines = append(f.lines, line)
		}
		return nil
	})
}

// DropSecrets takes the old secrets out of a file at StageRetiring.
func DropSecrets(ctx context.Context, path string) (Rotation, error) {
	return editSecrets(ctx, path, func(f *secretFile, r Rotation) error {
		if r.Stage != StageRetiring {
			return ErrStage
		}
		var kept []secretLine
		for _, line := range f.lines {
			if line.id == "" && strings.HasPrefix(line.text, rotationMark) || line.id != "" && line.id != r.New {
				continue
			}
			kept = append(kept, line)
		}
		f.lines = kept
		return nil
	})
}

// OldMayGo returns when the last key of the old secrets expires, if every machine that
// attaches keys had the new secret on top at Since.
func (r Rotation) OldMayGo(avt, grace time.Duration) time.Time {
	return r.Since.Add(avt + grace + ClockSkew)
}

// A secretFile is the text of a secret file, line by line.
type secretFile struct{ lines []secretLine }

// A secretLine is a line without its end.
type secretLine struct {
	text string
	id   string // of the secret that it holds; empty: none
}

// newSecret makes a secret with an id, which says nothing about it.
func newSecret() secretLine {
	var key [secretSize]byte
	var tag [4]byte
	rand.Read(key[:]) // never fails: see crypto/rand
	rand.Read(tag[:])
	defer clear(key[:])
	id := hex.EncodeToString(tag[:])
	return secretLine{id + " " + base64.StdEncoding.EncodeToString(key[:]), id}
}

// Format keeps the secret out of every text.
func (l secretLine) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "[secret %s]", l.id) }

// marks tells whether the line is a mark of the secret.
func (l secretLine) marks(id string) bool {
	_, marked, _, ok := parseMark(l.text)
	return l.id == "" && ok && marked == id
}

func mark(what, id string, at time.Time) string {
	return rotationMark + what + " " + id + " " + at.UTC().Format(time.RFC3339)
}

// parseMark reads a mark. A comment is free to say anything: ok is false then.
func parseMark(line string) (what, id string, at time.Time, ok bool) {
	text, found := strings.CutPrefix(line, rotationMark)
	fields := strings.Fields(text)
	if !found || len(fields) != 3 || fields[0] != "added" && fields[0] != "used" {
		return "", "", time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, fields[2])
	return fields[0], fields[1], at, err == nil
}

// readSecretFile reads a file that loadRing takes.
func readSecretFile(path string) (*secretFile, error) {
	// A wrong mode is refused when it is served; here a user who may read and write it may
	// edit it.
	content, _, err := diskfile.Read(path, maxSecretFile)
	if err != nil {
		return nil, fmt.Errorf("secret file: %w", err)
	}
	defer clear(content)
	return parseSecretFile(path, content)
}

func parseSecretFile(path string, content []byte) (*secretFile, error) {
	if _, err := parseRing(path, content); err != nil {
		return nil, err
	}
	f := new(secretFile)
	for line := range bytes.Lines(diskfile.TrimBOM(content)) {
		l := secretLine{text: strings.TrimRight(string(line), "\r\n")}
		if text := strings.TrimSpace(l.text); text != "" && text[0] != '#' {
			l.id = strings.Fields(text)[0]
		}
		f.lines = append(f.lines, l)
	}
	return f, nil
}

func (f *secretFile) rotation() Rotation {
	var r Rotation
	added, used := map[string]time.Time{}, map[string]time.Time{}
	for _, line := range f.lines {
		if line.id != "" {
			r.Secrets = append(r.Secrets, line.id)
			continue
		}
		if what, id, at, ok := parseMark(line.text); ok && what == "added" {
			added[id] = at
		} else if ok {
			used[id] = at
		}
	}
	first, last := r.Secrets[0], r.Secrets[len(r.Secrets)-1]
	_, firstAdded := added[first]
	_, lastAdded := added[last]
	switch since, isUsed := used[first]; {
	case len(r.Secrets) == 1:
		r.Stage = StageIdle
		return r
	case isUsed:
		r.Stage, r.New, r.Old, r.Since = StageRetiring, first, r.Secrets[1:], since
	case firstAdded: // somebody has moved it up by hand
		r.Stage, r.New, r.Old, r.Since = StageAdded, first, r.Secrets[1:], added[first]
	case lastAdded:
		r.Stage, r.New, r.Old, r.Since = StageAdded, last, r.Secrets[:len(r.Secrets)-1], added[last]
	default:
		r.Stage = StageUnknown
	}
	return r
}

// editSecrets changes a secret file in one step. Mode and owner stay.
func editSecrets(ctx context.Context, path string, change func(*secretFile, Rotation) error) (Rotation, error) {
	path, err := diskfile.Resolve(path)
	if err != nil {
		return Rotation{}, fmt.Errorf("secret file: %w", err)
	}
	unlock, err := diskfile.Lock(ctx, path)
	if err != nil {
		return Rotation{}, err
	}
	defer unlock()
	f, err := readSecretFile(path)
	if err != nil {
		return Rotation{}, err
	}
	if err := change(f, f.rotation()); err != nil {
		return Rotation{}, fmt.Errorf("%s: %w", path, err)
	}
	var text bytes.Buffer
	for _, line := range f.lines {
		text.WriteString(line.text + "\n")
	}
	defer clear(text.Bytes())
	if _, err := parseRing(path, text.Bytes()); err != nil {
		return Rotation{}, err
	}
	if err := diskfile.ReplaceData(path, text.Bytes()); err != nil {
		return Rotation{}, fmt.Errorf("replace secret file: %w", err)
	}
	return f.rotation(), nil
}
