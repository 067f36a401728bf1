package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// editEvery is how long an editor rests between two changes: less than a file has
	// to be left alone for, so that one that counts on that never comes to read it.
	editEvery = 300 * time.Millisecond
	// overdueAfter is how many changes later a change has to be in force: some twenty
	// seconds, where the documents say a few.
	overdueAfter = 60
)

// An editor changes a file again and again.
type editor struct {
	edits  atomic.Int64 // that were made
	paused sync.Mutex
	quit   chan struct{}
	done   chan struct{}
	err    error
}

func startEditor(edit func() error) *editor {
	e := &editor{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		for {
			e.paused.Lock()
			err := edit()
			e.paused.Unlock()
			if err != nil {
				e.err = err
				return
			}
			e.edits.Add(1)
			select {
			case <-e.quit:
				return
			case <-time.After(editEvery):
			}
		}
	}()
	return e
}

func (e *editor) stop() error {
	close(e.quit)
	<-e.done
	return e.err
}

// editList adds one more address to the list of the domain edited, as its administrator
// does with the tool, or with an editor of his own that writes in place.
func (s *storm) editList() error {
	address := fmt.Sprintf("x%d@%s", s.numbers.Add(1), edited)
	if s.byHand.Load() {
		path := s.w.list(edited)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return inPlace(path, append(content, address+"\n"...))
	}
	out, err := s.w.tool(context.Background(), "address", "add", address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("address add %s: %w: %s", address, err, out)
	}
	return nil
}

// writePreferences writes preferences that differ from the last ones.
func (s *storm) writePreferences() error {
	s.mu.Lock()
	var b strings.Builder
	b.Write(s.w.preferences)
	for _, rcpt := range s.extra {
		fmt.Fprintf(&b, "- {recipient: %s, fail: mark}\n", rcpt)
	}
	fmt.Fprintf(&b, "# at %d\n", time.Now().UnixNano())
	s.mu.Unlock()
	if s.byHand.Load() {
		return inPlace(s.w.prefsYAML(), []byte(b.String()))
	}
	return replace(s.w.prefsYAML(), []byte(b.String()))
}

// probe sends messages until one ends as the change wants it, or one did not that was
// sent when the change was overdue. Meanwhile the file is edited on.
func (s *storm) probe(ctx context.Context, e *editor, what string, make func(overdue bool) kind, taken func(*history) bool) error {
	began, since := e.edits.Load(), time.Now()
	for {
		overdue := e.edits.Load()-began >= overdueAfter
		h := s.load.send(&s.probes, make(overdue))
		switch {
		case taken(h):
			s.count(what + " taken up")
			return nil
		case overdue:
			s.fault("%s: not in force after %d more changes of the file in %.0f s", what, overdueAfter, time.Since(since).Seconds())
			return nil
		}
		select {
		case <-e.done:
			return errors.Join(errors.New("the editor has ended"), e.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(editEvery):
		}
	}
}

// revocation revokes an address of a domain whose list is edited all the time.
func revocation(s *storm, ctx context.Context) error {
	address := fmt.Sprintf("r%d@%s", s.revoked, edited)
	if s.revoked++; s.revoked >= revocable {
		return nil // there are no more
	}
	s.list.paused.Lock()
	out, err := s.w.tool(ctx, "address", "revoke", address).CombinedOutput()
	s.list.paused.Unlock()
	if err != nil {
		return fmt.Errorf("address revoke: %w: %s", err, out)
	}
	return s.probe(ctx, s.list, "revocation", func(overdue bool) kind { return revoked(address, s.w.keys[address], overdue) },
		func(h *history) bool { return h.last() == refused })
}

// preference adds a preference to a file that is written all the time.
func preference(s *storm, ctx context.Context) error {
	s.mu.Lock()
	rcpt := fmt.Sprintf("late%d@%s", len(s.extra), local)
	s.extra = append(s.extra, rcpt)
	s.mu.Unlock()
	return s.probe(ctx, s.prefs, "preference", func(overdue bool) kind { return preferring(rcpt, overdue) },
		func(h *history) bool { return h.last() == accepted })
}

// byHand does so while the files are written in place, and nothing starts that could
// find half of one.
func byHand(do func(*storm, context.Context) error) func(*storm, context.Context) error {
	return func(s *storm, ctx context.Context) error {
		s.byHand.Store(true)
		err := do(s, ctx)
		// A change that was begun in place is over when the editors can be paused.
		for _, e := range []*editor{s.list, s.prefs} {
			e.paused.Lock()
		}
		s.byHand.Store(false)
		for _, e := range []*editor{s.list, s.prefs} {
			e.paused.Unlock()
		}
		return err
	}
}

// emptied has somebody empty the preferences, and write them again a while later.
func emptied(s *storm, ctx context.Context) error {
	s.prefs.paused.Lock()
	defer s.prefs.paused.Unlock()
	whole, err := os.ReadFile(s.w.prefsYAML())
	if err != nil {
		return err
	}
	// Cut off at the end of a line it may be what somebody wants.
	for _, cut := range []int{0, len(basePreferences)/2 + 3} {
		since := s.w.milter.LogSize()
		if err := errors.Join(inPlace(s.w.prefsYAML(), whole[:cut]), s.hangup(ctx, since)); err != nil {
			return err
		}
		if err := s.load.flow(ctx, 4*clients); err != nil {
			return err
		}
		since = s.w.milter.LogSize()
		if err := errors.Join(inPlace(s.w.prefsYAML(), whole), s.hangup(ctx, since)); err != nil {
			return err
		}
	}
	return nil
}

// killedTool kills the tool that edits a list while it works.
func killedTool(s *storm, ctx context.Context) error {
	for range 3 {
		address := fmt.Sprintf("t%d-%d@%s", s.seed, s.random.Uint32(), twoServers)
		cmd := s.w.tool(ctx, "address", "add", address)
		if err := cmd.Start(); err != nil {
			return err
		}
		// Most of its time the tool starts.
		time.Sleep(time.Duration(s.random.IntN(30_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		if cmd.Wait() == nil {
			s.added = append(s.added, address) // it was faster
		}
		s.kill("authkey-server address")
	}
	return s.checkList(twoServers, s.added)
}

// checkList looks whether a list is whole and has the addresses that the tool said it
// had added.
func (s *storm) checkList(domain string, added []string) error {
	b, err := os.ReadFile(s.w.list(domain))
	if err != nil {
		return err
	}
	text := string(b)
	if !strings.HasSuffix(text, "\n") {
		s.fault("the list of %s has lost its end", domain)
	}
	var there []string
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		user, _, _ := strings.Cut(word, "@")
		there = append(there, user)
	}
	for _, address := range slices.Concat(at(domain, baseUsers...), added) {
		user, _, _ := strings.Cut(address, "@")
		if !slices.Contains(there, user) {
			s.fault("the list of %s has lost %s", domain, address)
		}
	}
	return nil
}
