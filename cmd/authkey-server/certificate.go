package main

import (
	"context"
	"crypto/tls"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authkey/authkey/internal/config"
)

// A certificate is a pair of files that is read again when one of them changes.
type certificate struct {
	files config.TLS
	pair  atomic.Pointer[tls.Certificate]

	mu   sync.Mutex
	read [2]fs.FileInfo // the files as they were when last read; nil: they could not be
}

// loadCertificate reads a pair for the first time.
func loadCertificate(files config.TLS) (*certificate, error) {
	c := &certificate{files: files}
	return c, c.reload()
}

// get returns the pair in force.
func (c *certificate) get() *tls.Certificate { return c.pair.Load() }

// reload reads the pair. A bad one leaves in force what was.
func (c *certificate) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = c.stat() // before reading: what changes meanwhile is read once more
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return err
	}
	c.pair.Store(&pair)
	return nil
}

func (c *certificate) stat() [2]fs.FileInfo {
	var infos [2]fs.FileInfo
	for i, path := range []string{c.files.Cert, c.files.Key} {
		if info, err := os.Stat(path); err == nil {
			infos[i] = info
		}
	}
	return infos
}

// changed reports whether a file is not what it was when last read.
func (c *certificate) changed() bool {
	now := c.stat()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, was := range c.read {
		is := now[i]
		if (was == nil) != (is == nil) {
			return true
		}
		if was != nil && !(os.SameFile(was, is) && was.Size() == is.Size() && was.ModTime().Equal(is.ModTime())) {
			return true
		}
	}
	return false
}

// watch reads the pair again whenever it has changed, until ctx ends. It calls
// report after each time. A renewal that replaces one file after the other is
// reported bad at most once in between.
func (c *certificate) watch(ctx context.Context, every time.Duration, report func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.changed() {
			report(c.reload())
		}
	}
}
