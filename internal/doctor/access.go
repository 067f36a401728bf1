package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// access looks whether folders, group and mode let the MTA's user connect to our socket.
// Restrictions that modes do not show, such as SELinux and AppArmor, are left out.
func (c *checks) access(context.Context) []Finding {
	var found []Finding
	seen := map[string]bool{}
	check := func(service, name, from, path string) {
		if seen[from+path] {
			return
		}
		seen[from+path] = true
		found = append(found, c.accessBy(service, name, from, path))
	}
	if p := c.Postfix; p != nil {
		for _, s := range p.Services {
			for _, f := range s.Milters {
				if !f.Ours || f.Socket.Network != "unix" {
					continue
				}
				from := "/"
				if s.Chroot || !filepath.IsAbs(f.Socket.Address) {
					from = p.QueueDir // where it has been since its start
				}
				check(s.Name, p.Owner, from, p.OnHost(f.Socket, s.Chroot).Address)
			}
		}
	}
	if s := c.Sendmail; s != nil {
		for _, f := range s.Filters {
			if f.Ours && f.Socket.Network == "unix" {
				check("Sendmail", cmp.Or(s.RunAsUser, "root"), "/", f.Socket.Address)
			}
		}
	}
	return found
}

func (c *checks) accessBy(service, name, from, path string) Finding {
	who, err := lookup(name)
	if err != nil {
		return Inapplicablef(CheckAccess, "cannot look up %s, the user of %s: %v", name, service, err)
	}
	obstacle, err := who.reach(from, path, mayWrite)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Inapplicablef(CheckAccess, "there is no socket %s", path)
	case err != nil:
		return Inapplicablef(CheckAccess, "cannot look at %s: %v; run doctor as root", path, err)
	case obstacle == nil:
		return Okf(CheckAccess, "user %s may connect to %s", name, path)
	}
	f := Finding{Check: CheckAccess, Status: Fault, Why: service + " cannot reach the milter, and takes its default action"}
	if obstacle.path != path {
		f.What = fmt.Sprintf("user %s may not search the folder %s", name, obstacle)
		f.Mend = obstacle.open(who)
		return f
	}
	f.What = fmt.Sprintf("user %s may not write to the socket: %s", name, obstacle)
	if c.Ours.Unit != "" {
		f.Mend = fmt.Sprintf("systemctl edit %s   # [Socket] SocketGroup=%s SocketMode=0660\nsystemctl restart %s", c.Ours.Unit, who.group, c.Ours.Unit)
	} else {
		f.Mend = c.setting(fmt.Sprintf("socket: {mode: \"0660\", group: %s}", who.group))
	}
	return f
}

// An account is a user with its groups.
type account struct {
	uid    uint32
	groups []uint32
	group  string // the name of the primary one
}

// lookup finds a user by name or number.
func lookup(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			// A container may run it as a number that has no name here.
			if uid, notNumber := strconv.ParseUint(name, 10, 32); notNumber == nil {
				return account{uid: uint32(uid), group: name}, nil
			}
			return account{}, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	a := account{uid: uint32(uid), group: groupName(u.Gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return account{}, err
	}
	for _, id := range ids {
		gid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return account{}, err
		}
		a.groups = append(a.groups, uint32(gid))
	}
	return a, nil
}

// An obstacle is a folder, a socket or a file that a user has no permission for.
type obstacle struct {
	path string
	info fs.FileInfo
	stat *syscall.Stat_t
	need uint32 // the permission
}

func (o *obstacle) String() string {
	list := ""
	if _, ok := accessList(o.path); ok {
		list = ", and an access control list"
	}
	return fmt.Sprintf("%s has mode %04o, owner %s and group %s%s", o.path, o.info.Mode().Perm(), o.owner(), o.group(), list)
}

// open are the commands that let a user read the file or folder, or search the folder.
func (o *obstacle) open(who account) string {
	rights := map[uint32]string{mayRead: "r", mayWrite: "w", maySearch: "x"}[o.need]
	if o.info.IsDir() && o.need == mayRead {
		rights = "rx"
	}
	return fmt.Sprintf("chgrp %s %s\nchmod g+%s %s", who.group, o.path, rights, o.path)
}

func (o *obstacle) owner() string {
	id := strconv.Itoa(int(o.stat.Uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

func (o *obstacle) group() string { return groupName(strconv.Itoa(int(o.stat.Gid))) }

func groupName(id string) string {
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// Permission bits, of one class.
const (
	mayRead   = 4
	mayWrite  = 2
	maySearch = 1
)

// maxLinks bounds the links on the way to a file, as the kernel does.
const maxLinks = 40

// reach follows a path from a folder, in which the user is, to a socket or file, for which
// he needs a permission, and returns the first obstacle. Links are followed, and the folders
// in which they are count too.
func (a account) reach(from, path string, permission uint32) (*obstacle, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	relative, err := filepath.Rel(from, path)
	if err != nil || !filepath.IsLocal(relative) {
		from, relative = "/", strings.TrimPrefix(path, "/")
	}
	at, steps := from, strings.Split(relative, "/")
	for links := 0; ; {
		if o, err := a.blocked(at, maySearch); o != nil || err != nil {
			return o, err
		}
		next := filepath.Join(at, steps[0])
		steps = steps[1:]
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return nil, err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
			}
			target, err := os.Readlink(next)
			if err != nil {
				return nil, err
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			steps = append(strings.Split(strings.TrimPrefix(filepath.Clean(target), "/"), "/"), steps...)
		case len(steps) == 0:
			return a.blocked(next, permission)
		case !info.IsDir():
			return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
		default:
			at = next
		}
	}
}

// blocked looks at one folder, socket or file.
func (a account) blocked(path string, need uint32) (*obstacle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || a.uid == 0 || a.may(path, info, stat, need) {
		return nil, nil
	}
	return &obstacle{path, info, stat, need}, nil
}

// may judges by the access control list, if there is one, or else by owner, group and mode.
func (a account) may(path string, info fs.FileInfo, stat *syscall.Stat_t, need uint32) bool {
	if list, ok := accessList(path); ok {
		return a.allowed(list, stat.Uid, stat.Gid, need)
	}
	bits := uint32(info.Mode().Perm())
	switch {
	case a.uid == stat.Uid:
		bits >>= 6
	case slices.Contains(a.groups, stat.Gid):
		bits >>= 3
	}
	return bits&need != 0
}
