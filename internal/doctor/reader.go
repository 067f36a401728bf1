package doctor

import (
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// A Reader finds out which files a user may read, from folders, owners, groups, modes and
// access control lists. It is for root, who cannot find out by reading the files.
type Reader struct {
	Name string
	who  account
}

// NewReader finds a user by name or number. groups are names of further groups that the
// process has.
func NewReader(name string, groups ...string) (Reader, error) {
	who, err := lookup(name)
	if err != nil {
		return Reader{}, fmt.Errorf("there is no user %q", name)
	}
	for _, g := range groups {
		id, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			found, err := user.LookupGroup(g)
			if err != nil {
				return Reader{}, err
			}
			if id, err = strconv.ParseUint(found.Gid, 10, 32); err != nil {
				return Reader{}, err
			}
		}
		who.groups = append(who.groups, uint32(id))
	}
	return Reader{Name: name, who: who}, nil
}

// An Obstacle keeps a user from reading a file.
type Obstacle struct {
	What string // may not read FILE, or may not search the folder FOLDER, and why
	Mend string // the commands that open what is shut
}

// Read looks for what keeps the user from reading a file; nil: nothing does. Links are
// followed, and the folders in which they are count too.
func (r Reader) Read(path string) (*Obstacle, error) {
	o, err := r.who.reach("/", path, mayRead)
	if o == nil || err != nil {
		return nil, err
	}
	what := "may not read"
	if o.need == maySearch {
		what = "may not search the folder"
	}
	return &Obstacle{
		What: fmt.Sprintf("%s %s (mode %04o, owner %s, group %s)", what, o.path, o.info.Mode().Perm(), o.owner(), o.group()),
		Mend: o.open(r.who),
	}, nil
}

// OnlyOwnerAnd reports whether nobody can read a file but its owner and, where that is one
// of the user's groups, its group, and nobody else can write it.
func (r Reader) OnlyOwnerAnd(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	perm := info.Mode().Perm()
	return perm&0o077 == 0 || ok && perm&0o037 == 0 && slices.Contains(r.who.groups, stat.Gid)
}
