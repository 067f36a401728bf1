package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// fill fills a small disk, and returns a function that makes space again.
func fill(dir string) (free func() error, err error) {
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	free = func() error { return os.Remove(path) }
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	if closeErr := f.Close(); !errors.Is(err, unix.ENOSPC) {
		return nil, errors.Join(fmt.Errorf("the disk is not full: %w", err), closeErr, free())
	}
	return free, nil
}

// fullLedger lets the milter remember what was sent on a disk that is full, kills it,
// and makes room again.
func fullLedger(s *storm, ctx context.Context) error {
	began := time.Now()
	free, err := fill(s.w.stateDir())
	if err != nil {
		return err
	}
	err = s.load.flow(ctx, 3*clients)
	if err == nil {
		err = killMilter(s, ctx)
	}
	if err == nil {
		err = s.load.flow(ctx, 2*clients)
	}
	err = errors.Join(err, free())
	if err == nil { // what is known in memory is written with the next notice
		s.load.send(&s.probes, crowded)
	}
	s.note(ledgerFull, began)
	return err
}

// fullLists has the tools edit a list on a disk that is full: they must say so, and
// leave the list as it is.
func fullLists(s *storm, ctx context.Context) error {
	free, err := fill(s.w.listDir())
	if err != nil {
		return err
	}
	before, err := os.ReadFile(s.w.list(twoServers))
	if err != nil {
		return errors.Join(err, free())
	}
	out, failed := s.w.tool(ctx, "address", "add", "full@"+twoServers).CombinedOutput()
	after, err := os.ReadFile(s.w.list(twoServers))
	if failed == nil && !bytes.Contains(after, []byte("full")) {
		s.fault("address add on a full disk says that it is done: %s", out)
	}
	if failed != nil && !bytes.Equal(before, after) {
		s.fault("address add failed on a full disk, and the list is not what it was")
	}
	err = errors.Join(err, s.load.flow(ctx, clients), free())
	if err != nil {
		return err
	}
	if out, err := s.w.tool(ctx, "address", "add", "room@"+twoServers).CombinedOutput(); err != nil && !bytes.Contains(out, []byte("already")) {
		return fmt.Errorf("address add with room again: %w: %s", err, out)
	}
	s.added = append(s.added, "room@"+twoServers)
	return nil
}
