package mtaconf

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// An Undone is what became of one Postfix that is to ask the milter no more.
type Undone struct {
	Postfix *Postfix // what is known of it: at least its directory
	// Restored are the parameters that were changed, as postconf(1) names them.
	Restored []string
	// Left are those that still name the milter: they did before Apply.
	Left []string
	// Err says why it is as it was. It wraps ErrNothingApplied or ErrNoPostfix where
	// nothing had to be done.
	Err error
}

// postfixDir is where Postfix's configuration is where nobody says otherwise.
const postfixDir = "/etc/postfix"

// usualSockets are those of our packages, by which an entry is known for ours where
// neither a configuration nor systemd says where the milter listens.
var usualSockets = []string{"/run/authkey/milter.sock", "/var/spool/postfix/authkey/milter.sock"}

// UndoPostfix takes back what Apply did to the Postfix of a directory, or with an empty
// one to the usual Postfix and its further instances. Where nothing was applied, entries
// for the milter that somebody else has put into lists are taken off them. It needs no
// network, and of Postfix only what it has to change: a package may call it while it is
// removed. ours are sockets of the milter beside the usual ones.
func UndoPostfix(ctx context.Context, dir string, ours Ours) []Undone {
	command, err := postconfCommand() // without it files can still be put back as a whole
	first := &Postfix{ConfigDir: dir, Explicit: dir != "", postconf: command}
	if dir == "" {
		first.ConfigDir = postfixDir
		// Its own default, since main.cf may be what is broken.
		if out, runErr := first.run(ctx, "-d", "-h", "config_directory"); runErr == nil {
			first.ConfigDir = strings.TrimSpace(out)
		}
	}
	all := []Undone{first.undo(ctx, ours, err)}
	if dir == "" {
		others, _ := first.Instances(ctx) // where main.cf cannot be read there are none to know of
		for _, dir := range others {
			p := &Postfix{ConfigDir: dir, Explicit: true, postconf: command}
			all = append(all, p.undo(ctx, ours, err))
		}
	}
	return all
}

func (p *Postfix) undo(ctx context.Context, ours Ours, noPostfix error) Undone {
	u := Undone{Postfix: p}
	u.Restored, u.Err = p.Undo(ctx)
	if errors.Is(u.Err, ErrNothingApplied) && noPostfix != nil {
		u.Err = noPostfix
	}
	if u.Err != nil && !errors.Is(u.Err, ErrNothingApplied) || noPostfix != nil {
		return u
	}
	read, err := p.withUsual(ctx, ours)
	switch {
	case err != nil && u.Err != nil:
		u.Err = err
		return u
	case err != nil: // what was applied is taken back, and that is it
		return u
	}
	edits, err := read.withdraw(ctx)
	if err != nil {
		u.Err = errors.Join(u.Err, err)
		return u
	}
	for _, e := range edits {
		u.Left = append(u.Left, e.parameter())
	}
	if u.Err == nil || len(edits) == 0 {
		return u
	}
	// Nobody will want these back.
	u.Err = read.change(ctx, edits, func(configFiles, map[string][]byte) error { return nil })
	if u.Err == nil {
		u.Restored, u.Left = u.Left, nil
	}
	return u
}

// withUsual reads the Postfix, and knows the milter by its usual sockets too.
func (p *Postfix) withUsual(ctx context.Context, ours Ours) (*Postfix, error) {
	o := Options{Ours: Ours{Sockets: slices.Clone(ours.Sockets)}}
	if p.Explicit {
		o.ConfigDir = p.ConfigDir
	}
	queue, err := p.run(ctx, "-x", "-h", "queue_directory")
	if err != nil {
		return nil, err
	}
	for _, path := range append([]string{filepath.Join(strings.TrimSpace(queue), "authkey", "milter.sock")}, usualSockets...) {
		o.Ours.Sockets = append(o.Ours.Sockets, Socket{"unix", path})
	}
	return ReadPostfix(ctx, o)
}
