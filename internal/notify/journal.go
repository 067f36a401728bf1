package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The file of a Ledger: a magic, then records of one size, appended. A record is
// a time in Unix seconds, a digest, and their CRC-32.
const (
	journalName  = "notified"
	journalMagic = "AKNOTE1\n"
	recordSize   = 8 + digestSize + 4
	// maxJournal is how many of the last records are read.
	maxJournal = 2*maxRemembered + journalSlack
)

// ErrLocked says that another process has the lock of the state directory.
var ErrLocked = errors.New("state directory is in use by another process")

// A record is something that was sent, and when.
type record struct {
	key digest
	at  time.Time
}

// journal writes what a Ledger remembers. A crash of the process loses nothing that was
// written; a crash of the machine loses what was not yet synchronised (Ledger.sync).
type journal struct {
	dir     string
	lock    *os.File
	file    *os.File
	size    int64 // of what is whole in file
	records int   // in it
}

// openJournal opens or makes the file in dir and returns its records, oldest
// first. Records with a wrong check sum are left out; a last one that is not whole is
// overwritten.
func openJournal(dir string) (*journal, []record, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{dir: dir, lock: lock}
	j.file, err = os.OpenFile(filepath.Join(dir, journalName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		j.close()
		return nil, nil, err
	}
	records, err := j.read()
	if err != nil {
		j.close()
		return nil, nil, fmt.Errorf("%s: %w", j.file.Name(), err)
	}
	return j, records, nil
}

func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, journalName+".lock")
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return lock, nil
}

func (j *journal) read() ([]record, error) {
	info, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < int64(len(journalMagic)) { // new, or made by a process that ended there
		_, err := j.file.WriteAt([]byte(journalMagic), 0)
		j.size = int64(len(journalMagic))
		return nil, err
	}
	magic := make([]byte, len(journalMagic))
	if _, err := j.file.ReadAt(magic, 0); err != nil {
		return nil, err
	}
	if string(magic) != journalMagic {
		return nil, errors.New("not a file of notices sent, or of another version")
	}
	j.records = int((info.Size() - int64(len(journalMagic))) / recordSize)
	j.size = int64(len(journalMagic)) + int64(j.records)*recordSize
	start := int64(len(journalMagic)) + int64(max(0, j.records-maxJournal))*recordSize
	data := make([]byte, j.size-start)
	if _, err := j.file.ReadAt(data, start); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	records := make([]record, 0, len(data)/recordSize)
	for ; len(data) > 0; data = data[recordSize:] {
		if r, ok := decodeRecord(data[:recordSize]); ok {
			records = append(records, r)
		}
	}
	return records, nil
}

// add appends records. If that fails, also halfway, the next add writes in their
// place.
func (j *journal) add(records ...record) error {
	data := make([]byte, 0, len(records)*recordSize)
	for _, r := range records {
		data = appendRecord(data, r)
	}
	if _, err := j.file.WriteAt(data, j.size); err != nil {
		return err
	}
	j.size += int64(len(data))
	j.records += len(records)
	return nil
}

// rewrite puts a file with these records in place of the one there is.
func (j *journal) rewrite(records []record) (err error) {
	data := make([]byte, 0, len(journalMagic)+len(records)*recordSize)
	data = append(data, journalMagic...)
	for _, r := range records {
		data = appendRecord(data, r)
	}
	name := filepath.Join(j.dir, journalName)
	file, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if _, err = file.Write(data); err == nil {
		// A rename may reach the disk before what is in the file.
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		file.Close()
		return err
	}
	j.file.Close()
	j.file, j.size, j.records = file, int64(len(data)), len(records)
	return nil
}

func (j *journal) close() error {
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close())
}

func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint64(b, uint64(r.at.Unix()))
	b = append(b, r.key[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[start:]))
}

func decodeRecord(b []byte) (record, bool) {
	const sum = recordSize - 4
	if binary.BigEndian.Uint32(b[sum:]) != crc32.ChecksumIEEE(b[:sum]) {
		return record{}, false
	}
	return record{key: digest(b[8:sum]), at: time.Unix(int64(binary.BigEndian.Uint64(b)), 0)}, true
}
