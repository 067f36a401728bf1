package testmta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Sendmail keeps a message in two files: its control file qf+ID, or hf+ID once
// quarantined, with envelope and header, and its body df+ID. See "Queue file
// format" in the Sendmail Installation and Operation Guide.

// controlFile is what we read of a control file.
type controlFile struct {
	sender     string
	recipients []string
	reason     string
	header     []byte // with LF
}

// Queue is what lies in the queue folder.
func (s *Sendmail) Queue() ([]QueueEntry, error) {
	files, err := os.ReadDir(s.queueDir())
	if err != nil {
		return nil, err
	}
	var entries []QueueEntry
	for _, f := range files {
		queue := ""
		switch {
		case strings.HasPrefix(f.Name(), "qf"):
			queue = "queued"
		case strings.HasPrefix(f.Name(), "hf"):
			queue = queueHold
		default:
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.queueDir(), f.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been delivered
		}
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			// Of a process that was killed before it had said that it took the message.
			// Sendmail passes over it, and removes it after ten minutes.
			continue
		}
		c := parseControlFile(b)
		entries = append(entries, QueueEntry{
			ID: f.Name()[2:], Queue: queue,
			Sender: c.sender, Recipients: c.recipients, Reason: c.reason,
		})
	}
	return entries, nil
}

// Held is the quarantined mail.
func (s *Sendmail) Held() ([]QueueEntry, error) { return held(s.Queue()) }

// Release takes a message out of quarantine, for the next queue run to deliver.
func (s *Sendmail) Release(queueID string) error {
	out, err := s.command(context.Background(), "-qQ", "-Q", "-qI"+queueID).CombinedOutput()
	if err != nil {
		return fmt.Errorf("release %s: %w: %s", queueID, err, out)
	}
	return nil
}

// Cat is the content of a queued message, header and body, with LF.
func (s *Sendmail) Cat(queueID string) ([]byte, error) {
	if filepath.Base(queueID) != queueID {
		return nil, fmt.Errorf("queue id %q: malformed", queueID)
	}
	control, err := os.ReadFile(filepath.Join(s.queueDir(), "hf"+queueID))
	if errors.Is(err, fs.ErrNotExist) {
		control, err = os.ReadFile(filepath.Join(s.queueDir(), "qf"+queueID))
	}
	if err != nil {
		return nil, err
	}
	body, err := os.ReadFile(filepath.Join(s.queueDir(), "df"+queueID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty body may have no file
		return nil, err
	}
	content := append(parseControlFile(control).header, '\n')
	return append(content, body...), nil
}

// parseControlFile reads lines of one letter and a value. A header field is
// "H?flags?Name: value", continued by lines that begin with a blank; the file
// ends with a line of one dot.
func parseControlFile(b []byte) controlFile {
	var c controlFile
	var inHeader bool
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), "\n")
		if text == "." {
			break
		}
		if text == "" {
			continue
		}
		if inHeader && (text[0] == ' ' || text[0] == '\t') {
			c.header = append(c.header, text+"\n"...)
			continue
		}
		value := text[1:]
		inHeader = text[0] == 'H'
		switch text[0] {
		case 'S':
			c.sender = unbracket(value)
		case 'R':
			if _, addr, ok := strings.Cut(value, ":"); ok { // flags first
				value = addr
			}
			c.recipients = append(c.recipients, unbracket(value))
		case 'q':
			c.reason = value
		case 'H':
			if flags, ok := strings.CutPrefix(value, "?"); ok {
				_, value, _ = strings.Cut(flags, "?")
			}
			c.header = append(c.header, value+"\n"...)
		}
	}
	return c
}
