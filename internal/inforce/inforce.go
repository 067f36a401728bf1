// Package inforce lets a running service tell other programs on its machine which
// configuration it has in force. It writes a small file into the service's runtime folder
// at the start and at each reload, and removes it at the end. The file holds a digest of the
// settings, and no setting.
package inforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Milter is the name of authkey-milter's file in its runtime folder.
const Milter = "milter.running"

// maxFile bounds what is read of such a file, in octets.
const maxFile = 64 << 10

// A Note is what a service says of itself.
type Note struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`     // in its own namespace of processes
	Started time.Time `json:"started"` // when the service did
	Loaded  time.Time `json:"loaded"`  // when it read the configuration in force
	File    string    `json:"file"`    // of the configuration, an absolute path; empty: none was read
	// Digest is config.Settings.Digest without the keys that Environment names.
	Digest      string   `json:"digest"`
	Environment []string `json:"environment,omitempty"`

	// UID is whose file it is: the service's user. Read fills it in.
	UID uint32 `json:"-"`
}

// Folder is where a service leaves its note: the runtime folder that systemd made for
// it, or else that of a socket on which it listens; empty: there is none.
func Folder(getenv func(string) string, socket string) string {
	if dir, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if filepath.IsAbs(socket) {
		return filepath.Dir(socket)
	}
	return ""
}

// Write puts the note into a folder, in place of the one before.
func (n Note) Write(dir, name string) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return err
	}
	_, err = temp.Write(append(b, '\n'))
	// Not synchronised: after a crash of the machine nothing runs.
	if err = errors.Join(err, temp.Chmod(0o644), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(temp.Name())
	}
	return err
}

// Remove takes the note away; there may be none.
func Remove(dir, name string) { _ = os.Remove(filepath.Join(dir, name)) }

// Read reads a note. The folder is the service's: nothing in it is followed or waited
// for, and what it says is bounded. The error wraps fs.ErrNotExist where there is none.
func Read(path string) (Note, error) {
	var n Note
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return n, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return n, fmt.Errorf("%s: %w", path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return n, fmt.Errorf("%s: is no regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("is larger than %d octets", maxFile)
	}
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err != nil {
		return Note{}, fmt.Errorf("%s: %w", path, err)
	}
	n.UID = stat.Uid
	return n, nil
}
