package keyring

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/esmtp"
)

// Limits of an address list.
const (
	// maxListFile is the greatest size of the file in octets: some 40 million addresses.
	maxListFile = 1 << 30
	// maxListLine is the greatest length of one line in octets, comment included.
	maxListLine = 8 << 10
)

// A LineError says which line of a file cannot be used and why.
type LineError = diskfile.LineError

// An entry is one line of an address list:
//
//	address [ "gen=" number ] [ "#" comment ]
//
// A quoted local part may hold blanks. "#" begins a comment only at the beginning of the
// line or after a blank, since a local part may have it.
type entry struct {
	local   string // mapped
	gen     uint32
	comment string // from its "#" on
}

// parseLine parses one line of a list. ok is false where the line holds no address.
func (f Form) parseLine(line string) (e entry, ok bool, err error) {
	line = strings.Trim(line, " \t\r\n")
	if line == "" || line[0] == '#' {
		return entry{}, false, nil
	}
	address, rest := cutAddress(line)
	if e.local, err = f.parse(address); err != nil {
		return entry{}, false, err
	}
	seen := false
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return e, true, nil
		}
		if rest[0] == '#' {
			e.comment = rest
			return e, true, nil
		}
		field := rest
		if i := strings.IndexAny(rest, " \t"); i >= 0 {
			field = rest[:i]
		}
		rest = rest[len(field):]
		if err := diskfile.CheckText(field); err != nil && utf8.ValidString(field) {
			return entry{}, false, fmt.Errorf("%s after the address %w", diskfile.Quote(field), err)
		}
		number, found := strings.CutPrefix(field, "gen=")
		if !found || seen {
			return entry{}, false, fmt.Errorf("%s after the address is neither one gen=N nor a comment", diskfile.Quote(field))
		}
		seen = true
		gen, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return entry{}, false, fmt.Errorf("gen=%s is not 0 to %d", diskfile.Quote(number), uint32(math.MaxUint32))
		}
		e.gen = uint32(gen)
	}
}

// cutAddress cuts a line after the address, at the first blank outside quotes.
func cutAddress(line string) (address, rest string) {
	if i := esmtp.IndexUnquoted(line, " \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, ""
}

// eachLine calls f for every line of a list, without its end. Errors become *LineError.
func eachLine(path string, r io.Reader, f func(line string) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, maxListLine), maxListLine) // it takes the larger for the limit
	number := 0
	for sc.Scan() {
		number++
		line := sc.Bytes()
		if number == 1 {
			line = diskfile.TrimBOM(line)
		}
		if err := f(string(line)); err != nil {
			return &LineError{Path: path, Line: number, Err: err}
		}
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return &LineError{Path: path, Line: number + 1, Err: fmt.Errorf("longer than %d octets", maxListLine)}
	}
	return sc.Err()
}

// ErrEmptyList says that an address list holds nothing at all, and does not say that it
// is meant to. See ErrCutOff for one that has become so.
var ErrEmptyList = errors.New(`holds nothing: if that is meant, give it the line "# empty"`)

// loadTable reads an address list.
func loadTable(path string, form Form) (*table, fs.FileInfo, error) {
	file, info, err := diskfile.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("address list: %w", err)
	}
	defer file.Close()
	if info.Size() > maxListFile {
		return nil, info, fmt.Errorf("address list %s: longer than %d octets", path, maxListFile)
	}
	t := newTable(info.Size())
	content := &lastOctet{r: io.LimitReader(file, maxListFile)}
	err = eachLine(path, content, func(line string) error {
		e, ok, err := form.parseLine(line)
		if err == nil && ok {
			t.put(e.local, e.gen)
		}
		t.filled = t.filled || ok || strings.Trim(line, " \t\r") != ""
		t.saysEmpty = t.saysEmpty || diskfile.SaysEmpty(line) || strings.HasPrefix(line, removedMark)
		return err
	})
	if err != nil {
		return nil, info, fmt.Errorf("address list: %w", err)
	}
	// A list that is being written in place must not be taken for a short one.
	if err := diskfile.Unchanged(file, info); err != nil {
		return nil, nil, fmt.Errorf("address list: %w", err)
	}
	t.text = append(make([]byte, 0, len(t.text)), t.text...)
	t.last = content.last
	return t, info, nil
}

// summary is what the next reading of the list is compared with.
func (t *table) summary() diskfile.List {
	return diskfile.List{Entries: t.count, Text: t.text, Last: t.last, SaysEmpty: t.saysEmpty}
}

// A lastOctet remembers the last octet read through it; 0 if there was none.
type lastOctet struct {
	r    io.Reader
	last byte
}

func (l *lastOctet) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.last = p[n-1]
	}
	return n, err
}

// A table is a list in memory: an open-addressing hash table of offsets into one
// run of octets. It holds no pointers, so a million addresses cost the garbage
// collector nothing, and some 40 octets each. Once built it does not change.
type table struct {
	seed  maphash.Seed
	slots []uint32 // offsets into text; a power of two of them
	tags  []uint8  // of each slot: 0 where it is empty, else some bits of the hash
	text  []byte   // of each address: generation (4 octets), length (2), local part
	count int
	last  byte // the file's last octet; 0 for an empty file

	filled    bool // it has more than blanks
	saysEmpty bool // a line says that it may have no address
}

const entryHead = 6

// newTable returns an empty table with room for a list of size octets.
func newTable(size int64) *table {
	const meanLine = 24
	slots := 64
	for int64(slots) < size/meanLine*3/2 {
		slots *= 2
	}
	return &table{seed: maphash.MakeSeed(), slots: make([]uint32, slots), tags: make([]uint8, slots)}
}

// put adds an address. Where it is there twice, the higher generation counts: an old line
// that somebody left in must not make revoked keys valid again.
func (t *table) put(local string, gen uint32) {
	slot, tag, at := t.find(local)
	if at >= 0 {
		head := t.text[at:]
		if gen > binary.LittleEndian.Uint32(head) {
			binary.LittleEndian.PutUint32(head, gen)
		}
		return
	}
	t.slots[slot], t.tags[slot] = uint32(len(t.text)), tag
	t.text = binary.LittleEndian.AppendUint32(t.text, gen)
	t.text = binary.LittleEndian.AppendUint16(t.text, uint16(len(local)))
	t.text = append(t.text, local...)
	if t.count++; t.count*3 > len(t.slots)*2 {
		t.grow()
	}
}

// grow doubles the slots.
func (t *table) grow() {
	t.slots, t.tags = make([]uint32, 2*len(t.slots)), make([]uint8, 2*len(t.slots))
	for at := 0; at < len(t.text); {
		local := t.at(at)
		slot, tag, _ := t.find(string(local))
		t.slots[slot], t.tags[slot] = uint32(at), tag
		at += entryHead + len(local)
	}
}

// at returns the local part of the entry at an offset.
func (t *table) at(at int) []byte {
	n := int(binary.LittleEndian.Uint16(t.text[at+4:]))
	return t.text[at+entryHead : at+entryHead+n]
}

// find returns the offset of an address in text, or -1 and the slot and tag it would
// have.
func (t *table) find(local string) (slot int, tag uint8, at int) {
	hash := maphash.String(t.seed, local)
	tag = uint8(hash>>57) | 0x80
	mask := len(t.slots) - 1
	for slot = int(hash) & mask; ; slot = (slot + 1) & mask {
		switch t.tags[slot] {
		case 0:
			return slot, tag, -1
		case tag:
			at = int(t.slots[slot])
			if string(t.at(at)) == local {
				return slot, tag, at
			}
		}
	}
}

// generation returns the generation of an address and whether the list has it. If the list
// does not have it, another address is read instead, and the generation of that one is
// returned: otherwise a client could find out which addresses there are, since an answer for
// which less memory is read comes faster.
func (t *table) generation(local string) (gen uint32, known bool) {
	slot, _, at := t.find(local)
	known = at >= 0
	if !known {
		if t.count == 0 {
			return 0, false
		}
		for mask := len(t.slots) - 1; t.tags[slot] == 0; {
			slot = (slot + 1) & mask
		}
		at = int(t.slots[slot])
		known = string(t.at(at)) == local // never
	}
	return binary.LittleEndian.Uint32(t.text[at:]), known
}
