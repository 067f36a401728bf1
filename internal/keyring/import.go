package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/authkey/authkey/internal/diskfile"
	"github.com/authkey/authkey/internal/wire"
)

// Import reads addresses from r, in the form of an address list, and puts each into
// the file of its domain; one without a domain is of the only file's. It returns how
// many were not in the files before. A generation that a line gives is the least
// that the address has afterwards. name is what r is called in errors.
//
// A line that is bad, or of no file's domain, is a *LineError; nothing is changed
// then. Files are changed one after another.
func Import(ctx context.Context, name string, r io.Reader, files ...ListFile) (added int, err error) {
	in, err := readImport(name, r, files)
	if err != nil {
		return 0, err
	}
	for i, f := range files {
		if len(in.entries[i]) == 0 {
			continue
		}
		done, err := f.merge(ctx, in.entries[i])
		if err != nil {
			return added, err
		}
		added += done.added
	}
	return added, nil
}

// readImport reads what is to be imported, and sorts it by file.
func readImport(name string, r io.Reader, files []ListFile) (*importer, error) {
	in, err := newImporter(files)
	if err != nil {
		return nil, err
	}
	size := 0
	err = eachLine(name, r, func(line string) error {
		if size += len(line) + 1; size > maxListFile {
			return fmt.Errorf("input is longer than %d octets", maxListFile)
		}
		return in.line(line)
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

// An importer sorts the lines of a list by domain.
type importer struct {
	forms   []Form // of the files, checked
	entries [][]wanted
}

func newImporter(files []ListFile) (*importer, error) {
	in := &importer{entries: make([][]wanted, len(files))}
	for _, f := range files {
		form, err := f.Form.check()
		if err != nil {
			return nil, err
		}
		in.forms = append(in.forms, form)
	}
	return in, nil
}

func (in *importer) line(line string) error {
	line = strings.Trim(line, " \t\r\n")
	if line == "" || line[0] == '#' {
		return nil
	}
	i, err := in.file(line)
	if err != nil {
		return err
	}
	e, _, err := in.forms[i].parseLine(line)
	if err != nil {
		return err
	}
	in.entries[i] = append(in.entries[i], wanted{Entry: Entry{Address: in.forms[i].spell(e.local), Generation: e.gen}})
	return nil
}

// file returns the index of the file that a line's address belongs to.
func (in *importer) file(line string) (int, error) {
	address, _ := cutAddress(line)
	if !hasDomain(address) {
		if len(in.forms) == 1 {
			return 0, nil
		}
		return 0, errors.New("address has no domain, and there are several")
	}
	a, err := wire.ParseAddress(address)
	if err != nil {
		return 0, err
	}
	for i, form := range in.forms {
		if form.Domain == a.Domain() {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: there is no list of %s", ErrOtherDomain, diskfile.Quote(a.Domain()))
}
