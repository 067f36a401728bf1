package doctor

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Tags of acl(5), as the kernel has them in system.posix_acl_access: a version of four
// octets, then entries of tag (2), permissions (2) and id (4), little endian.
const (
	aclVersion  = 2
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	tag  uint16
	bits uint32
	id   uint32
}

// accessList reads the access control list of a file; ok is false where it has none.
func accessList(path string) (entries []aclEntry, ok bool) {
	b := make([]byte, 4<<10)
	n, err := unix.Getxattr(path, "system.posix_acl_access", b)
	if err != nil {
		return nil, false
	}
	return parseACL(b[:n])
}

func parseACL(b []byte) (entries []aclEntry, ok bool) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != aclVersion || len(b)%8 != 4 {
		return nil, false
	}
	for b = b[4:]; len(b) > 0; b = b[8:] {
		entries = append(entries, aclEntry{binary.LittleEndian.Uint16(b), uint32(binary.LittleEndian.Uint16(b[2:])), binary.LittleEndian.Uint32(b[4:])})
	}
	return entries, true
}

// allowed is the access check algorithm of acl(5) for a file of owner and group.
func (a account) allowed(entries []aclEntry, owner, group, need uint32) bool {
	mask := uint32(mayRead | mayWrite | maySearch)
	if at := slices.IndexFunc(entries, func(e aclEntry) bool { return e.tag == aclMask }); at >= 0 {
		mask = entries[at].bits
	}
	for _, e := range entries {
		switch {
		case e.tag == aclUserObj && a.uid == owner:
			return e.bits&need != 0
		case e.tag == aclUser && a.uid == e.id && a.uid != owner:
			return e.bits&mask&need != 0
		}
	}
	grouped := false
	for _, e := range entries {
		if e.tag == aclGroupObj && slices.Contains(a.groups, group) || e.tag == aclGroup && slices.Contains(a.groups, e.id) {
			if grouped = true; e.bits&mask&need != 0 {
				return true
			}
		}
	}
	at := slices.IndexFunc(entries, func(e aclEntry) bool { return e.tag == aclOther })
	return !grouped && at >= 0 && entries[at].bits&need != 0
}
